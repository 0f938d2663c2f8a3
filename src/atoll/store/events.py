"""The outbox: what changed, written in the transaction that changed it, and read by cursor.

An event's id is drawn under a lock that its transaction holds until it is committed, so ids rise in the order of
commits on both databases, and a reader that has seen id N will never find a smaller one later. The price is that
transactions which change something commit one after the other; each carries many changes (see `Database`).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select

from atoll.store.database import lock_order
from atoll.store.tables import events


@dataclass(frozen=True)
class Event:
    """One change. `job_id` is the row that changed; a task of an array has `array_id` and `task` too."""

    id: int
    at: int
    kind: str
    job_id: int | None
    array_id: int | None
    task: int | None
    owner: str | None
    state: str | None
    data: Mapping[str, Any]


def append(connection: Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write events. Each row has at, kind, and what is known of job_id, array_id, task, owner, state, data."""
    if not rows:
        return
    lock_order(connection)
    empty = dict.fromkeys(("job_id", "array_id", "task", "owner", "state", "data"))
    connection.execute(insert(events), [{**empty, **row} for row in rows])


def event_row(kind: str, now: int, job: Any, state: str, **data: Any) -> dict[str, Any]:
    """The event that says: the job row `job` came to `state`."""
    return {
        "at": now, "kind": kind, "job_id": job.id, "array_id": job.array_id, "task": job.task, "owner": job.owner,
        "state": state, "data": json.dumps(data, separators=(",", ":")) if data else None,
    }  # fmt: skip


def last_id(connection: Connection) -> int:
    """The id of the newest event, 0 where there is none."""
    return int(connection.execute(select(func.max(events.c.id))).scalar() or 0)


def first_id(connection: Connection) -> int:
    """The id of the oldest event that was not purged, 0 where there is none."""
    return int(connection.execute(select(func.min(events.c.id))).scalar() or 0)


def after(connection: Connection, cursor: int, limit: int = 1000, kinds: Iterable[str] = ()) -> list[Event]:
    """The next events after id `cursor`, in order."""
    query = select(events).where(events.c.id > cursor).order_by(events.c.id).limit(limit)
    if kinds:
        query = query.where(events.c.kind.in_(list(kinds)))
    return [
        Event(row.id, row.at, row.kind, row.job_id, row.array_id, row.task, row.owner, row.state,
              json.loads(row.data) if row.data else {})
        for row in connection.execute(query)
    ]  # fmt: skip


@dataclass(frozen=True)
class Changed:
    """What a stretch of events speaks of: rows of jobs (without repeats), and whether of sites and the others."""

    cursor: int
    jobs: list[int]
    sites: bool
    tree: bool = False
    """Whether the project tree has changed."""
    reservations: bool = False
    questions: bool = False


def changed(connection: Connection, cursor: int, limit: int) -> Changed:
    """What changed after `cursor`, without the details; at most `limit` events are read."""
    query = (
        select(events.c.id, events.c.kind, events.c.job_id, events.c.array_id)
        .where(events.c.id > cursor)
        .order_by(events.c.id)
        .limit(limit)
    )
    found: dict[int, None] = {}
    kinds: set[str] = set()
    for row in connection.execute(query):
        cursor = row.id
        kinds.add(row.kind)
        if row.job_id is not None:
            found[row.job_id] = None
        if row.array_id is not None:
            found[row.array_id] = None
    return Changed(cursor, list(found), "site" in kinds, "tree" in kinds, "reservation" in kinds, "question" in kinds)


def purge(connection: Connection, before: int, limit: int) -> int:
    """Remove at most `limit` events older than `before` (microseconds); returns how many. The newest always stays."""
    old = (
        select(events.c.id)
        .where(events.c.at < before, events.c.id < last_id(connection))
        .order_by(events.c.id)
        .limit(limit)
    )
    return connection.execute(delete(events).where(events.c.id.in_(old))).rowcount
