"""Attempts: each placing of a job at a site, from the decision to the end, together with what that does to the job.

Called by the loops in `control`, inside transactions that were guarded by the loop's lease.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import Connection, Row, bindparam, func, insert, or_, select, update

from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode, evicted_for, reason_of_end, recalled_from
from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.core.spec import JobClass
from atoll.core.states import (
    FAULTS,
    HOLDS_ROOM,
    JobState,
    Outcome,
    RetryPolicy,
    after_end,
    backoff,
)  # fmt: skip
from atoll.store import events, spent
from atoll.store.jobs import UNENDED, JobRow, Move, chunked, get_many, keep_promise, lock_states, move, take_tasks
from atoll.store.spent import Use
from atoll.store.spots import write_spots
from atoll.store.tables import attempts, jobs

AttemptRow = Row[*tuple[Any, ...]]
_STARTABLE = frozenset({JobState.PLACED})
_QUEUED = frozenset({JobState.QUEUED})
_RECALLED = "recalled"
"""The reason of a stop that counts only as long as the attempt has not begun."""


class AttemptState(StrEnum):
    """Where an attempt is."""

    PLACED = "placed"
    SUBMITTING = "submitting"
    """A call that hands it over was begun; nobody knows yet whether it landed."""
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class Placing:
    """A decision to carry out: a job, or `tasks` of an array, goes to a site. One attempt id for each."""

    job_id: int
    tasks: Ranges | None
    site: str
    flavor: str
    attempt_ids: Sequence[str]
    spots: Sequence[Sequence[NodeSpot]] = ()
    """For each attempt, in the order of their ids, its nodes by rank, where Atoll chose them; else empty."""


def place(connection: Connection, placings: Sequence[Placing], now: int) -> int:
    """Carry decisions out where the jobs still wait; returns how many attempts were made."""
    rows = lock_states(connection, [placing.job_id for placing in placings])
    made: list[dict[str, Any]] = []
    moves: list[Move] = []
    for placing in placings:
        row = rows.get(placing.job_id)
        if row is None or JobState(row.state) not in (JobState.QUEUED, JobState.RUNNING):
            continue
        if row.hold or row.blockers:
            continue  # held since the decision was made
        if placing.tasks is not None:
            tasks = _place_tasks(connection, row, placing, now)
            made += tasks
            keep_promise(connection, row, len(tasks))
            rows[row.id] = lock_states(connection, [row.id])[row.id]
        elif row.state == JobState.QUEUED:
            attempt_id = placing.attempt_ids[0]
            spots = placing.spots[0] if placing.spots else ()
            made.append(_attempt(row, row.id, attempt_id, row.attempts + 1, placing, spots, now))
            values = {"attempt_id": attempt_id, "site": placing.site, "attempts": row.attempts + 1}
            moves.append(Move(row.id, _QUEUED, JobState.PLACED, ReasonCode.PLACED, values=values))
    if made:
        connection.execute(insert(attempts), made)
    move(connection, moves, now)
    return len(made)


def _place_tasks(connection: Connection, array: JobRow, placing: Placing, now: int) -> list[dict[str, Any]]:
    ids = dict(zip(placing.tasks or (), placing.attempt_ids, strict=True))
    spots = dict(zip(ids, placing.spots, strict=True)) if placing.spots else {}
    columns = {task: {"attempt_id": ids[task], "site": placing.site, "attempts": 1} for task in ids}
    assert placing.tasks is not None
    taken = take_tasks(connection, array, placing.tasks, JobState.PLACED, ReasonCode.PLACED, now, columns)
    return [_attempt(array, row_id, ids[task], 1, placing, spots.get(task, ()), now) for task, row_id in taken.items()]


def _attempt(
    job: JobRow, row_id: int, attempt_id: str, number: int, placing: Placing, spots: Sequence[NodeSpot], now: int
) -> dict[str, Any]:
    return {
        "id": attempt_id, "job_id": row_id, "number": number, "site": placing.site, "flavor": placing.flavor,
        "state": AttemptState.PLACED, "cpu": job.cpu, "memory": job.memory, "gpu": job.gpu, "nodes": job.nodes,
        "spots": write_spots(spots), "placed_at": now, "kept": True,
    }  # fmt: skip


def held(connection: Connection, site: str) -> list[AttemptRow]:
    """Id, native id and account of what a site may hold of attempts that have not ended as far as is known."""
    handed = (AttemptState.SUBMITTING, AttemptState.STARTING, AttemptState.RUNNING)
    query = select(attempts.c.id, attempts.c.native_id, attempts.c.account).where(
        attempts.c.site == site, attempts.c.kept, attempts.c.state.in_(handed)
    )
    return list(connection.execute(query))


def set_accounts(connection: Connection, accounts: Mapping[str, str]) -> None:
    """Write down as which account of the site each attempt (by id) is handed over."""
    rows = [{"key": key, "new": account} for key, account in accounts.items()]
    if rows:
        connection.execute(
            update(attempts).where(attempts.c.id == bindparam("key")).values(account=bindparam("new")), rows
        )


def at_site(
    connection: Connection, site: str, states: Sequence[AttemptState], limit: int = 1_000_000, *,
    named: Sequence[str] | None = None,
) -> list[AttemptRow]:  # fmt: skip
    """Attempts at a site of which something is still kept there, in some states, in the order they were placed.

    Of all, or of those that are `named`.
    """
    query = (
        select(attempts)
        .where(attempts.c.site == site, attempts.c.kept, attempts.c.state.in_(list(states)))
        .order_by(attempts.c.id)
        .limit(limit)
    )
    if named is None:
        return list(connection.execute(query))
    return [
        row for piece in chunked(sorted(named)) for row in connection.execute(query.where(attempts.c.id.in_(piece)))
    ]


def any_live(connection: Connection, site: str) -> bool:
    """Whether an attempt that has not ended is at the site."""
    query = select(attempts.c.id).where(
        attempts.c.site == site, attempts.c.kept, attempts.c.state != AttemptState.ENDED
    )
    return connection.execute(query.limit(1)).first() is not None


def begin_submitting(connection: Connection, ids: Sequence[str], now: int, deadline: int) -> list[AttemptRow]:
    """Write down that a call which hands these attempts over begins now and has landed by `deadline`, or has not.

    Returns those that may be handed over: placed ones that nobody asked to stop.
    """
    found: list[AttemptRow] = []
    for piece in chunked(ids):
        query = (
            select(attempts)
            .where(attempts.c.id.in_(piece), attempts.c.stop_reason.is_(None), attempts.c.state == AttemptState.PLACED)
            .order_by(attempts.c.id)
            .with_for_update()
        )
        found += connection.execute(query)
    if found:
        connection.execute(
            update(attempts)
            .where(attempts.c.id == bindparam("key"))
            .values(state=AttemptState.SUBMITTING, submit_began_at=now, submit_deadline=deadline),
            [{"key": row.id} for row in found],
        )
    return found


def submitted(connection: Connection, native_ids: Mapping[str, str], now: int) -> None:
    """The engine has these attempts (native id by attempt id)."""
    _update(
        connection,
        [
            {"key": key, "native_id": native_id, "state": AttemptState.STARTING, "submitted_at": now}
            for key, native_id in native_ids.items()
        ],
        (AttemptState.PLACED, AttemptState.SUBMITTING),
    )
    jobs_of = _job_ids(connection, list(native_ids))
    move(
        connection,
        [Move(job, _STARTABLE, JobState.STARTING, ReasonCode.STARTING) for job in jobs_of.values()],
        now,
    )


def waits(connection: Connection, sentences: Mapping[str, str]) -> None:
    """These attempts wait in their engine's own queue, for reasons in its words. No event: a reason is read."""
    connection.execute(
        update(attempts).where(attempts.c.id == bindparam("key")).values(message=bindparam("words")),
        [{"key": key, "words": words[:4000]} for key, words in sentences.items()],
    )
    jobs_of = _job_ids(connection, list(sentences))
    if jobs_of:
        connection.execute(
            update(jobs)
            .where(jobs.c.id == bindparam("key"), jobs.c.state == JobState.STARTING)
            .values(sentence=bindparam("words")),
            [{"key": job, "words": sentences[key][:4000]} for key, job in jobs_of.items()],
        )


def set_expected(connection: Connection, expected: Mapping[str, int | None]) -> None:
    """Note when their engine expects to start attempts that wait in its queue; None: it does not say. No event."""
    connection.execute(
        update(attempts).where(attempts.c.id == bindparam("key")).values(expected_at=bindparam("moment")),
        [{"key": key, "moment": moment} for key, moment in expected.items()],
    )


def queueing(connection: Connection, job_ids: Sequence[int]) -> dict[int, AttemptRow]:
    """The attempts of some jobs (rows) that are at a site and have not begun, as far as is known, by job.

    Of each: site, placed_at, expected_at, and its job's class.
    """
    columns = (attempts.c.site, attempts.c.placed_at, attempts.c.expected_at, jobs.c.class_)
    query = (
        select(jobs.c.id, *columns)
        .join_from(jobs, attempts, attempts.c.id == jobs.c.attempt_id)
        .where(jobs.c.state.in_((JobState.PLACED, JobState.STARTING)))
    )
    return {row.id: row for piece in chunked(job_ids) for row in connection.execute(query.where(jobs.c.id.in_(piece)))}


def queueing_tasks(connection: Connection, array_ids: Sequence[int]) -> dict[int, list[AttemptRow]]:
    """The same of the tasks of some arrays, by array; those that are alike in all this are one."""
    columns = (attempts.c.site, attempts.c.placed_at, attempts.c.expected_at, jobs.c.class_)
    # not by the index of arrays: there a million tasks that ended may stand before those that wait
    array = jobs.c.array_id + 0
    query = (
        select(jobs.c.array_id, *columns)
        .join_from(jobs, attempts, attempts.c.id == jobs.c.attempt_id)
        .where(UNENDED, jobs.c.state.in_((JobState.PLACED, JobState.STARTING)), jobs.c.array_id.is_not(None))
        .distinct()
    )
    found: dict[int, list[AttemptRow]] = {}
    for piece in chunked(array_ids):
        for row in connection.execute(query.where(array.in_(piece))):
            found.setdefault(row.array_id, []).append(row)
    return found


@dataclass(frozen=True)
class Start:
    """An attempt was seen running."""

    attempt_id: str
    started_at: int
    native_id: str
    native_state: str


def started(connection: Connection, starts: Sequence[Start], now: int) -> None:
    """These attempts run."""
    _update(
        connection,
        [
            {"key": start.attempt_id, "native_id": start.native_id, "native_state": start.native_state,
             "started_at": start.started_at, "state": AttemptState.RUNNING, "missing_since": None, "message": None}
            for start in starts
        ],
        (AttemptState.PLACED, AttemptState.SUBMITTING, AttemptState.STARTING),
    )  # fmt: skip
    jobs_of = _job_ids(connection, [start.attempt_id for start in starts])
    _ensure_starting(connection, list(jobs_of.values()), now)
    _drop_recalls(connection, [start.attempt_id for start in starts])
    running = [
        Move(jobs_of[start.attempt_id], frozenset({JobState.STARTING}), JobState.RUNNING, ReasonCode.RUNNING,
             values={"started_at": start.started_at})
        for start in starts if start.attempt_id in jobs_of
    ]  # fmt: skip
    move(connection, running, now)


def _ensure_starting(connection: Connection, job_ids: Sequence[int], now: int) -> None:
    """What runs was taken by the engine, even where the answer that said so never came."""
    moves = [Move(job_id, _STARTABLE, JobState.STARTING, ReasonCode.STARTING) for job_id in job_ids]
    move(connection, moves, now)


@dataclass(frozen=True)
class End:
    """How an attempt ended. Times in microseconds, None where nobody knows."""

    attempt_id: str
    outcome: Outcome
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    native_id: str | None = None
    native_state: str = ""
    started_at: int | None = None
    ended_at: int | None = None
    max_memory: int | None = None
    cpu_seconds: float | None = None
    permanent: bool = False


def ended(connection: Connection, ends: Sequence[End], now: int) -> None:
    """These attempts have ended: their room is free, what they used is counted, their jobs finish."""
    spent.add(connection, _uses(connection, ends, now))
    _update(
        connection,
        [
            {"key": end.attempt_id, "state": AttemptState.ENDED, "outcome": end.outcome, "exit_code": end.exit_code,
             "signal": end.signal, "message": end.message[:4000] or None, "native_state": end.native_state,
             "started_at": end.started_at, "ended_at": end.ended_at or now, "max_memory": end.max_memory,
             "cpu_seconds": end.cpu_seconds, "permanent": end.permanent, "native_id": end.native_id or None}
            for end in ends
        ],
        (AttemptState.PLACED, AttemptState.SUBMITTING, AttemptState.STARTING, AttemptState.RUNNING),
    )  # fmt: skip
    jobs_of = _job_ids(connection, [end.attempt_id for end in ends])
    moves = []
    for end in ends:
        if end.attempt_id in jobs_of:
            values: dict[str, Any] = {"outcome": end.outcome, "exit_code": end.exit_code}
            if end.started_at is not None:
                values["started_at"] = end.started_at
            job_id = jobs_of[end.attempt_id]
            moves.append(Move(job_id, HOLDS_ROOM, JobState.FINISHING, ReasonCode.FINISHING, values=values))
    move(connection, moves, now)


def _uses(connection: Connection, ends: Sequence[End], now: int) -> list[Use]:
    """What those attempts used that had not ended before; of one that never began, nothing."""
    columns = (
        attempts.c.id, attempts.c.flavor, attempts.c.cpu, attempts.c.memory, attempts.c.gpu, attempts.c.nodes,
        attempts.c.placed_at, attempts.c.started_at, jobs.c.project, jobs.c.owner, jobs.c.class_,
    )  # fmt: skip
    query = select(*columns).join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    by_id: dict[str, End] = {}
    for end in ends:
        by_id.setdefault(end.attempt_id, end)
    uses = []
    for piece in chunked(list(by_id)):
        for row in connection.execute(query.where(attempts.c.id.in_(piece), attempts.c.state != AttemptState.ENDED)):
            end = by_id[row.id]
            began = end.started_at or row.started_at
            if began is not None:
                # sites have clocks of their own: nothing runs before it was placed, or ends after we heard of it
                seconds = (min(end.ended_at or now, now) - max(began, row.placed_at)) // 1_000_000
                total = Resources(row.cpu, row.memory, row.gpu) * row.nodes
                key = (row.project or "", row.owner, row.flavor, row.class_ == JobClass.OPPORTUNISTIC)
                uses.append(Use(*key, placed_at=row.placed_at, total=total, seconds=max(0, seconds)))
    return uses


def finishing(connection: Connection, site: str, limit: int) -> list[AttemptRow]:
    """Ended attempts at a site whose jobs still finish, oldest first."""
    query = (
        select(attempts)
        .join(jobs, (jobs.c.id == attempts.c.job_id) & (jobs.c.attempt_id == attempts.c.id))
        .where(
            attempts.c.site == site, attempts.c.kept, attempts.c.state == AttemptState.ENDED,
            jobs.c.state == JobState.FINISHING,
        )
        .order_by(attempts.c.id)
        .limit(limit)
    )  # fmt: skip
    return list(connection.execute(query))


@dataclass(frozen=True)
class Finished:
    """An attempt whose output is safe, and what its job asked for in case of a bad end."""

    attempt_id: str
    job_id: int
    retries: int
    rerun: bool


def finish(connection: Connection, finished: Sequence[Finished], now: int, most_evictions: int = 3) -> None:
    """Bring finishing jobs to their end, or back into the queue.

    Opportunistic jobs that were evicted more than `most_evictions` times wait a while, longer each time.
    """
    rows = lock_states(connection, [item.job_id for item in finished])
    ends = _load(connection, [item.attempt_id for item in finished])
    arrays = sorted({row.array_id for row in rows.values() if row.array_id is not None})
    held = {row.id for row in get_many(connection, arrays, (jobs.c.id, jobs.c.hold)).values() if row.hold}
    moves = []
    for item in finished:
        row, end = rows.get(item.job_id), ends.get(item.attempt_id)
        if row is not None and end is not None and row.attempt_id == item.attempt_id:
            hold = row.hold or row.array_id in held
            if Outcome(end.outcome) is Outcome.EVICTED and end.evicted_for is not None and not row.cancel:
                moves.append(_after_eviction(connection, row, end, now, most_evictions, hold=hold))
            else:
                moves.append(_after_end(row, end, item, now, hold=hold))
    move(connection, moves, now)


_FINISHING = frozenset({JobState.FINISHING})


def _after_end(row: JobRow, end: AttemptRow, item: Finished, now: int, *, hold: bool) -> Move:
    outcome = Outcome(end.outcome)
    policy = RetryPolicy(item.retries, item.rerun, row.failures, row.faults)
    state = after_end(outcome, policy, cancel_asked=row.cancel, permanent=end.permanent)
    if state is JobState.CANCELLED and outcome in (Outcome.RECALLED, Outcome.EVICTED):
        # it left for another reason before the site heard of this one
        values: dict[str, Any] = {"ended_at": end.ended_at or now, "outcome": Outcome.CANCELLED}
        return Move(row.id, _FINISHING, state, ReasonCode.CANCELLED, values=values)
    if outcome is Outcome.RECALLED:
        return _after_recall(row, end, hold=hold)
    reason = reason_of_end(outcome, end.exit_code, end.signal, end.message or "")
    if state is not JobState.QUEUED:
        return Move(row.id, _FINISHING, state, reason.code, reason.sentence, {"ended_at": end.ended_at or now})
    values = {"outcome": None, "exit_code": None, "started_at": None}
    repeats = row.failures + row.faults
    if outcome in FAULTS:
        values["faults"] = row.faults + 1
        repeats += 1
    elif outcome is not Outcome.EVICTED:
        values["failures"] = row.failures + 1
        repeats += 1
    values["not_before"] = now + int(backoff(repeats) * 1_000_000)
    sentence = f"Is tried again: attempt {end.number} ended so: {reason.sentence}"
    if hold:
        values["hold"] = True  # a task holds with its array, and is released with it
        return Move(row.id, _FINISHING, JobState.HELD, ReasonCode.HELD_BY_USER, sentence, values)
    return Move(row.id, _FINISHING, JobState.QUEUED, ReasonCode.BACKOFF, sentence, values)


def _after_recall(row: JobRow, end: AttemptRow, *, hold: bool) -> Move:
    """Back into the queue at its old age, as if it had never left it."""
    values: dict[str, Any] = {"outcome": None, "exit_code": None, "started_at": None}
    reason = recalled_from(end.site)
    if hold:
        values["hold"] = True
        return Move(row.id, _FINISHING, JobState.HELD, ReasonCode.HELD_BY_USER, reason.sentence, values)
    return Move(row.id, _FINISHING, JobState.QUEUED, reason.code, reason.sentence, values)


def _after_eviction(
    connection: Connection, row: JobRow, end: AttemptRow, now: int, most: int, *, hold: bool
) -> Move:  # fmt: skip
    """Back into the queue at its old age; opportunistic ones that come and go only to leave again wait a little."""
    count = row.evictions + 1
    values: dict[str, Any] = {"outcome": None, "exit_code": None, "started_at": None, "evictions": count}
    reason = evicted_for(project_of(connection, end.evicted_for))
    if hold:
        values["hold"] = True
        return Move(row.id, _FINISHING, JobState.HELD, ReasonCode.HELD_BY_USER, reason.sentence, values)
    if row.class_ == JobClass.OPPORTUNISTIC and count > most:
        values["not_before"] = now + int(backoff(count - most) * 1_000_000)
        sentence = f"Waits a while, because it was evicted {count} times: there is little that is idle."
        return Move(row.id, _FINISHING, JobState.QUEUED, ReasonCode.BACKOFF, sentence, values)
    return Move(row.id, _FINISHING, JobState.QUEUED, reason.code, reason.sentence, values)


def project_of(connection: Connection, job_id: int) -> str | None:
    """The project of a job; None where it has none, or nothing is known of it any more."""
    found: str | None = connection.execute(select(jobs.c.project).where(jobs.c.id == job_id)).scalar()
    return found


def pull_back(connection: Connection, ids: Sequence[str], now: int) -> None:
    """Ask for attempts back that have not begun. The stop loop does it; one that begins after all runs on.

    Nobody is told before it is done: the event says no more than that there is something to look at.
    """
    asked: list[int] = []
    before = (AttemptState.PLACED, AttemptState.SUBMITTING, AttemptState.STARTING)
    for piece in chunked(ids):
        statement = (
            update(attempts)
            .where(attempts.c.id.in_(piece), attempts.c.state.in_(before), attempts.c.stop_reason.is_(None))
            .values(stop_reason=_RECALLED, stop_asked_at=now, stop_sent_at=None)
            .returning(attempts.c.job_id)
        )
        asked += connection.execute(statement).scalars()
    rows = get_many(connection, sorted(asked), (jobs.c.id, jobs.c.array_id, jobs.c.task, jobs.c.owner, jobs.c.state))
    events.append(connection, [events.event_row("job", now, row, row.state) for row in rows.values()])


def _drop_recalls(connection: Connection, ids: Sequence[str]) -> None:
    """These have begun: they are asked for no more."""
    for piece in chunked(ids):
        connection.execute(
            update(attempts)
            .where(
                attempts.c.id.in_(piece), attempts.c.state == AttemptState.RUNNING,
                attempts.c.stop_reason == _RECALLED,
            )
            .values(stop_reason=None, stop_asked_at=None, stop_sent_at=None, evicted_for=None)
        )  # fmt: skip


def ask_to_stop(
    connection: Connection, job_ids: Sequence[int], reason: str, grace: Mapping[int, int], now: int
) -> None:
    """Ask that the current attempts of jobs stop; `grace` in seconds by job id. The stop loop does it."""
    rows = lock_states(connection, job_ids)
    # an array has no attempt of its own: its tasks are asked one by one
    live = {
        row.attempt_id: row.id
        for row in rows.values()
        if JobState(row.state) in HOLDS_ROOM and row.attempt_id is not None
    }
    for piece in chunked(list(live)):
        for attempt_id in piece:
            connection.execute(
                update(attempts)
                .where(attempts.c.id == attempt_id, or_(
                    attempts.c.stop_reason.is_(None), attempts.c.stop_reason.in_(("evicted", _RECALLED))))
                .values(stop_reason=reason, stop_asked_at=now, grace=grace.get(live[attempt_id], 30),
                        stop_sent_at=None)
            )  # fmt: skip
    before = HOLDS_ROOM - {JobState.STOPPING}
    moves = [Move(job_id, before, JobState.STOPPING, ReasonCode.STOPPING) for job_id in live.values()]
    move(connection, moves, now)


def to_stop(connection: Connection, site: str, sent_before: int) -> list[AttemptRow]:
    """Attempts at a site that shall stop, have not ended, and whose site was not told since `sent_before`."""
    query = (
        select(attempts)
        .where(
            attempts.c.site == site, attempts.c.kept, attempts.c.stop_reason.is_not(None),
            attempts.c.state != AttemptState.ENDED,
            or_(attempts.c.stop_sent_at.is_(None), attempts.c.stop_sent_at < sent_before),
        )
        .order_by(attempts.c.id)
    )  # fmt: skip
    return list(connection.execute(query))


def stop_sent(connection: Connection, reasons: Mapping[str, str], now: int) -> None:
    """The site was told to stop these attempts for these reasons; what has another one by now is still to be told."""
    rows = [{"key": key, "said": reason} for key, reason in reasons.items()]
    if rows:
        told = (attempts.c.id == bindparam("key")) & (attempts.c.stop_reason == bindparam("said"))
        connection.execute(update(attempts).where(told).values(stop_sent_at=now), rows)


def set_missing(connection: Connection, ids: Sequence[str], since: int | None) -> None:
    """A complete observation begun at `since` lacked these attempts; None: they were seen again."""
    for piece in chunked(ids):
        connection.execute(update(attempts).where(attempts.c.id.in_(piece)).values(missing_since=since))


def known(connection: Connection, ids: Sequence[str]) -> dict[str, AttemptRow]:
    """The rows of those `ids` that are attempts of this platform."""
    return _load(connection, ids)


def to_forget(connection: Connection, site: str, limit: int) -> list[AttemptRow]:
    """Ended attempts at a site whose jobs have gone on, so that the site need keep nothing of them.

    Of each row: id, native id and account.
    """
    query = (
        select(attempts.c.id, attempts.c.native_id, attempts.c.account)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.site == site, attempts.c.kept, attempts.c.state == AttemptState.ENDED,
            (jobs.c.state != JobState.FINISHING) | (jobs.c.attempt_id != attempts.c.id),
        )
        .limit(limit)
    )  # fmt: skip
    return list(connection.execute(query))


def forgotten(connection: Connection, ids: Sequence[str]) -> None:
    """The site keeps nothing of these attempts any more."""
    for piece in chunked(ids):
        connection.execute(update(attempts).where(attempts.c.id.in_(piece)).values(kept=False))


def of_job(connection: Connection, job_id: int) -> list[AttemptRow]:
    """The attempts of a job (row), first to last."""
    query = select(attempts).where(attempts.c.job_id == job_id).order_by(attempts.c.number)
    return list(connection.execute(query))


def _load(connection: Connection, ids: Sequence[str]) -> dict[str, AttemptRow]:
    found: dict[str, AttemptRow] = {}
    for piece in chunked(ids):
        for row in connection.execute(select(attempts).where(attempts.c.id.in_(piece))):
            found[row.id] = row
    return found


def _job_ids(connection: Connection, ids: Sequence[str]) -> dict[str, int]:
    """Job row by attempt, where the attempt is still that job's current one."""
    found: dict[str, int] = {}
    for piece in chunked(ids):
        current = (jobs.c.id == attempts.c.job_id) & (jobs.c.attempt_id == attempts.c.id)
        query = select(jobs.c.id, jobs.c.attempt_id).join(attempts, current)
        for row in connection.execute(query.where(attempts.c.id.in_(piece))):
            found[row.attempt_id] = row.id
    return found


def _update(connection: Connection, rows: Sequence[Mapping[str, Any]], before: Sequence[AttemptState]) -> None:
    """Write the same columns of many attempts, of each only while it is in a state of `before`.

    A native id that is None leaves the one that is known.
    """
    if rows:
        keys = [key for key in rows[0] if key != "key"]
        values: dict[str, Any] = {key: bindparam(f"new_{key}") for key in keys}
        if "native_id" in values:
            known = attempts.c.native_id
            values["native_id"] = func.coalesce(bindparam("new_native_id", type_=known.type), known)
        statement = (
            update(attempts)
            .where(attempts.c.id == bindparam("key"), or_(*(attempts.c.state == state for state in before)))
            .values(values)
        )
        connection.execute(statement, [{"key": row["key"], **{f"new_{key}": row[key] for key in keys}} for row in rows])


def add_note(connection: Connection, attempt_id: str, note: str) -> None:
    """Add a sentence to what is told of an attempt."""
    said = connection.execute(select(attempts.c.message).where(attempts.c.id == attempt_id)).scalar()
    message = f"{said} {note}" if said else note
    connection.execute(update(attempts).where(attempts.c.id == attempt_id).values(message=message[:4000]))


def keep_submitting(connection: Connection, ids: Sequence[str], deadline: int) -> int:
    """The call that hands these over goes on: it has landed by this `deadline`, or has not.

    Returns how many of them nobody has asked to stop.
    """
    wanted = 0
    for piece in chunked(ids):
        handed = (attempts.c.id.in_(piece), attempts.c.state == AttemptState.SUBMITTING)
        connection.execute(update(attempts).where(*handed).values(submit_deadline=deadline))
        query = select(func.count()).where(*handed, attempts.c.stop_reason.is_(None))
        wanted += connection.execute(query).scalar_one()
    return wanted


def not_landed(connection: Connection, ids: Sequence[str], now: int) -> None:
    """The call that should have handed these over did not reach the engine: they are to be handed over again."""
    rows = lock_states(connection, list(_job_ids(connection, ids).values()))
    events.append(connection, [events.event_row("job", now, row, row.state) for row in rows.values()])
    for piece in chunked(ids):
        connection.execute(
            update(attempts)
            .where(attempts.c.id.in_(piece), attempts.c.state == AttemptState.SUBMITTING)
            .values(state=AttemptState.PLACED, submit_deadline=None)
        )


def end_unsubmitted(connection: Connection, ids: Sequence[str], now: int) -> list[str]:
    """End those attempts that nobody has begun to hand over, for the reason for which they are stopped."""
    found: list[AttemptRow] = []
    for piece in chunked(ids):
        query = select(attempts).where(attempts.c.id.in_(piece), attempts.c.state == AttemptState.PLACED)
        found += connection.execute(query.with_for_update())
    outcomes = {"cancelled": Outcome.CANCELLED, "evicted": Outcome.EVICTED, _RECALLED: Outcome.RECALLED}
    ended(connection, [End(row.id, outcomes[row.stop_reason]) for row in found if row.stop_reason], now)
    return [row.id for row in found]


def sites_with_placed(connection: Connection) -> list[str]:
    """The sites at which something was placed that nobody has handed over."""
    query = select(attempts.c.site).distinct().where(attempts.c.kept, attempts.c.state == AttemptState.PLACED)
    return list(connection.execute(query).scalars())


def recall(connection: Connection, site: str, message: str, now: int) -> int:
    """Take back what was placed at a site and never reached it: its jobs wait again, or end where that was asked.

    Returns how many attempts. Nothing of them is at the site, so nothing is to be brought home.
    """
    rows = at_site(connection, site, [AttemptState.PLACED])
    outcomes = {"cancelled": Outcome.CANCELLED}
    ends = [End(row.id, outcomes.get(row.stop_reason, Outcome.EVICTED), message=message) for row in rows]
    ended(connection, ends, now)
    finish(connection, [Finished(row.id, row.job_id, retries=0, rerun=False) for row in rows], now)
    return len(rows)


def count_unfinished(connection: Connection, site: str) -> int:
    """How many attempts at a site have not ended, or have something there that their jobs wait for."""
    query = (
        select(func.count())
        .select_from(attempts)
        .join(jobs, jobs.c.id == attempts.c.job_id)
        .where(
            attempts.c.site == site, attempts.c.kept,
            or_(
                attempts.c.state != AttemptState.ENDED,
                (jobs.c.state == JobState.FINISHING) & (jobs.c.attempt_id == attempts.c.id),
            ),
        )
    )  # fmt: skip
    return int(connection.execute(query).scalar_one())
