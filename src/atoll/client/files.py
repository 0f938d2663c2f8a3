"""Files of the submitter: found on this machine, named by the hash of their content, and brought back safely."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

from atoll.core.errors import Invalid

CHUNK = 1024 * 1024
MOST_FILES = 10_000
"""Files that one job may take in."""


@dataclass(frozen=True)
class LocalFile:
    """A file of this machine and where a job is to find it."""

    source: Path
    path: str
    sha256: str
    size: int
    executable: bool

    def entry(self) -> dict[str, Any]:
        """The entry of `files_in` that stands for it."""
        entry: dict[str, Any] = {"path": self.path, "sha256": self.sha256}
        return {**entry, "executable": True} if self.executable else entry


def hash_file(path: Path, progress: Callable[[int], None] | None = None) -> tuple[str, int]:
    """The SHA-256 of a file's content as hex digits, and its size in bytes."""
    digest = hashlib.sha256()
    size = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
            if progress is not None:
                progress(len(chunk))
    return digest.hexdigest(), size


def local_files(given: str, folder: Path, path: str | None = None, field: str = "files_in") -> list[LocalFile]:
    """The files that `given`, a file or a whole folder below `folder`, stands for. Raises Invalid that names it.

    A job finds them under `path`; else under the name that was given, where that stays inside `folder`; else under the
    last part of the name.
    """
    source = folder / Path(given).expanduser()
    target = PurePosixPath(path.rstrip("/") if path else _target(given))
    if not source.exists():
        raise Invalid("no_such_file", f"{field}: the file {source} is not there.", field=field)
    if not source.is_dir():
        return [_hashed(source, target, field)]
    found = []
    for base, folders, names in os.walk(source):
        folders.sort()
        for name in sorted(names):
            file = Path(base) / name
            found.append(_hashed(file, target / file.relative_to(source), field))
            if len(found) > MOST_FILES:
                raise Invalid(
                    "too_many_files",
                    f"{field}: the folder {source} has more than {MOST_FILES} files; send an archive instead.",
                    field=field,
                )
    if not found:
        raise Invalid("no_such_file", f"{field}: the folder {source} holds no file.", field=field)
    return found


def _target(given: str) -> str:
    parts = PurePosixPath(os.path.normpath(given))
    if parts.is_absolute() or ".." in parts.parts or given.startswith("~"):
        return Path(given).expanduser().resolve().name
    return str(parts)


def _hashed(source: Path, target: PurePosixPath, field: str) -> LocalFile:
    if not source.is_file():
        raise Invalid("no_such_file", f"{field}: {source} is no regular file.", field=field)
    try:
        sha256, size = hash_file(source)
        executable = bool(source.stat().st_mode & 0o100)
    except OSError as error:
        raise Invalid("unreadable", f"{field}: {source} cannot be read: {error.strerror}.", field=field) from None
    return LocalFile(source, str(target), sha256, size, executable)


def take_sources(document: Mapping[str, Any], folder: Path) -> tuple[dict[str, Any], list[LocalFile]]:
    """A job document whose `files_in` have `sha256` in place of `source`, and the files that are to go up.

    Sources are relative to `folder`; they never leave this machine as names. Raises Invalid.
    """
    entries = document.get("files_in")
    if not isinstance(entries, list):
        return dict(document), []
    kept: list[Any] = []
    found: list[LocalFile] = []
    for place, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or "source" not in entry:
            kept.append(entry)
            continue
        field = f"files_in.{place}"
        source, path = entry["source"], entry.get("path")
        if "sha256" in entry or not isinstance(source, str) or not (path is None or isinstance(path, str)):
            raise Invalid(
                "invalid_job", f"{field}: Write source and path as text, or path and sha256, not both.", field=field
            )
        rest = {key: value for key, value in entry.items() if key not in ("source", "path")}
        files = local_files(source, folder, path, f"{field}.source")
        kept += [{**file.entry(), **rest} for file in files]
        found += files
    return {**document, "files_in": kept}, found


def unique(files: Iterable[LocalFile]) -> list[LocalFile]:
    """One file for each content."""
    return list({file.sha256: file for file in files}.values())


def safe_target(folder: Path, path: str) -> Path:
    """Where the output `path` belongs below `folder`. Raises Invalid where it would lie outside, by name or by link."""
    parts = PurePosixPath(path)
    if not path or parts.is_absolute() or ".." in parts.parts or "\0" in path:
        raise Invalid("unsafe_path", f"The output {path!r} would lie outside {folder}; it is not fetched.", field=path)
    target = folder / parts
    inside = target.parent.resolve().is_relative_to(folder.resolve())
    if not inside or target.is_symlink():
        raise Invalid(
            "unsafe_path", f"The output {path!r} would be written through a link; remove {target}.", field=path
        )
    return target


class Incoming:
    """A file that is being fetched: written beside its place, checked, and only then put there."""

    def __init__(self, target: Path, sha256: str) -> None:
        self.target = target
        self._sha256 = sha256
        self._digest = hashlib.sha256()
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        self._part = Path(name)
        self._file: IO[bytes] = os.fdopen(handle, "wb")

    def write(self, data: bytes) -> None:
        """Take in the next bytes."""
        self._file.write(data)
        self._digest.update(data)

    def finish(self) -> bool:
        """Put the file in its place; False, and nothing there, where the content is not what was announced."""
        self._file.close()
        if self._digest.hexdigest() != self._sha256:
            self.discard()
            return False
        umask = os.umask(0)
        os.umask(umask)
        self._part.chmod(0o666 & ~umask)
        self._part.replace(self.target)
        return True

    def discard(self) -> None:
        """Forget what has come."""
        self._file.close()
        with suppress(FileNotFoundError):
            self._part.unlink()
