"""What happened to a job, told afterwards by all who know of it: for tests in which something else was expected.

A site forgets an attempt soon after its end. So its folder is looked at while it is there, and what changes in it is
kept.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from datetime import UTC, datetime
from glob import glob
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_EVERY = 0.2
_READ = frozenset({"start", "end", "stop", "grace", "refused", "verdict", "about", "usage", "job", "shell"})
"""Small files of an attempt's folder whose content tells something."""
_MOST = 300


class Trail:
    """Within, keeps what changes in the folders of attempts, at any depth below `roots`."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._roots = list(roots)
        self._lines: dict[str, list[str]] = {}
        self._last: dict[str, dict[str, str]] = {}
        """What was last seen, by folder and name."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def of(self, attempt: str) -> list[str]:
        """What was seen of an attempt, as lines."""
        return self._lines.get(attempt, [])

    def _watch(self) -> None:
        while not self._over.wait(_EVERY):
            self._look()

    def _look(self) -> None:
        seen: dict[str, dict[str, str]] = {}
        for root in self._roots:
            for pattern in ("attempts/*", "orders/*", "waiting/*"):
                for depth in ("", "*/", "*/*/"):
                    # that of pathlib fails where a folder goes away under its eyes
                    for folder in glob(f"{root}/{depth}{pattern}"):  # noqa: PTH207
                        seen[folder] = _names(Path(folder))
        now = clock(time.time())
        for folder in self._last.keys() | seen.keys():
            before, after = self._last.get(folder), seen.get(folder)
            lines = self._lines.setdefault(Path(folder).name.removesuffix(".new"), [])
            if after is None:
                lines.append(f"{now} {folder} is gone")
                continue
            if before is None:
                lines.append(f"{now} {folder} is there")
            old = before or {}
            lines += [f"{now}   {name}: {said}" for name, said in after.items() if old.get(name) != said]
            lines += [f"{now}   {name} is gone" for name in old if name not in after]
        self._last = seen


def _names(folder: Path) -> dict[str, str]:
    """What lies in a folder: when it was written, how large it is, and what it says."""
    found = {}
    try:
        entries = list(os.scandir(folder)) if folder.is_dir() else []
    except OSError:
        return {}
    for entry in entries:
        try:
            status = entry.stat(follow_symlinks=False)
            said = f"{clock(status.st_mtime)} {stat.filemode(status.st_mode)} {status.st_size} inode {status.st_ino}"
            if entry.name in _READ and stat.S_ISREG(status.st_mode):
                said += f" {Path(entry.path).read_bytes()[:_MOST]!r}"
            found[entry.name] = said
        except OSError:
            continue  # it went away in this moment
    return found


def clock(seconds: float) -> str:
    """A time of day in UTC, with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%H:%M:%S.%f")[:-3]


def what_happened(data: Path, job: int, trail: Trail, more: Callable[[Mapping[str, Any]], Iterable[str]]) -> str:
    """All that is known of a job: its row, events and attempts in the platform's SQLite database, and their folders.

    `more` tells what the site itself says of an attempt, given its columns.
    """
    with closing(sqlite3.connect(f"file:{data}/state/atoll.db?mode=ro", uri=True)) as connection:
        connection.row_factory = sqlite3.Row

        def rows(query: str) -> list[dict[str, Any]]:
            return [dict(row) for row in connection.execute(query, (job,))]

        jobs = rows("SELECT * FROM jobs WHERE id = ?")
        attempts = rows("SELECT * FROM attempts WHERE job_id = ? ORDER BY number")
        events = rows("SELECT * FROM events WHERE job_id = ? ORDER BY id")
    lines = [f"job {job}: {_readable(row)}" for row in jobs]
    lines += [f"  event {_readable(row)}" for row in events]
    for attempt in attempts:
        lines.append(f"  attempt {_readable(attempt)}")
        lines += [f"    {line}" for line in [*trail.of(attempt["id"]), *more(attempt)]]
    return "\n".join(lines)


def _readable(row: Mapping[str, Any]) -> str:
    """The columns that say something, times as times of day."""
    said = {
        name: clock(value / 1_000_000) if name == "at" or name.endswith(("_at", "_deadline", "_since")) else value
        for name, value in row.items()
        if value is not None
    }
    return ", ".join(f"{name}={value}" for name, value in said.items())
