"""The pictures of `atoll simulate`: SVG written by hand, in the reader's own light or dark."""

import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from atoll.core.resources import format_seconds

if TYPE_CHECKING:
    from atoll.scheduler.simulate.study import Study

Points = Sequence[tuple[float, float]]

WIDTH, HEIGHT = 720, 260
LEFT, RIGHT, TOP, BOTTOM = 64, 28, 40, 44
"""Of a panel and of the room around its axes, in pixels."""
_COLOURS = ("#0b7a75", "#d1495b", "#3d6fd1", "#c98a1b", "#7b4fb5", "#5b8c2a")
"""By the order of what is shown; each stands out on white and on black."""
_STYLE = """
svg { color-scheme: light dark; background: light-dark(#fff, #16191d); }
text { font: 12px system-ui, sans-serif; fill: light-dark(#222, #ddd); }
.title { font-size: 14px; font-weight: 600; } .end { text-anchor: end; } .middle { text-anchor: middle; }
.grid { stroke: light-dark(#0002, #fff3); } .line { fill: none; stroke-width: 1.6; }
"""
_POINTS, _STEPS = 400, 190
"""Of a line; more than that nobody can see. A step has two points."""


def label(found: Mapping[str, Any]) -> str:
    """What one run is called: its policy, and the name of the quotas that it tries."""
    quotas = found.get("quotas")
    return f"{found['policy']}, {quotas}" if quotas else str(found["policy"])


@dataclass(frozen=True)
class Lines:
    """A panel of lines, by name, over one axis; `logarithmic` counts that axis in powers."""

    title: str
    lines: Mapping[str, Points]
    bottom: Callable[[float], str]
    """How a value of the axis below is written."""
    side: Callable[[float], str]
    logarithmic: bool = False
    top: float | None = None
    """Where the axis at the side ends; None: at the largest value."""

    def draw(self, offset: float) -> list[str]:
        """The panel's elements, `offset` pixels down."""
        points = [point for line in self.lines.values() for point in line]
        right = max([x for x, _ in points], default=1.0) or 1.0
        top = self.top or max([y for _, y in points], default=1.0) or 1.0
        across = _scale(1.0, max(right, 10.0), LEFT, WIDTH - RIGHT, logarithmic=True) if self.logarithmic else None
        across = across or _scale(0.0, right, LEFT, WIDTH - RIGHT)
        up = _scale(0.0, top, offset + HEIGHT - BOTTOM, offset + TOP)
        elements = _frame(self.title, offset, up, top, self.side)
        for value in _powers(right) if self.logarithmic else [right * part / 4 for part in range(5)]:
            spot = f'x="{across(value):.1f}" y="{offset + HEIGHT - BOTTOM + 16:.1f}"'
            elements.append(f'<text class="middle" {spot}>{escape(self.bottom(value))}</text>')
        for number, (name, line) in enumerate(self.lines.items()):
            path = " ".join(f"{across(x):.1f},{up(min(y, top)):.1f}" for x, y in _thinned(line))
            colour = _COLOURS[number % len(_COLOURS)]
            elements.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
            elements += _key(name, number, offset)
        return elements


@dataclass(frozen=True)
class Bars:
    """A panel with a bar for each name."""

    title: str
    bars: Mapping[str, float | None]
    side: Callable[[float], str]
    top: float | None = None

    def draw(self, offset: float) -> list[str]:
        """The panel's elements, `offset` pixels down."""
        top = self.top or max([value for value in self.bars.values() if value is not None], default=1.0) or 1.0
        up = _scale(0.0, top, offset + HEIGHT - BOTTOM, offset + TOP)
        elements = _frame(self.title, offset, up, top, self.side)
        room = (WIDTH - LEFT - RIGHT) / max(1, len(self.bars))
        for number, (name, value) in enumerate(self.bars.items()):
            middle = LEFT + room * (number + 0.5)
            below = offset + HEIGHT - BOTTOM + 16
            elements.append(f'<text class="middle" x="{middle:.1f}" y="{below:.1f}">{escape(name)}</text>')
            if value is None:
                continue
            height, wide = up(0.0) - up(value), min(room * 0.6, 90)
            box = f'x="{middle - wide / 2:.1f}" y="{up(value):.1f}" width="{wide:.1f}" height="{height:.1f}"'
            elements.append(f'<rect {box} fill="{_COLOURS[number % len(_COLOURS)]}"/>')
            told = f'x="{middle:.1f}" y="{up(value) - 4:.1f}"'
            elements.append(f'<text class="middle" {told}>{escape(self.side(value))}</text>')
        return elements


@dataclass(frozen=True)
class Dots:
    """A panel with a dot for each pair of times (seconds), in powers, and the line where both are the same."""

    title: str
    dots: Mapping[str, Points]

    def draw(self, offset: float) -> list[str]:
        """The panel's elements, `offset` pixels down."""
        most = max([time for dots in self.dots.values() for dot in dots for time in dot], default=10.0)
        across = _scale(1.0, max(most, 10.0), LEFT, WIDTH - RIGHT, logarithmic=True)
        up = _scale(1.0, max(most, 10.0), offset + HEIGHT - BOTTOM, offset + TOP, logarithmic=True)
        elements = [f'<text class="title" x="{LEFT}" y="{offset + 18:.1f}">{escape(self.title)}</text>']
        for mark in _powers(most):
            told = escape(format_seconds(mark))
            ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(mark):.1f}" y2="{up(mark):.1f}"'
            below = f'x="{across(mark):.1f}" y="{offset + HEIGHT - BOTTOM + 16:.1f}"'
            elements += [
                f'<line class="grid" {ends}/>',
                f'<text class="end" x="{LEFT - 6}" y="{up(mark) + 4:.1f}">{told}</text>',
                f'<text class="middle" {below}>{told}</text>',
            ]
        same = f'x1="{across(1):.1f}" y1="{up(1):.1f}" x2="{across(most):.1f}" y2="{up(most):.1f}"'
        elements.append(f'<line class="grid" {same}/>')
        for number, (name, dots) in enumerate(self.dots.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            elements += [
                f'<circle cx="{across(x):.1f}" cy="{up(y):.1f}" r="2" fill="{colour}" fill-opacity="0.6"/>'
                for x, y in dots
            ]
            elements += _key(name, number, offset)
        return elements


def pictures(study: "Study") -> dict[str, str]:
    """The files, by name, that show a study."""
    if "fill" in study.document:
        return _of_fill(study)
    policies = study.document["policies"]
    resources = [name for name in ("gpu", "cpu") if any(name in found["timeline"]["allocation"] for found in policies)]
    over_time = [
        Lines(
            f"{name.upper()}: {kind} over time",
            {
                label(found): list(zip(found["timeline"]["seconds"], found["timeline"][kind][name], strict=True))
                for found in policies
            },
            format_seconds, _percent,
        )
        for name in resources
        for kind in ("allocation", "utilisation")
    ]  # fmt: skip
    longest = max([values[-1] for result in study.results for values in result.waits.values() if values], default=1.0)
    waiting = [
        Lines(
            f"{label(result.document)}: part of the jobs that waited at most so long, by class",
            {name: _distribution(values, longest) for name, values in result.waits.items() if values},
            format_seconds, _percent, logarithmic=True, top=1.0,
        )
        for result in study.results
    ]  # fmt: skip
    bars = [
        _bars(policies, "Mean time waited", ("waiting", "all", "mean"), format_seconds),
        _bars(policies, "Mean bounded slowdown", ("slowdown", "all", "mean"), _plain),
        *(
            _bars(policies, f"{name.upper()} allocated, mean of the makespan", ("allocation", name), _percent)
            for name in resources
        ),
        _bars(policies, "Fairness among projects", ("fairness", "jain"), _plain, 1.0),
    ]
    return {
        "utilisation.svg": picture(over_time),
        "waiting.svg": picture(waiting),
        "policies.svg": picture(bars),
    }


def _of_fill(study: "Study") -> dict[str, str]:
    policies = study.document["policies"]
    lines = {label(found): [(0.0, 0.0), *map(tuple, found["points"])] for found in policies}
    bars = _bars(policies, "GPUs allocated", ("gpu_allocation",), _percent, 1.0)
    curve = Lines("GPUs allocated by GPUs asked for, as parts of all", lines, _percent, _percent, top=1.0)
    return {"fill.svg": picture([curve]), "policies.svg": picture([bars])}


def _bars(
    policies: Sequence[dict[str, Any]], title: str, path: Sequence[str], side: Callable[[float], str],
    top: float | None = None,
) -> Bars:  # fmt: skip
    """The figure that lies at a path of each policy's document."""
    bars: dict[str, float | None] = {}
    for found in policies:
        value: Any = found
        for key in path:
            value = value[key]
        bars[label(found)] = value
    return Bars(title, bars, side, top)


def picture(panels: Sequence[Lines | Bars | Dots]) -> str:
    """The file that shows some panels, one below the other."""
    elements = [element for number, panel in enumerate(panels) for element in panel.draw(number * HEIGHT)]
    size = f'width="{WIDTH}" height="{HEIGHT * len(panels)}" viewBox="0 0 {WIDTH} {HEIGHT * len(panels)}"'
    body = "\n".join(elements)
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>\n<style>{_STYLE}</style>\n{body}\n</svg>\n'


def _frame(
    title: str, offset: float, up: Callable[[float], float], top: float, side: Callable[[float], str]
) -> list[str]:
    """A panel's title and the lines of its grid, each with its value."""
    elements = [f'<text class="title" x="{LEFT}" y="{offset + 18:.1f}">{escape(title)}</text>']
    for part in range(5):
        value = top * part / 4
        ends = f'x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{up(value):.1f}" y2="{up(value):.1f}"'
        elements.append(f'<line class="grid" {ends}/>')
        spot = f'x="{LEFT - 6}" y="{up(value) + 4:.1f}"'
        elements.append(f'<text class="end" {spot}>{escape(side(value))}</text>')
    return elements


def _key(name: str, number: int, offset: float) -> list[str]:
    """The name of a line beside its colour, in the row below the axes."""
    x, y = LEFT + 130 * number, offset + HEIGHT - 10
    return [
        f'<rect x="{x}" y="{y - 9:.1f}" width="10" height="10" fill="{_COLOURS[number % len(_COLOURS)]}"/>',
        f'<text x="{x + 14}" y="{y:.1f}">{escape(name)}</text>',
    ]


def _scale(
    least: float, most: float, begin: float, end: float, *, logarithmic: bool = False
) -> Callable[[float], float]:
    def linear(value: float) -> float:
        return begin + (value - least) / (most - least) * (end - begin)

    def powers(value: float) -> float:
        return begin + math.log(max(value, least) / least) / math.log(most / least) * (end - begin)

    return powers if logarithmic else linear


def _powers(most: float) -> list[float]:
    """Times at which an axis that counts in powers is marked: seconds, minutes, hours, days."""
    return [mark for mark in (1.0, 10.0, 60.0, 600.0, 3600.0, 36000.0, 86400.0, 864000.0) if mark <= max(most, 10.0)]


def _distribution(values: Sequence[float], right: float) -> Points:
    """The part of the values (sorted, seconds) that are at most so large, in steps up to `right`, from a second on."""
    steps = [(1.0, bisect_right(values, 1.0) / len(values))]
    for mark in [values[len(values) * part // _STEPS] for part in range(_STEPS)] + [values[-1]]:
        if mark > steps[-1][0]:
            steps += [(mark, steps[-1][1]), (mark, bisect_right(values, mark) / len(values))]
    return [*steps, (max(right, 1.0), 1.0)]


def _thinned(line: Points) -> Points:
    step = -(-len(line) // _POINTS)
    return [*line[::step], *line[-1:]]


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def _plain(value: float) -> str:
    return f"{value:.2f}"
