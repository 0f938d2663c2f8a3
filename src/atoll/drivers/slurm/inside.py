"""Reaching into attempts at the site: their output, their files, commands and ports beside their own."""

import asyncio
import os
import re
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from atoll.core.ids import is_attempt_id
from atoll.drivers.base import Channel, DriverError, Execution, Held, LogChunk
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.jobs import SlurmJob
from atoll.drivers.slurm.options import words_for_srun
from atoll.drivers.slurm.reading import LogReader
from atoll.drivers.slurm.site import SlurmSite
from atoll.drivers.wrapper import STDERR, STDOUT
from atoll.drivers.wrapper.globs import Glob

_MOST_LISTED = 256 << 20
_MOST_FILES = 100_000
_LONGEST_PATH = 1024
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
"""Control characters, and what stands for bytes that are not UTF-8: no person could read or ask for such a name."""


class Inside:
    """What is done in the folders and beside the processes of single attempts, with the rights of their accounts."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site
        self._reader = LogReader(site)

    async def _root(self, attempt: Held) -> str:
        """The root of the attempt's account. Raises KeyError for what is no attempt of this platform."""
        if not is_attempt_id(attempt.attempt_id, self._site.setup.instance):
            raise KeyError(attempt.attempt_id)
        return (await self._site.home(attempt.account)).root

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output. Raises KeyError where there is no such attempt or stream."""
        if not is_attempt_id(attempt.attempt_id, self._site.setup.instance):
            raise KeyError(attempt.attempt_id)
        if stream not in (STDOUT, STDERR):
            raise KeyError(stream)
        return await self._reader.read(attempt.account, attempt.attempt_id, stream, offset, limit)

    # -- files out -----------------------------------------------------------------------------------------------

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the working directory. Raises KeyError where there is no such attempt."""
        root = await self._root(attempt)
        listed = bytearray()

        async def take(piece: bytes) -> None:
            listed.extend(piece)
            if len(listed) > _MOST_LISTED:
                raise DriverError("The working directory holds more files than can be listed.")

        ran = await self._site.script(
            attempt.account, scripts.LIST_FILES, root, attempt.attempt_id, sink=take, allowed=(1, 3)
        )
        if ran.code == 3:
            raise KeyError(attempt.attempt_id)
        wanted = await asyncio.to_thread(_wanted, bytes(listed), patterns)
        if not wanted:
            return []
        reading, writing = os.pipe()
        with os.fdopen(writing, "wb", buffering=0) as target:
            unpacking = asyncio.create_task(asyncio.to_thread(_unpack, reading, wanted, into))

            async def carry(piece: bytes) -> None:
                if unpacking.done():
                    raise DriverError("The files that the site sends cannot be unpacked.")
                await asyncio.to_thread(_write_all, target, piece)

            names = b"".join(kind.encode() + b" " + path.encode() + b"\0" for path, kind in wanted.items())
            try:
                await self._site.script(
                    attempt.account, scripts.TAKE_FILES, root, attempt.attempt_id, stdin=names, sink=carry
                )
            finally:
                target.close()
                taken = await unpacking
        return sorted(taken)

    # -- beside the attempt's own processes ----------------------------------------------------------------------

    async def execute(self, attempt: Held, job: SlurmJob, command: Sequence[str], *, terminal: bool) -> Execution:
        """Start a command on the attempt's first node, in its environment and working directory."""
        root = await self._root(attempt)
        words = [
            "srun", f"--jobid={job.job_id}", "--overlap", "--quiet", "--nodes=1", "--ntasks=1", "--relative=0",
            "--gres=none", "--mem=0", "--export=NONE", "--chdir=/", *(["--pty"] if terminal else ["--unbuffered"]),
            "/bin/sh", "-c", scripts.ENTER, "atoll", f"{root}/attempts/{attempt.attempt_id}",
            *words_for_srun(command),
        ]  # fmt: skip
        # srun's own words on the command's end are not the command's; its output comes as one stream
        wrapped = words if terminal else ["/bin/sh", "-c", 'exec "$@" 2>/dev/null', "sh", *words]
        return await self._site.shell.open(attempt.account, wrapped, terminal=terminal)

    async def connect(self, attempt: Held, job: SlurmJob, port: int) -> Channel:
        """A stream to a port of the attempt's first node."""
        facts = await self._site.facts()
        address = next((node.address for node in facts.nodes if node.name == job.node), job.node)
        return await self._site.shell.connect(attempt.account, address, port)


def _wanted(listed: bytes, patterns: Sequence[str]) -> dict[str, str]:
    """The paths that match a pattern, with `f` for a file and `l` for a link."""
    globs = [Glob(pattern) for pattern in patterns]
    wanted: dict[str, str] = {}
    for entry in listed.split(b"\0"):
        kind, _, path = entry.decode("utf-8", "surrogateescape").partition(" ")
        if not path or _NO_NAME.search(path) or len(path.encode()) > _LONGEST_PATH:
            continue
        if len(wanted) < _MOST_FILES and any(glob.matches(path) for glob in globs):
            wanted[path] = kind
    return wanted


def _write_all(target: IO[bytes], piece: bytes) -> None:
    view = memoryview(piece)
    try:
        while view:
            view = view[target.write(view) :]
    except BrokenPipeError:
        return  # whoever unpacks has stopped, and says why


def _unpack(reading: int, wanted: dict[str, str], into: Path) -> list[str]:
    """Plain files of the stream that were asked for, each at the path that was asked for. Raises DriverError."""
    taken: list[str] = []
    with os.fdopen(reading, "rb") as source:
        try:
            with tarfile.open(fileobj=source, mode="r|") as tar:
                for member in tar:
                    path = member.name.removeprefix("./")
                    content = tar.extractfile(member) if member.isreg() and path in wanted else None
                    if content is None or path in taken[-1:]:
                        continue
                    target = into / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("wb") as out:
                        while piece := content.read(1 << 20):
                            out.write(piece)
                    target.chmod(0o755 if member.mode & 0o100 else 0o644)
                    taken.append(path)
        except tarfile.TarError as error:
            raise DriverError(f"The files that the site sends cannot be unpacked: {error}.") from None
        finally:
            while source.read(1 << 20):  # so that the sender comes to its end
                pass
    return taken
