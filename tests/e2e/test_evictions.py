"""A machine full of idle work makes room for a person who waits, and goes on with it afterwards: real processes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.platform import RunningPlatform

pytestmark = pytest.mark.e2e
GRACE = 2
CPUS = 4


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[RunningPlatform]:
    data = tmp_path / "data"
    data.mkdir()
    (data / "atoll.yaml").write_text(f"local:\n  cpus: {CPUS}\n")
    with RunningPlatform(data) as running:
        yield running


@pytest.mark.parametrize("stubborn", [False, True], ids=["leaves-at-once", "is-killed"])
def test_an_interactive_job_starts_as_soon_as_idle_work_has_left(
    platform: RunningPlatform, tmp_path: Path, stubborn: bool
) -> None:
    free = tmp_path / "free"
    trap = "trap '' TERM; " if stubborn else ""
    waiting = f"{trap}while [ ! -e {free} ]; do sleep 0.05; done"
    ids = [
        _submit(platform, command=["sh", "-c", waiting], grace=GRACE, **{"class": "opportunistic"}) for _ in range(CPUS)
    ]
    _until(lambda: _states(platform, ids) == ["running"] * CPUS)
    began = tmp_path / "began"
    asked = time.time()
    command = ["sh", "-c", f"date +%s.%N > {began}.new; mv {began}.new {began}; sleep 1"]
    session = _submit(platform, command=command, cpu=CPUS, **{"class": "interactive"})
    _until(began.exists)
    waited = float(began.read_text()) - asked
    leaving = GRACE if stubborn else 0
    print(f"started {waited:.2f} s after it was submitted; what left took {leaving} s for it")
    assert leaving < waited < leaving + 6  # some tenths of a second where the machine has time
    free.touch()
    _until(lambda: _states(platform, [*ids, session]) == ["succeeded"] * (CPUS + 1))
    for job_id in ids:
        found = platform.request("GET", f"/api/v1/jobs/{job_id}").json()["attempt_list"]
        assert [attempt["outcome"] for attempt in found] == ["evicted", "succeeded"]


def _submit(platform: RunningPlatform, **document: Any) -> str:
    answer = platform.request("POST", "/api/v1/jobs", json={"memory": "16M", "cpu": 1, **document})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def _states(platform: RunningPlatform, ids: list[str]) -> list[str]:
    return [platform.request("GET", f"/api/v1/jobs/{job_id}").json()["state"] for job_id in ids]


def _until(holds: Any, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.05)
