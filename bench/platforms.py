"""Running platforms to measure, and what their processes use."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from sqlalchemy import Connection, text

from atoll.client.synchronous import Client
from atoll.store.database import Database, parse_url
from bench.figures import Broken
from tests.support.platform import RunningPlatform
from tests.support.postgres import PostgresServer, PostgresUnavailable

DATABASES = ("SQLite", "PostgreSQL")
_QUIET_SHARE = 0.05
_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def running(folder: Path, database: str = "SQLite") -> Iterator[RunningPlatform]:
    """A platform of its own in a new folder below `folder`, on SQLite or on a PostgreSQL server of its own."""
    data = Path(os.path.realpath(folder)) / f"data-{time.monotonic_ns()}"
    with contextlib.ExitStack() as stack:
        url = None
        if database == "PostgreSQL":
            try:
                url = stack.enter_context(PostgresServer()).create_database()
            except PostgresUnavailable as error:
                raise Broken(f"PostgreSQL cannot be started: {error}") from error
        platform = stack.enter_context(RunningPlatform(data, database=url))
        check_durable(platform)
        wait_site(platform)
        yield platform


def wait_site(platform: RunningPlatform, name: str | None = None, seconds: float = 30.0) -> None:
    """Wait until a site takes jobs: the one of that name, else any."""

    def is_there() -> bool:
        found = platform.request("GET", "/api/v1/sites").json()["items"]
        return any(site["flavors"] for site in found if name in (None, site["name"]))

    deadline = time.monotonic() + seconds
    while not is_there():
        if time.monotonic() > deadline:
            raise Broken(f"the platform has no site after {seconds} s:\n{platform.tail()}")
        time.sleep(0.05)


def client(platform: RunningPlatform) -> Client:
    """The typed client, for this platform."""
    return Client(platform.url, platform.token)


def check_durable(platform: RunningPlatform) -> None:
    """Make sure that what the platform commits is on the disk. Raises Broken.

    How a connection flushes is its own affair in both databases and cannot be asked from outside; so this asks the
    platform's own code, opening a second connection of the very kind that the running platform writes with.
    """
    url = platform.database or f"sqlite:///{platform.data / 'state' / 'atoll.db'}"
    database = Database(parse_url(url))
    try:
        writes = database.write_soon(_durability).result(timeout=30)
        reads = database.read_now(_durability)
    finally:
        database.close()
    wanted = (
        {"synchronous": "2", "journal_mode": "wal"}
        if database.dialect == "sqlite"
        else {"synchronous_commit": "on", "fsync": "on", "full_page_writes": "on"}
    )
    for found in (writes, reads):
        if found != wanted:
            raise Broken(f"the database does not keep what is committed: {found} where {wanted} is wanted")


def _durability(connection: Connection) -> dict[str, str]:
    if connection.dialect.name == "sqlite":
        names, question = ["synchronous", "journal_mode"], "PRAGMA"
    else:
        names, question = ["synchronous_commit", "fsync", "full_page_writes"], "SHOW"
    return {name: str(connection.execute(text(f"{question} {name}")).scalar_one()) for name in names}


def job_counts(platform: RunningPlatform) -> dict[str, int]:
    """How many jobs are in which state."""
    answer = _checked(platform.request("GET", "/api/v1/status"))
    counts: dict[str, int] = answer.json()["jobs"]
    return counts


def post(platform: RunningPlatform, path: str, body: bytes, connection: httpx2.Client) -> Any:
    """What the platform answers to JSON that is ready to be sent. Raises Broken where it refuses."""
    headers = {"Authorization": f"Bearer {platform.token}", "Content-Type": "application/json"}
    return _checked(connection.post(f"{platform.url}{path}", content=body, headers=headers, timeout=60)).json()


def put(platform: RunningPlatform, path: str, document: Any, connection: httpx2.Client) -> None:
    """Set something of the platform. Raises Broken where it refuses."""
    headers = {"Authorization": f"Bearer {platform.token}"}
    _checked(connection.put(f"{platform.url}{path}", json=document, headers=headers, timeout=60))


def _checked(answer: httpx2.Response) -> httpx2.Response:
    if not answer.is_success:
        raise Broken(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:500]}")
    return answer


# ---- what it uses


@dataclass(frozen=True)
class Memory:
    """Memory of some processes together, in bytes; `proportional` counts what they share once."""

    resident: int
    proportional: int


def processes(platform: RunningPlatform) -> list[psutil.Process]:
    """The platform's own: control plane and supervisor, without the jobs and without the database server."""
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words: Sequence[str] = process.info["cmdline"] or []
        ours = any(str(platform.data) in word for word in words)
        if ours and "python" in Path(words[0]).name and process.pid != os.getpid():
            found.append(process)
    if len(found) < 2:
        raise Broken(f"control plane and supervisor should run, but there are {found}:\n{platform.tail()}")
    return found


def memory(platform: RunningPlatform) -> Memory:
    """What all of the platform's processes have in memory now."""
    resident = proportional = 0
    for process in processes(platform):
        figures = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
        resident += _kilobytes(figures, "Rss")
        proportional += _kilobytes(figures, "Pss")
    return Memory(resident, proportional)


def _kilobytes(figures: str, name: str) -> int:
    match = re.search(rf"^{name}:\s+(\d+) kB$", figures, re.MULTILINE)
    if match is None:
        raise Broken(f"the kernel does not tell {name} of a process")
    return int(match[1]) * 1024


def cpu_seconds(platform: RunningPlatform) -> float:
    """CPU time that the platform's processes have used so far, with that of children which ended."""
    total = 0.0
    for process in processes(platform):
        # "pid (name) state ...", where the name may hold blanks and parentheses; utime is field 14 of proc(5)
        fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        total += sum(int(field) for field in fields[11:15]) / _TICK
    return total


def cpu_share(platform: RunningPlatform, seconds: float) -> float:
    """Share of one core, in percent, that the platform uses over the next `seconds`."""
    before, began = cpu_seconds(platform), time.monotonic()
    time.sleep(seconds)
    return 100 * (cpu_seconds(platform) - before) / (time.monotonic() - began)


def settle(platform: RunningPlatform, seconds: float = 60.0) -> None:
    """Wait until the platform has nothing left to do. Raises Broken where it never comes to rest."""
    deadline = time.monotonic() + seconds
    while cpu_share(platform, 2.0) > 100 * _QUIET_SHARE:
        if time.monotonic() > deadline:
            raise Broken(f"the platform is still busy after {seconds} s:\n{platform.tail()}")
