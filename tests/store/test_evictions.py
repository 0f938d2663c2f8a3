"""What the queue decides, in the store: promises, evictions, notices, reserved starts, and what was used."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.core.resources import Resources
from atoll.core.states import JobState, Outcome
from atoll.store import arrays, attempts, events, evictions, jobs, reserved, rooms, spent
from atoll.store.attempts import End, Start
from atoll.store.database import Database
from atoll.store.evictions import Eviction
from atoll.store.jobs import Promised
from atoll.store.spent import Use
from tests.support.rows import NOW, add, do, end, finish, get, new_array, new_job, place, run, state

SECOND = 1_000_000


def use(seconds: int = 10, **rest: Any) -> Use:
    key: dict[str, Any] = {"project": "astro", "person": "ana", "flavor": "cpu", "opportunistic": False}
    return Use(**{**key, "placed_at": NOW, "total": Resources(2000, 3 << 20, 0), **rest}, seconds=seconds)


def evict(connection: Connection, attempt_id: str, for_job: int, **rest: Any) -> Any:
    evictions.evict(connection, [Eviction(attempt_id, for_job, **rest)], NOW)
    return attempts.known(connection, [attempt_id])[attempt_id]


# ---- promises


def test_a_promise_goes_when_the_job_has_its_place(database: Database) -> None:
    def work(connection: Connection) -> None:
        [job_id] = add(connection, new_job())
        jobs.set_promises(connection, [Promised(job_id, "here", "cpu", 1)], NOW)
        assert get(connection, job_id).promised_site == "here"
        place(connection, job_id)
        row = get(connection, job_id)
        assert (row.promised_site, row.promised_flavor, row.promised_count) == (None, None, None)

    do(database, work)


def test_a_promise_to_an_array_shrinks_with_each_place(database: Database) -> None:
    def work(connection: Connection) -> list[int | None]:
        [array] = add(connection, new_array("0-5"))
        jobs.set_promises(connection, [Promised(array, "here", "cpu", 3)], NOW)
        counts = []
        for tasks in ("0-1", "2", "3"):
            place(connection, array, tasks)
            counts.append(get(connection, array).promised_count)
        return counts

    assert do(database, work) == [1, None, None]


def test_no_promise_is_made_to_what_does_not_wait_and_kept_to_what_is_held(database: Database) -> None:
    def work(connection: Connection) -> list[int | None]:
        runs, held, array = add(connection, new_job(), new_job(hold=True, state="held"), new_array("0-5"))
        run(connection, runs)
        jobs.set_promises(connection, [Promised(job_id, "here", "cpu", 2) for job_id in (runs, held, array)], NOW)
        counts = [get(connection, job_id).promised_count for job_id in (runs, held, array)]
        arrays.set_hold(connection, get(connection, array), True, NOW)
        return [*counts, get(connection, array).promised_count]

    assert do(database, work) == [None, None, 2, None]


# ---- evictions


def test_an_eviction_gives_the_jobs_own_grace(database: Database) -> None:
    def work(connection: Connection) -> None:
        victim, claim = add(connection, new_job(grace=7), new_job(project="astro"))
        [attempt] = run(connection, victim)
        row = evict(connection, attempt, claim)
        assert (row.stop_reason, row.grace, row.evicted_for) == ("evicted", 7, claim)
        assert state(connection, victim) is JobState.STOPPING
        assert "a claim of project astro" in get(connection, victim).sentence
        [room] = rooms.load(connection, [victim])
        assert (room.leaves_for, room.leaving) == (claim, True)

    do(database, work)


@pytest.mark.parametrize(("recalls", "expected"), [(False, "evicted"), (True, "recalled")])
def test_what_waits_at_a_site_is_asked_back_where_the_site_can(
    database: Database, recalls: bool, expected: str
) -> None:
    def work(connection: Connection) -> Any:
        victim, claim = add(connection, new_job(), new_job())
        [attempt] = place(connection, victim)
        attempts.begin_submitting(connection, [attempt], NOW, NOW + 1)
        attempts.submitted(connection, {attempt: "7"}, NOW)
        return evict(connection, attempt, claim, recalls=recalls).stop_reason

    assert do(database, work) == expected


def test_one_that_begins_although_it_was_asked_back_leaves_for_nobody(database: Database) -> None:
    def work(connection: Connection) -> None:
        victim, claim = add(connection, new_job(), new_job())
        [attempt] = place(connection, victim)
        attempts.begin_submitting(connection, [attempt], NOW, NOW + 1)
        evict(connection, attempt, claim, recalls=True)
        attempts.started(connection, [Start(attempt, NOW, "7", "R")], NOW)
        row = attempts.known(connection, [attempt])[attempt]
        assert (row.stop_reason, row.evicted_for) == (None, None)

    do(database, work)


def test_what_is_being_stopped_is_left_alone(database: Database) -> None:
    def work(connection: Connection) -> None:
        victim, claim = add(connection, new_job(), new_job())
        [attempt] = run(connection, victim)
        attempts.ask_to_stop(connection, [victim], "cancelled", {}, NOW)
        row = evict(connection, attempt, claim)
        assert (row.stop_reason, row.evicted_for) == ("cancelled", None)

    do(database, work)


def test_a_requeue_that_a_person_asked_for_is_no_eviction(database: Database) -> None:
    def work(connection: Connection) -> None:
        [job_id] = add(connection, new_job())
        ids = run(connection, job_id)
        attempts.ask_to_stop(connection, [job_id], "evicted", {}, NOW)
        end(connection, ids, Outcome.EVICTED)
        row = get(connection, job_id)
        assert (row.state, row.evictions) == ("queued", 0)

    do(database, work)


def test_a_notice_and_its_end_are_each_told_once(database: Database) -> None:
    def work(connection: Connection) -> list[tuple[str | None, int | None]]:
        victim, claim = add(connection, new_job(), new_job())
        [attempt] = run(connection, victim)
        before = events.last_id(connection)
        row = evict(connection, attempt, claim, at=NOW + 60 * SECOND)
        assert (row.notice_at, row.evicted_for, row.stop_reason) == (NOW + 60 * SECOND, claim, None)
        sentences = [get(connection, victim).sentence]
        evictions.reprieve(connection, [attempt], NOW)
        evictions.reprieve(connection, [attempt], NOW)
        sentences.append(get(connection, victim).sentence)
        assert [event.job_id for event in events.after(connection, before)] == [victim, victim]
        [room] = rooms.load(connection, [victim])
        assert (room.leaves_for, room.notice) == (None, 0)
        return sentences

    first, second = do(database, work)
    assert first == "Runs, and will be asked to leave at 2023-11-14 22:14 UTC for a job with a claim."
    assert second is None


def test_a_held_array_holds_the_tasks_that_were_evicted(database: Database) -> None:
    def work(connection: Connection) -> None:
        array, claim = add(connection, new_array("0-1"), new_job())
        [attempt] = run(connection, array, "0")
        evict(connection, attempt, claim)
        arrays.set_hold(connection, get(connection, array), True, NOW)
        attempts.ended(connection, [End(attempt, Outcome.EVICTED)], NOW)
        finish(connection, [attempt])
        [task] = jobs.get_tasks(connection, array)
        assert (task.state, task.hold, task.evictions) == ("held", True, 1)

    do(database, work)


# ---- reserved starts


def test_only_reservations_that_changed_are_written(database: Database) -> None:
    first, second, later = (
        reserved.Start(1, "here", "cpu", NOW), reserved.Start(2, "here", "cpu", NOW),
        reserved.Start(2, "here", "gpu", 5),
    )  # fmt: skip

    def work(connection: Connection) -> None:
        reserved.replace(connection, {}, [first, second])
        reserved.replace(connection, {1: first, 2: second}, [first, later])
        assert reserved.load(connection) == [later, first]
        assert reserved.get(connection, 2) == later
        reserved.replace(connection, {1: first, 2: later}, [])
        assert reserved.load(connection) == []

    do(database, work)


# ---- what was used


def test_use_is_summed_by_person_flavor_and_day(database: Database) -> None:
    def work(connection: Connection) -> None:
        spent.add(connection, [use(), use(), use(person="ben"), use(opportunistic=True)])
        spent.add(connection, [use(5), use(placed_at=NOW + spent.DAY), use(0, person="cid")])
        found = {(day.person, day.opportunistic, day.day): day.used for day in spent.load(connection)}
        today = NOW // spent.DAY
        assert found == {
            ("ana", False, today): Resources(50_000, 75 << 20, 0),
            ("ana", False, today + 1): Resources(20_000, 30 << 20, 0),
            ("ben", False, today): Resources(20_000, 30 << 20, 0),
            ("ana", True, today): Resources(20_000, 30 << 20, 0),
        }
        assert spent.purge(connection, NOW + spent.DAY) == 3

    do(database, work)


def test_whatever_a_site_says_the_sums_stay_in_their_columns(database: Database) -> None:
    def work(connection: Connection) -> None:
        for _ in range(20):
            spent.add(connection, [use(10**10, total=Resources(2**60, 2**60, 2**60))])

    do(database, work)


@pytest.mark.parametrize(
    ("began", "ended", "seconds"),
    [(NOW, NOW + 10 * SECOND, 10), (1, NOW + 10 * SECOND, 10), (NOW, NOW * 100, 30), (None, NOW + SECOND, 0)],
)
def test_an_end_counts_what_was_used_between_the_placing_and_the_news(
    database: Database, began: int | None, ended: int, seconds: int
) -> None:
    """Sites have clocks of their own."""

    def work(connection: Connection) -> None:
        [job_id] = add(connection, new_job(project="astro", nodes=2))
        [attempt] = place(connection, job_id)
        twice = [End(attempt, Outcome.FAILED, 1, started_at=began, ended_at=ended)] * 2
        attempts.ended(connection, twice, NOW + 30 * SECOND)
        attempts.ended(connection, twice, NOW + 30 * SECOND)
        found = [(day.project, day.person, day.used.cpu) for day in spent.load(connection)]
        assert found == ([("astro", "anna", 2000 * seconds)] if seconds else [])
        until = NOW + min(ended - NOW, 30 * SECOND)
        expected = (NOW, until) if began else (0, 0)
        span = rooms.spans(connection, [attempt], NOW + 30 * SECOND)[attempt]
        assert (span.began, span.ended) == expected

    do(database, work)


def test_tasks_have_the_limits_of_their_array(database: Database) -> None:
    def work(connection: Connection) -> None:
        [array] = add(connection, new_array("0-1", walltime=90, grace=5))
        run(connection, array, "0")
        [task] = jobs.get_tasks(connection, array)
        assert (task.walltime, task.grace, task.evictions) == (90, 5, 0)
        [room] = rooms.load(connection, [task.id])
        assert (room.walltime, room.grace, room.person, room.started) == (90, 5, "anna", NOW)

    do(database, work)
