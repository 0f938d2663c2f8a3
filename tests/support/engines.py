"""Which engines of this machine the tests could use, and how a test says that it misses one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, Protocol

import pytest

_PREFIX = "engine "


class _Report(Protocol):
    longrepr: object


def skip_without(engine: str, reason: str) -> NoReturn:
    """Skip the running test because `engine` is missing; the run's summary lists it under that name."""
    pytest.skip(f"{_PREFIX}{engine}: {reason}")


def skips_by_engine(reports: Iterable[_Report]) -> dict[tuple[str, str], int]:
    """Count the skips that name an engine, by (engine, reason)."""
    counts: dict[tuple[str, str], int] = {}
    for report in reports:
        # A skipped report carries (path, line, "Skipped: <reason>").
        if not isinstance(report.longrepr, tuple):
            continue
        message = str(report.longrepr[2]).removeprefix("Skipped: ")
        if message.startswith(_PREFIX):
            engine, _, reason = message.removeprefix(_PREFIX).partition(": ")
            counts[engine, reason] = counts.get((engine, reason), 0) + 1
    return counts
