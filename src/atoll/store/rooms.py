"""The room that attempts take which have not ended, with all that the scheduler needs to know of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, select

from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.core.spec import JobClass
from atoll.core.states import Outcome
from atoll.store.attempts import AttemptRow, AttemptState
from atoll.store.jobs import chunked
from atoll.store.spots import read_spots
from atoll.store.tables import attempts, jobs


@dataclass(frozen=True)
class Room:
    """The room that an attempt takes."""

    attempt_id: str
    job_id: int
    site: str
    flavor: str
    request: Resources
    nodes: int
    class_: str
    priority: int
    waits: bool
    """Whether it has not begun, as far as is known."""
    leaving: bool
    """Whether it was asked to stop, or asked for before it begins."""
    array_id: int | None = None
    """Of a task: its array."""
    project: str | None = None
    person: str = ""
    name: str = ""
    """Its job's."""
    placed: int = 0
    """Times in microseconds; 0: not yet, or nobody knows."""
    started: int = 0
    saved: int = 0
    walltime: int | None = None
    """Seconds, as is its grace."""
    grace: int = 30
    evictions: int = 0
    """How often its job was evicted before."""
    leaves_for: int | None = None
    """The waiting job (row) that it leaves for, or will."""
    notice: int = 0
    """When it will be asked to, where it was told first."""
    spots: tuple[NodeSpot, ...] = ()
    """What it holds of each of its nodes, by rank, where Atoll chose them."""


def load(connection: Connection, job_ids: Sequence[int] | None) -> list[Room]:
    """The room taken by attempts that have not ended: of some jobs (rows), or of all."""
    known = select(attempts, *_OF_JOB).outerjoin_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
    query = known.where(attempts.c.kept, attempts.c.state != AttemptState.ENDED)
    found: list[AttemptRow] = []
    if job_ids is None:
        found += connection.execute(query)
    else:
        for piece in chunked(job_ids):
            found += connection.execute(query.where(attempts.c.job_id.in_(piece)))
    return [_room(row) for row in found]


_OF_JOB = (
    jobs.c.class_, jobs.c.priority, jobs.c.array_id, jobs.c.project, jobs.c.owner, jobs.c.walltime, jobs.c.evictions,
    jobs.c.grace.label("job_grace"), jobs.c.name,
)  # fmt: skip


def _room(row: AttemptRow) -> Room:
    """The room of an attempt; where its job is not known any more, as if that were an ordinary one."""
    return Room(
        row.id,
        row.job_id,
        row.site,
        row.flavor,
        Resources(row.cpu, row.memory, row.gpu),
        row.nodes,
        row.class_ or JobClass.BATCH,
        row.priority or 0,
        row.state != AttemptState.RUNNING,
        row.stop_reason is not None,
        row.array_id,
        project=row.project,
        person=row.owner or "",
        name=row.name or "",
        placed=row.placed_at,
        started=max(row.started_at, row.placed_at) if row.started_at else 0,
        saved=row.saved_at or 0,
        walltime=row.walltime,
        grace=30 if row.job_grace is None else row.job_grace,
        evictions=row.evictions or 0,
        leaves_for=row.evicted_for,
        notice=row.notice_at or 0,
        spots=read_spots(row.spots),
    )


class Span(NamedTuple):
    """From when to when an attempt ran, in microseconds; 0 and 0 of one that never began."""

    began: int = 0
    ended: int = 0
    told: bool = False
    """Whether it ran for as long as it needed, or as it might: others like it will take as long."""


_TELLING = (Outcome.SUCCEEDED, Outcome.TIMED_OUT)


def spans(connection: Connection, ids: Sequence[str], now: int) -> dict[str, Span]:
    """From when to when these attempts ran that have ended."""
    columns = (attempts.c.id, attempts.c.placed_at, attempts.c.started_at, attempts.c.ended_at, attempts.c.outcome)
    found: dict[str, Span] = {}
    for piece in chunked(ids):
        for row in connection.execute(select(*columns).where(attempts.c.id.in_(piece))):
            if row.started_at and row.ended_at:
                began, ended = max(row.started_at, row.placed_at), min(row.ended_at, now)
                found[row.id] = Span(began, ended, row.outcome in _TELLING)
            else:
                found[row.id] = Span()
    return found


class Run(NamedTuple):
    """A run that ended by itself or at its walltime."""

    person: str
    name: str
    class_: str
    walltime: int | None
    """Seconds, as is the next."""
    seconds: int


def last_runs(connection: Connection, most: int) -> list[Run]:
    """The last runs that tell how long others like them will take, the older first."""
    query = (
        select(jobs.c.owner, jobs.c.name, jobs.c.class_, jobs.c.walltime, attempts.c.started_at, attempts.c.ended_at)
        .join_from(attempts, jobs, jobs.c.id == attempts.c.job_id)
        .where(attempts.c.outcome.in_(_TELLING), attempts.c.started_at.is_not(None), attempts.c.ended_at.is_not(None))
        .order_by(attempts.c.id.desc())
        .limit(most)
    )
    found = [
        Run(row.owner, row.name, row.class_, row.walltime, max(0, row.ended_at - row.started_at) // 1_000_000)
        for row in connection.execute(query)
    ]
    return found[::-1]
