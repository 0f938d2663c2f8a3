"""Idempotency keys: a creation that is sent again is answered as the first time, and creates nothing."""

from sqlalchemy import Connection, Row, delete, insert, select

from atoll.store.tables import idempotency


def find(connection: Connection, person: str, keys: list[str]) -> dict[str, Row[str, bytes, str]]:
    """What was answered before to these keys of `person`: rows (key, request digest, answer)."""
    columns = (idempotency.c.key, idempotency.c.request, idempotency.c.answer)
    query = select(*columns).where(idempotency.c.person == person, idempotency.c.key.in_(keys))
    return {row.key: row for row in connection.execute(query)}


def keep(connection: Connection, person: str, key: str, request: bytes, answer: str, now: int) -> None:
    """Remember the answer; in the same transaction as what it tells of."""
    connection.execute(
        insert(idempotency).values(person=person, key=key, request=request, answer=answer, created_at=now)
    )


def purge(connection: Connection, before: int) -> int:
    """Forget keys older than `before` (microseconds); returns how many."""
    return connection.execute(delete(idempotency).where(idempotency.c.created_at < before)).rowcount
