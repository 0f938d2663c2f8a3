"""How soon somebody who waits has what idle work used: from the submission to the first line of the job's own.

A site is full of opportunistic jobs that do not leave when they are asked to, so that each takes its whole grace.
`python -m bench eviction`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atoll.client.synchronous import Client
from bench.figures import Broken, Row, Target
from bench.platforms import client, running
from bench.slurm_site import slurm_site
from tests.support.slurm import SlurmCluster, slurm_missing

_GRACE = 2
_CPUS = 4
_LONGEST = 120.0
_NOTE = (
    f"The victims ignore that they are asked to leave and are killed after their grace of {_GRACE} s, which is taken "
    "off. The job notes the time itself when it begins."
)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Seconds beyond the victims' grace, on this machine and on a Slurm cluster."""
    times = 1 if small else 5
    with running(folder) as platform, client(platform) as atoll:
        cpus = atoll.site("local").flavors[0].total.cpu // 1000
        found = [_evict(atoll, folder / f"local-{number}", cpus) for number in range(times)]
    yield _row("processes", found, 2)
    missing = slurm_missing()
    if missing is not None:
        raise Broken(f"no Slurm: {missing}")
    with SlurmCluster(nodes=1, cpus=_CPUS) as cluster, slurm_site(folder, cluster) as (platform, atoll):
        found = [_evict(atoll, cluster.folder / f"slurm-{number}", _CPUS) for number in range(times)]
    yield _row("Slurm", found, 5)


def _row(where: str, found: list[float], most: float) -> Row:
    name = f"a full site of {where}: an interactive job's start, beyond its victims' grace"
    return Row(name, "s", found, Target("under", most), note=_NOTE)


def _evict(atoll: Client, folder: Path, cpus: int) -> float:
    """Fill the site, and take it for one job; the seconds until that began, without the grace."""
    folder.mkdir()
    folder.chmod(0o777)
    free, began = folder / "free", folder / "began"
    waiting = f"trap '' TERM; while [ ! -e {free} ]; do sleep 0.05; done"
    job: dict[str, Any] = {"memory": "16M", "walltime": "10m"}
    victim = {**job, "command": ["sh", "-c", waiting], "cpu": 1, "grace": _GRACE, "class": "opportunistic"}
    victims = atoll.submit_many([victim] * cpus)
    _until(lambda: all(atoll.job(each).state == "running" for each in victims), "the idle work does not run")
    asked = time.time()
    note = f"date +%s.%N > {began}.new; mv {began}.new {began}"
    claim = atoll.submit({**job, "command": ["sh", "-c", note], "cpu": cpus, "class": "interactive"})
    _until(began.exists, "the interactive job does not begin")
    atoll.wait(claim)
    for each in victims:
        atoll.cancel(each)
    free.touch()
    _until(lambda: all(atoll.job(each).ended for each in victims), "the idle work does not end")
    return float(began.read_text()) - asked - _GRACE


def _until(holds: Callable[[], bool], trouble: str) -> None:
    deadline = time.monotonic() + _LONGEST
    while not holds():
        if time.monotonic() > deadline:
            raise Broken(trouble)
        time.sleep(0.05)
