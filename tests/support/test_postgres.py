"""The test's own PostgreSQL server does what tests of failure ask of it."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
import sqlalchemy

from tests.support.engines import skip_without
from tests.support.postgres import PostgresServer, PostgresUnavailable


@pytest.fixture
def server() -> Iterator[PostgresServer]:
    try:
        own = PostgresServer()
    except PostgresUnavailable as error:
        skip_without("PostgreSQL", str(error))
    with own:
        yield own


def psycopg_url(url: str) -> str:
    return url.replace("+psycopg", "")


def test_each_test_gets_an_empty_database_of_its_own(database_url: str, database_kind: str) -> None:
    engine = sqlalchemy.create_engine(database_url)
    assert engine.dialect.name == database_kind
    assert sqlalchemy.inspect(engine).get_table_names() == []
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("create table island (name text)"))
    assert sqlalchemy.inspect(engine).get_table_names() == ["island"]
    engine.dispose()


def test_commits_are_synchronous(server: PostgresServer) -> None:
    with psycopg.connect(psycopg_url(server.create_database())) as connection:
        assert connection.execute("show synchronous_commit").fetchone() == ("on",)
        assert connection.execute("show fsync").fetchone() == ("on",)


def test_a_paused_server_answers_again_when_resumed(server: PostgresServer) -> None:
    with psycopg.connect(psycopg_url(server.create_database()), autocommit=True) as connection:
        with server.paused():
            connection.pgconn.send_query(b"select 1")
            connection.pgconn.flush()
            assert not _readable(connection.fileno(), seconds=0.5), "it answered although it was paused"
        assert _readable(connection.fileno(), seconds=10)
        while connection.pgconn.get_result():
            pass


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_what_was_committed_is_there_after_the_server_went_and_came_back(server: PostgresServer, end: str) -> None:
    url = psycopg_url(server.create_database())
    with psycopg.connect(url) as connection:
        connection.execute("create table island as select 'Aldabra' as name")
    getattr(server, end)()
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(url, connect_timeout=2)
    server.start()
    with psycopg.connect(url) as connection:
        assert connection.execute("select name from island").fetchone() == ("Aldabra",)


def test_nothing_is_left_behind(server: PostgresServer) -> None:
    folder = server._folder
    assert folder is not None
    process = server._pid
    server.pause()
    server.remove()
    assert not folder.exists()
    assert not Path(f"/proc/{process}").exists()


def _readable(descriptor: int, seconds: float) -> bool:
    return bool(select.select([descriptor], [], [], seconds)[0])
