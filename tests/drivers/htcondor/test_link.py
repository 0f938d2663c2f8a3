"""The worker process with the real bindings: a pool that is not there, one that hangs, and a process that dies."""

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.drivers.base import DriverError, DriverSetup, Held
from atoll.drivers.htcondor import HtcondorDriver
from atoll.drivers.htcondor.config import read_config
from atoll.drivers.htcondor.link import Failed, Link
from tests.support.ports import free_port

SILENT: dict[str, Any] = {
    "parameters": {"SEC_CLIENT_AUTHENTICATION": "NEVER", "QUERY_TIMEOUT": "600", "TOOL_TIMEOUT_MULTIPLIER": "10"}
}


def make_link(folder: Path, token: str | None = None, **config: Any) -> Link:
    settings = {"collector": f"127.0.0.1:{free_port()}", "schedd": "nobody", "timeout": 10, **config}
    return Link(read_config(settings), token, folder)


def modes(folder: str) -> dict[str, int]:
    """The permissions of a folder and of what is in it; empty where there is none."""
    path = Path(folder)
    found = [path, *path.iterdir()] if path.is_dir() else []
    return {str(each.relative_to(path)): each.stat().st_mode & 0o777 for each in found}


@pytest.fixture
async def hanging() -> AsyncIterator[str]:
    """An address that takes connections and never says anything."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


async def test_pool_that_is_not_there_is_told_in_the_bindings_words(tmp_path: Path) -> None:
    config = {"collector": f"127.0.0.1:{free_port()}", "schedd": "ap1.example.org", "timeout": 20}
    driver = HtcondorDriver(DriverSetup("pool", "aaaaa", tmp_path, config, "owner"))
    with pytest.raises(DriverError, match=r"^The collector does not answer: Failed communication with collector\.$"):
        await driver.describe()
    with pytest.raises(DriverError, match=r"^The schedd does not answer: "):
        await driver.observe([Held("aaaaa-0000000000000000", "1.0")])
    await driver.close()


async def test_pool_that_hangs_is_given_up_in_time_and_the_loop_goes_on(tmp_path: Path, hanging: str) -> None:
    link = make_link(tmp_path, collector=hanging, timeout=5, **SILENT)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.05)
            ticks += 1

    ticking = asyncio.create_task(tick())
    begun = time.monotonic()
    with pytest.raises((DriverError, Failed)) as caught:
        await link.ask("machines", projection=["Name"])
    assert time.monotonic() - begun < 8
    assert isinstance(caught.value, Failed) or "within 5 seconds" in str(caught.value)
    assert ticks > 10, "the bindings held up the event loop"
    ticking.cancel()
    await link.close()


async def test_worker_that_dies_is_replaced(tmp_path: Path, hanging: str) -> None:
    link = make_link(tmp_path, collector=hanging, timeout=30, **SILENT)
    question = asyncio.create_task(link.ask("machines", projection=["Name"]))
    async with asyncio.timeout(10):
        while link._process is None:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        while not question.done():
            os.killpg(link._process.pid, signal.SIGKILL)
            await asyncio.sleep(0.05)
    with pytest.raises(DriverError, match="broke off"):
        await question
    await link.close()
    other = make_link(tmp_path)
    with pytest.raises(DriverError, match="broke off"):
        await other.ask("no such question")
    with pytest.raises(Failed):
        await other.ask("queue", constraint="true", projection=[])
    await other.close()


async def test_worker_finds_its_settings_and_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_TOKEN", "ours")
    (tmp_path / "token").write_text("the-token")
    link = make_link(tmp_path, str(tmp_path / "token"), parameters={"NETWORK_INTERFACE": "127.0.0.1"})
    with pytest.raises(Failed):
        await link.ask("queue", constraint="true", projection=[])
    assert link._process is not None
    process = Path(f"/proc/{link._process.pid}")
    found = dict(pair.split("=", 1) for pair in (process / "environ").read_text().split("\0") if pair)
    assert "ATOLL_TOKEN" not in found
    assert found["_CONDOR_NETWORK_INTERFACE"] == "127.0.0.1"
    assert "the-token" not in (process / "cmdline").read_text() + str(found)
    private = found["_CONDOR_SEC_TOKEN_DIRECTORY"]
    assert modes(private) == {".": 0o700, "token": 0o600}
    await link.close()
    assert modes(private) == {}


async def test_token_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    link = make_link(tmp_path, str(tmp_path / "missing"))
    with pytest.raises(DriverError, match="missing cannot be read: No such file"):
        await link.ask("queue", constraint="true", projection=[])
    await link.close()
