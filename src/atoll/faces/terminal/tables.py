"""Tables and lists of facts: coloured and cut to the width on a terminal, plain and whole elsewhere."""

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from typing import Generic, TypeVar

from atoll.core.states import JobState
from atoll.faces.terminal.output import printable, say

T = TypeVar("T")

STATE_COLOURS: dict[str, str] = {
    JobState.HELD: "yellow",
    JobState.QUEUED: "yellow",
    JobState.PLACED: "cyan",
    JobState.STARTING: "cyan",
    JobState.RUNNING: "green",
    JobState.STOPPING: "magenta",
    JobState.FINISHING: "cyan",
    JobState.SUCCEEDED: "dim",
    JobState.FAILED: "red",
    JobState.CANCELLED: "dim",
    "ok": "green",
    "warn": "yellow",
    "fail": "red",
    "unreachable": "red",
    "unknown": "yellow",
}
"""Colour of a state or of a site's health."""


_LEAST_WIDTH = 16
"""Characters that a column is never cut below."""


@dataclass(frozen=True)
class Column(Generic[T]):
    """A column: its heading, and what stands in it for a row."""

    heading: str
    value: Callable[[T], object]
    right: bool = False
    colour: bool = False
    """Whether the value is a state, shown in its colour."""
    fill: bool = False
    """Whether this is the column that is cut where the terminal is too narrow."""


def print_table(columns: Sequence[Column[T]], rows: Iterable[T]) -> None:
    """Print rows under headings; nothing but the headings where there are none."""
    cells = [[_text(column.value(row)) for column in columns] for row in rows]
    widths = [max([len(column.heading), *(len(row[place]) for row in cells)]) for place, column in enumerate(columns)]
    if sys.stdout.isatty():
        _fit(columns, widths, get_terminal_size().columns)
    say(_line(columns, widths, [column.heading for column in columns], plain=True))
    for row in cells:
        say(_line(columns, widths, row, plain=False))


def _fit(columns: Sequence[Column[T]], widths: list[int], room: int) -> None:
    """Narrow the columns that may be cut until a line fits into `room`, as far as they stay readable."""
    excess = sum(widths) + 2 * (len(widths) - 1) - room
    for place, column in enumerate(columns):
        if column.fill and excess > 0:
            cut = min(excess, max(0, widths[place] - _LEAST_WIDTH))
            widths[place] -= cut
            excess -= cut


def _line(columns: Sequence[Column[T]], widths: Sequence[int], row: Sequence[str], *, plain: bool) -> str:
    parts = []
    for column, width, text in zip(columns, widths, row, strict=True):
        shown = text if len(text) <= width else text[: width - 1] + "\u2026"
        space = " " * (width - len(shown))
        shown = coloured(shown, text) if column.colour and not plain else shown
        parts.append(space + shown if column.right else shown + space)
    return "  ".join(parts).rstrip()


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print `name: value` lines, one below the other; values that are empty are left out."""
    kept = [(name, _text(value)) for name, value in facts if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in kept), default=0) + 1
    for name, value in kept:
        say(f"{name + ':':<{width}}  {value}")


def coloured(text: str, state: str) -> str:
    """`text` in the colour of `state`, where the output is a terminal."""
    codes = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "magenta": "35", "dim": "2"}
    code = codes.get(STATE_COLOURS.get(state, ""))
    if code is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _text(value: object) -> str:
    return "" if value is None else printable(value)
