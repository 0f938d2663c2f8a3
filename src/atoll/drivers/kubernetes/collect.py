"""Reads output and takes files out of pods, by the container beside the job."""

import asyncio
import base64
import re
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from atoll.drivers.base import DriverError, LogChunk
from atoll.drivers.kubernetes.api import ApiError
from atoll.drivers.kubernetes.cluster import Cluster, runs
from atoll.drivers.kubernetes.objects import KEEPER, Pod
from atoll.drivers.kubernetes.payload import IN
from atoll.drivers.wrapper.globs import Glob

_MOST = 1 << 20
"""Bytes of output that are read at once."""
_MOST_REST = 8 << 20
_MARK = re.compile(rb"^atoll (stdout|stderr) (\d{1,18}) (\d{1,18})\n", re.MULTILINE)
_MOST_FILES = 100_000
_MOST_NAMES = 16 << 20
_LONGEST_PATH = 1024
_DEEPEST = 64
_PATIENCE = 60.0
"""Seconds without a byte after which taking out is given up."""


class Gone(Exception):
    """What was to be collected is lost for good. No DriverError: the site answers, and asking again does not help."""


async def _part(cluster: Cluster, pod: Pod, stream: str, offset: int, limit: int) -> LogChunk:
    """A piece of the output of one pod."""
    try:
        code, said = await cluster.run(
            pod, KEEPER, "read", stream, str(offset), str(limit), limit=limit + 100
        )  # fmt: skip
    except ApiError as error:
        raise cluster.api.sentence(error) from error
    head, newline, data = said.partition(b"\n")
    words = head.split()
    if code != 0 or not newline or len(words) != 2 or not all(word.isdigit() for word in words):
        raise DriverError(f"The output of the pod {pod.metadata.name} cannot be read just now.")
    return LogChunk(int(words[1]), data[:limit], int(words[0]))


async def _rest(cluster: Cluster, pod: Pod, stream: str, offset: int, limit: int) -> LogChunk:
    """The same from the log of the container that kept the files: the last 2 MiB of each stream."""
    log = await cluster.log(pod, KEEPER, _MOST_REST)
    marks = [match for match in _MARK.finditer(log) if match[1] == stream.encode()]
    if not marks:
        return LogChunk(0, b"", 0)
    size, start = int(marks[0][2]), int(marks[0][3])
    following = _MARK.search(log, marks[0].end())
    try:
        data = base64.b64decode(log[marks[0].end() : following.start() if following else len(log)])
    except ValueError:
        raise DriverError(f"The output of the pod {pod.metadata.name} cannot be read.") from None
    begin = min(max(offset if offset >= 0 else size + offset, start), size)
    return LogChunk(begin, data[begin - start : begin - start + limit], size)


async def _piece(cluster: Cluster, pod: Pod, stream: str, offset: int, limit: int) -> LogChunk:
    """A piece of the output of one pod, wherever it is now."""
    if runs(pod, KEEPER):
        return await _part(cluster, pod, stream, offset, limit)
    if pod.container(KEEPER).terminated is not None:
        return await _rest(cluster, pod, stream, offset, limit)
    return LogChunk(0, b"", 0)


async def read_log(cluster: Cluster, pods: Sequence[Pod], stream: str, offset: int, limit: int) -> LogChunk:
    """A piece of the output of an attempt: of several nodes one after the other, in the order of their ranks.

    Without a pod there is no output any more, or none yet.
    """
    limit = max(0, min(limit, _MOST))
    if not pods:
        return LogChunk(0, b"", 0)
    if len(pods) == 1:
        return await _piece(cluster, pods[0], stream, offset, limit)
    sizes = [(await _piece(cluster, pod, stream, 0, 0)).size for pod in pods]
    size = sum(sizes)
    start = max(0, size + offset) if offset < 0 else min(offset, size)
    data, at = b"", start
    for pod, length in zip(pods, sizes, strict=True):
        if at < length and len(data) < limit:
            wanted = min(limit - len(data), length - at)
            data += (await _piece(cluster, pod, stream, at, wanted)).data
        at = max(0, at - length)
    return LogChunk(start, data, size)


async def take_out(cluster: Cluster, pod: Pod, patterns: Sequence[str], into: Path) -> list[str]:
    """Copy the files that match a pattern into `into`; their relative paths, sorted."""
    try:
        code, listed = await cluster.run(pod, KEEPER, "list", limit=_MOST_NAMES)
    except ApiError as error:
        raise cluster.api.sentence(error) from error
    if code != 0:
        raise DriverError(f"The files of the pod {pod.metadata.name} cannot be listed.")
    wanted = _matching(listed, [Glob(pattern) for pattern in patterns])
    if not wanted:
        return []
    with tempfile.TemporaryFile() as spool:
        await _fetch(cluster, pod, wanted, spool)
        spool.seek(0)
        return await asyncio.to_thread(_unpack, spool, frozenset(wanted), into)


def _matching(listed: bytes, patterns: Sequence[Glob]) -> list[str]:
    """The paths of a listing that match, and that can be named: UTF-8, no control characters, not endless."""
    found = []
    for each in listed.split(b"\0"):
        try:
            path = each.decode().removeprefix("./")
        except UnicodeDecodeError:
            continue
        usable = path.isprintable() and len(each) <= _LONGEST_PATH and path.count("/") <= _DEEPEST
        if path and usable and any(pattern.matches(path) for pattern in patterns):
            found.append(path)
    return sorted(found)[:_MOST_FILES]


async def _fetch(cluster: Cluster, pod: Pod, paths: Sequence[str], spool: IO[bytes]) -> None:
    """Have the pod write its files to `spool`, as tar."""
    words = ["/bin/sh", f"{IN}/pod.sh", "take"]
    try:
        execution = await cluster.execute(pod, KEEPER, words, stdin=True, apart=True)
    except ApiError as error:
        raise cluster.api.sentence(error) from error
    try:
        # ./ so that no program takes a name for an option
        names = "".join(f"./{path}\n" for path in paths) + "\n"
        sending = asyncio.create_task(execution.write(names.encode()))
        while True:
            async with asyncio.timeout(_PATIENCE):
                piece = await execution.read(1 << 20)
            if not piece:
                break
            await asyncio.to_thread(spool.write, piece)
        await sending
        code = await execution.wait()
        if code != 0:
            words_said = " ".join(execution.error_output.decode("utf-8", "replace").split())[:300]
            raise DriverError(f"The files of the pod cannot be taken out: {words_said or f'tar ended with {code}'}.")
    except TimeoutError:
        raise DriverError(f"The pod {pod.metadata.name} sends no more of its files.") from None
    finally:
        await execution.close()


def _unpack(spool: IO[bytes], wanted: frozenset[str], into: Path) -> list[str]:
    """Write the plain files of an archive that were asked for; whatever else is in it, is left. Blocking."""
    taken: set[str] = set()
    try:
        with tarfile.open(fileobj=spool, mode="r|") as archive:
            for member in archive:
                path = member.name.removeprefix("./")
                if path in wanted and path not in taken and _write(archive, member, into, path, taken):
                    taken.add(path)
    except tarfile.TarError as error:
        raise DriverError(f"What the pod sends for its files is no archive: {error}.") from error
    return sorted(taken)


def _write(archive: tarfile.TarFile, member: tarfile.TarInfo, into: Path, path: str, taken: set[str]) -> bool:
    """Write one file of the archive, or a further name of one that was written before; whether it was one."""
    target, same = into / path, member.linkname.removeprefix("./")
    source = archive.extractfile(member) if member.isreg() else None
    if source is None and not (member.islnk() and same in taken):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    if source is None:
        shutil.copyfile(into / same, target)
    else:
        with target.open("wb") as file:
            shutil.copyfileobj(source, file, 1 << 20)
    target.chmod(0o755 if member.mode & 0o100 else 0o644)
    return True
