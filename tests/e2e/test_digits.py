"""The example of handwritten digits: one job, an array of 20 tasks, and a job that waits for them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.docs.pages import ROOT
from tests.support.platform import RunningPlatform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
DIGITS = ROOT / "examples" / "digits"
TASKS = 20
AT_ONCE = 4


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path_factory.mktemp("digits") / "data") as platform:
        yield platform


def submit(platform: RunningPlatform, file: str) -> list[str]:
    done = platform.command("submit", "-o", "name", "--venv", sys.prefix, str(DIGITS / file))
    return done.stdout.split()


def job(platform: RunningPlatform, name: str) -> dict[str, Any]:
    answer = platform.request("GET", f"/api/v1/jobs/{quote(name)}")
    answer.raise_for_status()
    document: dict[str, Any] = answer.json()
    return document


def output(platform: RunningPlatform, name: str) -> str:
    answer = platform.request("GET", f"/api/v1/jobs/{quote(name)}/logs?stream=stdout")
    answer.raise_for_status()
    return answer.text


@pytest.fixture(scope="module")
def search(platform: RunningPlatform) -> tuple[str, str]:
    """The array and the job that reports the best, both ended."""
    array, best = submit(platform, "search.yaml")
    platform.command("wait", array, best, timeout=240)
    return array, best


def test_one_job_trains_and_keeps_its_score(platform: RunningPlatform, tmp_path: Path) -> None:
    (name,) = submit(platform, "one.yaml")
    platform.command("wait", name)
    assert platform.command("logs", name).stdout == "C=10 gamma=0.001: 97.22% of the digits are told right\n"
    platform.command("fetch", "--into", str(tmp_path), name)
    assert json.loads((tmp_path / "score.json").read_text())["accuracy"] == pytest.approx(0.9722)


def test_every_task_of_the_array_writes_its_score(platform: RunningPlatform, search: tuple[str, str]) -> None:
    array, _ = search
    found = job(platform, array)
    assert found["state"] == "succeeded"
    assert found["tasks"] == {
        "total": TASKS, "waiting": 0, "active": 0, "succeeded": TASKS, "failed": 0, "cancelled": 0,
    }  # fmt: skip
    lines = [output(platform, f"{array}[{task}]") for task in range(TASKS)]
    assert all("of the digits are told right" in line for line in lines), lines
    assert len(set(lines)) > 1, "all tasks tried the same values"


def test_at_most_four_tasks_run_at_a_time(platform: RunningPlatform, search: tuple[str, str]) -> None:
    array, _ = search
    moments: list[tuple[str, int]] = []
    for task in range(TASKS):
        for attempt in job(platform, f"{array}[{task}]")["attempt_list"]:
            moments += [(attempt["started_at"], 1), (attempt["ended_at"], -1)]
    running = most = 0
    for _, change in sorted(moments):  # an end goes before a start at the same moment
        running += change
        most = max(most, running)
    assert len(moments) == 2 * TASKS
    assert most <= AT_ONCE


def test_the_best_is_reported_after_all_tasks_have_ended(platform: RunningPlatform, search: tuple[str, str]) -> None:
    array, best = search
    report = job(platform, best)
    assert report["state"] == "succeeded"
    assert report["started_at"] > max(job(platform, f"{array}[{task}]")["ended_at"] for task in range(TASKS))
    lines = output(platform, best).splitlines()
    assert len(lines) == TASKS + 1
    assert lines[-1] == "best: C=100 gamma=0.0003 with 97.33%"


def test_the_report_does_not_start_when_a_task_is_cancelled(platform: RunningPlatform) -> None:
    array, best = submit(platform, "search.yaml")
    platform.command("cancel", array)
    done = platform.command("wait", best, check=False)
    assert done.returncode == 125
    assert job(platform, best)["reason"]["code"] == "DependencyNeverSatisfied"
