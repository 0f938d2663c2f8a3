"""Copies files out of a working directory that may belong to somebody hostile, without leaving that directory."""

import os
import re
import shutil
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from atoll.drivers.wrapper.globs import Glob

_MOST_LINKS = 20
_MOST_FILES = 100_000
_LONGEST_PATH = 1024
"""Bytes of a path below the working directory."""
_DEEPEST = 64
"""Folders within folders that are looked into."""
_NO_NAME = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
"""Control characters, and what stands for bytes that are not UTF-8: no person could read or ask for such a name."""


class Beneath:
    """Opens files below one folder, links included as long as they stay below it."""

    def __init__(self, root: int, uid: int | None) -> None:
        self._root = root
        self._uid = uid
        """Only files of this account are opened; None for any."""

    def open(self, path: str) -> int | None:
        """A descriptor of the plain file `path`; None where it is none, leads out, or is not the account's."""
        links = 0
        waiting = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        passed = [os.dup(self._root)]
        try:
            while waiting:
                name = waiting.pop()
                if name == "..":
                    if len(passed) == 1:
                        return None
                    os.close(passed.pop())
                    continue
                if target := self._link(passed[-1], name):
                    links += 1
                    if target.startswith("/") or links > _MOST_LINKS:
                        return None
                    waiting += [part for part in reversed(target.split("/")) if part not in ("", ".")]
                    continue
                # a mere place first: to open a device for reading can already do something
                flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_DIRECTORY if waiting else 0)
                passed.append(os.open(name, flags, dir_fd=passed[-1]))
            status = os.fstat(passed[-1])
            if len(passed) == 1 or not stat.S_ISREG(status.st_mode) or self._uid not in (None, status.st_uid):
                return None
            return os.open(f"/proc/self/fd/{passed[-1]}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        finally:
            for descriptor in passed:
                os.close(descriptor)

    @staticmethod
    def _link(folder: int, name: str) -> str | None:
        try:
            return os.readlink(name, dir_fd=folder)
        except OSError:
            return None

    def files(self) -> Iterator[str]:
        """Relative paths of all that is no folder, links not followed, at most `_DEEPEST` folders deep."""
        waiting: list[tuple[str, ...]] = [()]
        while waiting:
            parts = waiting.pop()
            try:
                folder = self._folder(parts)
            except OSError:
                continue  # gone, closed, or a link by now
            try:
                with os.scandir(folder) as entries:
                    for entry in entries:
                        if not entry.is_dir(follow_symlinks=False):
                            yield "/".join((*parts, entry.name))
                        elif len(parts) < _DEEPEST:
                            waiting.append((*parts, entry.name))
            finally:
                os.close(folder)

    def _folder(self, parts: Sequence[str]) -> int:
        """A descriptor of a folder below the root, reached without following any link."""
        folder = os.dup(self._root)
        for part in parts:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                inner = os.open(part, flags, dir_fd=folder)
            finally:
                os.close(folder)
            folder = inner
        return folder


def take_out(root: int, patterns: Sequence[str], into: Path, uid: int | None) -> list[str]:
    """Copy the files below the open folder `root` that match a pattern into `into`; returns their paths, sorted.

    Executable ones stay so. Files that do not belong to the account `uid` (None: any account) are left, and so are
    those whose path is not UTF-8, has control characters or takes more than 1024 bytes, or is deeper than 64 folders.
    """
    beneath = Beneath(root, uid)
    wanted = [Glob(pattern) for pattern in patterns]
    taken: list[str] = []
    for path in beneath.files():
        if not can_be_named(path):
            continue
        if len(taken) < _MOST_FILES and any(pattern.matches(path) for pattern in wanted):
            source = beneath.open(path)
            if source is not None:
                _copy(source, into / path)
                taken.append(path)
    return sorted(taken)


def can_be_named(path: str) -> bool:
    """Whether the path can be kept and shown: the database and people take no other."""
    return _NO_NAME.search(path) is None and len(path.encode()) <= _LONGEST_PATH


def _copy(source: int, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(source, "rb") as read, target.open("wb") as write:
        shutil.copyfileobj(read, write, 1 << 20)
        executable = os.fstat(read.fileno()).st_mode & stat.S_IXUSR
    target.chmod(0o755 if executable else 0o644)
