"""A thousand trivial jobs from start to end, beside PSI/J's local executor."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atoll.client.calls import JobFilter
from atoll.client.synchronous import Client
from atoll.core.states import JobState
from bench.figures import Broken, Row, Target
from bench.platforms import client, running, settle
from tests.support.platform import RunningPlatform

_LOOK_EVERY = 0.05
_LONGEST = 300.0
_JOB: dict[str, Any] = {"command": ["/bin/true"], "cpu": "1m", "memory": "16M"}
_NOTE = (
    "From the first submission by the Python client until the API, asked "
    f"every {_LOOK_EVERY * 1000:.0f} ms, says that all have ended; each asks for 1 milli-CPU and 16 MB. PSI/J ran "
    "between the two in the same round. It starts each job at once, however many run."
)


class Peer:
    """The process in which PSI/J runs jobs."""

    def __enter__(self) -> Peer:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.psij_local"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, count: int) -> float:
        """Seconds that it took over `count` jobs."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{count}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise Broken(f"PSI/J's process ended with {self._process.wait()}")
        return float(answer)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Seconds for all jobs, submitted in bulk and one by one."""
    count, rounds = (100, 1) if small else (1000, 3)
    bulk: list[float] = []
    single: list[float] = []
    theirs: list[float] = []
    with running(folder) as platform, client(platform) as atoll, Peer() as peer:
        for warm_up in (True, *[False] * rounds):
            jobs = 50 if warm_up else count
            taken = (
                _run(platform, atoll, _in_bulk, jobs),
                peer.run(jobs),
                _run(platform, atoll, _one_by_one, jobs),
            )
            if not warm_up:
                for values, seconds in zip((bulk, theirs, single), taken, strict=True):
                    values.append(seconds)
    target = Target("at most", 1.5, ratio=True)
    for name, ours in (("in bulk", bulk), ("one by one", single)):
        yield Row(f"{count:,} trivial jobs, sent {name}", "s", ours, target, "PSI/J", theirs, _NOTE)


def _in_bulk(atoll: Client, count: int) -> list[int]:
    return atoll.submit_many([_JOB] * count)


def _one_by_one(atoll: Client, count: int) -> list[int]:
    return [atoll.submit(_JOB).id for _ in range(count)]


def _run(
    platform: RunningPlatform, atoll: Client, submit: Callable[[Client, int], list[int]], count: int
) -> float:  # fmt: skip
    """Seconds until all have ended; then waits until the platform has tidied up after them. Raises Broken."""
    began = time.perf_counter()
    ids = submit(atoll, count)
    while any(True for _ in atoll.jobs(limit=1)):  # those that have not ended
        if time.perf_counter() - began > _LONGEST:
            raise Broken(f"the jobs have not ended after {_LONGEST} s:\n{platform.tail()}")
        time.sleep(_LOOK_EVERY)
    seconds = time.perf_counter() - began
    ended = atoll.jobs(JobFilter(ended=True), limit=count)
    succeeded = {job.job for job in ended if job.state is JobState.SUCCEEDED}
    if succeeded != set(ids):
        raise Broken(f"{count} jobs were sent, {len(succeeded & set(ids))} succeeded:\n{platform.tail()}")
    settle(platform)
    return seconds
