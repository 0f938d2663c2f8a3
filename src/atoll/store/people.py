"""Persons and their tokens. Of a token only the SHA-256 of its text is kept."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row, and_, insert, or_, select, update

from atoll.store.tables import people, tokens


@dataclass(frozen=True)
class Principal:
    """Who asks, as found by a token."""

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
    """The person's row (name, role, account, created_at), None where nobody has the name."""
    return connection.execute(select(people).where(people.c.name == name)).one_or_none()


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
    """Whose valid token has this digest; None where none has, or it expired or was revoked."""
    query = (
        select(tokens.c.id, people.c.name, people.c.role, people.c.account)
        .join(people, people.c.name == tokens.c.person)
        .where(
            tokens.c.digest == digest,
            tokens.c.revoked_at.is_(None),
            or_(tokens.c.expires_at.is_(None), tokens.c.expires_at > now),
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
