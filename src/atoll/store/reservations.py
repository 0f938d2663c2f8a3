"""Reservations: room that is kept for somebody, or for maintenance, from one time to another."""

import json
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from atoll.core.resources import Resources
from atoll.store import events
from atoll.store.tables import reservations

EVENT = "reservation"
"""Kind of the event that says: reservations have changed."""
EVENT_PURPOSE, MAINTENANCE = "event", "maintenance"


@dataclass(frozen=True, slots=True)
class Reservation:
    """One of them. Either whole `nodes` of a flavor or `resources` in all; times in microseconds."""

    id: int
    name: str
    purpose: str
    """`event`: for a project or people; `maintenance`: for nobody."""
    flavor: str
    site: str | None
    """None: wherever the flavor is."""
    nodes: int
    resources: Resources
    project: str | None
    people: tuple[str, ...]
    starts_at: int
    ends_at: int
    created_by: str
    created_at: int


def load(connection: Connection, now: int) -> list[Reservation]:
    """Those that are not over at `now`, by begin."""
    query = select(reservations).where(reservations.c.ends_at > now)
    return [
        _reservation(row) for row in connection.execute(query.order_by(reservations.c.starts_at, reservations.c.id))
    ]


def get(connection: Connection, number: int) -> Reservation | None:
    """One of them, over or not."""
    row = connection.execute(select(reservations).where(reservations.c.id == number)).one_or_none()
    return _reservation(row) if row is not None else None


def add(connection: Connection, wanted: Reservation) -> int:
    """Keep a new one, whatever its id says; the id that it gets."""
    resources = wanted.resources
    values = {
        "name": wanted.name, "purpose": wanted.purpose, "flavor": wanted.flavor, "site": wanted.site,
        "nodes": wanted.nodes, "cpu": resources.cpu, "memory": resources.memory, "gpu": resources.gpu,
        "project": wanted.project, "people": json.dumps(list(wanted.people)), "starts_at": wanted.starts_at,
        "ends_at": wanted.ends_at, "created_by": wanted.created_by, "created_at": wanted.created_at,
    }  # fmt: skip
    number = int(connection.execute(insert(reservations).values(values).returning(reservations.c.id)).scalar_one())
    _tell(connection, number, "added", wanted.created_at)
    return number


def remove(connection: Connection, number: int, now: int) -> bool:
    """Take one out; whether it was there."""
    gone = connection.execute(delete(reservations).where(reservations.c.id == number)).rowcount == 1
    if gone:
        _tell(connection, number, "removed", now)
    return gone


def _tell(connection: Connection, number: int, what: str, now: int) -> None:
    data = json.dumps({"reservation": number})
    events.append(connection, [{"at": now, "kind": EVENT, "state": what, "data": data}])


def _reservation(row: Row[*tuple[Any, ...]]) -> Reservation:
    return Reservation(
        row.id, row.name, row.purpose, row.flavor, row.site, row.nodes, Resources(row.cpu, row.memory, row.gpu),
        row.project, tuple(json.loads(row.people)), row.starts_at, row.ends_at, row.created_by, row.created_at,
    )  # fmt: skip
