"""What waits for others: through cancelling and requeueing, with tasks held by number, and when it never can start."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from atoll.core.ids import JobRef
from atoll.core.ranges import Ranges
from atoll.core.states import JobState, Outcome
from atoll.jobs import actions
from atoll.jobs.actions import Action, Target
from atoll.store import attempts, jobs
from atoll.store.attempts import Placing
from atoll.store.database import Database
from atoll.store.jobs import NewDependency
from atoll.store.people import Principal
from tests.support.rows import NOW, add, check_counts, do, end, get, new_array, new_job, place, run, state

ANNA = Principal("anna", False)


def _act(connection: Connection, action: Action, ref: object) -> int:
    target: Target | None = Target(JobRef.parse(str(ref)))
    changed = 0
    while target is not None:
        bite = action(connection, target, ANNA, NOW)
        changed, target = changed + bite.changed, bite.rest
    return changed


def _blocked_array(connection: Connection, tasks: str = "0-9") -> tuple[int, int]:
    [first] = add(connection, new_job())
    [array] = add(connection, new_array(tasks, depends_on=[NewDependency(first, None, "ok")]))
    return first, array


def _start(connection: Connection, array: int, tasks: str) -> int:
    ids = [f"attempt-{task}" for task in Ranges.parse(tasks)]
    return attempts.place(connection, [Placing(array, Ranges.parse(tasks), "here", "cpu", ids)], NOW)


def test_a_job_requeued_before_what_it_waits_for_has_ended_waits_for_it_again(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        [first] = add(connection, new_job())
        [second] = add(connection, new_job([NewDependency(first, None, "ok")]))
        _act(connection, actions.cancel, second)
        _act(connection, actions.requeue, second)
        seen = [state(connection, second)]
        assert get(connection, second).reason == "Dependency"
        end(connection, run(connection, first))
        seen.append(state(connection, second))
        place(connection, second)
        return [*seen, state(connection, second)]

    assert do(database, work) == [JobState.HELD, JobState.QUEUED, JobState.PLACED]


def test_a_job_requeued_after_what_it_waited_for_has_ended_starts(database: Database) -> None:
    def work(connection: Connection) -> JobState:
        [first] = add(connection, new_job())
        [second] = add(connection, new_job([NewDependency(first, None, "ok")]))
        _act(connection, actions.cancel, second)
        end(connection, run(connection, first))
        _act(connection, actions.requeue, second)
        place(connection, second)
        return state(connection, second)

    assert do(database, work) is JobState.PLACED


@pytest.mark.parametrize("ends_while", ["cancelled", "requeued"])
def test_a_requeued_array_waits_as_it_did_before(database: Database, ends_while: str) -> None:
    def work(connection: Connection) -> int:
        first, array = _blocked_array(connection)
        _act(connection, actions.hold, f"{array}[3]")  # this one has a row
        _act(connection, actions.cancel, array)
        assert state(connection, array) is JobState.CANCELLED
        if ends_while == "cancelled":
            end(connection, run(connection, first))
        assert _act(connection, actions.requeue, array) == 10
        check_counts(connection, array)
        if ends_while == "requeued":
            assert state(connection, array) is JobState.HELD
            assert _start(connection, array, "2-3") == 0
            end(connection, run(connection, first))
        assert state(connection, array) is JobState.QUEUED
        return _start(connection, array, "0-9")

    assert do(database, work) == 10


def test_an_array_goes_on_though_tasks_of_it_were_held_by_number(database: Database) -> None:
    def work(connection: Connection) -> tuple[int, int]:
        first, array = _blocked_array(connection)
        _act(connection, actions.hold, f"{array}[3]")
        end(connection, run(connection, first))
        assert get(connection, array).blockers == 0
        started = _start(connection, array, "0-9")
        _act(connection, actions.release, f"{array}[3]")
        return started, _start(connection, array, "3")

    assert do(database, work) == (9, 1)


def test_what_never_can_start_ends_the_tasks_held_by_number_too(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        first, array = _blocked_array(connection)
        [after_all, after_one] = add(
            connection, new_job([NewDependency(array, None, "any")]), new_job([NewDependency(array, 5, "any")])
        )
        _act(connection, actions.hold, f"{array}[3-4]")
        end(connection, run(connection, first), Outcome.FAILED)
        check_counts(connection, array)
        assert [task.reason for task in jobs.get_tasks(connection, array)] == ["DependencyNeverSatisfied"] * 2
        return [state(connection, job_id) for job_id in (array, after_all, after_one)]

    assert do(database, work) == [JobState.CANCELLED, JobState.QUEUED, JobState.QUEUED]


def test_what_never_can_start_keeps_the_tasks_that_were_cancelled_before(database: Database) -> None:
    def work(connection: Connection) -> tuple[str, str, int, str]:
        first, array = _blocked_array(connection)
        _act(connection, actions.cancel, f"{array}[0-2]")
        _act(connection, actions.cancel, first)
        check_counts(connection, array)
        row = get(connection, array)
        return row.state, row.dropped, row.cancelled_count, row.reason

    assert do(database, work) == ("cancelled", "0-9", 10, "DependencyNeverSatisfied")
