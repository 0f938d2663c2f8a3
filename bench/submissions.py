"""Submissions by HTTP, one job a request, loaded by wrk: a client in Python would measure itself."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.figures import Broken, Row, Target
from bench.platforms import DATABASES, job_counts, running
from tests.support.platform import RunningPlatform

LATER = "2999-01-01T00:00:00Z"
"""A begin time that does not come: the jobs wait, so that starting jobs is not in these figures."""
_SCRIPT = Path(__file__).with_name("submit.lua")
_CONNECTIONS = 32
_NOTE = (
    f"wrk -t1 -c{_CONNECTIONS} on the same cores, POST /api/v1/jobs with full validation, each answered when it is on "
    f"the disk. All jobs have a begin time far away, so they queue and the scheduler sees them, and none starts."
)


@dataclass(frozen=True)
class Load:
    """What wrk told of one run."""

    requests: int
    seconds: float
    refused: int
    broken: int
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Submissions a second."""
        return self.requests / self.seconds


def spec(name: str) -> dict[str, Any]:
    """A job that waits until long after the benchmark."""
    return {"name": name, "command": ["/bin/true"], "cpu": "1m", "memory": "16M", "walltime": "1h", "begin": LATER}


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Submissions a second, on each database."""
    runs, seconds = (1, 2) if small else (3, 8)
    for database in DATABASES:
        with running(folder, database) as platform:
            _load(platform, 1)  # a process that was just started has everything before it for the first time
            loads = [_load(platform, seconds) for _ in range(runs)]
        name = f"submissions, {database}"
        yield Row(name, "jobs/s", [load.rate for load in loads], Target("at least", 1000), note=_NOTE)
        yield Row(f"{name}: 99th percentile", "ms", [load.p99_ms for load in loads])


def _load(platform: RunningPlatform, seconds: int) -> Load:
    """One run of wrk. Raises Broken where a request failed or a job that was accepted is not there."""
    if shutil.which("wrk") is None:
        raise Broken("wrk is not installed (package wrk)")
    before = sum(job_counts(platform).values())
    command = ["wrk", "-t1", f"-c{_CONNECTIONS}", f"-d{seconds}s", "--timeout", "10s", "-s", str(_SCRIPT)]
    arguments = [platform.token, json.dumps(spec("bench-NUMBER"))]
    done = subprocess.run(
        [*command, f"{platform.url}/api/v1/jobs", "--", *arguments],
        check=True, capture_output=True, text=True, timeout=seconds + 60,
    )  # fmt: skip
    load = Load(**json.loads(done.stdout.splitlines()[-1]))
    if load.refused or load.broken or not load.requests:
        raise Broken(f"wrk: {load}\n{platform.tail()}")
    made = sum(job_counts(platform).values()) - before
    # what was on its way when wrk stopped listening may or may not have been made
    if not load.requests <= made <= load.requests + _CONNECTIONS:
        raise Broken(f"{load.requests} submissions were accepted, but {made} jobs are there")
    return load
