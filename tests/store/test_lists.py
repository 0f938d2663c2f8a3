"""What lists cost: the tasks of arrays are not read to be left out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection

from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.states import ENDED, JobState
from atoll.store import jobs
from atoll.store.database import Database
from atoll.store.jobs import ListFilter
from tests.support.rows import NOW, add, do, get, new_array, new_job, opened

QUESTIONS: dict[str, Callable[[Connection], object]] = {
    "all": lambda connection: jobs.list_page(connection, ListFilter(), None, 10),
    "one person's": lambda connection: jobs.list_page(connection, ListFilter(owner="anna"), None, 10),
    "unended": lambda connection: jobs.list_page(
        connection, ListFilter(states=frozenset(JobState) - ENDED), None, 10
    ),
    "counts": jobs.count_by_state,
    "one person's counts": lambda connection: jobs.count_by_state(connection, "anna"),
}  # fmt: skip


def _work(connection: Connection, question: Callable[[Connection], object]) -> int:
    """Thousands of steps that SQLite's machine takes to answer."""
    driver = connection.connection.driver_connection
    assert driver is not None
    steps = 0

    def count() -> int:
        nonlocal steps
        steps += 1
        return 0

    driver.set_progress_handler(count, 1000)
    try:
        question(connection)
    finally:
        driver.set_progress_handler(None, 0)
    return steps


@pytest.mark.parametrize("name", QUESTIONS)
def test_a_list_of_jobs_costs_the_same_whatever_tasks_there_are(tmp_path: Path, name: str) -> None:
    with opened(f"sqlite:///{tmp_path}/jobs.db") as database:
        do(database, lambda connection: add(connection, *[new_job() for _ in range(30)]))
        [array] = do(database, lambda connection: add(connection, new_array("0-19999")))
        before = database.read_now(lambda connection: _work(connection, QUESTIONS[name]))
        do(database, lambda connection: _make_rows(connection, array))
        after = database.read_now(lambda connection: _work(connection, QUESTIONS[name]))
    assert after <= before + 2


def _make_rows(connection: Connection, array: int) -> None:
    jobs.take_tasks(connection, get(connection, array), Ranges.parse("0-19999"), JobState.QUEUED, ReasonCode.NONE, NOW)


def test_tasks_are_in_no_list_of_jobs_and_in_no_count(database: Database) -> None:
    def work(connection: Connection) -> tuple[list[int], dict[str, int]]:
        ids = add(connection, new_job(), new_array("0-4"))
        jobs.take_tasks(connection, get(connection, ids[1]), Ranges.parse("0-2"), JobState.QUEUED, ReasonCode.NONE, NOW)
        assert [row.id for row in jobs.list_page(connection, ListFilter(), None, 10)] == ids[::-1]
        return ids, jobs.count_by_state(connection)

    assert do(database, work)[1] == {"queued": 1, "running": 1}
