"""The forecast of the queue: when the jobs that wait are expected to start. Only the dispatcher writes it."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, insert, select, update

from atoll.store.tables import forecasts

_ROW = 1


@dataclass(frozen=True, slots=True)
class Kept:
    """A forecast as it is kept: as of when (microseconds), itself, and what was learnt of those before it (JSON)."""

    at: int
    data: bytes
    learnt: str | None = None
    """Of one to write, None: what was learnt stays as it is kept."""


def write(connection: Connection, kept: Kept) -> None:
    """Put a forecast in the place of the one before."""
    values: dict[str, Any] = {"at": kept.at, "data": kept.data}
    if kept.learnt is not None:
        values["learnt"] = kept.learnt
    changed = connection.execute(update(forecasts).where(forecasts.c.id == _ROW).values(values))
    if not changed.rowcount:
        connection.execute(insert(forecasts).values(id=_ROW, **values))


def made_at(connection: Connection) -> int | None:
    """As of when the forecast is; None where there is none yet."""
    at: int | None = connection.execute(select(forecasts.c.at).where(forecasts.c.id == _ROW)).scalar()
    return at


def read(connection: Connection) -> Kept | None:
    """The forecast; None where there is none yet."""
    row = connection.execute(select(forecasts).where(forecasts.c.id == _ROW)).one_or_none()
    return Kept(row.at, row.data, row.learnt) if row is not None else None
