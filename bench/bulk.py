"""Submissions by HTTP, 10,000 jobs a request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bench.figures import Broken, Row, Target
from bench.platforms import DATABASES, post, running, settle
from bench.submissions import spec
from tests.support.platform import RunningPlatform

_TARGET = Target("at least", 20_000)
_NOTE = (
    "From sending the request, made ready beforehand, to the answer with the ids; the jobs have a begin time far away. "
    "At rest: the platform has nothing else to do. In a row: the scheduler still takes in the jobs of the one before."
)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Jobs a second in bulk, on each database: a request at a time, and one after the other."""
    jobs, requests = (1000, 2) if small else (10_000, 5)
    body = json.dumps({"jobs": [spec(f"bench-{number}") for number in range(jobs)]}).encode()
    for database in DATABASES:
        at_rest = []
        with running(folder, database) as platform, httpx2.Client() as connection:
            _rate(platform, connection, body, jobs)  # the first time is for warming up
            for _ in range(min(3, requests)):
                settle(platform)
                at_rest.append(_rate(platform, connection, body, jobs))
            settle(platform)
            in_a_row = [_rate(platform, connection, body, jobs) for _ in range(requests)]
        yield Row(f"bulk of {jobs:,} at rest, {database}", "jobs/s", at_rest, _TARGET, note=_NOTE)
        yield Row(f"bulk of {jobs:,} in a row, {database}", "jobs/s", in_a_row, _TARGET, note=_NOTE)


def _rate(platform: RunningPlatform, connection: httpx2.Client, body: bytes, jobs: int) -> float:
    """Jobs a second of one request. Raises Broken where not all were made."""
    began = time.perf_counter()
    ids = post(platform, "/api/v1/jobs/bulk", body, connection)["ids"]
    seconds = time.perf_counter() - began
    if len(set(ids)) != jobs:
        raise Broken(f"{jobs} jobs were sent, {len(set(ids))} were made")
    return jobs / seconds
