"""Tables and lists of facts: coloured and cut to the width on a terminal, plain and whole elsewhere."""

import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
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
    if sys.stdout.isatty():
        _print_rich(columns, cells)
        return
    widths = [max(len(column.heading), *(len(row[at]) for row in cells)) if cells else len(column.heading)
              for at, column in enumerate(columns)]  # fmt: skip
    for row in [[column.heading for column in columns], *cells]:
        padded = [
            text.rjust(width) if column.right else text.ljust(width)
            for text, width, column in zip(row, widths, columns, strict=True)
        ]
        say("  ".join(padded).rstrip())


def print_facts(facts: Iterable[tuple[str, object]]) -> None:
    """Print `name: value` lines, one below the other; values that are empty are left out."""
    kept = [(name, _text(value)) for name, value in facts if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in kept), default=0) + 1
    for name, value in kept:
        say(f"{name + ':':<{width}}  {value}")


def coloured(text: str, state: str) -> str:
    """`text` in the colour of `state`, where the output is a terminal."""
    import os

    codes = {"green": "32", "yellow": "33", "red": "31", "cyan": "36", "magenta": "35", "dim": "2"}
    code = codes.get(STATE_COLOURS.get(state, ""))
    if code is None or not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def _text(value: object) -> str:
    return "" if value is None else printable(value)


def _print_rich(columns: Sequence[Column[T]], cells: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(
            column.heading,
            justify="right" if column.right else "left",
            no_wrap=True,
            overflow="ellipsis",
            min_width=None if column.fill else max([len(column.heading), *(0 for _ in cells)]),
            ratio=1 if column.fill else None,
        )
    for row in cells:
        table.add_row(
            *(
                Text(text, style=STATE_COLOURS.get(text, "") if column.colour else "")
                for text, column in zip(row, columns, strict=True)
            )
        )
    Console(file=sys.stdout, highlight=False, soft_wrap=False).print(table)
