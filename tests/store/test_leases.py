"""Leases: one holder at a time, by the database's clock, and an epoch that tells tenures apart."""

from __future__ import annotations

import pytest

from atoll.store import leases
from atoll.store.database import Database
from atoll.store.leases import Lease, StaleLease
from tests.support.rows import do


def _acquire(database: Database, holder: str, seconds: float = 60) -> Lease | None:
    found = do(database, lambda connection: leases.acquire(connection, "loop", holder, seconds))
    assert found is None or isinstance(found, Lease)
    return found


def test_nobody_gets_a_lease_that_another_holds(database: Database) -> None:
    first = _acquire(database, "one")
    assert first is not None
    assert _acquire(database, "two") is None


def test_renewing_keeps_the_epoch_and_a_change_of_hands_raises_it(database: Database) -> None:
    first = _acquire(database, "one", 0)
    assert first is not None
    assert _acquire(database, "one", 0) == first
    second = _acquire(database, "two")
    assert second is not None
    assert second.epoch == first.epoch + 1


def test_a_holder_that_lost_the_lease_writes_nothing(database: Database) -> None:
    first = _acquire(database, "one", 0)
    assert first is not None
    do(database, lambda connection: leases.guard(connection, first))
    second = _acquire(database, "two", 0)
    assert second is not None
    with pytest.raises(StaleLease):
        do(database, lambda connection: leases.guard(connection, first))
    # also when the first holder comes back: it is another tenure
    third = _acquire(database, "one")
    assert third is not None
    with pytest.raises(StaleLease):
        do(database, lambda connection: leases.guard(connection, first))
    do(database, lambda connection: leases.guard(connection, third))


def test_a_lease_given_back_can_be_taken_at_once(database: Database) -> None:
    first = _acquire(database, "one")
    assert first is not None
    do(database, lambda connection: leases.release(connection, first))
    second = _acquire(database, "two")
    assert second is not None
    assert second.epoch == 2


def test_giving_back_a_lease_that_was_lost_leaves_the_new_holder_alone(database: Database) -> None:
    first = _acquire(database, "one", 0)
    second = _acquire(database, "two")
    assert first is not None
    assert second is not None
    do(database, lambda connection: leases.release(connection, first))
    assert _acquire(database, "three") is None
