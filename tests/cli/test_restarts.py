"""Waiting and following survive a restart of the platform, and Ctrl-C never takes a job with it unasked."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.client.synchronous import Client
from atoll.faces.terminal.exits import CANCELLED, INTERRUPTED
from tests.support.platform import RunningPlatform

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]
ATOLL = [sys.executable, "-m", "atoll"]
SLOW = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo line $i; sleep 0.5; done; exit 6"]
LINES = "".join(f"line {number}\n" for number in range(1, 9))


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path / "data") as platform:
        yield platform


@pytest.fixture
def client(platform: RunningPlatform) -> Iterator[Client]:
    with Client(data=platform.data) as client:
        yield client


def test_run_logs_and_wait_go_on_over_a_kill_of_the_platform(platform: RunningPlatform, client: Client) -> None:
    run = subprocess.Popen(
        [*ATOLL, "run", "--", *SLOW],
        env=platform.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert run.stdout is not None
    assert run.stdout.readline() == "line 1\n"
    (job,) = client.jobs()
    others = [
        subprocess.Popen([*ATOLL, *words, job.id], env=platform.environment(), stdout=subprocess.PIPE, text=True)
        for words in (["wait"], ["logs", "-f"])
    ]
    for _ in range(2):
        platform.kill()
        time.sleep(0.5)  # long enough to be noticed
        platform.start()
    out, err = run.communicate(timeout=60)
    wait, logs = [process.communicate(timeout=60)[0] for process in others]
    assert ("line 1\n" + out, run.returncode) == (LINES, 6), err
    assert (logs, others[1].returncode) == (LINES, 0)
    assert (wait, others[0].returncode) == ("", 6)


def test_a_submission_while_the_platform_restarts_is_made_once(platform: RunningPlatform, client: Client) -> None:
    platform.kill()
    submit = subprocess.Popen(
        [*ATOLL, "submit", "-o", "name", "--", "true"], env={**platform.environment(), "ATOLL_TIMEOUT": "60"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert submit.stderr is not None
    assert "trying again" in submit.stderr.readline()
    platform.start()
    out, _ = submit.communicate(timeout=60)
    assert submit.returncode == 0
    assert client.wait(int(out)).state == "succeeded"
    assert [job.id for job in client.jobs(limit=10)] == []


class Terminal:
    """A command on a terminal of its own, as a person sees it."""

    def __init__(self, words: list[str], environment: dict[str, str]) -> None:
        self.pid, self._handle = pty.fork()
        if self.pid == 0:
            os.execve(sys.executable, [*ATOLL, *words], environment)
        self.seen = ""

    def until(self, text: str) -> None:
        """Read until `text` was printed."""
        deadline = time.monotonic() + 30
        while text not in self.seen:
            assert time.monotonic() < deadline, self.seen
            if select.select([self._handle], [], [], 0.5)[0]:
                self.seen += os.read(self._handle, 4096).decode()
        self.seen = self.seen.partition(text)[2]

    def type(self, text: str) -> None:
        """Type on its keyboard; \x03 is Ctrl-C."""
        os.write(self._handle, text.encode())

    def end(self) -> int:
        """Its exit code."""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):  # the terminal is gone when it has ended
                if select.select([self._handle], [], [], 0.1)[0]:
                    os.read(self._handle, 4096)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self._handle)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        raise AssertionError("it did not end")


def test_ctrl_c_of_run_asks_and_goes_on_cancels_or_detaches(platform: RunningPlatform, client: Client) -> None:
    terminal = Terminal(["run", "--", *SLOW], platform.environment())
    terminal.until("line 1")
    terminal.type("\x03")
    terminal.until("[c]ancel")
    terminal.type("\n")
    terminal.until("line 8")
    assert terminal.end() == 6

    terminal = Terminal(["run", "--", "sh", "-c", "echo ready; sleep 60"], platform.environment())
    terminal.until("ready")
    (job,) = client.jobs()
    terminal.type("\x03")
    terminal.until("[c]ancel")
    terminal.type("c\n")
    assert terminal.end() == CANCELLED
    assert client.job(job).state == "cancelled"

    for answer in ("d\n", "\x03"):
        terminal = Terminal(["run", "--", "sh", "-c", "echo ready; sleep 60"], platform.environment())
        terminal.until("ready")
        (job,) = client.jobs()
        terminal.type("\x03")
        terminal.until("[c]ancel")
        terminal.type(answer)
        terminal.until("goes on")
        assert terminal.end() == INTERRUPTED
        assert client.job(job).state == "running"
        client.cancel(job)
        client.wait(job)


def test_ctrl_c_of_attach_detaches(platform: RunningPlatform, client: Client) -> None:
    job = client.submit(command=["sh", "-c", "echo ready; sleep 60"])
    terminal = Terminal(["attach", str(job.id)], platform.environment())
    terminal.until("ready")
    terminal.type("\x03")
    terminal.until("detached")
    assert terminal.end() == 0
    assert client.job(job).state == "running"


def test_an_interrupted_run_without_a_terminal_lets_the_job_go_on(platform: RunningPlatform, client: Client) -> None:
    run = subprocess.Popen(
        [*ATOLL, "run", "--", "sh", "-c", "echo ready; sleep 60"], env=platform.environment(), stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert run.stdout is not None
    assert run.stdout.readline() == "ready\n"
    run.send_signal(signal.SIGINT)
    _, err = run.communicate(timeout=30)
    assert run.returncode == INTERRUPTED
    assert "atoll cancel" in err
    assert [job.state for job in client.jobs()] == ["running"]


def test_a_table_on_a_terminal_is_cut_to_its_width(platform: RunningPlatform, client: Client) -> None:
    client.submit({"command": ["true"], "name": "name-of-it"}, hold=True)
    terminal = Terminal(["ps"], {**platform.environment(), "COLUMNS": "60", "TERM": "xterm-256color"})
    terminal.until("REASON")
    terminal.until("name-of-it")
    terminal.until("\u2026")  # the reason is longer than what is left of the line
    assert terminal.end() == 0
