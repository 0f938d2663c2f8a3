"""Jobs as rows, and moving them along by the store's own functions, for tests that run no loops."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from atoll.core.ids import new_attempt_id
from atoll.core.ranges import Ranges
from atoll.core.states import JobState, Outcome
from atoll.store import arrays, attempts, jobs
from atoll.store.attempts import End, Finished, Placing, Start
from atoll.store.database import Database
from atoll.store.jobs import JobRow, NewDependency, NewJob

NOW = 1_700_000_000_000_000


@contextmanager
def opened(url: str) -> Iterator[Database]:
    """The database at `url`, closed afterwards."""
    database = Database.open(url)
    try:
        yield database
    finally:
        database.close()


def do(database: Database, work: Any) -> Any:
    """Run a transaction and wait for it."""
    return database.write_soon(work).result(timeout=60)


def new_job(depends_on: Sequence[NewDependency] = (), **columns: Any) -> NewJob:
    """A job to insert: of anna, 1 CPU, queued, unless `columns` say otherwise."""
    base: dict[str, Any] = {
        "owner": "anna", "name": "job", "class_": "batch", "spec": '{"command":["true"]}', "state": "queued",
        "reason": "None", "cpu": 1000, "memory": 1 << 20, "gpu": 0, "nodes": 1, "submitted_at": NOW,
    }  # fmt: skip
    blockers = sum(edge.open for edge in depends_on)
    if blockers:
        base |= {"state": "held", "reason": "Dependency", "blockers": blockers}
    return NewJob({**base, **columns}, depends_on)


def new_array(tasks: str, **columns: Any) -> NewJob:
    """An array to insert."""
    count = len(Ranges.parse(tasks))
    columns = {"waiting": tasks, "waiting_count": count, "task_count": count, **columns}
    return new_job(spec=f'{{"command":["true"],"array":"{tasks}"}}', **columns)


def add(connection: Connection, *new: NewJob) -> list[int]:
    """Insert jobs."""
    ids = jobs.allocate_ids(connection, len(new))
    jobs.insert_many(connection, new, ids)
    return ids


def place(
    connection: Connection, job_id: int, tasks: str | None = None, site: str = "here", now: int = NOW
) -> list[str]:
    """Give a job, or tasks of an array, a place; the attempts' ids."""
    chosen = Ranges.parse(tasks) if tasks is not None else None
    ids = [new_attempt_id("test0") for _ in range(len(chosen) if chosen is not None else 1)]
    attempts.place(connection, [Placing(job_id, chosen, site, "cpu", ids)], now)
    return ids


def run(connection: Connection, job_id: int, tasks: str | None = None, site: str = "here") -> list[str]:
    """Place a job, or tasks of an array, and have it run; the attempts' ids."""
    ids = place(connection, job_id, tasks, site)
    attempts.begin_submitting(connection, ids, NOW, NOW + 1)
    attempts.submitted(connection, {attempt_id: f"native-{attempt_id}" for attempt_id in ids}, NOW)
    attempts.started(connection, [Start(attempt_id, NOW, "1", "R") for attempt_id in ids], NOW)
    return ids


def end(
    connection: Connection, ids: Sequence[str], outcome: Outcome = Outcome.SUCCEEDED, *,
    retries: int = 0, rerun: bool = False, now: int = NOW,
) -> None:  # fmt: skip
    """Have attempts end, and their jobs finish."""
    code = 0 if outcome is Outcome.SUCCEEDED else 1
    attempts.ended(connection, [End(attempt_id, outcome, code) for attempt_id in ids], now)
    finish(connection, ids, retries=retries, rerun=rerun, now=now)


def finish(
    connection: Connection, ids: Sequence[str], *, retries: int = 0, rerun: bool = False, now: int = NOW
) -> None:
    """Have the jobs of ended attempts go on."""
    rows = attempts.known(connection, ids)
    attempts.finish(connection, [Finished(row.id, row.job_id, retries, rerun) for row in rows.values()], now)


def get(connection: Connection, job_id: int) -> JobRow:
    """A job's row."""
    row = jobs.get(connection, job_id)
    assert row is not None
    return row


def state(connection: Connection, job_id: int) -> JobState:
    """Where a job is."""
    return JobState(get(connection, job_id).state)


def check_counts(connection: Connection, array_id: int) -> None:
    """An array's counts say what its ranges and the rows of its tasks say."""
    row = get(connection, array_id)
    tasks = jobs.get_tasks(connection, array_id)
    states = [JobState(task.state) for task in tasks]
    waiting, dropped = arrays.ranges_of(row.waiting), arrays.ranges_of(row.dropped)
    assert row.waiting_count == len(waiting)
    assert row.succeeded_count == states.count(JobState.SUCCEEDED)
    assert row.failed_count == states.count(JobState.FAILED)
    assert row.cancelled_count == states.count(JobState.CANCELLED) + len(dropped)
    total = row.waiting_count + row.active_count + row.succeeded_count + row.failed_count + row.cancelled_count
    assert total == row.task_count
    everyone = [*waiting, *dropped, *(task.task for task in tasks)]
    assert len(everyone) == len(set(everyone)) == row.task_count
