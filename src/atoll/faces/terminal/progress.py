"""Progress bars for long work, on the error output and only where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_WORTH_A_BAR = 4 * 1024 * 1024
"""Bytes below which work is over before a bar could be read."""


@contextmanager
def bytes_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    """A bar for `total` bytes; call what is yielded with the bytes that were done, negative to take some back."""
    if total < _WORTH_A_BAR or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total)
        yield lambda count: progress.advance(task, count)
