"""What an answer of Slurm about 10,000 jobs costs: to read it, to find our attempts in it, to compare with the store.

The answer is a real one's job, 10,000 times over as running tasks of arrays; the attempts are all known to the store.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import tracemalloc
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from atoll.control.observe import compare
from atoll.core.ids import new_attempt_id
from atoll.drivers.base import DriverSetup, Held
from atoll.drivers.slurm.jobs import SlurmJob, read_jobs
from atoll.drivers.slurm.layout import Home
from atoll.drivers.slurm.observing import Observer
from atoll.drivers.slurm.site import SlurmSite
from atoll.store.attempts import AttemptRow, AttemptState
from bench.figures import Broken

JOBS = 10_000
_ARRAY = 1000
_INSTANCE = "bench"
_OURS = re.compile(r"[0-9a-z]{5}-[0-9a-z]{16}")


class _Answered:
    """A site whose answer is there already."""

    def __init__(self, answer: bytes) -> None:
        self.setup = DriverSetup("slurm", _INSTANCE, Path("/nowhere"))
        self._answer = answer

    async def home(self, account: str | None) -> Home:
        """As a site does."""
        return Home(account or "root", "/root", "/bin/sh", "/root/.atoll", 0, 0)

    async def jobs(self) -> list[SlurmJob]:
        """As a site does, without the question."""
        return read_jobs(self._answer)


def measure(squeue: str, rounds: int) -> tuple[list[float], float, int]:
    """CPU seconds of each round, the most bytes that one takes beside the answer, and the answer's. Raises Broken."""
    text, held = _answer(json.loads(squeue))
    rows: Any = [
        SimpleNamespace(id=each.attempt_id, state=AttemptState.RUNNING, missing_since=None, message="") for each in held
    ]

    def once() -> None:
        observation = asyncio.run(Observer(cast(SlurmSite, _Answered(text))).observe(held))
        news = compare(cast("list[AttemptRow]", rows), observation)
        if len(observation.states) != JOBS or not observation.complete or news:
            raise Broken(f"of {JOBS} attempts {len(observation.states)} were found, and {news} was taken for news")

    seconds = []
    for _ in range(rounds):
        began = time.process_time()
        once()
        seconds.append(time.process_time() - began)
    # apart, as to watch memory costs time
    tracemalloc.start()
    try:
        once()
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    return seconds, most, len(text)


def _answer(real: dict[str, Any]) -> tuple[bytes, list[Held]]:
    """An answer with JOBS of our tasks, and how control knows them."""
    job = next((each for each in real["jobs"] if each["name"].startswith("atoll-")), None)
    if job is None:
        raise Broken("Slurm has no job of ours")
    before = _OURS.search(job["name"])
    assert before is not None
    instance = before[0].partition("-")[0]
    told: list[dict[str, Any]] = []
    held: list[Held] = []
    batch = command = ""
    array = 0
    for number in range(JOBS):
        task = number % _ARRAY
        attempt = new_attempt_id(_INSTANCE)
        if task == 0:
            batch, array = attempt, JOBS + number
            command = job["command"].replace(before[0], batch).replace(f"/{instance}/", f"/{_INSTANCE}/")
        told.append({
            **job, "job_id": number + 1, "array_job_id": array, "array_task_id": task, "array_task_string": "",
            "name": f"atoll-{batch}", "command": command, "job_state": "RUNNING", "state_reason": "None",
        })  # fmt: skip
        held.append(Held(attempt, f"{array}_{task}"))
    return json.dumps({**real, "jobs": told}).encode(), held
