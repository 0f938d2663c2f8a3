"""Two control planes on one PostgreSQL: jobs flow, none runs twice, whatever happens to the one that leads."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.ledger import ENDED, Ledger, all_jobs, assert_each_ran_once, submit_surely
from tests.support.platform import RunningPlatform
from tests.support.postgres import PostgresServer
from tests.support.wire import Wire

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]


@pytest.fixture
def replicas(postgres_server: PostgresServer, tmp_path: Path) -> Iterator[tuple[RunningPlatform, RunningPlatform]]:
    """Two replicas that share database and data folder; the first one leads."""
    url = postgres_server.create_database()
    first = RunningPlatform(tmp_path / "data", database=url)
    second = RunningPlatform(tmp_path / "data", database=url)
    with first:
        _submit(first, [{"command": ["true"], "memory": "16M"}], "warm-up")
        _wait_until(lambda: not _left(first, None), 60)
        with second:
            yield first, second
            first.kill()
    postgres_server.drop_database(url)


def test_jobs_submitted_to_both_flow_and_none_runs_twice(
    replicas: tuple[RunningPlatform, RunningPlatform], tmp_path: Path
) -> None:
    first, second = replicas
    ledger = Ledger(tmp_path / "ledger")
    numbers: dict[int, int] = {}
    for start in range(0, 100, 10):
        replica = (first, second)[start // 10 % 2]
        batch = range(start, start + 10)
        ids = _submit(replica, [ledger.spec(number) for number in batch], f"batch-{start}")
        numbers.update(zip(ids, batch, strict=True))
    _assert_all_ran(second, ledger, numbers)


def test_killing_the_leader_costs_less_than_fifteen_seconds(
    replicas: tuple[RunningPlatform, RunningPlatform], tmp_path: Path
) -> None:
    first, second = replicas
    ledger = Ledger(tmp_path / "ledger")
    first.kill()
    killed = time.monotonic()
    ids = _submit(second, [ledger.spec(1)], "after the kill")
    _wait_until(lambda: ledger.counts()[1] == 1, 60)
    assert time.monotonic() - killed < 15
    _assert_all_ran(second, ledger, {ids[0]: 1})


def test_a_leader_that_was_paused_for_a_minute_does_no_harm(
    replicas: tuple[RunningPlatform, RunningPlatform], tmp_path: Path, chaos_pause: float
) -> None:
    first, second = replicas
    ledger = Ledger(tmp_path / "ledger")
    numbers: dict[int, int] = {}
    numbers.update(_submit_numbers(first, ledger, range(60)))
    time.sleep(0.5)  # the pause is to fall into the middle of the work
    first.pause()
    paused = time.monotonic()
    numbers.update(_submit_numbers(second, ledger, range(60, 90)))
    _wait_until(lambda: sum(ledger.counts().values()) >= 90, chaos_pause)
    time.sleep(max(0.0, paused + chaos_pause - time.monotonic()))  # a pause has to last
    first.resume()
    numbers.update(_submit_numbers(first, ledger, range(90, 120)))
    _assert_all_ran(second, ledger, numbers)
    _assert_all_ran(first, ledger, numbers)


def test_a_leader_that_is_cut_off_from_the_database_does_no_harm(
    postgres_server: PostgresServer, tmp_path: Path, chaos_pause: float
) -> None:
    url = postgres_server.create_database()
    ledger = Ledger(tmp_path / "ledger")
    numbers: dict[int, int] = {}
    with Wire(postgres_server.port) as wire:
        first = RunningPlatform(tmp_path / "data", database=url.replace(f":{postgres_server.port}/", f":{wire.port}/"))
        second = RunningPlatform(tmp_path / "data", database=url)
        with first:
            _submit(first, [{"command": ["true"], "memory": "16M"}], "warm-up")
            _wait_until(lambda: not _left(first, None), 60)
            with second:
                numbers.update(_submit_numbers(second, ledger, range(60)))
                time.sleep(0.5)  # the cut is to fall into the middle of the work
                with wire.cut():
                    cut = time.monotonic()
                    numbers.update(_submit_numbers(second, ledger, range(60, 90)))
                    _wait_until(lambda: sum(ledger.counts().values()) >= 90, 60, second.tail)
                    time.sleep(max(0.0, cut + chaos_pause - time.monotonic()))  # a cut has to last
                numbers.update(_submit_numbers(first, ledger, range(90, 120)))
                _assert_all_ran(second, ledger, numbers)
                first.kill()
    postgres_server.drop_database(url)


def _submit_numbers(replica: RunningPlatform, ledger: Ledger, batch: range) -> dict[int, int]:
    ids = _submit(replica, [ledger.spec(number, 0.3) for number in batch], f"batch-{batch[0]}")
    return dict(zip(ids, batch, strict=True))


def test_a_database_that_stands_still_for_a_while_costs_only_the_while(
    replicas: tuple[RunningPlatform, RunningPlatform], postgres_server: PostgresServer, tmp_path: Path
) -> None:
    first, second = replicas
    ledger = Ledger(tmp_path / "ledger")
    ids = _submit(first, [ledger.spec(number, 0.2) for number in range(40)], "before")
    with postgres_server.paused():
        time.sleep(15)  # longer than a lease: both replicas must stop relying on theirs
    _assert_all_ran(second, ledger, dict(zip(ids, range(40), strict=True)))


def _submit(replica: RunningPlatform, specs: list[dict[str, object]], key: str) -> list[int]:
    answer = submit_surely(
        lambda: replica.request("POST", "/api/v1/jobs/bulk", json={"jobs": specs}, headers={"Idempotency-Key": key})
    )
    assert answer.status_code in (200, 201), answer.text
    ids: list[int] = answer.json()["ids"]
    return ids


def _left(replica: RunningPlatform, numbers: dict[int, int] | None) -> list[object]:
    answer = submit_surely(lambda: replica.request("GET", "/api/v1/jobs?limit=1000"))
    return [job for job in answer.json()["items"] if numbers is None or job["job"] in numbers]


def _assert_all_ran(replica: RunningPlatform, ledger: Ledger, numbers: dict[int, int]) -> None:
    _wait_until(lambda: not _left(replica, numbers), 180, replica.tail)
    jobs = all_jobs(lambda path: submit_surely(lambda: replica.request("GET", path)), list(numbers))
    assert {job["state"] for job in jobs.values()} <= ENDED
    assert_each_ran_once(ledger, numbers, jobs, replica.tail)


def _wait_until(happened: Callable[[], bool], seconds: float, tell: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"this took longer than {seconds} s\n{tell()}"
        time.sleep(0.1)
