"""Attempts that wait in a real Slurm are pulled back when a job with more right comes."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.support.platform import RunningPlatform
from tests.support.slurm import SlurmCluster, need_slurm


def until(holds: Callable[[], bool], platform: RunningPlatform, seconds: float = 90.0) -> None:
    """Wait until something holds; only looking again tells."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, platform.tail()
        time.sleep(0.1)  # only asking again tells


def submit(platform: RunningPlatform, script: str, **rest: Any) -> int:
    spec = {"command": ["/bin/sh", "-c", script], "cpu": 2, "memory": "64M", "constraints": ["site=cluster"], **rest}
    answer = platform.request("POST", "/api/v1/jobs", json=spec)
    assert answer.status_code == 201, answer.text
    return int(answer.json()["id"])


def job(platform: RunningPlatform, job_id: int) -> dict[str, Any]:
    return dict(platform.request("GET", f"/api/v1/jobs/{job_id}").json())


def test_a_job_of_higher_priority_goes_before_those_that_wait_in_slurm(tmp_path: Path) -> None:
    need_slurm()
    with SlurmCluster(nodes=1, cpus=2) as cluster, RunningPlatform(tmp_path / "data") as platform:
        ledger, gate = cluster.folder / "ledger", cluster.folder / "gate"
        config = {"transport": "local", "slurm_conf": str(cluster.conf), "folder": str(cluster.folder / "sites")}
        site = {"name": "cluster", "driver": "slurm", "identity": "shared", "config": config}
        assert platform.request("PUT", "/api/v1/sites/cluster", json=site).status_code == 201

        def pending() -> list[str]:
            return cluster.run("squeue", "-h", "-r", "-t", "PENDING", "-o", "%i").split()

        holder = submit(platform, f"while [ ! -e {gate} ]; do sleep 0.1; done")
        until(lambda: job(platform, holder)["state"] == "running", platform)
        waiting = [submit(platform, f"echo batch-{number} >>{ledger}") for number in range(4)]
        until(lambda: len(pending()) == 4, platform)
        first = set(pending())
        urgent = submit(platform, f"echo urgent >>{ledger}", priority=10)
        until(lambda: first.isdisjoint(pending()), platform)
        # and they wait there once more, behind it
        until(lambda: len(pending()) == 5, platform)
        assert job(platform, holder)["state"] == "running"
        gate.touch()
        everything = [holder, urgent, *waiting]
        until(lambda: all(job(platform, number)["ended_at"] for number in everything), platform)
        assert {job(platform, number)["state"] for number in everything} == {"succeeded"}
        signed = ledger.read_text().split()
        assert signed[0] == "urgent"
        assert sorted(signed[1:]) == [f"batch-{number}" for number in range(4)], "each ran once"
        for number in waiting:
            assert [each["outcome"] for each in job(platform, number)["attempt_list"]] == ["recalled", "succeeded"]
