"""The folders of a process site: made before an attempt starts, read while it runs, removed when it is forgotten.

    FOLDER/wrapper.sh           what every attempt starts through
    FOLDER/supervisor/          lock, socket, journal and log; closed to everybody else
    FOLDER/attempts/ID.new/     an attempt's folder while it is filled
    FOLDER/attempts/ID/         an attempt: launch, script, claim/, start, end, stdout, stderr, work/, scratch/;
                                secrets/ while it runs
    FOLDER/checkpoints/KEY/     kept over the attempts that share the key

An attempt's folder belongs to the account that it runs as, which may be hostile: nothing here follows a link in it.
"""

import os
import re
import shutil
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.drivers.base import DriverError, Launch, LogChunk
from atoll.drivers.process.accounts import Account
from atoll.drivers.wrapper import FILES, LAUNCH, SCRIPT, SECRETS, STDERR, STDOUT, WRAPPER, secret_files
from atoll.drivers.wrapper.record import read_plain
from atoll.drivers.wrapper.trees import remove_tree

_KEY = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@=,-]{0,127}")
_CLOSED, _PASSABLE = 0o700, 0o711
_MOST = 4 << 20
"""Bytes of output that are read at once."""
_KNOWN_FILES = ("launch", "script", "start", "end", "shell", "stdout", "stderr", "workdir")
_KNOWN_FOLDERS = ("claim", "work", "scratch", "secrets")


class SiteFolders:
    """Paths below a site's folder, and what is done with them. Blocking; meant for a thread where work is long."""

    def __init__(self, folder: Path, shared: bool) -> None:
        self.folder = folder
        self.wrapper = folder / "wrapper.sh"
        self.attempts = folder / "attempts"
        self.checkpoints = folder / "checkpoints"
        self._mode = _PASSABLE if shared else _CLOSED

    def prepare_site(self) -> None:
        """Make what all attempts share. Raises DriverError where the folder cannot be written."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (self.folder, self.attempts, self.checkpoints):
                path.mkdir(exist_ok=True)
                path.chmod(self._mode)
            text = WRAPPER.read_bytes()
            if not self.wrapper.is_file() or self.wrapper.read_bytes() != text:
                fresh = self.folder / "wrapper.sh.new"
                fresh.write_bytes(text)
                fresh.chmod(0o644)
                fresh.replace(self.wrapper)
        except OSError as error:
            raise DriverError(f"The site's folder {self.folder} cannot be prepared: {error.strerror}.") from error

    def of(self, attempt_id: str) -> Path:
        """The folder of an attempt. Raises KeyError for what is no attempt's id."""
        if not is_attempt_id(attempt_id):
            raise KeyError(attempt_id)
        return self.attempts / attempt_id

    def workdir_of(self, launch: Launch) -> str:
        """Where the attempt works: a folder of its own, one below that, or the absolute one that it named."""
        work = str(self.of(launch.attempt_id) / "work")
        named = launch.spec.workdir
        if named is None:
            return work
        if named.startswith("/"):
            return named
        inside = os.path.normpath(f"{work}/{named}")
        if inside != work and not inside.startswith(f"{work}/"):
            raise ValueError(f"workdir: {named!r} leads out of the attempt's own folder")
        return inside

    def checkpoint_of(self, launch: Launch) -> Path:
        """The folder that survives the attempts of the same key. Raises ValueError for a key that is no plain name."""
        if not _KEY.fullmatch(launch.checkpoint_key):
            raise ValueError(f"checkpoint: {launch.checkpoint_key!r} cannot name a folder")
        return self.checkpoints / launch.checkpoint_key

    def lay_out(self, launch: Launch, account: Account, text: str, workdir: str) -> None:
        """Make the attempt's folder and fill it; one that is there is whole, and left as it is. Raises OSError.

        `text` is for the wrapper; `workdir` is where the working directory is on this machine, volumes apart.

        It is filled under another name, where nobody but us can reach it, and becomes the account's and the attempt's
        last: whoever owns a folder can make a link of anything in it, which we would follow.
        """
        folder = str(self.of(launch.attempt_id))
        if os.path.lexists(folder):  # pathlib costs too much for each of a thousand attempts
            return
        fresh = _unfinished(folder)
        try:
            os.mkdir(fresh, _CLOSED)  # noqa: PTH102
        except FileExistsError:
            remove_tree(fresh)  # an earlier try did not come to its end
            os.mkdir(fresh, _CLOSED)  # noqa: PTH102
        try:
            made = self._fill(launch, text, workdir, folder, fresh)
            if not account.own:
                for path in reversed(made):  # the folder last: once it is the account's, we touch nothing in it
                    os.lchown(path, account.uid, account.gid)
            os.rename(fresh, folder)  # noqa: PTH104
        except (OSError, ValueError, Invalid):
            remove_tree(fresh)
            raise

    def _fill(self, launch: Launch, text: str, workdir: str, folder: str, fresh: str) -> list[str]:
        """Lay into `fresh` what shall be in `folder`; returns all that was made, outer folders first."""
        made = [fresh]
        for path in (f"{fresh}/work", f"{fresh}/scratch"):
            os.mkdir(path, _CLOSED)  # noqa: PTH102
            made.append(path)
        made.append(self._write(f"{fresh}/{LAUNCH}", text))
        if launch.spec.script is not None:
            made.append(self._write(f"{fresh}/{SCRIPT}", launch.spec.script, 0o700))
        if secrets := secret_files(launch):
            os.mkdir(f"{fresh}/{SECRETS}", _CLOSED)  # noqa: PTH102
            made.append(f"{fresh}/{SECRETS}")
            made += [self._write(f"{fresh}/{SECRETS}/{name}", content) for name, content in secrets.items()]
        inside = workdir.startswith(f"{folder}/")
        if launch.spec.workdir is not None:
            made.append(self._write(f"{fresh}/workdir", workdir))
        target = fresh + workdir.removeprefix(folder) if inside else f"{fresh}/{FILES}"
        if inside:
            made += self._make_inside(f"{fresh}/work", target)
        if launch.files:
            if not inside:
                made += self._make_inside(fresh, target)
            made += self._copy_in(launch, target)
        return made

    @staticmethod
    def _write(path: str, text: str | bytes, mode: int = 0o600) -> str:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            view = memoryview(text.encode() if isinstance(text, str) else text)
            while view:
                view = view[os.write(descriptor, view) :]
        finally:
            os.close(descriptor)
        return path

    @staticmethod
    def _make_inside(base: str, target: str) -> list[str]:
        made, path = [], base
        for part in target.removeprefix(base).split("/"):
            if part:
                path = f"{path}/{part}"
                with suppress(FileExistsError):
                    os.mkdir(path, _CLOSED)  # noqa: PTH102
                made.append(path)
        return made

    def _copy_in(self, launch: Launch, target: str) -> list[str]:
        made: list[str] = []
        for file in launch.files:
            path = os.path.normpath(f"{target}/{file.path}")
            if not path.startswith(f"{target}/"):
                raise ValueError(f"files_in: {file.path!r} leads out of the working directory")
            made += self._make_inside(target, os.path.dirname(path))  # noqa: PTH120
            shutil.copyfile(file.source, path, follow_symlinks=True)
            Path(path).chmod(0o755 if file.executable else 0o644)
            made.append(path)
        return made

    def read_log(self, attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of the attempt's output. Raises KeyError where there is no such attempt or stream."""
        folder = self.of(attempt_id)
        if stream not in (STDOUT, STDERR):
            raise KeyError(stream)
        descriptor = open_plain(folder, stream)
        if descriptor is None:
            if not folder.is_dir():
                raise KeyError(attempt_id)
            return LogChunk(0, b"", 0)
        try:
            size = os.fstat(descriptor).st_size
            start = max(0, size + offset) if offset < 0 else min(offset, size)
            return LogChunk(start, os.pread(descriptor, max(0, min(limit, size - start, _MOST)), start), size)
        finally:
            os.close(descriptor)

    def open_workdir(self, attempt_id: str) -> int | None:
        """A descriptor of the attempt's working directory, None where that is gone.

        Below the attempt's own folder no link is followed. Raises KeyError where there is no such attempt.
        """
        folder = self.of(attempt_id)
        if not folder.is_dir():
            raise KeyError(attempt_id)
        named = read_plain(str(folder / "workdir"))
        workdir = named[0].decode("utf-8", "replace") if named else str(folder / "work")
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            if not workdir.startswith(f"{folder}/"):
                return os.open(workdir, flags)
            here = os.open(folder, flags)
            for part in workdir.removeprefix(f"{folder}/").split("/"):
                try:
                    inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
                finally:
                    os.close(here)
                here = inner
            return here
        except OSError:
            return None

    def remove(self, attempt_ids: Iterable[str]) -> None:
        """Remove the folders of attempts. Checkpoint folders are the supervisor's: it knows who shares them."""
        for attempt_id in attempt_ids:
            path = str(self.of(attempt_id))
            for name in _KNOWN_FILES:
                with suppress(OSError):
                    os.unlink(f"{path}/{name}")  # noqa: PTH108
            for name in _KNOWN_FOLDERS:
                with suppress(OSError):
                    os.rmdir(f"{path}/{name}")  # noqa: PTH106
            try:
                os.rmdir(path)  # noqa: PTH106
            except FileNotFoundError:
                if os.path.lexists(_unfinished(path)):
                    remove_tree(_unfinished(path))
            except OSError:
                remove_tree(path)


def _unfinished(folder: str) -> str:
    """Where an attempt's folder is filled; no attempt has such an id."""
    return f"{folder}.new"


def open_plain(folder: Path, name: str) -> int | None:
    """A descriptor of the plain file `name` in `folder`, if it is one and belongs to the folder's owner; else None.

    A link is not followed; neither is a second name of somebody else's file, nor a pipe that would block.
    """
    try:
        descriptor = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.stat(folder).st_uid:  # noqa: PTH116
        return descriptor
    os.close(descriptor)
    return None
