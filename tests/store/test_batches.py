"""Writes that share a transaction: what is wrong with one of them fails that one alone."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection, text

from atoll.core.errors import Internal
from atoll.store.database import Database
from tests.support.rows import add, get, new_job


def test_a_value_that_cannot_be_stored_fails_nobody_elses_write(database: Database) -> None:
    go_on = threading.Event()

    def unstorable(connection: Connection) -> list[int]:
        if connection.dialect.name == "sqlite":  # it would take a NUL
            connection.execute(text("INSERT INTO counters (name, value) VALUES ('x', NULL)"))
        return add(connection, new_job(name="x\0y"))

    first = database.write_soon(lambda _: go_on.wait(30))
    wrong = database.write_soon(unstorable)
    right = database.write_soon(lambda connection: add(connection, new_job(name="right")))
    go_on.set()
    assert first.result(30)
    [made] = right.result(30)
    assert database.read_now(lambda connection: get(connection, made)).name == "right"
    with pytest.raises(Internal):
        wrong.result(30)
