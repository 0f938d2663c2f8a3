"""The keeper on its own: what it survives, and what many attempts cost it."""

import errno
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from atoll.drivers.process.supervisor import keeper as module
from atoll.drivers.process.supervisor import processes
from atoll.drivers.process.supervisor.attempt import ENDED, STARTING, Journal
from atoll.drivers.process.supervisor.devices import Devices
from atoll.drivers.process.supervisor.keeper import Keeper
from atoll.drivers.process.supervisor.spawn import Starter
from tests.contract.process_harness import until


def keeper_in(folder: Path, boot: str = "boot") -> Keeper:
    keeper = Keeper(Journal(str(folder / "journal"), boot), Starter(str(folder), None), None, Devices([]))
    keeper.recover()
    return keeper


def request(name: str, **values: Any) -> dict[str, Any]:
    usual = {
        "id": name, "uid": os.getuid(), "gid": os.getgid(), "groups": [], "memory": 0, "walltime": None, "signal": 0,
        "before": 0, "grace": 0, "gpu": 0, "scratch": "",
    }  # fmt: skip
    return usual | values


def test_stopping_many_that_wait_is_not_quadratic(tmp_path: Path) -> None:
    """The last to come are stopped first, which is the worst order for a queue that is searched."""

    def seconds(count: int) -> float:
        keeper = keeper_in(tmp_path / str(count))
        names = [f"a{number}" for number in range(count)]
        keeper.submit([request(name) for name in names])
        begun = time.process_time()
        keeper.stop([{"id": name, "outcome": "cancelled", "grace": 0} for name in reversed(names)])
        spent = time.process_time() - begun
        assert {each.phase for each in keeper.attempts.values()} == {ENDED}
        return spent

    for count in (2000, 20000):
        (tmp_path / str(count)).mkdir()
    assert seconds(20000) < 25 * seconds(2000)  # ten times as many; a hundred times as long, if it were


def test_restart_of_the_machine_ends_no_process_that_got_an_old_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session's number of before the restart may be anybody's now."""
    innocent = subprocess.Popen(
        ["sh", "-c", "sleep 60 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    )
    try:
        assert innocent.stdout is not None
        child = int(innocent.stdout.readline())
        entries = Journal(str(tmp_path / "journal"), "boot before")
        entries.rewrite([])
        first = Keeper(entries, Starter(str(tmp_path), None), None, Devices([]))
        first.submit([request("a")])
        state = {"phase": "running", "pid": innocent.pid, "born": 1}
        entries.write([{"do": "set", "id": "a", "state": state}])
        signalled: list[int] = []
        monkeypatch.setattr(processes, "send", lambda pids, number: signalled.extend(pids))
        keeper = keeper_in(tmp_path, "boot after")
        assert keeper.attempts["a"].outcome == "node_failed"
        assert os.getsid(child) == innocent.pid
        assert signalled == []
    finally:
        os.killpg(innocent.pid, 9)
        innocent.communicate()


def test_scratch_is_removed_later_where_there_is_no_room_for_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    (scratch / "file").touch()
    keeper = keeper_in(tmp_path)
    keeper.submit([request("a", scratch=str(scratch))])

    def full() -> int:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", full)
        keeper.stop([{"id": "a", "outcome": "cancelled", "grace": 0}])
    assert keeper.attempts["a"].phase == ENDED
    at = keeper.next_at()
    assert at is not None
    assert time.monotonic() < at < time.monotonic() + 2
    scratch.joinpath("file").unlink()  # so that this process need not be the keeper's helpers' parent
    time.sleep(max(0.0, at - time.monotonic()))
    monkeypatch.setattr(keeper, "_reap", lambda: None)  # the children of this process are not the keeper's
    keeper.work()
    assert not scratch.exists()


@pytest.mark.parametrize("what", ["hostile", "passing"])
async def test_claim_that_cannot_be_taken_back_does_not_end_the_supervisor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """One that somebody filled fails its attempt; an error that may pass is waited out."""
    monkeypatch.setattr(module, "_SEARCHES", 1)
    claim = tmp_path / "attempts" / "a" / "claim"
    claim.mkdir(parents=True)
    if what == "hostile":
        (claim / "file").touch()
    first = keeper_in(tmp_path)
    first.submit([request("a")])
    keeper = keeper_in(tmp_path)
    monkeypatch.setattr(keeper, "_reap", lambda: None)
    really, failures = os.rmdir, [OSError(errno.EIO, "Input/output error")] * 2

    def rmdir(path: str) -> None:
        if what == "passing" and failures:
            raise failures.pop()
        really(path)

    monkeypatch.setattr(os, "rmdir", rmdir)
    started: list[str] = []

    def start(attempt: Any, devices: bool) -> int:
        started.append(attempt.id)
        raise BlockingIOError

    monkeypatch.setattr(keeper._starter, "start", start)

    def settled() -> bool:
        keeper.work()
        return bool(started) or keeper.attempts["a"].phase == ENDED

    await until(settled)
    attempt = keeper.attempts["a"]
    if what == "hostile":
        assert attempt.outcome == "node_failed"
        assert "claim" in attempt.message
    else:
        assert (attempt.phase, started, failures) == (STARTING, ["a"], [])
