"""How long an array of a million tasks takes to be accepted."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2

from bench.figures import Broken, Row, Target
from bench.platforms import DATABASES, post, running
from bench.submissions import spec

_TASKS = 1_000_000


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Seconds until an array is accepted, on each database."""
    body = json.dumps({**spec("bench"), "array": f"0-{_TASKS - 1}"}).encode()
    for database in DATABASES:
        seconds = []
        with running(folder, database) as platform, httpx2.Client() as connection:
            for _ in range(2 if small else 5):
                began = time.perf_counter()
                answer = post(platform, "/api/v1/jobs", body, connection)
                seconds.append(time.perf_counter() - began)
                if answer["tasks"] != _TASKS:
                    raise Broken(f"the platform made {answer['tasks']} tasks of {_TASKS}")
        yield Row(f"array of {_TASKS:,}, {database}", "s", seconds, Target("under", 1))
