"""What came back of ended jobs, in the platform's folder for the site: output, and the working directory as an archive.

What is in there was written by jobs: names and links in an archive are theirs, and lead nowhere outside.
"""

import os
import shutil
import tarfile
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

from atoll.drivers.base import LogChunk
from atoll.drivers.htcondor import jobs
from atoll.drivers.wrapper.take_out import take_out

_HERE = "retrieved"
_MOST_MEMBERS = 200_000
_MOST_BYTES = 64 << 30


class Fetched:
    """One folder for each attempt. Attempt ids are checked by the caller."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, attempt_id: str) -> Path:
        """The attempt's folder: HTCondor brings a job's output to where the job was submitted from."""
        return self._folder / attempt_id

    def prepare(self, attempt_id: str) -> None:
        """Make the folder, where another replica of the platform had submitted the job."""
        self.of(attempt_id).mkdir(parents=True, exist_ok=True, mode=0o700)

    def done(self, attempt_id: str) -> None:
        """Note that all has come back."""
        (self.of(attempt_id) / _HERE).touch()

    def is_here(self, attempt_id: str) -> bool:
        """Whether all has come back."""
        return (self.of(attempt_id) / _HERE).exists()

    def walltime_was_over(self, attempt_id: str) -> bool:
        """Whether what came back says so."""
        return self.read(attempt_id, jobs.OVER, 0, 1).size > 0

    def clear(self, attempt_ids: Collection[str]) -> None:
        """Remove what was laid out for the spool."""
        for attempt_id in attempt_ids:
            jobs.clear(self.of(attempt_id))

    def remove(self, attempt_ids: Collection[str]) -> None:
        """Remove all that is kept of attempts."""
        for attempt_id in attempt_ids:
            jobs.remove(self.of(attempt_id))

    def read(self, attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output; empty where none came back."""
        try:
            descriptor = os.open(self.of(attempt_id) / stream, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return LogChunk(0, b"", 0)
        with os.fdopen(descriptor, "rb") as file:
            size = os.fstat(descriptor).st_size
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            file.seek(start)
            return LogChunk(start, file.read(max(0, min(limit, size - start))), size)

    def take_out(self, attempt_id: str, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy the files of the working directory that match a pattern; none where it did not come back."""
        archive = self.of(attempt_id) / jobs.WORK_TAR
        if not archive.is_file() or not archive.stat().st_size:
            return []
        work = Path(tempfile.mkdtemp(dir=self.of(attempt_id)))
        try:
            unpack(archive, work)
            root = os.open(work, os.O_RDONLY | os.O_DIRECTORY)
            try:
                return take_out(root, patterns, into, None)
            finally:
                os.close(root)
        finally:
            shutil.rmtree(work, ignore_errors=True)


def unpack(archive: Path, into: Path) -> None:
    """Lay out the plain files and links of an archive that nobody has checked.

    Files come first and links last, so that no file is written through a link. Raises ValueError for an archive of
    more than 200,000 members or 64 GiB, and for one that is broken.
    """
    links: list[tuple[str, str]] = []
    room = _MOST_BYTES
    try:
        with tarfile.open(archive) as opened:
            for number, member in enumerate(opened):
                room -= member.size
                if number >= _MOST_MEMBERS or room < 0:
                    raise ValueError("the working directory holds too much to be taken out")
                path = _inside(member.name)
                if path is None:
                    continue
                if member.issym():
                    links.append((path, member.linkname))
                elif member.islnk() and (target := _inside(member.linkname)) is not None:
                    links.append((path, os.path.relpath(target, os.path.dirname(path) or ".")))  # noqa: PTH120
                elif member.isreg():
                    source = opened.extractfile(member)
                    target_path = into / path
                    target_path.parent.mkdir(parents=True, exist_ok=True)
                    if source is not None and not target_path.is_dir():
                        with target_path.open("wb") as file:
                            shutil.copyfileobj(source, file, 1 << 20)
                        target_path.chmod(0o700 if member.mode & 0o100 else 0o600)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"the working directory did not come back whole: {error}") from None
    for path, linked in links:
        place = into / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(place):
            place.symlink_to(linked)


def _inside(name: str) -> str | None:
    """A member's name, where it is one below the folder."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or not parts or ".." in parts or "\0" in name:
        return None
    return "/".join(parts)
