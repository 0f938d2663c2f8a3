"""Memory of the whole platform, empty and with a long queue, and the CPU that it uses when idle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from bench.figures import Broken, Row, Target
from bench.platforms import Memory, cpu_share, job_counts, memory, post, running, settle
from tests.support.platform import RunningPlatform

_JOB: dict[str, Any] = {"command": ["/bin/true"], "cpu": 1, "memory": "1G", "walltime": "1h"}
_NOTE = (
    "Control plane and supervisor together, SQLite. The proportional set size (PSS) counts what they share once, the "
    "resident set size (RSS) twice. The queue waits behind a job that has all CPUs: the scheduler has to weigh each."
)


def idle(folder: Path, small: bool = False) -> Iterator[Row]:
    """CPU share of an idle platform, in percent of one core."""
    with running(folder) as platform:
        settle(platform)
        shares = [cpu_share(platform, 1 if small else 10) for _ in range(3)]
    note = "Control plane and supervisor together, SQLite, over 30 s in three parts, from /proc/PID/stat."
    yield Row("idle", "% of a core", shares, Target("under", 2), note=note)


def memory_use(folder: Path, small: bool = False) -> Iterator[Row]:
    """Megabytes when empty and with many queued jobs."""
    queued = 10_000 if small else 100_000
    with running(folder) as platform:
        settle(platform)
        yield from _rows("empty", memory(platform), 150)
        _fill(platform, queued)
        settle(platform, 120)
        counts = job_counts(platform)
        if counts.get("queued") != queued:
            raise Broken(f"{queued} jobs should be queued, but there are {counts}")
        yield from _rows(f"{queued:,} queued", memory(platform), 300)
        shares = [cpu_share(platform, 1 if small else 5) for _ in range(2)]
        yield Row(f"idle, {queued:,} queued", "% of a core", shares)


def _rows(state: str, used: Memory, target: int) -> Iterator[Row]:
    for name, figure in (("PSS", used.proportional), ("RSS", used.resident)):
        yield Row(f"memory, {state}: {name}", "MB", [figure / 1e6], Target("under", target), note=_NOTE)


def _fill(platform: RunningPlatform, queued: int) -> None:
    """Give all CPUs to one job and queue the rest behind it."""
    [site] = platform.request("GET", "/api/v1/sites").json()["items"]
    cpus = site["flavors"][0]["node"]["cpu"]
    blocker = {"command": ["/bin/sleep", "3600"], "cpu": cpus, "memory": "16M"}
    with httpx2.Client() as connection:
        post(platform, "/api/v1/jobs", json.dumps(blocker).encode(), connection)
        settle(platform)
        for first in range(0, queued, 10_000):
            some = [{**_JOB, "name": f"bench-{number}"} for number in range(first, min(queued, first + 10_000))]
            post(platform, "/api/v1/jobs/bulk", json.dumps({"jobs": some}).encode(), connection)
