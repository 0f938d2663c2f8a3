"""Persons and their tokens. Of a token only the SHA-256 of its text is kept, of a password argon2id's text."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, func, insert, or_, select, update

from atoll.store.tables import people, tokens


@dataclass(frozen=True)
class Principal:
    """Who asks, as found by a token, or (then `token_id` is None) by the login of a browser."""

    person: str
    administrator: bool
    token_id: str | None = None
    account: str | None = None


def put_person(connection: Connection, name: str, role: str, account: str | None, now: int) -> None:
    """Make the person known, or change role and account."""
    values = {"role": role, "account": account}
    if connection.execute(update(people).where(people.c.name == name).values(values)).rowcount == 0:
        connection.execute(insert(people).values(name=name, created_at=now, **values))


def find_person(connection: Connection, name: str) -> Row[*tuple[Any, ...]] | None:
    """The person's row (name, role, account, created_at, password, disabled_at); None where nobody has the name."""
    return connection.execute(select(people).where(people.c.name == name)).one_or_none()


def list_people(connection: Connection) -> list[Row[*tuple[Any, ...]]]:
    """Everybody, by name."""
    return list(connection.execute(select(people).order_by(people.c.name)))


def change_person(connection: Connection, name: str, **values: Any) -> None:
    """Set columns of a person who is known."""
    connection.execute(update(people).where(people.c.name == name).values(values))


def count_administrators(connection: Connection, *, with_password: bool = False) -> int:
    """How many administrators there are who are not disabled (and have a password)."""
    query = select(func.count()).where(people.c.role == "administrator", people.c.disabled_at.is_(None))
    return int(
        connection.execute(query.where(people.c.password.is_not(None)) if with_password else query).scalar() or 0
    )


def insert_token(
    connection: Connection, token_id: str, person: str, name: str, digest: bytes, now: int, expires_at: int | None
) -> None:
    """Keep a new token."""
    connection.execute(
        insert(tokens).values(
            id=token_id, person=person, name=name, digest=digest, created_at=now, expires_at=expires_at
        )
    )


def find_by_digest(connection: Connection, digest: bytes, now: int) -> Principal | None:
    """Whose valid token has this digest; None where none has, it expired or was revoked, or its person is disabled."""
    query = (
        select(tokens.c.id, people.c.name, people.c.role, people.c.account)
        .join(people, people.c.name == tokens.c.person)
        .where(
            tokens.c.digest == digest,
            tokens.c.revoked_at.is_(None),
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
            people.c.disabled_at.is_(None),
        )
    )
    row = connection.execute(query).one_or_none()
    return Principal(row.name, row.role == "administrator", row.id, row.account) if row else None


def list_tokens(connection: Connection, person: str | None) -> list[Row[*tuple[Any, ...]]]:
    """Tokens that were not revoked, of one person or (None) of all; without their digests."""
    columns = (tokens.c.id, tokens.c.person, tokens.c.name, tokens.c.created_at, tokens.c.expires_at)
    query = select(*columns).where(tokens.c.revoked_at.is_(None)).order_by(tokens.c.created_at)
    return list(connection.execute(query if person is None else query.where(tokens.c.person == person)))


def revoke_token(connection: Connection, token_id: str, person: str | None, now: int) -> bool:
    """End a token, of `person` only where one is given. False where there is no such valid token."""
    mine = tokens.c.person == person if person is not None else tokens.c.id == tokens.c.id
    statement = update(tokens).where(and_(tokens.c.id == token_id, tokens.c.revoked_at.is_(None), mine))
    return connection.execute(statement.values(revoked_at=now)).rowcount == 1
