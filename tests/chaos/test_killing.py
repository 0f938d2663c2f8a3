"""The control plane is killed at random moments: nothing is lost, nothing runs twice."""

from __future__ import annotations

import random
import time
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import ChaosSize
from tests.support.ledger import ENDED, Ledger, all_jobs, assert_each_ran_once, submit_surely
from tests.support.platform import RunningPlatform

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(3600)]
BATCH = 50


def test_every_job_runs_exactly_once_whatever_moment_the_control_plane_is_killed_at(
    tmp_path: Path, database_kind: str, database_url: str, chaos_size: ChaosSize
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    print(f"seed {seed}")
    ledger = Ledger(tmp_path / "ledger")
    url = None if database_kind == "sqlite" else database_url
    with RunningPlatform(tmp_path / "data", database=url) as platform:
        numbers: dict[int, int] = {}
        batches = [range(first, min(first + BATCH, chaos_size.jobs)) for first in range(0, chaos_size.jobs, BATCH)]
        kills = 0
        while batches or kills < chaos_size.kills:
            if batches and chance.random() < max(0.5, len(batches) / max(1, chaos_size.kills)):
                batch = batches.pop(0)
                body = {"jobs": [ledger.spec(number, chance.choice((0, 0, 0.2))) for number in batch]}
                key = {"Idempotency-Key": f"batch-{batch[0]}"}
                answer = submit_surely(partial(platform.request, "POST", "/api/v1/jobs/bulk", json=body, headers=key))
                assert answer.status_code in (200, 201), answer.text
                numbers.update(zip(answer.json()["ids"], batch, strict=True))
            if kills < chaos_size.kills:
                time.sleep(chance.expovariate(1 / 0.3))
                platform.kill()
                kills += 1
                platform.start(wait=chance.random() < 0.7)
        platform.wait_ready()
        deadline = time.monotonic() + 300
        while True:
            jobs = all_jobs(lambda path: platform.request("GET", path), list(numbers))
            left = [job for job in jobs.values() if job["state"] not in ENDED]
            if not left:
                break
            assert time.monotonic() < deadline, f"{len(left)} jobs do not end, as {left[0]}\n{platform.tail()}"
            time.sleep(0.25)
        assert len(jobs) == chaos_size.jobs
        assert_each_ran_once(ledger, numbers, jobs, platform.tail)
