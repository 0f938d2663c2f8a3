"""A full disk is said, does no harm, and is over when it is over."""

import asyncio
import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Refused, Submitted, Unknown
from tests.contract.process_harness import ProcessHarness


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("no file system may be mounted here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


async def test_full_disk_loses_nothing(small_disk: Path) -> None:
    """What runs goes on, new attempts are neither taken nor refused for good, and afterwards they run."""
    harness = ProcessHarness(small_disk)
    await harness.start()
    running = harness.script("echo up; sleep 1; exit 6")
    await harness.submit(running)
    await harness.wait_for_output(running, b"up")
    fill = small_disk / "fill"
    with fill.open("wb") as file:
        while True:
            try:
                os.write(file.fileno(), b"x" * 4096)
            except OSError:
                break
    new = [harness.script("exit 7") for _ in range(3)]
    for _ in range(2):
        answers = await harness.driver.submit(new)
        assert {type(answer) for answer in answers} == {Unknown}
        assert all("space" in answer.message for answer in answers if isinstance(answer, Unknown))
    (status,) = await harness.wait([running])
    assert status.outcome is Outcome.FAILED
    assert status.exit_code == 6
    await asyncio.to_thread(fill.unlink)
    answers = await harness.driver.submit(new)
    assert {type(answer) for answer in answers} == {Submitted}
    assert [status.exit_code for status in await harness.wait(new)] == [7, 7, 7]
    await harness.tear_down()


async def test_scratch_that_is_not_there_is_refused(small_disk: Path) -> None:
    """For good where the file system is too small, for now where it is too full; and that no more is done is said."""
    harness = ProcessHarness(small_disk)
    await harness.start()
    (small_disk / "fill").write_bytes(b"x" * (1 << 20))
    spec = {"command": ["true"]}
    launches = [harness.launch(spec | {"scratch": size}) for size in ("1G", "1500K", "100K")]
    never, later, taken = await harness.driver.submit(launches)
    assert isinstance(never, Refused)
    assert never.permanent
    assert never.message.startswith("scratch: 1 GiB")
    assert isinstance(later, Refused)
    assert not later.permanent
    assert "free" in later.message
    assert isinstance(taken, Submitted)
    assert any("Scratch" in note for note in (await harness.driver.describe()).notes)
    await harness.tear_down()


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ENOMEM])
async def test_machine_without_room_for_the_supervisor_is_said(
    harness: ProcessHarness, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", full)
        with pytest.raises(DriverError, match=f"no room for a process: {os.strerror(number)}"):
            await harness.driver.observe(harness.held())
    assert (await harness.driver.observe(harness.held())).complete


async def test_supervisor_that_cannot_start_is_said(tmp_path: Path) -> None:
    """One sentence with the reason, and the next question finds it well again."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "supervisor").write_text("in the way")
    harness = ProcessHarness(tmp_path)
    await harness.start()
    with pytest.raises(DriverError) as caught:
        await harness.driver.observe(harness.held())
    assert "supervisor" in str(caught.value)
    (tmp_path / "site" / "supervisor").unlink()
    assert (await harness.run(harness.script("exit 3"))).exit_code == 3
    await harness.tear_down()
