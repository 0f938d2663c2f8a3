"""Logins of browsers, and links by which people choose a password. Only digests of what is secret are kept."""

from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, or_, select, update

from atoll.store.people import Principal
from atoll.store.tables import logins, once_links, people


@dataclass(frozen=True)
class Login:
    """Who is logged in in a browser, and when that was last noted (microseconds)."""

    who: Principal
    used_at: int


def start(connection: Connection, digest: bytes, person: str, now: int) -> None:
    """Keep a new login."""
    connection.execute(insert(logins).values(digest=digest, person=person, created_at=now, used_at=now))


def find(connection: Connection, digest: bytes, used_after: int, begun_after: int) -> Login | None:
    """The login with this digest; None where it is over by either time (microseconds), or its person is disabled."""
    query = (
        select(logins.c.used_at, people.c.name, people.c.role, people.c.account)
        .join(people, people.c.name == logins.c.person)
        .where(
            logins.c.digest == digest, logins.c.used_at > used_after, logins.c.created_at > begun_after,
            people.c.disabled_at.is_(None),
        )
    )  # fmt: skip
    row = connection.execute(query).one_or_none()
    return Login(Principal(row.name, row.role == "administrator", None, row.account), row.used_at) if row else None


def use(connection: Connection, digest: bytes, now: int) -> None:
    """Note that a login was used; one that was ended meanwhile stays ended."""
    connection.execute(update(logins).where(logins.c.digest == digest, logins.c.used_at < now).values(used_at=now))


def end(connection: Connection, digest: bytes) -> str | None:
    """End a login; returns whose it was, None where there was none."""
    statement = delete(logins).where(logins.c.digest == digest).returning(logins.c.person)
    return connection.execute(statement).scalar_one_or_none()


def end_all(connection: Connection, person: str) -> None:
    """End all logins of a person."""
    connection.execute(delete(logins).where(logins.c.person == person))


def purge(connection: Connection, used_before: int, begun_before: int) -> int:
    """Remove logins that are over by either time; returns how many."""
    over = or_(logins.c.used_at <= used_before, logins.c.created_at <= begun_before)
    return connection.execute(delete(logins).where(over)).rowcount


def put_link(connection: Connection, person: str, digest: bytes, expires_at: int) -> None:
    """Keep the person's link; a former one is good no more."""
    drop_link(connection, person)
    connection.execute(insert(once_links).values(person=person, digest=digest, expires_at=expires_at))


def drop_link(connection: Connection, person: str) -> None:
    """Let the person's link, if there is one, be good no more."""
    connection.execute(delete(once_links).where(once_links.c.person == person))


def find_link(connection: Connection, digest: bytes, now: int) -> str | None:
    """Whose link has this digest and is still good."""
    query = (
        select(once_links.c.person)
        .join(people, people.c.name == once_links.c.person)
        .where(once_links.c.digest == digest, once_links.c.expires_at > now, people.c.disabled_at.is_(None))
    )
    return connection.execute(query).scalar_one_or_none()


def purge_links(connection: Connection, now: int) -> int:
    """Remove links that are good no more; returns how many."""
    return connection.execute(delete(once_links).where(once_links.c.expires_at <= now)).rowcount
