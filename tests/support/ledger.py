"""Jobs that sign a ledger, so that a test can tell what ran how often, whatever the platform believes."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2

ENDED = {"succeeded", "failed", "cancelled"}


@dataclass(frozen=True)
class Ledger:
    """A file to which each job appends one line: its number, which attempt this is, the time and a process id."""

    path: Path

    def spec(self, number: int, seconds: float = 0.0) -> dict[str, Any]:
        """A job that signs, sleeps, and ends with an exit code that follows from its number."""
        sign = f'echo {number} "$ATOLL_ATTEMPT" "$(date +%T.%N)" $$ >> {self.path}'
        script = f"{sign}; sleep {seconds}; exit {self.exit_code(number)}"
        return {"name": f"n{number}", "command": ["/bin/sh", "-c", script], "cpu": "20m", "memory": "16M"}

    @staticmethod
    def exit_code(number: int) -> int:
        """Every fifth job fails, with varying codes."""
        return number % 100 + 1 if number % 5 == 0 else 0

    def counts(self) -> Counter[int]:
        """How often each job signed."""
        return Counter(int(line.split()[0]) for line in self._lines())

    def signatures(self, number: int) -> list[str]:
        """The lines of one job."""
        return [line for line in self._lines() if line.split()[0] == str(number)]

    def _lines(self) -> list[str]:
        return self.path.read_text().splitlines() if self.path.exists() else []


def submit_surely(send: Callable[[], httpx2.Response], seconds: float = 120.0) -> httpx2.Response:
    """Send until an answer comes; the request must carry an idempotency key."""
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            answer = send()
            if answer.status_code < 500:
                return answer
            last = answer.text
        except (httpx2.TransportError, OSError, ValueError) as error:
            last = error  # the platform is down for a moment: that is what the test is about
        if time.monotonic() > deadline:
            raise AssertionError(f"the platform did not answer; at last: {last}")
        time.sleep(0.05)


def all_jobs(get: Callable[[str], httpx2.Response], ids: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The jobs `ids` as the platform lists them, by id."""
    wanted, found = set(ids), {}
    cursor: str | None = None
    while True:
        answer = get("/api/v1/jobs?all=true&limit=1000" + (f"&cursor={cursor}" if cursor else ""))
        answer.raise_for_status()
        page = answer.json()
        found.update({job["job"]: job for job in page["items"] if job["job"] in wanted})
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def assert_each_ran_once(
    ledger: Ledger, numbers: dict[int, int], jobs: dict[int, dict[str, Any]], log: Callable[[], str]
) -> None:
    """Every job signed once, has ended, and has the exit code and state that it should; `numbers` by job id."""
    counts = ledger.counts()
    wrong = {number: counts[number] for number in numbers.values() if counts[number] != 1}
    assert not wrong, f"these ran not exactly once: {wrong}\n{log()}"
    for job_id, number in numbers.items():
        job, code = jobs[job_id], Ledger.exit_code(number)
        expected = ("failed" if code else "succeeded", code)
        assert (job["state"], job["exit_code"]) == expected, f"{job} should be {expected}\n{log()}"
    assert len(counts) == len(numbers)
