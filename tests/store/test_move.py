"""The one function that changes states: what it allows, what it refuses, what follows from an end."""

from __future__ import annotations

from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection

from atoll.core.errors import Internal
from atoll.core.reasons import ReasonCode
from atoll.core.states import ENDED, TRANSITIONS, JobState, Outcome
from atoll.store import events, jobs
from atoll.store.database import Database
from atoll.store.jobs import Move, NewDependency
from tests.support.rows import NOW, add, do, end, get, new_array, new_job, run, state

ANY = frozenset(JobState)
PAIRS = [(before, after) for before in JobState for after in JobState]


def _move(connection: Connection, job_id: int, after: JobState) -> set[int]:
    return jobs.move(connection, [Move(job_id, ANY, after, ReasonCode.NONE)], NOW)


def test_every_pair_of_states_is_allowed_or_refused_as_the_table_says(database: Database) -> None:
    for before, after in PAIRS:
        [job_id] = do(database, partial(_add_in, before=before))
        wanted = partial(_move, job_id=job_id, after=after)
        if after in TRANSITIONS[before]:
            assert do(database, wanted) == {job_id}
            assert database.read_now(partial(state, job_id=job_id)) is after
        else:
            with pytest.raises(Internal, match=f"may not go from {before} to {after}"):
                do(database, wanted)
            assert database.read_now(partial(state, job_id=job_id)) is before


def _add_in(connection: Connection, before: JobState) -> list[int]:
    return add(connection, new_job(state=before.value))


def test_a_move_whose_moment_has_passed_does_nothing(database: Database) -> None:
    def work(connection: Connection) -> set[int]:
        [job_id] = add(connection, new_job(state="cancelled"))
        wanted = [Move(job_id, frozenset({JobState.QUEUED}), JobState.PLACED, ReasonCode.PLACED)]
        return jobs.move(connection, wanted, NOW)

    assert do(database, work) == set()


def test_each_move_writes_one_event_with_the_state_and_the_reason(database: Database) -> None:
    [job_id] = do(database, lambda connection: add(connection, new_job()))
    do(database, lambda connection: end(connection, run(connection, job_id)))
    found = [
        event for event in database.read_now(lambda connection: events.after(connection, 0)) if event.kind == "job"
    ]
    states = ["queued", "placed", "starting", "running", "finishing", "succeeded"]
    assert [event.state for event in found] == states
    assert {event.owner for event in found} == {"anna"}
    assert found[-1].data["reason"] == "Completed"


# ---- dependencies


@pytest.mark.parametrize(
    ("kind", "outcome", "expected"),
    [
        ("ok", Outcome.SUCCEEDED, JobState.QUEUED),
        ("ok", Outcome.FAILED, JobState.CANCELLED),
        ("ok", Outcome.CANCELLED, JobState.CANCELLED),
        ("any", Outcome.SUCCEEDED, JobState.QUEUED),
        ("any", Outcome.FAILED, JobState.QUEUED),
        ("not_ok", Outcome.SUCCEEDED, JobState.CANCELLED),
        ("not_ok", Outcome.FAILED, JobState.QUEUED),
        ("not_ok", Outcome.CANCELLED, JobState.QUEUED),
    ],
)
def test_an_end_lets_go_or_cancels_what_waited_for_it(
    database: Database, kind: str, outcome: Outcome, expected: JobState
) -> None:
    def work(connection: Connection) -> tuple[JobState, str]:
        [first] = add(connection, new_job())
        [second] = add(connection, new_job([NewDependency(first, None, kind)]))
        end(connection, run(connection, first), outcome)
        row = get(connection, second)
        return JobState(row.state), row.reason

    found, reason = do(database, work)
    assert found is expected
    assert (reason == ReasonCode.DEPENDENCY_NEVER) == (expected is JobState.CANCELLED)


def test_a_job_waits_for_the_last_of_those_it_waits_for(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        one, two = add(connection, new_job(), new_job())
        [last] = add(connection, new_job([NewDependency(one, None, "ok"), NewDependency(two, None, "any")]))
        seen = [state(connection, last)]
        for job_id in (one, two):
            end(connection, run(connection, job_id))
            seen.append(state(connection, last))
        return seen

    assert do(database, work) == [JobState.HELD, JobState.HELD, JobState.QUEUED]


def test_a_chain_is_cancelled_to_its_end(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        chain = add(connection, new_job())
        for _ in range(5):
            chain += add(connection, new_job([NewDependency(chain[-1], None, "ok")]))
        # one that waits for the end of the chain, however that comes about
        chain += add(connection, new_job([NewDependency(chain[-1], None, "any")]))
        end(connection, run(connection, chain[0]), Outcome.FAILED)
        return [state(connection, job_id) for job_id in chain]

    assert do(database, work) == [JobState.FAILED, *[JobState.CANCELLED] * 5, JobState.QUEUED]


def test_a_job_held_by_its_owner_stays_held_when_what_it_waited_for_ends(database: Database) -> None:
    def work(connection: Connection) -> JobState:
        [first] = add(connection, new_job())
        [second] = add(connection, new_job([NewDependency(first, None, "ok")], hold=True))
        end(connection, run(connection, first))
        assert get(connection, second).blockers == 0
        return state(connection, second)

    assert do(database, work) is JobState.HELD


def test_what_waits_for_a_task_goes_on_when_that_task_ends_and_not_with_another(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        [array] = add(connection, new_array("0-3"))
        [waits] = add(connection, new_job([NewDependency(array, 2, "ok")]))
        seen = []
        for task in ("1", "2"):
            end(connection, run(connection, array, task))
            seen.append(state(connection, waits))
        return seen

    assert do(database, work) == [JobState.HELD, JobState.QUEUED]


def test_what_waits_for_an_array_waits_for_all_its_tasks(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        [array] = add(connection, new_array("0-2"))
        [waits] = add(connection, new_job([NewDependency(array, None, "ok")]))
        seen = []
        for task in ("0", "1-2"):
            end(connection, run(connection, array, task))
            seen.append(state(connection, waits))
        return seen

    assert do(database, work) == [JobState.HELD, JobState.QUEUED]


def test_a_task_that_never_starts_because_its_array_is_cancelled_counts_as_cancelled(database: Database) -> None:
    def work(connection: Connection) -> list[JobState]:
        [first] = add(connection, new_job())
        array = new_array("0-3")
        array.depends_on = [NewDependency(first, None, "ok")]
        array.columns |= {"state": "held", "blockers": 1}
        [array_id] = add(connection, array)
        hopes, fears = add(
            connection, new_job([NewDependency(array_id, 2, "ok")]), new_job([NewDependency(array_id, 2, "not_ok")])
        )
        end(connection, run(connection, first), Outcome.FAILED)
        return [state(connection, job_id) for job_id in (array_id, hopes, fears)]

    assert do(database, work) == [JobState.CANCELLED, JobState.CANCELLED, JobState.QUEUED]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_graph_of_dependencies_leaves_a_job_waiting_for_nothing(database: Database, data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 8))
    kinds = st.sampled_from(["ok", "any", "not_ok"])
    edges = [[(on, data.draw(kinds)) for on in range(place) if data.draw(st.booleans())] for place in range(size)]
    outcomes = data.draw(st.lists(st.sampled_from([Outcome.SUCCEEDED, Outcome.FAILED]), min_size=size, max_size=size))

    def work(connection: Connection) -> None:
        ids: list[int] = []
        for waits in edges:
            ids += add(connection, new_job([NewDependency(ids[on], None, kind) for on, kind in waits]))
        for job_id, outcome in zip(ids, outcomes, strict=True):
            if state(connection, job_id) is JobState.QUEUED:
                end(connection, run(connection, job_id), outcome)
        for job_id, waits in zip(ids, edges, strict=True):
            met = all(jobs.satisfied(kind, state(connection, ids[on])) for on, kind in waits)
            assert state(connection, job_id) in ENDED
            assert (get(connection, job_id).reason == ReasonCode.DEPENDENCY_NEVER) == (not met)

    do(database, work)
