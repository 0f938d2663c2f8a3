"""Submissions by HTTP, 10,000 jobs a request."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bench.figures import Broken, Row, Target
from bench.platforms import DATABASES, post, running
from bench.submissions import spec

_NOTE = (
    "From sending the request, made ready beforehand, to the answer with the ids. The jobs have a begin time far away."
)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Jobs a second in bulk, on each database."""
    jobs, requests = (1000, 2) if small else (10_000, 7)
    body = json.dumps({"jobs": [spec(f"bench-{number}") for number in range(jobs)]}).encode()
    for database in DATABASES:
        rates = []
        with running(folder, database) as platform, httpx2.Client() as connection:
            post(platform, "/api/v1/jobs/bulk", body, connection)  # the first time is for warming up
            for _ in range(requests):
                began = time.perf_counter()
                ids = post(platform, "/api/v1/jobs/bulk", body, connection)["ids"]
                rates.append(jobs / (time.perf_counter() - began))
                if len(set(ids)) != jobs:
                    raise Broken(f"{jobs} jobs were sent, {len(set(ids))} were made")
        name = f"bulk of {jobs:,}, {database}"
        yield Row(name, "jobs/s", rates, Target("at least", 20_000), note=_NOTE)
