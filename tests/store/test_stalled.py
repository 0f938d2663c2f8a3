"""A replica that was cut off in the middle of a transaction holds nobody up for long."""

from __future__ import annotations

import contextlib

import psycopg
import pytest
from sqlalchemy import Connection, text

from atoll.store.database import ORDER_LOCK, Database, lock_order
from tests.support.postgres import PostgresServer


@pytest.mark.timeout(90)
def test_a_lock_held_by_a_replica_that_was_cut_off_in_a_pipeline_is_taken_from_it(
    postgres_server: PostgresServer,
) -> None:
    url = postgres_server.create_database()
    database = Database.open(url)
    dead = psycopg.connect(url.replace("+psycopg", ""), application_name="atoll")

    def write(connection: Connection) -> int:
        lock_order(connection)
        return int(connection.execute(text("SELECT 7")).scalar_one())

    try:
        # leaving the pipeline finds that the server has ended it
        with contextlib.suppress(psycopg.OperationalError), dead.pipeline(), dead.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [ORDER_LOCK])
            cursor.fetchone()
            # no Sync follows: to the server this statement is still active, and no idle time-out applies
            cursor.execute("SELECT 1")
            assert database.write_soon(write).result(60) == 7
        assert dead.closed
    finally:
        dead.close()
        database.close()
