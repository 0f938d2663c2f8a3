"""A Slurm site: submitting in bulk beside PSI/J, the makespan beside sbatch, and what an answer of Slurm costs."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from atoll.client.synchronous import Client
from atoll.core.site_file import read_site
from bench import slurm_answer
from bench.figures import Broken, Row, Target
from bench.platforms import client, running
from tests.support.platform import RunningPlatform
from tests.support.slurm import SlurmCluster, slurm_missing

_LONGEST = 900.0
_LOOK_EVERY = 0.2
_SUBMIT_NOTE = (
    "From the first submission until Slurm has given every job a number; the jobs sleep. Atoll: by the Python client "
    "in bulk, through queue and loops, at a site whose backlog takes all. PSI/J: its Slurm executor, one sbatch each."
)
_MAKESPAN_NOTE = (
    "Jobs that sleep, on 4 nodes; sbatch is called in a loop, as a script would. The backlog is the default."
)
_QUESTIONS_NOTE = "Listings (REQUEST_JOB_INFO) by sdiag, after the first one, for each 5 s that the jobs took."
_ANSWER_NOTE = "A real answer's job 10,000 times over: decoded, our attempts found, compared with the store's rows."
_MEMORY_NOTE = "The most that such a round takes of Python's memory, beside the answer itself."


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """All figures. Raises Broken where there is no Slurm."""
    missing = slurm_missing()
    if missing is not None:
        raise Broken(f"no Slurm: {missing}")
    yield from _submitting(folder, small)
    yield from _makespan(folder, small)


@contextmanager
def slurm_site(folder: Path, cluster: SlurmCluster, **more: Any) -> Iterator[tuple[RunningPlatform, Client]]:
    """A platform with the cluster as its only open site."""
    with running(folder) as platform, client(platform) as atoll:
        file = {
            "name": "slurm", "driver": "slurm", "identity": {"map": "same-name"},
            "config": {"transport": "local", "slurm_conf": str(cluster.conf), "folder": str(cluster.folder / "sites")},
        }  # fmt: skip
        atoll.drain_site("local")
        atoll.put_site(read_site({**file, **more}))
        deadline = time.monotonic() + 60
        while atoll.site("slurm").health != "ok":
            if time.monotonic() > deadline:
                raise Broken(f"the site does not come up: {atoll.site('slurm').message}\n{platform.tail()}")
            time.sleep(_LOOK_EVERY)
        yield platform, atoll


def _count(platform: RunningPlatform, *states: str) -> int:
    counts: dict[str, int] = platform.request("GET", "/api/v1/status").json()["jobs"]
    return sum(counts.get(state, 0) for state in states)


def _until(platform: RunningPlatform, what: str, *states: str) -> None:
    """Wait until no job is in one of `states`; no event tells of all of them."""
    deadline = time.monotonic() + _LONGEST
    while left := _count(platform, *states):
        if time.monotonic() > deadline:
            raise Broken(f"{left} jobs have not {what} after {_LONGEST:.0f} s:\n{platform.tail()}")
        time.sleep(_LOOK_EVERY)


def _submitting(folder: Path, small: bool) -> Iterator[Row]:
    count, rounds = (50, 1) if small else (500, 3)
    ours: list[float] = []
    theirs: list[float] = []
    answer: tuple[list[float], float, int] = [], 0.0, 0
    with (
        SlurmCluster(nodes=1, cpus=2) as cluster,
        slurm_site(folder, cluster, backlog={"batch": 100_000}) as (platform, atoll),
    ):
        peer = subprocess.Popen(
            [sys.executable, "-m", "bench.psij_slurm"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**cluster.environment, "PYTHONPATH": ":".join(sys.path)},
        )  # fmt: skip
        assert peer.stdin is not None
        assert peer.stdout is not None
        try:
            for _ in range(rounds):
                began = time.perf_counter()
                ids = atoll.submit_many(
                    [{"command": ["sleep", "600"], "cpu": 1, "memory": "16M", "walltime": "30m"}] * count
                )
                _until(platform, "reached Slurm", "queued", "placed")
                ours.append(time.perf_counter() - began)
                answer = slurm_answer.measure(cluster.run("squeue", "--json"), 3 if small else 5)
                for job in ids:
                    atoll.cancel(job)
                _until(platform, "ended", "queued", "placed", "starting", "running", "stopping", "finishing")
                peer.stdin.write(f"{count}\n")
                peer.stdin.flush()
                taken = peer.stdout.readline()
                if not taken:
                    raise Broken(f"PSI/J's process ended with {peer.wait()}")
                theirs.append(float(taken))
                cluster.run("scancel", "--user=root")
        finally:
            peer.kill()
            peer.communicate()
    target = Target("at most", 1.0, ratio=True)
    yield Row(f"{count} jobs submitted to Slurm in bulk", "s", ours, target, "PSI/J", theirs, _SUBMIT_NOTE)
    seconds, most, size = answer
    name = f"an answer of Slurm about 10,000 jobs ({size / 1e6:.0f} MB)"
    yield Row(f"{name}, read and compared", "s CPU", seconds, Target("under", 1.0), note=_ANSWER_NOTE)
    yield Row(f"{name}, memory", "MB", [most / 1e6], note=_MEMORY_NOTE)


def _makespan(folder: Path, small: bool) -> Iterator[Row]:
    count, seconds, rounds = (40, 2, 1) if small else (500, 10, 3)
    ours: list[float] = []
    theirs: list[float] = []
    asked: list[float] = []
    with SlurmCluster(nodes=4, cpus=16) as cluster, slurm_site(folder, cluster) as (platform, atoll):
        for _ in range(rounds):
            theirs.append(_by_sbatch(cluster, count, seconds))
            cluster.reset_questions()
            began = time.perf_counter()
            job = {"command": ["sleep", str(seconds)], "cpu": 1, "memory": "16M", "walltime": "30m"}
            atoll.submit_many([job] * count)
            _until(platform, "ended", "queued", "placed", "starting", "running", "stopping", "finishing")
            ours.append(time.perf_counter() - began)
            listings = sum(n for kind, n in cluster.questions().items() if kind.startswith("REQUEST_JOB_INFO"))
            asked.append(max(0, listings - 1) / (ours[-1] / 5))
    name = f"{count} jobs of {seconds} s on 4 nodes of Slurm"
    yield Row(f"{name}, makespan", "s", ours, Target("at most", 1.05, ratio=True), "sbatch", theirs, _MAKESPAN_NOTE)
    yield Row(f"{name}, listings in 5 s", "", asked, Target("at most", 1.0), note=_QUESTIONS_NOTE)


def _by_sbatch(cluster: SlurmCluster, count: int, seconds: int) -> float:
    """Seconds from the first sbatch until Slurm has no unended job."""
    began = time.perf_counter()
    for _ in range(count):
        cluster.run("sbatch", "--parsable", "--mem=16M", "--time=30", "--output=/dev/null", f"--wrap=sleep {seconds}")
    deadline = time.monotonic() + _LONGEST
    while cluster.run("squeue", "--noheader", "--format=%i").strip():
        if time.monotonic() > deadline:
            raise Broken("the jobs of sbatch do not end")
        time.sleep(0.5)
    return time.perf_counter() - began
