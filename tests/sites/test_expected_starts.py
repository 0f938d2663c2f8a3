"""What waits in a real Slurm has the start that Slurm expects as its estimate."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from tests.sites.test_recalls import job, submit, until
from tests.support.platform import RunningPlatform
from tests.support.slurm import SlurmCluster, need_slurm


def atoll(platform: RunningPlatform, *words: str) -> str:
    command = [sys.executable, "-m", "atoll", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=platform.environment(), timeout=60)
    return done.stdout


def test_what_waits_here_for_a_cluster_full_of_others_work_is_expected_when_slurm_has_room(tmp_path: Path) -> None:
    need_slurm()
    with SlurmCluster(nodes=1, cpus=2) as cluster, RunningPlatform(tmp_path / "data") as platform:
        words = ["--parsable", "--time=20", "--cpus-per-task=2", "--mem=100M", "--output=/dev/null"]
        cluster.run("sbatch", *words, "--wrap=sleep 1500")
        until(lambda: bool(cluster.run("squeue", "-h", "-t", "RUNNING", "-o", "%i").strip()), platform)
        end = datetime.now(UTC) + timedelta(minutes=20)
        config = {"transport": "local", "slurm_conf": str(cluster.conf), "folder": str(cluster.folder / "sites")}
        site = {"name": "alps", "driver": "slurm", "identity": "shared", "config": config, "backlog": {"batch": 1}}
        assert platform.request("PUT", "/api/v1/sites/alps", json=site).status_code == 201
        rest: dict[str, Any] = {"cpu": 1, "constraints": ["site=alps"]}
        handed_over = submit(platform, "true", walltime="5m", **rest)
        until(lambda: job(platform, handed_over)["state"] == "starting", platform)
        waits = submit(platform, "true", walltime="5m", **rest)
        until(lambda: (job(platform, waits)["estimate"] or {}).get("start") is not None, platform)
        assert job(platform, waits)["state"] == "queued"
        expected = datetime.fromisoformat(job(platform, waits)["estimate"]["start"])
        assert abs(expected - end) < timedelta(minutes=2), "the walltime of somebody's job is over"
        assert "cpu: room for 1 CPU, " in atoll(platform, "site", "show", "alps")
        for number in (handed_over, waits):
            platform.request("POST", f"/api/v1/jobs/{number}/cancel")
        until(lambda: all(job(platform, number)["ended_at"] for number in (handed_over, waits)), platform)


def test_why_says_when_slurm_expects_to_start_what_waits_there(tmp_path: Path) -> None:
    need_slurm()
    with SlurmCluster(nodes=1, cpus=2) as cluster, RunningPlatform(tmp_path / "data") as platform:
        config = {"transport": "local", "slurm_conf": str(cluster.conf), "folder": str(cluster.folder / "sites")}
        site = {"name": "alps", "driver": "slurm", "identity": "shared", "config": config}
        assert platform.request("PUT", "/api/v1/sites/alps", json=site).status_code == 201
        runs = submit(platform, "sleep 600", walltime="10m", constraints=["site=alps"])
        until(lambda: job(platform, runs)["state"] == "running", platform)
        waits = submit(platform, "true", walltime="5m", constraints=["site=alps"])

        def told() -> dict[str, Any]:
            return dict(job(platform, waits)["estimate"] or {})

        until(lambda: told().get("by") == "site", platform)
        began = datetime.fromisoformat(job(platform, runs)["started_at"])
        walltime = datetime.fromisoformat(told()["start"]) - began
        assert timedelta(minutes=9, seconds=50) < walltime < timedelta(minutes=12), "the walltime of what runs"
        assert datetime.fromisoformat(told()["earliest"]) <= datetime.now(UTC)
        assert told()["latest"] == told()["start"]
        for command in ("why", "show"):
            assert "Site alps expects to start it at " in atoll(platform, command, str(waits))
        assert "~" in atoll(platform, "ps", str(waits))
        assert job(platform, runs)["estimate"] is None
        for number in (runs, waits):
            platform.request("POST", f"/api/v1/jobs/{number}/cancel")
        until(lambda: all(job(platform, number)["ended_at"] for number in (runs, waits)), platform)
