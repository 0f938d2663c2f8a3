"""Rows of figures, their statistics, and the table that they make."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["at least", "at most", "under"]


class Broken(Exception):
    """Something did not work, so that there is nothing to measure; the message says what."""


@dataclass(frozen=True)
class Target:
    """What a figure should reach."""

    kind: Kind
    value: float
    ratio: bool = False
    """Whether it is about the ratio to the peer instead of the figure itself."""

    def met(self, value: float) -> bool:
        """Whether `value` reaches it."""
        if self.kind == "at least":
            return value >= self.value
        return value <= self.value if self.kind == "at most" else value < self.value


@dataclass(frozen=True)
class Spread:
    """Median, least and greatest of some values."""

    median: float
    least: float
    greatest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of `values`, of which there must be one at least."""
        if not values:
            raise Broken("there are no values to take a median of")
        return cls(statistics.median(values), min(values), max(values))

    def document(self) -> dict[str, float]:
        """It as plain data."""
        return {"median": self.median, "min": self.least, "max": self.greatest}


@dataclass(frozen=True)
class Row:
    """One measured figure: its values in the order they were taken, and those of the peer taken beside each."""

    name: str
    unit: str
    values: Sequence[float]
    target: Target | None = None
    peer: str = ""
    peer_values: Sequence[float] = ()
    note: str = ""
    """What a reader has to know to read the figure right."""

    def __post_init__(self) -> None:
        if self.peer_values and len(self.peer_values) != len(self.values):
            raise Broken(f"{self.name}: {len(self.values)} values, but {len(self.peer_values)} of {self.peer}")

    @property
    def spread(self) -> Spread:
        """Median, least and greatest of the values."""
        return Spread.of(self.values)

    @property
    def ratio(self) -> Spread | None:
        """Value through the peer's value, pair by pair; None where there is no peer."""
        if not self.peer_values:
            return None
        return Spread.of([ours / theirs for ours, theirs in zip(self.values, self.peer_values, strict=True)])

    @property
    def met(self) -> bool | None:
        """Whether the median reaches the target; None where there is none."""
        if self.target is None:
            return None
        judged = self.ratio if self.target.ratio else self.spread
        if judged is None:
            raise Broken(f"{self.name}: the target is a ratio, and there is no peer")
        return self.target.met(judged.median)

    def document(self) -> dict[str, Any]:
        """All about it as plain data."""
        target = self.target
        return {
            "name": self.name,
            "unit": self.unit,
            "values": list(self.values),
            **self.spread.document(),
            "peer": {"name": self.peer, "values": list(self.peer_values), **Spread.of(self.peer_values).document()}
            if self.peer_values
            else None,
            "ratio": self.ratio.document() if self.ratio else None,
            "target": {"kind": target.kind, "value": target.value, "of": "ratio" if target.ratio else "median"}
            if target
            else None,
            "met": self.met,
            "note": self.note or None,
        }


_HEAD = ("figure", "unit", "n", "median", "min", "max", "peer's median", "ratio (min-max)", "target", "met")
_RIGHT = {2, 3, 4, 5}


def table(rows: Sequence[Row]) -> str:
    """The rows as aligned text, with the notes below."""
    notes: list[str] = []
    cells: list[tuple[str, ...]] = [_HEAD]
    for row in rows:
        if row.note and row.note not in notes:
            notes.append(row.note)
        cells.append(_cells(row, f" [{notes.index(row.note) + 1}]" if row.note else ""))
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    lines = [_line(line, widths) for line in cells]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join([*lines, *(f"[{number}] {note}" for number, note in enumerate(notes, 1))])


def _line(cells: tuple[str, ...], widths: Sequence[int]) -> str:
    padded = (
        cell.rjust(width) if column in _RIGHT else cell.ljust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def _cells(row: Row, mark: str) -> tuple[str, ...]:
    spread, ratio, target = row.spread, row.ratio, row.target
    return (
        row.name + mark,
        row.unit,
        str(len(row.values)),
        number(spread.median),
        number(spread.least),
        number(spread.greatest),
        f"{number(Spread.of(row.peer_values).median)} {row.peer}" if row.peer_values else "",
        f"{number(ratio.median)} ({number(ratio.least)}-{number(ratio.greatest)})" if ratio else "",
        f"{target.kind} {number(target.value)}{' times' if target.ratio else ''}" if target else "",
        {True: "yes", False: "NO", None: ""}[row.met],
    )


def number(value: float) -> str:
    """`value` with three digits that count, and with commas where it is large: 0.0123, 1.50, 147, 12,345."""
    size = abs(value)
    if value == int(value) and size < 1000:
        return str(int(value))
    if size >= 100:
        return f"{value:,.0f}"
    if size >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if size >= 1 else f"{value:.3g}"
