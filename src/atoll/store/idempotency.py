"""Idempotency keys: a creation that is sent again is answered as the first time, and creates nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, Row, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.core.errors import Conflict
from atoll.store.tables import idempotency


def find(connection: Connection, person: str, keys: list[str]) -> dict[str, Row[str, bytes, str]]:
    """What was answered before to these keys of `person`: rows (key, request digest, answer)."""
    columns = (idempotency.c.key, idempotency.c.request, idempotency.c.answer)
    query = select(*columns).where(idempotency.c.person == person, idempotency.c.key.in_(keys))
    return {row.key: row for row in connection.execute(query)}


@dataclass(frozen=True)
class Claim:
    """A key that is about to be used by a person, for a request (its digest) that will be answered so."""

    person: str
    key: str
    request: bytes
    answer: str


def claim(connection: Connection, claims: Sequence[Claim], now: int) -> set[tuple[str, str]]:
    """Keep those answers whose key nobody used before; returns their (person, key).

    Waits for other transactions that are about to use the same keys; those come before.
    """
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    taken: set[tuple[str, str]] = set()
    # in one order everywhere, so that two transactions with the same keys do not wait for each other
    for item in sorted(claims, key=lambda item: (item.person, item.key)):
        statement = (
            dialect.insert(idempotency)
            .values(person=item.person, key=item.key, request=item.request, answer=item.answer, created_at=now)
            .on_conflict_do_nothing()
            .returning(idempotency.c.key)
        )
        if connection.execute(statement).first() is not None:
            taken.add((item.person, item.key))
    return taken


def reused(key: str) -> Conflict:
    """What is wrong with a key that comes with another request than before."""
    sentence = f"The Idempotency-Key {key!r} was used for another request; use a new key for each."
    return Conflict("idempotency_key_reused", sentence, field="Idempotency-Key")


def purge(connection: Connection, before: int, limit: int) -> int:
    """Forget about `limit` of the keys older than `before` (microseconds); returns how many."""
    query = select(idempotency.c.created_at).where(idempotency.c.created_at < before)
    last = connection.execute(query.order_by(idempotency.c.created_at).offset(limit).limit(1)).scalar()
    cut = before if last is None else last + 1
    return connection.execute(delete(idempotency).where(idempotency.c.created_at < cut)).rowcount
