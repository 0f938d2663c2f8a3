"""Command lines that wait to be let in by somebody in a browser. Of their secret only the SHA-256 is kept."""

from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from atoll.store.tables import device_logins


def insert_device(connection: Connection, digest: bytes, code: str, machine: str, expires_at: int, gap: int) -> None:
    """Keep a new one; `gap` is the seconds between two questions."""
    connection.execute(
        insert(device_logins).values(digest=digest, code=code, machine=machine, expires_at=expires_at, gap=gap)
    )


def find_by_code(connection: Connection, code: str, now: int) -> Row[*tuple[Any, ...]] | None:
    """The one that shows this code and that nobody decided on yet; None where there is none."""
    query = select(device_logins).where(
        device_logins.c.code == code, device_logins.c.expires_at > now, device_logins.c.approved.is_(None)
    )
    return connection.execute(query).one_or_none()


def is_taken(connection: Connection, code: str) -> bool:
    """Whether there is one with this code, decided or over as it may be."""
    return connection.execute(select(device_logins.c.code).where(device_logins.c.code == code)).first() is not None


def find_by_digest(connection: Connection, digest: bytes, now: int) -> Row[*tuple[Any, ...]] | None:
    """The one whose secret has this digest, as long as it is not over."""
    query = select(device_logins).where(device_logins.c.digest == digest, device_logins.c.expires_at > now)
    return connection.execute(query).one_or_none()


def asked(connection: Connection, digest: bytes, gap: int, now: int) -> None:
    """Note that it asked, and the seconds that it has to wait from now on."""
    connection.execute(update(device_logins).where(device_logins.c.digest == digest).values(gap=gap, asked_at=now))


def decide(connection: Connection, digest: bytes, person: str, approved: bool) -> None:
    """Note who decided, and how."""
    values = {"person": person, "approved": approved}
    connection.execute(update(device_logins).where(device_logins.c.digest == digest).values(values))


def drop(connection: Connection, digest: bytes) -> None:
    """Remove it: it was answered."""
    connection.execute(delete(device_logins).where(device_logins.c.digest == digest))


def drop_all(connection: Connection, person: str) -> None:
    """Remove those that a person decided on."""
    connection.execute(delete(device_logins).where(device_logins.c.person == person))


def purge(connection: Connection, now: int) -> int:
    """Remove what is over; returns how many."""
    return connection.execute(delete(device_logins).where(device_logins.c.expires_at <= now)).rowcount
