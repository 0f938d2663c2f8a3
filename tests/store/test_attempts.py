"""Attempts: from the decision to the end, and what that does to their jobs."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from atoll.core.states import MAX_FAULTS, JobState, Outcome
from atoll.store import attempts, rooms
from atoll.store.attempts import AttemptState, End, Start
from atoll.store.database import Database
from tests.support.rows import NOW, add, do, end, get, new_job, place, run, state


def test_a_job_is_placed_once_however_often_the_decision_comes(database: Database) -> None:
    def work(connection: Connection) -> int:
        [job_id] = add(connection, new_job())
        place(connection, job_id)
        place(connection, job_id)
        return len(attempts.of_job(connection, job_id))

    assert do(database, work) == 1


def test_an_attempt_that_runs_though_nobody_heard_it_was_taken_is_believed(database: Database) -> None:
    def work(connection: Connection) -> JobState:
        [job_id] = add(connection, new_job())
        [attempt_id] = place(connection, job_id)
        attempts.begin_submitting(connection, [attempt_id], NOW, NOW + 1)
        attempts.started(connection, [Start(attempt_id, NOW, "7", "R")], NOW)
        return state(connection, job_id)

    assert do(database, work) is JobState.RUNNING


@pytest.mark.parametrize(
    ("before", "told", "kept"), [("", "7", "7"), ("7", None, "7"), ("7", "", "7"), ("7", "8", "8")]
)
def test_an_end_says_what_the_engine_calls_the_attempt(
    database: Database, before: str, told: str | None, kept: str
) -> None:
    """Also where nobody heard that it was taken, and it was not seen running."""

    def work(connection: Connection) -> str | None:
        [job_id] = add(connection, new_job())
        [attempt_id] = place(connection, job_id)
        attempts.begin_submitting(connection, [attempt_id], NOW, NOW + 1)
        if before:
            attempts.submitted(connection, {attempt_id: before}, NOW)
        attempts.ended(connection, [End(attempt_id, Outcome.SUCCEEDED, 0, native_id=told)], NOW)
        [row] = attempts.of_job(connection, job_id)
        native: str | None = row.native_id
        return native

    assert do(database, work) == kept


def test_what_was_asked_to_stop_is_not_handed_over_any_more(database: Database) -> None:
    def work(connection: Connection) -> list[str]:
        ids = add(connection, new_job(), new_job())
        tried = [place(connection, job_id)[0] for job_id in ids]
        attempts.ask_to_stop(connection, [ids[0]], "cancelled", {ids[0]: 5}, NOW)
        found = attempts.begin_submitting(connection, tried, NOW, NOW + 1)
        assert [row.id for row in found] == [tried[1]]
        return [row.id for row in attempts.to_stop(connection, "here", NOW)]

    assert len(do(database, work)) == 1


def test_an_end_that_is_reported_twice_counts_once(database: Database) -> None:
    def work(connection: Connection) -> tuple[JobState, str, int]:
        [job_id] = add(connection, new_job())
        [attempt_id] = run(connection, job_id)
        attempts.ended(connection, [End(attempt_id, Outcome.SUCCEEDED, 0)], NOW)
        attempts.ended(connection, [End(attempt_id, Outcome.LOST)], NOW + 5)
        [row] = attempts.of_job(connection, job_id)
        return state(connection, job_id), row.outcome, row.ended_at

    assert do(database, work) == (JobState.FINISHING, "succeeded", NOW)


@pytest.mark.parametrize(
    ("outcome", "retries", "rerun", "expected"),
    [
        (Outcome.FAILED, 0, False, JobState.FAILED),
        (Outcome.FAILED, 1, False, JobState.QUEUED),
        (Outcome.TIMED_OUT, 0, False, JobState.FAILED),
        (Outcome.EVICTED, 0, False, JobState.QUEUED),
        (Outcome.NODE_FAILED, 0, False, JobState.QUEUED),
        (Outcome.LOST, 0, False, JobState.FAILED),
        (Outcome.LOST, 0, True, JobState.QUEUED),
    ],
)
def test_a_bad_end_is_repeated_only_where_it_may_be(
    database: Database, outcome: Outcome, retries: int, rerun: bool, expected: JobState
) -> None:
    def work(connection: Connection) -> JobState:
        [job_id] = add(connection, new_job())
        end(connection, run(connection, job_id), outcome, retries=retries, rerun=rerun)
        return state(connection, job_id)

    assert do(database, work) is expected


def test_a_job_that_breaks_every_node_is_given_up(database: Database) -> None:
    def work(connection: Connection) -> tuple[JobState, int]:
        [job_id] = add(connection, new_job())
        while state(connection, job_id) is JobState.QUEUED:
            end(connection, run(connection, job_id), Outcome.NODE_FAILED)
        return state(connection, job_id), get(connection, job_id).attempts

    assert do(database, work) == (JobState.FAILED, MAX_FAULTS + 1)


def test_room_is_held_from_the_placing_to_the_end(database: Database) -> None:
    def work(connection: Connection) -> list[int]:
        [job_id] = add(connection, new_job())
        seen = [len(rooms.load(connection, None))]
        [attempt_id] = place(connection, job_id)
        seen.append(len(rooms.load(connection, [job_id])))
        attempts.ended(connection, [End(attempt_id, Outcome.REFUSED)], NOW)
        return [*seen, len(rooms.load(connection, None))]

    assert do(database, work) == [0, 1, 0]


def test_a_site_may_forget_an_attempt_only_when_its_job_has_gone_on(database: Database) -> None:
    def work(connection: Connection) -> tuple[list[str], list[str]]:
        [job_id] = add(connection, new_job())
        ids = run(connection, job_id)
        attempts.ended(connection, [End(ids[0], Outcome.SUCCEEDED, 0)], NOW)
        before = [row.id for row in attempts.to_forget(connection, "here", 10)]
        assert [row.state for row in attempts.finishing(connection, "here", 10)] == [AttemptState.ENDED]
        end(connection, ids)
        return before, [row.id for row in attempts.to_forget(connection, "here", 10)]

    before, after = do(database, work)
    assert before == []
    assert len(after) == 1


def test_an_eviction_becomes_a_cancellation_and_never_the_other_way(database: Database) -> None:
    def work(connection: Connection) -> list[str]:
        [job_id] = add(connection, new_job())
        run(connection, job_id)
        seen = []
        for reason in ("evicted", "cancelled", "evicted"):
            attempts.ask_to_stop(connection, [job_id], reason, {}, NOW)
            seen.append(attempts.of_job(connection, job_id)[0].stop_reason)
        return seen

    assert do(database, work) == ["evicted", "cancelled", "cancelled"]
