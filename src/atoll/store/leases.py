"""Leases: who may run a loop now, by the database's clock, with an epoch that rises at each change of hands.

A holder that was paused finds another epoch, and its guarded write is refused; so it does no harm.
"""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from atoll.store.database import database_now
from atoll.store.tables import leases


@dataclass(frozen=True)
class Lease:
    """A lease that was granted. `epoch` is written beside everything done under it."""

    name: str
    holder: str
    epoch: int


class StaleLease(Exception):
    """The lease went to somebody else; what was about to be written must not be."""


def acquire(connection: Connection, name: str, holder: str, seconds: float) -> Lease | None:
    """Take the lease `name`, or renew it, for `seconds`. None while somebody else has it."""
    now = database_now(connection)
    query = select(leases).where(leases.c.name == name).with_for_update()
    row = connection.execute(query).one_or_none()
    expires = now + int(seconds * 1_000_000)
    if row is None:
        try:
            with connection.begin_nested():
                connection.execute(insert(leases).values(name=name, holder=holder, epoch=1, expires_at=expires))
        except IntegrityError:
            return None
        return Lease(name, holder, 1)
    if row.holder != holder and row.expires_at > now:
        return None
    epoch = row.epoch if row.holder == holder else row.epoch + 1
    connection.execute(
        update(leases).where(leases.c.name == name).values(holder=holder, epoch=epoch, expires_at=expires)
    )
    return Lease(name, holder, epoch)


def release(connection: Connection, lease: Lease) -> None:
    """Give the lease back, so that another need not wait for its end."""
    connection.execute(
        update(leases)
        .where(leases.c.name == lease.name, leases.c.holder == lease.holder, leases.c.epoch == lease.epoch)
        .values(expires_at=0)
    )


def guard(connection: Connection, lease: Lease) -> None:
    """Refuse to go on (StaleLease) unless `lease` is still ours; nobody can take it before this transaction ends."""
    query = select(leases.c.holder, leases.c.epoch).where(leases.c.name == lease.name)
    if connection.dialect.name == "postgresql":
        query = query.with_for_update(read=True)
    row = connection.execute(query).one_or_none()
    if row is None or row.holder != lease.holder or row.epoch != lease.epoch:
        raise StaleLease(lease.name)


def forget(connection: Connection, name: str) -> None:
    """Remove a lease that nothing needs any more, such as that of a removed site."""
    connection.execute(delete(leases).where(leases.c.name == name))


def expire_all(connection: Connection) -> None:
    """End all leases: for one who knows that it is alone."""
    connection.execute(update(leases).values(expires_at=0))


def is_held(connection: Connection, name: str) -> bool:
    """Whether anybody holds the lease now."""
    query = select(leases.c.name).where(leases.c.name == name, leases.c.expires_at > database_now(connection))
    return connection.execute(query).first() is not None
