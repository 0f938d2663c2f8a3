"""Arrays: tasks leave their ranges as rows, are dropped, come back, and the counts always say where they are."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.states import JobState, Outcome
from atoll.store import arrays, attempts, jobs
from atoll.store.attempts import Placing
from atoll.store.database import Database
from atoll.store.jobs import JobRow, NewDependency
from tests.support.rows import NOW, add, check_counts, do, end, get, new_array, new_job, place, run, state


def _locked(connection: Connection, array_id: int) -> JobRow:
    row = jobs.get(connection, array_id, lock=True)
    assert row is not None
    return row


def test_tasks_that_are_taken_become_rows_and_leave_the_ranges(database: Database) -> None:
    def work(connection: Connection) -> tuple[dict[int, int], JobRow]:
        [array] = add(connection, new_array("0-9"))
        taken = jobs.take_tasks(
            connection, _locked(connection, array), Ranges.parse("2,4-5,40"), JobState.PLACED, ReasonCode.PLACED, NOW
        )
        check_counts(connection, array)
        return taken, get(connection, array)

    taken, row = do(database, work)
    assert sorted(taken) == [2, 4, 5]
    assert set(arrays.ranges_of(row.waiting)) == {0, 1, 3, 6, 7, 8, 9}
    assert (row.waiting_count, row.active_count, row.state) == (7, 3, "running")


def test_a_task_is_taken_once(database: Database) -> None:
    def work(connection: Connection) -> tuple[int, int]:
        [array] = add(connection, new_array("0-9"))
        return len(place(connection, array, "0-4")), attempts.place(
            connection, [Placing(array, Ranges.parse("3-6"), "here", "cpu", ["a", "b", "c", "d"])], NOW
        )

    assert do(database, work) == (5, 2)


def test_an_array_of_a_million_tasks_is_one_row_however_it_is_cut(database: Database) -> None:
    def work(connection: Connection) -> JobRow:
        [array] = add(connection, new_array("0-999999"))
        run(connection, array, "0-3")
        arrays.drop_waiting(connection, _locked(connection, array), Ranges.parse("500-600000:2"), NOW)
        check_counts(connection, array)
        assert len(jobs.get_tasks(connection, array)) == 4
        return get(connection, array)

    row = do(database, work)
    assert row.cancelled_count == 299_751
    assert row.dropped == "500-600000:2"


def test_an_array_ends_as_its_tasks_do(database: Database) -> None:
    cases: list[tuple[list[Outcome], JobState, int | None]] = [
        ([Outcome.SUCCEEDED, Outcome.SUCCEEDED], JobState.SUCCEEDED, 0),
        ([Outcome.SUCCEEDED, Outcome.FAILED], JobState.FAILED, 1),
        ([Outcome.SUCCEEDED, Outcome.CANCELLED], JobState.CANCELLED, None),
    ]

    def work(connection: Connection, outcomes: list[Outcome]) -> JobRow:
        [array] = add(connection, new_array("0-1"))
        for task, outcome in enumerate(outcomes):
            end(connection, run(connection, array, str(task)), outcome)
        check_counts(connection, array)
        return get(connection, array)

    for outcomes, expected, code in cases:
        row = do(database, lambda connection, outcomes=outcomes: work(connection, outcomes))
        assert (JobState(row.state), row.exit_code) == (expected, code)
        assert row.ended_at == NOW


def test_dropping_the_last_waiting_tasks_ends_the_array_and_lets_others_go(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        [array] = add(connection, new_array("0-9"))
        whole, task = add(
            connection, new_job([NewDependency(array, None, "any")]), new_job([NewDependency(array, 7, "not_ok")])
        )
        assert arrays.drop_waiting(connection, _locked(connection, array), None, NOW) == 10
        check_counts(connection, array)
        return [state(connection, job_id) for job_id in (array, whole, task)]

    assert do(database, work) == [JobState.CANCELLED, JobState.QUEUED, JobState.QUEUED]


def test_dropped_tasks_wait_again_when_they_are_restored(database: Database) -> None:
    def work(connection: Connection) -> JobRow:
        [array] = add(connection, new_array("0-9"))
        arrays.drop_waiting(connection, _locked(connection, array), None, NOW)
        assert arrays.restore_dropped(connection, _locked(connection, array), Ranges.parse("3-5"), NOW) == 3
        check_counts(connection, array)
        return get(connection, array)

    row = do(database, work)
    assert (row.state, row.waiting, row.ended_at) == ("queued", "3-5", None)


def test_a_held_array_is_not_placed_though_a_decision_said_so(database: Database) -> None:
    def work(connection: Connection) -> int:
        [array] = add(connection, new_array("0-9"))
        arrays.set_hold(connection, _locked(connection, array), True, NOW)
        assert state(connection, array) is JobState.HELD
        return attempts.place(connection, [Placing(array, Ranges.parse("0"), "here", "cpu", ["a"])], NOW)

    assert do(database, work) == 0


def test_a_task_that_is_tried_again_keeps_its_place_among_the_active(database: Database) -> None:
    def work(connection: Connection) -> tuple[JobRow, JobRow | None]:
        [array] = add(connection, new_array("0-1", width=1))
        end(connection, run(connection, array, "0"), Outcome.FAILED, retries=1)
        check_counts(connection, array)
        return get(connection, array), jobs.get_task(connection, array, 0)

    row, task = do(database, work)
    assert (row.active_count, row.failed_count) == (1, 0)
    assert (task.state, task.failures) == ("queued", 1)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["run", "drop", "restore", "hold", "back", "succeed", "fail", "retry", "cancel"]),
        st.sets(st.integers(0, 11), min_size=1, max_size=6),
    ),
    max_size=12,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=STEPS)
def test_whatever_happens_to_tasks_none_is_lost_and_none_is_twice(
    database: Database, steps: list[tuple[str, set[int]]]
) -> None:
    def work(connection: Connection) -> None:
        [array] = add(connection, new_array("0-11"))
        for step, numbers in steps:
            _apply(connection, array, step, Ranges.of(numbers))
            check_counts(connection, array)

    do(database, work)


def _apply(connection: Connection, array: int, step: str, tasks: Ranges) -> None:
    row = _locked(connection, array)
    mine = [task for task in jobs.get_tasks(connection, array, tasks) if task.attempt_id is not None]
    running: list[Any] = [task.attempt_id for task in mine if task.state == JobState.RUNNING]
    if step == "run":
        waiting = Ranges.of(set(tasks) & set(arrays.ranges_of(row.waiting)))
        if waiting:
            run(connection, array, str(waiting))
    elif step == "drop":
        arrays.drop_waiting(connection, row, tasks, NOW)
    elif step == "restore":
        arrays.restore_dropped(connection, row, tasks, NOW)
    elif step == "hold":
        jobs.take_tasks(connection, row, tasks, JobState.HELD, ReasonCode.HELD_BY_USER, NOW)
    elif step == "back":
        arrays.put_back(connection, row, jobs.get_tasks(connection, array, tasks), NOW)
    elif running:
        outcome = {"succeed": Outcome.SUCCEEDED, "cancel": Outcome.CANCELLED}.get(step, Outcome.FAILED)
        end(connection, running, outcome, retries=1 if step == "retry" else 0)
