"""Memory of the whole platform, empty and with a long queue, and the CPU that it uses when idle."""

from __future__ import annotations

import getpass
import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2

from bench.figures import Broken, Row, Target
from bench.platforms import Memory, cpu_share, job_counts, memory, post, put, running, settle, wait_site
from tests.support.platform import RunningPlatform

_JOB: dict[str, Any] = {"command": ["/bin/true"], "cpu": 1, "memory": "1G", "walltime": "1h"}
_ALONE = 3.0
"""So many seconds after one job the next comes: what follows at once waits for the rest of the dispatcher."""
_NOTE = (
    "Control plane and supervisor together, SQLite. The proportional set size (PSS) counts what they share once, the "
    "resident set size (RSS) twice. The queue waits behind a job that has all CPUs: the scheduler has to weigh each."
)
_INSTITUTION_NOTE = (
    "Control plane and supervisor together, SQLite. 1,000 projects with quotas in 30 departments; a site of 10,000 "
    "nodes (the fake driver) that one job has whole, so that all others wait, of some 20 kinds for each project."
)


def idle(folder: Path, small: bool = False) -> Iterator[Row]:
    """CPU share of an idle platform, in percent of one core."""
    with running(folder) as platform:
        settle(platform)
        shares = [cpu_share(platform, 1 if small else 10) for _ in range(3)]
    note = "Control plane and supervisor together, SQLite, over 30 s in three parts, from /proc/PID/stat."
    yield Row("idle", "% of a core", shares, Target("under", 2), note=note)


def memory_use(folder: Path, small: bool = False) -> Iterator[Row]:
    """Megabytes when empty and with many queued jobs."""
    queued = 10_000 if small else 100_000
    with running(folder) as platform:
        settle(platform)
        yield from _rows("empty", memory(platform), 150)
        _fill(platform, queued)
        settle(platform, 120)
        counts = job_counts(platform)
        if counts.get("queued") != queued:
            raise Broken(f"{queued} jobs should be queued, but there are {counts}")
        yield from _rows(f"{queued:,} queued", memory(platform), 300)
        shares = [cpu_share(platform, 1 if small else 5) for _ in range(2)]
        yield Row(f"idle, {queued:,} queued", "% of a core", shares)


def _rows(state: str, used: Memory, target: int, note: str = _NOTE) -> Iterator[Row]:
    for name, figure in (("PSS", used.proportional), ("RSS", used.resident)):
        yield Row(f"memory, {state}: {name}", "MB", [figure / 1e6], Target("under", target), note=note)


def _fill(platform: RunningPlatform, queued: int) -> None:
    """Give all CPUs to one job and queue the rest behind it."""
    [site] = platform.request("GET", "/api/v1/sites").json()["items"]
    cpus = site["flavors"][0]["node"]["cpu"]
    blocker = {"command": ["/bin/sleep", "3600"], "cpu": cpus, "memory": "16M"}
    with httpx2.Client() as connection:
        post(platform, "/api/v1/jobs", json.dumps(blocker).encode(), connection)
        settle(platform)
        for first in range(0, queued, 10_000):
            some = [{**_JOB, "name": f"bench-{number}"} for number in range(first, min(queued, first + 10_000))]
            post(platform, "/api/v1/jobs/bulk", json.dumps({"jobs": some}).encode(), connection)


# ---- an institution


def institution(folder: Path, small: bool = False) -> Iterator[Row]:
    """Megabytes with as many jobs, of 1,000 projects, before a site of 10,000 nodes."""
    queued, projects, nodes = (2000, 20, 100) if small else (100_000, 1000, 10_000)
    with running(folder) as platform:
        with httpx2.Client() as connection:
            _found(platform, projects, nodes, connection)
            _queue_up(platform, queued, projects, nodes, connection)
            settle(platform, 300)
            waits = [_until_placed(platform, connection) for _ in range(2 if small else 10)]
        settle(platform, 60)
        counts = job_counts(platform)
        if counts.get("queued") != queued:
            raise Broken(f"{queued} jobs should be queued, but there are {counts}")
        state = f"{queued:,} of {projects:,} projects queued"
        yield from _rows(state, memory(platform), 600, _INSTITUTION_NOTE)
        shares = [cpu_share(platform, 1 if small else 5) for _ in range(2)]
        yield Row(f"idle, {state}", "% of a core", shares)
        note = (
            "Wall-clock time from the answer to a submission, after the commit, until the API says that it is placed."
        )
        yield Row(f"a job that comes then, {state}", "ms", waits, Target("under", 100), note=note)


def _until_placed(platform: RunningPlatform, connection: httpx2.Client) -> float:
    """Milliseconds until one more job, for which there is room on this machine, has a site. It comes alone."""
    time.sleep(_ALONE)
    job = {"command": ["/bin/true"], "cpu": "10m", "memory": "16M", "walltime": "1m", "project": "p1", "flavor": "cpu"}
    [made] = post(platform, "/api/v1/jobs/bulk", json.dumps({"jobs": [job]}).encode(), connection)["ids"]
    began = time.monotonic()
    headers = {"Authorization": f"Bearer {platform.token}"}
    while connection.get(f"{platform.url}/api/v1/jobs/{made}", headers=headers).json()["state"] in ("held", "queued"):
        if time.monotonic() > began + 60:
            raise Broken(f"{made} was not placed in a minute:\n{platform.tail()}")
        time.sleep(0.003)
    return 1000 * (time.monotonic() - began)


def _found(platform: RunningPlatform, projects: int, nodes: int, connection: httpx2.Client) -> None:
    """Give the platform a site and a project tree."""
    config = {"cpus": 96, "memory": "400G", "gpus": 8, "nodes": nodes, "flavor": "gpu", "runtime": 1e6}
    put(
        platform,
        "/api/v1/sites/large",
        {"name": "large", "driver": "fake", "identity": "shared", "config": config},
        connection,
    )
    wait_site(platform, "large")
    tree: dict[str, Any] = {"institute": {}, **{f"d{number}": {"parent": "institute"} for number in range(30)}}
    for number in range(projects):
        quotas = {"gpu": {"gpu": nodes * 8 / (100 if number else 1)}}  # the first one borrows nothing for all of it
        tree[f"p{number}"] = {"parent": f"d{number % 30}", "quotas": quotas, "people": [getpass.getuser()]}
    put(platform, "/api/v1/projects", {"projects": tree}, connection)


def _queue_up(platform: RunningPlatform, queued: int, projects: int, nodes: int, connection: httpx2.Client) -> None:
    """Give all of the site to one job and queue the rest behind it."""
    blocker = {"command": ["/bin/sleep"], "cpu": 96, "memory": "400G", "gpu": 8, "nodes": nodes, "project": "p0"}
    post(platform, "/api/v1/jobs", json.dumps({**blocker, "flavor": "gpu"}).encode(), connection)
    settle(platform)
    chance = random.Random(1)
    jobs = [
        {
            "command": ["/bin/true"], "name": f"bench-{number}", "project": f"p{chance.randrange(projects)}",
            "cpu": chance.choice([4, 8]), "memory": chance.choice(["8G", "16G", "32G"]), "gpu": 1, "flavor": "gpu",
            "walltime": chance.choice(["1h", "2h", "4h", "1d"]),
        }
        for number in range(queued)
    ]  # fmt: skip
    for first in range(0, queued, 10_000):
        post(platform, "/api/v1/jobs/bulk", json.dumps({"jobs": jobs[first : first + 10_000]}).encode(), connection)
