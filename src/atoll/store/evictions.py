"""Attempts that make room for waiting jobs with a claim: told first, asked to leave, or let stay after all."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, select, text, update

from atoll.core.clock import from_micros
from atoll.core.reasons import Reason, ReasonCode, leaving_for, told_to_leave
from atoll.core.states import HOLDS_ROOM, JobState
from atoll.store import events
from atoll.store.attempts import AttemptRow, AttemptState
from atoll.store.jobs import JobRow, Move, chunked, lock_states, move, waits
from atoll.store.tables import attempts, jobs

_BEFORE_STOPPING = HOLDS_ROOM - {JobState.STOPPING}
_EVICTED, _RECALLED = "evicted", "recalled"


@dataclass(frozen=True, slots=True)
class Eviction:
    """A decision to carry out: an attempt makes room for a waiting job, at once, or at `at` (microseconds)."""

    attempt_id: str
    for_job: int
    at: int = 0
    recalls: bool = False
    """Whether its site takes back what has not begun."""


def evict(connection: Connection, evictions: Sequence[Eviction], now: int) -> None:
    """Ask attempts to leave, each with its job's own grace, or tell them when they will be; the stop loop does it.

    One that has ended meanwhile, or is being stopped, is left alone, and so are all where the job waits no more. What
    has not begun is asked for back, and runs on if it begins after all.
    """
    claims = lock_states(connection, sorted({eviction.for_job for eviction in evictions}))
    wanted = {
        eviction.attempt_id: eviction
        for eviction in evictions
        if eviction.for_job in claims and waits(claims[eviction.for_job])
    }
    found = _unasked(connection, wanted)
    victims = lock_states(connection, sorted({row.job_id for row in found}))
    told = [row for row in found if wanted[row.id].at]
    asked = [row for row in found if not wanted[row.id].at]
    _note(connection, told, wanted)
    _ask(connection, asked, wanted, victims, now)
    reasons: dict[int, Reason | None] = {
        row.job_id: told_to_leave(from_micros(wanted[row.id].at), claims[wanted[row.id].for_job].project)
        for row in told
    }  # fmt: skip
    _tell(connection, [victims[row.job_id] for row in told if row.job_id in victims], now, reasons)
    recalled = [row for row in asked if _is_recalled(row, wanted[row.id])]
    _tell(connection, [victims[row.job_id] for row in recalled if row.job_id in victims], now)
    moves = []
    for row in asked:
        if row not in recalled and row.job_id in victims and victims[row.job_id].attempt_id == row.id:
            reason = leaving_for(claims[wanted[row.id].for_job].project)
            moves.append(Move(row.job_id, _BEFORE_STOPPING, JobState.STOPPING, reason.code, reason.sentence))
    move(connection, moves, now)


def reprieve(connection: Connection, ids: Sequence[str], now: int) -> None:
    """Let attempts stay that were told that they would be asked to leave, and were not yet."""
    found = [row for row in _unasked(connection, ids) if row.evicted_for is not None]
    for piece in chunked([row.id for row in found]):
        values = {"evicted_for": None, "notice_at": None}
        connection.execute(update(attempts).where(attempts.c.id.in_(piece)).values(values))
    rows = lock_states(connection, sorted({row.job_id for row in found}))
    _tell(connection, rows.values(), now, dict.fromkeys(rows))


def _unasked(connection: Connection, ids: Iterable[str]) -> list[AttemptRow]:
    """Those attempts that have not ended and that nobody asked to stop."""
    found: list[AttemptRow] = []
    for piece in chunked(sorted(ids)):
        query = select(attempts).where(
            attempts.c.id.in_(piece), attempts.c.state != AttemptState.ENDED, attempts.c.stop_reason.is_(None)
        )
        found += connection.execute(query.order_by(attempts.c.id).with_for_update())
    return found


def _is_recalled(row: AttemptRow, eviction: Eviction) -> bool:
    """Whether an attempt is asked for back: it has not begun, and comes back for certain if it never does."""
    before = (AttemptState.SUBMITTING, AttemptState.STARTING)
    return row.state == AttemptState.PLACED or (row.state in before and eviction.recalls)


def _note(connection: Connection, told: Sequence[AttemptRow], wanted: Mapping[str, Eviction]) -> None:
    statement = update(attempts).where(attempts.c.id == bindparam("key"))
    if told:
        connection.execute(
            statement.values(evicted_for=bindparam("claim"), notice_at=bindparam("moment")),
            [{"key": row.id, "claim": wanted[row.id].for_job, "moment": wanted[row.id].at} for row in told],
        )


def _ask(
    connection: Connection, asked: Sequence[AttemptRow], wanted: Mapping[str, Eviction], victims: Mapping[int, JobRow],
    now: int,
) -> None:  # fmt: skip
    statement = update(attempts).where(attempts.c.id == bindparam("key"))
    rows: list[dict[str, Any]] = []
    for row in asked:
        reason = _RECALLED if _is_recalled(row, wanted[row.id]) else _EVICTED
        grace = victims[row.job_id].grace if row.job_id in victims else 30
        rows.append({"key": row.id, "why": reason, "claim": wanted[row.id].for_job, "seconds": grace})
    if rows:
        values = {
            "stop_reason": bindparam("why"), "evicted_for": bindparam("claim"), "grace": bindparam("seconds"),
            "stop_asked_at": now, "stop_sent_at": None,
        }  # fmt: skip
        connection.execute(statement.values(values), rows)


def _tell(
    connection: Connection, rows: Iterable[JobRow], now: int, reasons: Mapping[int, Reason | None] | None = None
) -> None:
    """Say that something about jobs has changed, though not their state; `reasons`: what their owners are told."""
    told = list(rows)
    events.append(connection, [events.event_row("job", now, row, row.state) for row in told])
    if reasons is not None and told:
        statement = update(jobs).where(jobs.c.id == bindparam("key"), jobs.c.reason == ReasonCode.RUNNING)
        connection.execute(
            statement.values(sentence=bindparam("words")),
            [
                {"key": row.id, "words": None if (reason := reasons[row.id]) is None else reason.sentence}
                for row in told
            ],
        )


@dataclass(frozen=True, slots=True)
class Evicted:
    """An attempt that made room: whose it was, and for which project."""

    job_id: int
    array_id: int | None
    task: int | None
    name: str
    owner: str
    project: str | None
    class_: str
    site: str
    flavor: str
    ended_at: int
    for_project: str | None
    for_class: str | None
    """None: nobody knows any more for whom."""


def latest(connection: Connection, most: int) -> list[Evicted]:
    """The last that made room, the newest first."""
    query = text(
        "SELECT j.id, j.array_id, j.task, j.name, j.owner, j.project, j.class AS class_, a.site, a.flavor, a.ended_at, "
        "c.project AS for_project, c.class AS for_class FROM attempts a JOIN jobs j ON j.id = a.job_id "
        "LEFT JOIN jobs c ON c.id = a.evicted_for WHERE a.outcome = 'evicted' ORDER BY a.ended_at DESC LIMIT :most"
    )
    return [Evicted(*row) for row in connection.execute(query, {"most": most})]
