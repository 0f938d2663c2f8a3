"""Idempotency keys: the first who uses one decides what it answers, whoever comes at the same time."""

from __future__ import annotations

import threading

from sqlalchemy import Connection

from atoll.store import idempotency
from atoll.store.database import Database
from atoll.store.idempotency import Claim
from tests.support.rows import NOW, do, opened

DIGEST = b"d" * 32


def test_a_key_is_kept_once_for_each_person(database: Database) -> None:
    claims = [Claim("anna", "k", DIGEST, "1"), Claim("bob", "k", DIGEST, "2")]
    assert do(database, lambda connection: idempotency.claim(connection, claims, NOW)) == {("anna", "k"), ("bob", "k")}
    again = [Claim("anna", "k", DIGEST, "3"), Claim("anna", "new", DIGEST, "4")]
    assert do(database, lambda connection: idempotency.claim(connection, again, NOW)) == {("anna", "new")}
    found = database.read_now(lambda connection: idempotency.find(connection, "anna", ["k", "new", "none"]))
    assert {key: row.answer for key, row in found.items()} == {"k": "1", "new": "4"}
    assert bytes(found["k"].request) == DIGEST


def test_of_two_replicas_with_one_key_the_later_sees_the_answer_of_the_earlier(
    database: Database, database_url: str
) -> None:
    claimed, may_commit = threading.Event(), threading.Event()

    def first(connection: Connection) -> set[tuple[str, str]]:
        taken = idempotency.claim(connection, [Claim("anna", "k", DIGEST, "first")], NOW)
        claimed.set()
        assert may_commit.wait(30)
        return taken

    def second(connection: Connection) -> tuple[set[tuple[str, str]], str]:
        taken = idempotency.claim(connection, [Claim("anna", "k", DIGEST, "second")], NOW)
        return taken, idempotency.find(connection, "anna", ["k"])["k"].answer

    with opened(database_url) as other:
        earlier = database.write_soon(first)
        assert claimed.wait(30)
        later = other.write_soon(second)
        may_commit.set()
        assert earlier.result(30) == {("anna", "k")}
        assert later.result(30) == (set(), "first")


def test_old_keys_are_forgotten(database: Database) -> None:
    do(database, lambda connection: idempotency.claim(connection, [Claim("anna", "old", DIGEST, "1")], NOW))
    do(database, lambda connection: idempotency.claim(connection, [Claim("anna", "new", DIGEST, "2")], NOW + 10))
    assert do(database, lambda connection: idempotency.purge(connection, NOW + 5, 100)) == 1
    found = database.read_now(lambda connection: idempotency.find(connection, "anna", ["old", "new"]))
    assert list(found) == ["new"]
