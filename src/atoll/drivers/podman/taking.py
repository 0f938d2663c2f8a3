"""Files out of an attempt's working directory: from its folder, or out of its container by way of Podman.

Podman hands a folder of a container, also of one that has ended, out as a tar archive, which it makes inside the
container's own tree. The archive is kept in a file while it is read; links in it are followed only within it.
"""

import asyncio
import os
import shutil
import stat
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from atoll.drivers.base import DriverError
from atoll.drivers.podman.api import Engine, complaint
from atoll.drivers.podman.container import name_of
from atoll.drivers.podman.folders import Folders, LocalFolders
from atoll.drivers.podman.layout import ATTEMPT
from atoll.drivers.wrapper.globs import Glob
from atoll.drivers.wrapper.take_out import can_be_named
from atoll.drivers.wrapper.take_out import take_out as take_from_folder

_MOST_LINKS = 20
_MOST_FILES = 100_000
_MOST_MEMBERS = 1_000_000
_DEEPEST = 64
_SILENCE = 120.0
"""Longest silence while an archive comes."""


async def take_out(
    engine: Engine, folders: Folders, attempt: str, workdir: str, patterns: Sequence[str], into: Path
) -> list[str]:
    """Copy what matches into `into`; the relative paths, sorted. Raises DriverError."""
    if isinstance(folders, LocalFolders) and workdir.startswith(f"{ATTEMPT}/"):
        return await asyncio.to_thread(
            _from_folder, folders, attempt, workdir.removeprefix(f"{ATTEMPT}/"), patterns, into
        )
    with tempfile.TemporaryFile() as spool:
        if not await _fetch(engine, attempt, workdir, spool):
            return []
        spool.seek(0)
        try:
            return await asyncio.to_thread(_from_archive, spool, patterns, into)
        except (tarfile.TarError, EOFError) as error:
            raise DriverError(f"Podman handed out an archive that cannot be read: {error}.") from error


def _from_folder(folders: LocalFolders, attempt: str, below: str, patterns: Sequence[str], into: Path) -> list[str]:
    root = folders.open_folder(attempt, below)
    if root is None:
        return []
    try:
        uid = folders.owner_of(attempt)
        return take_from_folder(root, patterns, into, None if uid == os.geteuid() else uid)
    finally:
        os.close(root)


async def _fetch(engine: Engine, attempt: str, workdir: str, spool: IO[bytes]) -> bool:
    """Write the folder's archive to `spool`; whether there is such a folder."""
    # the final /. takes the folder's content, and follows it where it is a link
    path = f"/containers/{name_of(attempt)}/archive"
    async with engine.stream("GET", path, params={"path": f"{workdir}/."}, seconds=_SILENCE) as response:
        if response.status == 404:
            return False
        if response.status >= 400:
            raise DriverError(f"Podman does not hand out files: {complaint(response.status, await response.read())}.")
        async for piece in response.content.iter_any():
            await asyncio.to_thread(spool.write, piece)
    return True


def _from_archive(spool: IO[bytes], patterns: Sequence[str], into: Path) -> list[str]:
    wanted = [Glob(pattern) for pattern in patterns]
    taken: list[str] = []
    with tarfile.open(fileobj=spool, mode="r:") as archive:
        members: dict[str, tarfile.TarInfo] = {}
        for member in archive:
            if len(members) > _MOST_MEMBERS:
                raise DriverError(f"The working directory holds more than {_MOST_MEMBERS:,} files.")
            members[_plain(member.name)] = member
        for path, member in members.items():
            if member.isdir() or not can_be_named(path) or path.count("/") > _DEEPEST or len(taken) >= _MOST_FILES:
                continue
            if any(pattern.matches(path) for pattern in wanted) and (source := resolve(path, members)) is not None:
                _copy(archive, source, into / path)
                taken.append(path)
    return sorted(taken)


def _plain(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def resolve(path: str, members: dict[str, tarfile.TarInfo]) -> tarfile.TarInfo | None:
    """The plain file that `path` is, by way of links within the archive; None where it is none, or leads out."""
    links = 0
    waiting = list(reversed(path.split("/")))
    passed: list[str] = []
    while waiting:
        part = waiting.pop()
        if part in ("", "."):
            continue
        if part == "..":
            if not passed:
                return None
            passed.pop()
            continue
        member = members.get("/".join((*passed, part)))
        if member is None:
            return None
        if member.issym():
            links += 1
            if member.linkname.startswith("/") or links > _MOST_LINKS:
                return None
            waiting += reversed(member.linkname.split("/"))
            continue
        passed.append(part)
    found = members.get("/".join(passed))
    if found is not None and found.islnk():
        found = members.get(_plain(found.linkname))
    return found if found is not None and found.isreg() else None


def _copy(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    source = archive.extractfile(member)
    assert source is not None
    target.parent.mkdir(parents=True, exist_ok=True)
    with source, target.open("wb") as write:
        shutil.copyfileobj(source, write, 1 << 20)
    target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)
