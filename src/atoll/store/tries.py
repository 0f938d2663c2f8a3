"""What was tried in vain, by whom and from where, so that guessing is slow: shared by all replicas.

A try is counted when it begins, so that many at the same time count as many, and taken back where it succeeds.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select, update

from atoll.store.tables import tries

WINDOW = 15 * 60
"""Seconds after which the last try in vain is forgotten, and with it all before."""


@dataclass(frozen=True)
class Limit:
    """What is counted, for example `("name", "anna")`, how many tries are free, and the longest wait in seconds."""

    what: tuple[str, ...]
    free: int
    longest: int

    @property
    def key(self) -> bytes:
        """What is kept of it: a name may be a password that was typed into the wrong field."""
        return hashlib.sha256("\0".join(self.what).encode("utf-8", "surrogateescape")).digest()

    def wait(self, count: int) -> int:
        """Seconds between the last of `count` tries in vain and the next: 1, 2, 4, ... once the free ones are used."""
        return 0 if count < self.free else min(self.longest, 1 << min(count - self.free, 30))


def begin(connection: Connection, limits: Sequence[Limit], now: int) -> float:
    """Count a try, for each of `limits`; or, where one of them is reached, seconds to wait, and nothing is counted."""
    found = {row.key: row for row in connection.execute(select(tries).where(tries.c.key.in_(_keys(limits))))}
    counts = {
        limit.key: row.tried if (row := found.get(limit.key)) and row.at > now - WINDOW * 1_000_000 else 0
        for limit in limits
    }
    reached = [limit for limit in limits if counts[limit.key] >= limit.free]
    until = max(
        (int(found[limit.key].at) + limit.wait(counts[limit.key]) * 1_000_000 for limit in reached), default=now
    )
    if until > now:
        return (until - now) / 1_000_000
    for key, count in counts.items():
        if key in found:
            connection.execute(update(tries).where(tries.c.key == key).values(tried=count + 1, at=now))
        else:
            connection.execute(insert(tries).values(key=key, tried=1, at=now))
    return 0.0


def take_back(connection: Connection, limits: Sequence[Limit]) -> None:
    """The try was none in vain: count it no more. Earlier ones stay, or whoever has an account could guess freely."""
    keys = _keys(limits)
    connection.execute(update(tries).where(tries.c.key.in_(keys)).values(tried=tries.c.tried - 1))
    connection.execute(delete(tries).where(tries.c.key.in_(keys), tries.c.tried <= 0))


def forget(connection: Connection, limit: Limit) -> None:
    """Forget all tries of one kind."""
    connection.execute(delete(tries).where(tries.c.key == limit.key))


def purge(connection: Connection, now: int) -> int:
    """Remove what no longer counts; returns how many."""
    return connection.execute(delete(tries).where(tries.c.at <= now - WINDOW * 1_000_000)).rowcount


def _keys(limits: Sequence[Limit]) -> list[bytes]:
    return [limit.key for limit in limits]
