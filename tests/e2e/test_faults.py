"""What goes wrong around the platform: a clear sentence, no traceback, and it goes on when the cause goes away."""

from __future__ import annotations

import contextlib
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support.engines import skip_without
from tests.support.platform import RunningPlatform
from tests.support.postgres import PostgresServer

pytestmark = pytest.mark.e2e
JOB = {"command": ["true"], "memory": "16M"}


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path / "data") as running:
        yield running


def test_a_port_in_use_is_told_in_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = RunningPlatform(tmp_path / "data", port=port)
        refused.start(wait=False)
        assert refused.process is not None
        assert refused.process.wait(30) != 0
    said = refused.log.read_text()
    assert f"port {port}" in said
    assert "--port" in said
    assert "Traceback" not in said


def test_a_second_platform_on_the_same_folder_is_refused(platform: RunningPlatform) -> None:
    second = RunningPlatform(platform.data)
    second.start(wait=False)
    assert second.process is not None
    assert second.process.wait(30) != 0
    assert "Another Atoll runs on the data folder" in second.log.read_text()
    assert platform.request("GET", "/api/v1/me").status_code == 200


def test_a_database_that_another_program_locks_is_waited_for(platform: RunningPlatform) -> None:
    path = platform.data / "state" / "atoll.db"
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN EXCLUSIVE")
        answer = _submit(platform)
        assert answer.status_code == 503
        assert "locked" in answer.json()["detail"]
        assert platform.request("GET", "/healthz").status_code == 200
        other.execute("ROLLBACK")
    _goes_on(platform)


def test_a_database_that_vanishes_is_missed_and_found_again(platform: RunningPlatform) -> None:
    state, away = platform.data / "state", platform.data / "away"
    state.rename(away)
    answer = _submit(platform)
    assert answer.status_code == 503
    assert "atoll.db" in answer.json()["detail"]
    away.rename(state)
    _goes_on(platform)


def test_a_full_disk_is_told_and_forgotten_when_there_is_room(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", folder]).returncode != 0:
        skip_without("mount", "a small file system can only be made by root")
    try:
        with RunningPlatform(folder / "data", environment={"ATOLL_LOG_LIMIT": "1M"}) as platform:
            ballast = folder / "ballast"
            _fill(ballast)
            answers = [_submit(platform, {"command": ["true"], "env": {"PAD": "x" * 100_000}}) for _ in range(30)]
            refused = [answer for answer in answers if answer.status_code != 201]
            assert refused, "nothing was refused although the disk is full"
            assert all(answer.status_code == 503 and "disk is full" in answer.json()["detail"] for answer in refused)
            ballast.unlink()
            _goes_on(platform)
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_postgresql_that_goes_away_is_waited_for(tmp_path: Path) -> None:
    with (
        PostgresServer(durable=False) as server,
        RunningPlatform(tmp_path / "data", database=server.create_database()) as platform,
    ):
        assert _submit(platform).status_code == 201
        server.stop()
        answer = _submit(platform)
        assert answer.status_code == 503
        assert "Traceback" not in answer.text
        assert platform.request("GET", "/readyz").status_code == 503
        server.start()
        _goes_on(platform)
        assert "Traceback" not in platform.log.read_text()


def test_an_unreachable_postgresql_is_told_without_its_password(tmp_path: Path) -> None:
    refused = RunningPlatform(tmp_path / "data", database="postgresql://atoll:hunter2@127.0.0.1:9/atoll")
    refused.start(wait=False)
    assert refused.process is not None
    assert refused.process.wait(60) != 0
    said = refused.log.read_text()
    assert "127.0.0.1:9" in said
    assert "hunter2" not in said
    assert "Traceback" not in said


def test_ctrl_c_leaves_jobs_running_and_they_are_found_again_with_their_exit_code(platform: RunningPlatform) -> None:
    job = platform.command("submit", "-o", "name", "--", "sh", "-c", "sleep 2; exit 5").stdout.strip()
    _wait_until(lambda: _state(platform, job) == "running")
    assert platform.interrupt() == 0
    time.sleep(2.5)  # it ends while nobody watches
    platform.start()
    assert platform.command("wait", job, check=False).returncode == 5


def test_stop_jobs_ends_them(tmp_path: Path) -> None:
    with RunningPlatform(tmp_path / "data", flags=("--bare", "--stop-jobs")) as platform:
        mark = tmp_path / "ended"
        script = f"trap 'touch {mark}; exit 0' TERM; sleep 1000 & wait"
        job = platform.command("submit", "-o", "name", "--", "sh", "-c", script).stdout.strip()
        _wait_until(lambda: _state(platform, job) == "running")
        assert platform.interrupt(60) == 0
        assert mark.exists()


def _fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(65536))


def _submit(platform: RunningPlatform, spec: dict[str, object] | None = None) -> httpx2.Response:
    return platform.request("POST", "/api/v1/jobs", json=spec or JOB)


def _state(platform: RunningPlatform, job: str) -> str:
    return str(platform.request("GET", f"/api/v1/jobs/{job}").json()["state"])


def _goes_on(platform: RunningPlatform) -> None:
    """New jobs run to their end, and the platform did not have to be started again."""
    _wait_until(lambda: platform.request("GET", "/readyz").status_code == 200)
    answer = _submit(platform)
    assert answer.status_code == 201, answer.text
    job = answer.json()["id"]
    _wait_until(lambda: _state(platform, job) == "succeeded")
    assert platform.process is not None
    assert platform.process.poll() is None


def _wait_until(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"this took longer than {seconds} s"
        time.sleep(0.1)
