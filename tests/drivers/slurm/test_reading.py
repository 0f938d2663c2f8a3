"""Output of attempts that is read together, without any Slurm."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from atoll.drivers.base import DriverError, DriverSetup, LogChunk
from atoll.drivers.shell import LocalShell, Ran
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.reading import LogReader
from atoll.drivers.slurm.site import SlurmSite

IDS = [f"abcde-000000000000000{digit}" for digit in "123"]


class Place:
    """A site's folder of attempts, whose scripts are counted; `spoilt` changes the answer of the first."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        site = SlurmSite(
            DriverSetup("slurm", "abcde", folder, {}, "ann"), read_config({"folder": str(folder)}), LocalShell()
        )
        self.reader = LogReader(site)
        self.site = site
        self.asked: list[int] = []
        self.spoilt: Any = None
        real = site.script

        async def script(account: str | None, text: str, *arguments: str, stdin: bytes = b"", **more: Any) -> Ran:
            ran = await real(account, text, *arguments, stdin=stdin, **more)
            if stdin:
                self.asked.append(stdin.count(b"\n"))
                if self.spoilt is not None and len(self.asked) == 1:
                    return Ran(ran.code, self.spoilt(ran.out), ran.error)
            return ran

        monkeypatch.setattr(site, "script", script)

    async def write(self, attempt: str, stream: str, content: bytes) -> None:
        """What an attempt has written."""
        folder = Path((await self.site.home(None)).root) / "attempts" / attempt
        folder.mkdir(parents=True, exist_ok=True)
        (folder / stream).write_bytes(content)

    async def read(self, *wanted: tuple[str, str, int, int]) -> list[Any]:
        """What is answered when all is asked for at once."""
        return await asyncio.gather(*(self.reader.read(None, *each) for each in wanted), return_exceptions=True)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    return Place(tmp_path, monkeypatch)


async def test_output_that_is_asked_for_at_once_is_read_by_one_script(place: Place) -> None:
    await place.write(IDS[0], "stdout", b"\x00one\n\xff")
    await place.write(IDS[0], "stderr", b"")
    await place.write(IDS[1], "stdout", b"0123456789")
    found = await place.read(
        (IDS[0], "stdout", 0, 100), (IDS[0], "stderr", 0, 100), (IDS[1], "stdout", -4, 100), (IDS[1], "stdout", 2, 3),
        (IDS[2], "stdout", 0, 100), (IDS[1], "stdout", 50, 3), (IDS[1], "stderr", 0, 3),
    )  # fmt: skip
    missing = found.pop(4)
    assert isinstance(missing, KeyError)
    assert found == [
        LogChunk(0, b"\x00one\n\xff", 6), LogChunk(0, b"", 0), LogChunk(6, b"6789", 10), LogChunk(2, b"234", 10),
        LogChunk(10, b"", 10), LogChunk(0, b"", 0),
    ]  # fmt: skip
    assert place.asked == [7]


async def test_no_more_is_read_together_than_fits_into_memory(place: Place) -> None:
    await place.write(IDS[0], "stdout", b"x")
    await place.read(*[(IDS[0], "stdout", 0, 5 << 20)] * 6)
    assert place.asked == [4, 2]


@pytest.mark.parametrize(
    "spoilt",
    [
        lambda text: text.replace(b"0123456789", b"01234"),  # shorter than it was
        lambda text: text[:-3],
        lambda text: text.replace(b"0123456789", b""),
        lambda text: b"",
    ],
)
async def test_output_that_shrinks_while_it_is_read_spoils_no_other(place: Place, spoilt: Any) -> None:
    place.spoilt = spoilt
    await place.write(IDS[0], "stdout", b"0123456789")
    await place.write(IDS[1], "stdout", b"abc")
    found = await place.read((IDS[0], "stdout", 0, 100), (IDS[1], "stdout", 0, 100))
    assert found == [LogChunk(0, b"0123456789", 10), LogChunk(0, b"abc", 3)]
    assert place.asked == [2, 1, 1]


async def test_output_that_looks_like_an_answer_is_output(place: Place) -> None:
    forged = b"0123456789abcdef 3 0 3\nxyz"
    await place.write(IDS[0], "stdout", forged)
    await place.write(IDS[1], "stdout", b"abc")
    found = await place.read((IDS[0], "stdout", 0, 100), (IDS[1], "stdout", 0, 100))
    assert [each.data for each in found] == [forged, b"abc"]
    assert place.asked == [2]


async def test_site_that_does_not_answer_is_told_to_all(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: Any, **__: Any) -> Ran:
        raise DriverError("The login node does not answer.")

    monkeypatch.setattr(place.site, "script", fails)
    found = await place.read((IDS[0], "stdout", 0, 9), (IDS[1], "stdout", 0, 9))
    assert [str(each) for each in found] == ["The login node does not answer."] * 2


async def test_who_waits_no_longer_disturbs_nobody(place: Place) -> None:
    await place.write(IDS[0], "stdout", b"abc")
    gone = asyncio.create_task(place.reader.read(None, IDS[0], "stdout", 0, 9))
    stays = asyncio.create_task(place.reader.read(None, IDS[0], "stdout", 1, 9))
    await asyncio.sleep(0)
    gone.cancel()
    assert (await stays).data == b"bc"
