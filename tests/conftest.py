"""Fixtures that every test may use: databases of both kinds, and the size at which chaos tests run."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.engines import skip_without, skips_by_engine
from tests.support.kubernetes import verdict
from tests.support.postgres import PostgresServer, PostgresUnavailable

DATABASES = ("sqlite", "postgresql")

# A shell that starts the tests in the background has them ignore SIGINT and SIGQUIT, and so would all that they start.
for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, handler)


@dataclass(frozen=True)
class ChaosSize:
    """How many jobs a chaos test submits, and how often it kills."""

    jobs: int
    kills: int


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("atoll")
    group.addoption(
        "--database",
        action="append",
        choices=DATABASES,
        help="run tests of the store on this database only; may be repeated",
    )
    group.addoption(
        "--durable",
        action="store_true",
        help="PostgreSQL with fsync on, as in production; otherwise off, to be quick",
    )
    group.addoption("--full-size", action="store_true", help="chaos tests at full size instead of CI's")
    group.addoption("--seconds", type=float, help="how long faults are made at sites, instead of the size's own time")
    group.addoption("--faults-at", choices=("slurm", "podman"), help="make faults at sites of this kind only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for a database, itself or through a fixture, runs once on each kind."""
    if "database_kind" in metafunc.fixturenames:
        metafunc.parametrize("database_kind", metafunc.config.getoption("--database") or DATABASES)


@pytest.fixture(scope="session")
def postgres_server(pytestconfig: pytest.Config) -> Iterator[PostgresServer]:
    """A PostgreSQL server, one for each test process; tests that stop or pause one start their own."""
    try:
        server = PostgresServer(durable=pytestconfig.getoption("--durable"))
    except PostgresUnavailable as error:
        skip_without("PostgreSQL", str(error))
    with server:
        yield server


@pytest.fixture
def database_url(database_kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """URL of a new, empty database: the test runs once on SQLite and once on PostgreSQL."""
    if database_kind == "sqlite":
        yield f"sqlite:///{tmp_path / 'atoll.db'}"
        return
    # Asked for here, so that a run on SQLite alone starts no server.
    server: PostgresServer = request.getfixturevalue("postgres_server")
    url = server.create_database()
    yield url
    server.drop_database(url)


@pytest.fixture(scope="session")
def chaos_size(pytestconfig: pytest.Config) -> ChaosSize:
    """200 jobs and 10 kills in CI; 2,000 and 100 in `make chaos`."""
    return ChaosSize(2_000, 100) if pytestconfig.getoption("--full-size") else ChaosSize(200, 10)


@pytest.fixture(scope="session")
def chaos_pause(pytestconfig: pytest.Config) -> float:
    """Seconds for which a leader is paused: longer than its lease in CI, a minute in `make chaos`."""
    return 60.0 if pytestconfig.getoption("--full-size") else 25.0


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the engines that this run did without."""
    skips = skips_by_engine(terminalreporter.stats.get("skipped", []))
    if skips:
        terminalreporter.section("engines that were not there")
        for (engine, reason), count in sorted(skips.items()):
            terminalreporter.line(f"{engine}: {count} tests skipped: {reason}")
        if (said := verdict(skips)) is not None:
            terminalreporter.line(said)
