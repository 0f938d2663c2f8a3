"""The folders of a Podman site whose host is this machine.

An attempt's folder belongs to the account that it runs as, which may be hostile: nothing here follows a link in it.
Every method works in a thread, so that a slow disk holds nobody up.
"""

import asyncio
import os
import pwd
import shutil
import stat
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from atoll.drivers.base import DriverError, LogChunk
from atoll.drivers.podman.layout import BELL, PLAN, REFUSED, SCRIPTS, STOP, VERDICT, Entry, Owner
from atoll.drivers.wrapper import STDERR, STDOUT, Record, read_record
from atoll.drivers.wrapper.record import CLAIM, read_plain
from atoll.drivers.wrapper.trees import remove_tree

_KNOWN_FOR = 60.0
"""Seconds for which an account's numbers are believed."""
_LOOK_UP_WITHIN = 10.0
MOST_OUTPUT = 4 << 20
"""Bytes of output that are read at once."""
MOST_WORDS = 1000
"""Characters of a refusal that are kept."""


@dataclass(frozen=True)
class Told:
    """What the folders say of an attempt."""

    record: Record = field(default_factory=Record)
    verdict: str = ""
    """What the keeper wrote; the job could have written it too."""
    stop: str = ""
    """What the platform wrote in `stop`: nobody else can."""
    refused: str = ""
    """Why the attempt was withdrawn, by the platform's own note; empty for one that was not, or that began before."""


@dataclass(frozen=True)
class Order:
    """What an attempt's keeper is to do."""

    attempt: str
    line: str
    """Said by the bell."""
    stop: str = ""
    """The new content of `stop`; empty to leave it as it is."""


class NoOwner(Exception):
    """There is no such account at the host. The message is one sentence."""


class Folders(Protocol):
    """What the driver does with the folders of its attempts, wherever they are."""

    root: str
    """The site's folder at the host."""

    async def prepare(self) -> None:
        """Make what all attempts share. Raises DriverError."""

    async def owner(self, account: str | None) -> Owner:
        """The account at the host; None for the one that the platform itself is there. Raises NoOwner."""

    async def read_host(self, paths: Sequence[str]) -> list[bytes]:
        """The contents of small files of the host; those that are not there are left out. A path may end in *."""

    async def lay_out(self, attempt: str, owner: Owner, entries: Sequence[Entry], plan: bytes, key: str) -> bool:
        """Make and fill all folders of an attempt. False where they were there: whole, and left as they are.

        Raises DriverError, as every method does where the host does not answer.
        """

    async def plan(self, attempt: str) -> bytes | None:
        """The plan of an attempt, None where it has no folders."""

    async def waiting(self) -> list[str]:
        """Attempts that wait for their container, the oldest first."""

    async def wait(self, attempt: str) -> None:
        """Note that the attempt waits for its container."""

    async def wait_no_more(self, attempt: str) -> None:
        """Take that note away."""

    async def withdraw(self, attempt: str, why: str) -> bool:
        """Take the attempt's claim, so that it never begins, whoever starts it; False where it has begun.

        A link takes the place of the folder that the wrapper would make: one of the two is there first. The account
        could put a link there too, so one counts only where `why` was noted before it, where only the platform writes.
        """

    async def tell(self, attempts: Iterable[str]) -> dict[str, Told]:
        """What the folders say; attempts without folders are left out."""

    async def read_stops(self, attempts: Sequence[str]) -> dict[str, str]:
        """What `stop` says; empty where it says nothing. Attempts without folders are left out."""

    async def order(self, orders: Sequence[Order]) -> None:
        """Write `stop`, where that is given, and ring the bells."""

    async def read_log(self, attempt: str, stream: str, offset: int, limit: int) -> LogChunk | None:
        """A piece of output; None where the attempt has no folder."""

    async def scrub(self, attempt: str) -> None:
        """Remove what is secret of an attempt that has ended."""

    async def remove(self, attempts: Sequence[str]) -> None:
        """Remove the folders of attempts; checkpoints stay."""

    async def leave_checkpoints(self, keys: Sequence[str]) -> None:
        """Remove checkpoint folders that nobody uses, if nothing is in them."""


class LocalFolders:
    """Folders of this machine."""

    def __init__(self, root: Path) -> None:
        self.root = str(root)
        self._owners: dict[str | None, tuple[float, Owner]] = {}
        self._lock = threading.Lock()
        self._laying: set[str] = set()
        """Attempts that a thread lays out, which goes on when its call is given up."""
        self._attempts, self._orders = f"{root}/attempts", f"{root}/orders"
        self._checkpoints, self._waiting, self._tools = f"{root}/checkpoints", f"{root}/waiting", f"{root}/tools"

    async def prepare(self) -> None:
        """See Folders."""
        await asyncio.to_thread(self._prepare)

    def _prepare(self) -> None:
        try:
            for path in (self.root, self._attempts, self._orders, self._checkpoints, self._waiting, self._tools):
                Path(path).mkdir(parents=True, exist_ok=True)
                Path(path).chmod(0o711 if path not in (self._waiting, self._tools) else 0o755)
            for name, source in SCRIPTS.items():
                place, text = Path(self._tools, name), source.read_bytes()
                if not place.is_file() or place.read_bytes() != text:
                    fresh = place.with_suffix(".new")
                    fresh.write_bytes(text)
                    fresh.chmod(0o644)
                    fresh.replace(place)
        except OSError as error:
            raise DriverError(f"The site's folder {self.root} cannot be prepared: {error.strerror}.") from error

    async def owner(self, account: str | None) -> Owner:
        """See Folders."""
        known = self._owners.get(account)
        if known is not None and known[0] + _KNOWN_FOR > time.monotonic():
            return known[1]
        try:
            owner = await asyncio.wait_for(asyncio.to_thread(_owner, account), _LOOK_UP_WITHIN)
        except TimeoutError:
            words = f"This machine's directory of accounts did not tell of {account!r} within {_LOOK_UP_WITHIN:.0f} s."
            raise DriverError(words) from None
        self._owners[account] = (time.monotonic(), owner)
        return owner

    async def read_host(self, paths: Sequence[str]) -> list[bytes]:
        """See Folders."""
        return await asyncio.to_thread(_read_host, paths)

    async def lay_out(self, attempt: str, owner: Owner, entries: Sequence[Entry], plan: bytes, key: str) -> bool:
        """See Folders."""
        try:
            return await asyncio.to_thread(self._lay_out, attempt, owner, entries, plan, key)
        except OSError as error:
            words = f"{error.strerror}: {error.filename}" if error.filename else error.strerror
            raise DriverError(f"The attempt's folder cannot be made in {self._attempts}: {words}.") from error

    def _lay_out(self, attempt: str, owner: Owner, entries: Sequence[Entry], plan: bytes, key: str) -> bool:
        """The attempt's folder is filled under another name, closed, and becomes the account's last of all.

        Whoever owns a folder can make a link of anything in it, which we would follow.
        """
        with self._lock:
            if attempt in self._laying:
                raise DriverError("An earlier call still lays its folders out.")  # which nobody waits for any more
            self._laying.add(attempt)
        try:
            return self._lay_out_alone(attempt, owner, entries, plan, key)
        finally:
            self._laying.discard(attempt)

    def _lay_out_alone(self, attempt: str, owner: Owner, entries: Sequence[Entry], plan: bytes, key: str) -> bool:
        folder, orders = f"{self._attempts}/{attempt}", f"{self._orders}/{attempt}"
        # first: where the attempt was laid out before, the folder may have been dropped since, empty as it was
        self._make_checkpoint(key, owner)
        if os.path.lexists(folder):
            return False
        for path in (fresh := f"{folder}.new", orders):
            if os.path.lexists(path):  # an earlier try did not come to its end
                remove_tree(path)
        Path(orders).mkdir(0o755)
        Path(orders).chmod(0o755)  # whatever the umask is: the account reads it
        os.mkfifo(f"{orders}/{BELL}")
        os.chmod(f"{orders}/{BELL}", 0o600)  # noqa: PTH101
        if not owner.own:
            os.chown(f"{orders}/{BELL}", owner.uid, owner.gid)
        Path(orders, PLAN).write_bytes(plan)
        Path(orders, PLAN).chmod(0o600)
        Path(fresh).mkdir(0o700)
        for entry in entries:
            _make(f"{fresh}/{entry.path}", entry)
        if not owner.own:
            for entry in reversed(entries):
                os.lchown(f"{fresh}/{entry.path}", owner.uid, owner.gid)
            os.chown(fresh, owner.uid, owner.gid)
        os.rename(fresh, folder)  # noqa: PTH104
        return True

    def _make_checkpoint(self, key: str, owner: Owner) -> None:
        path = Path(self._checkpoints, key)
        try:
            path.mkdir(0o700)
        except FileExistsError:
            status = path.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == owner.uid:
                return
            # ours and empty: another attempt of the same account has just made it, or died before it gave it away
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or any(path.iterdir()):
                raise PermissionError(1, "another account's checkpoints have that name", key) from None
        if not owner.own:
            os.chown(path, owner.uid, owner.gid)

    async def plan(self, attempt: str) -> bytes | None:
        """See Folders."""
        return await asyncio.to_thread(_content, f"{self._orders}/{attempt}/{PLAN}")

    async def waiting(self) -> list[str]:
        """See Folders."""

        def look() -> list[str]:
            with os.scandir(self._waiting) as found:
                times = {entry.name: _modified(entry) for entry in found}
            return sorted(times, key=lambda name: (times[name], name))

        try:
            return await asyncio.to_thread(look)
        except OSError as error:
            # a file system that is gone must not look like one on which nothing waits, and nothing was written
            raise DriverError(f"The site's folder {self.root} cannot be read: {error.strerror}.") from error

    async def wait(self, attempt: str) -> None:
        """See Folders."""
        await asyncio.to_thread(Path(self._waiting, attempt).touch)

    async def wait_no_more(self, attempt: str) -> None:
        """See Folders."""
        await asyncio.to_thread(Path(self._waiting, attempt).unlink, missing_ok=True)

    async def withdraw(self, attempt: str, why: str) -> bool:
        """See Folders."""
        try:
            return await asyncio.to_thread(self._withdraw, attempt, why)
        except OSError as error:
            raise DriverError(f"{attempt} cannot be withdrawn in {self.root}: {error.strerror}.") from error

    def _withdraw(self, attempt: str, why: str) -> bool:
        claim, note = Path(self._attempts, attempt, CLAIM), Path(self._orders, attempt, REFUSED)
        if not claim.parent.is_dir():
            return True
        before = note.exists()
        note.write_text(why[:MOST_WORDS])
        try:
            claim.symlink_to(".")
        except FileExistsError:
            if not before or not claim.is_symlink() or claim.lstat().st_uid != os.geteuid():
                note.unlink()
                return False
        return True

    async def tell(self, attempts: Iterable[str]) -> dict[str, Told]:
        """See Folders."""

        def look() -> dict[str, Told]:
            folders = {attempt: f"{self._attempts}/{attempt}" for attempt in attempts}
            return {name: self._tell(name, folder) for name, folder in folders.items() if Path(folder).is_dir()}

        return await asyncio.to_thread(look)

    def _tell(self, attempt: str, folder: str) -> Told:
        orders = f"{self._orders}/{attempt}"
        refused = _text(f"{orders}/{REFUSED}") if Path(folder, CLAIM).is_symlink() else ""
        return Told(read_record(folder), _text(f"{folder}/{VERDICT}"), _text(f"{orders}/{STOP}"), refused)

    async def read_stops(self, attempts: Sequence[str]) -> dict[str, str]:
        """See Folders."""

        def look() -> dict[str, str]:
            folders = {attempt: f"{self._orders}/{attempt}" for attempt in attempts}
            return {name: _text(f"{folder}/{STOP}") for name, folder in folders.items() if Path(folder).is_dir()}

        return await asyncio.to_thread(look)

    async def order(self, orders: Sequence[Order]) -> None:
        """See Folders."""

        def give() -> None:
            for order in orders:
                self._order(order.attempt, order.line, order.stop)

        await asyncio.to_thread(give)

    def _order(self, attempt: str, line: str, stop: str) -> None:
        orders = Path(self._orders, attempt)
        if not orders.is_dir():
            return  # it was forgotten in this moment
        try:
            if stop:
                fresh = orders / f"{STOP}.new"
                fresh.write_text(stop)
                fresh.chmod(0o644)
                fresh.replace(orders / STOP)
        except OSError as error:
            raise DriverError(f"The order to stop cannot be written in {orders}: {error.strerror}.") from error
        try:
            bell = os.open(orders / BELL, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return  # nobody listens yet, or no more: who starts reads `stop` first
        try:
            with suppress(OSError):  # a job that fills the pipe can only keep itself from being asked
                os.write(bell, line.encode() + b"\n")
        finally:
            os.close(bell)

    async def read_log(self, attempt: str, stream: str, offset: int, limit: int) -> LogChunk | None:
        """See Folders."""
        if stream not in (STDOUT, STDERR):
            raise KeyError(stream)
        return await asyncio.to_thread(_read_log, f"{self._attempts}/{attempt}", stream, offset, limit)

    async def scrub(self, attempt: str) -> None:
        """See Folders."""
        await asyncio.to_thread(remove_tree, f"{self._attempts}/{attempt}/secrets")

    async def remove(self, attempts: Sequence[str]) -> None:
        """See Folders."""

        def all_of_it() -> None:
            for attempt in attempts:
                folder = f"{self._attempts}/{attempt}"
                for path in (folder, f"{folder}.new", f"{self._orders}/{attempt}"):
                    if os.path.lexists(path):
                        remove_tree(path)
                Path(self._waiting, attempt).unlink(missing_ok=True)

        await asyncio.to_thread(all_of_it)

    async def leave_checkpoints(self, keys: Sequence[str]) -> None:
        """See Folders."""

        def leave() -> None:
            for key in keys:
                with suppress(OSError):  # something is in it, or it has gone already
                    Path(self._checkpoints, key).rmdir()

        await asyncio.to_thread(leave)

    def owner_of(self, attempt: str) -> int:
        """The number of the account to which the attempt's folder belongs."""
        return os.lstat(f"{self._attempts}/{attempt}").st_uid

    def open_folder(self, attempt: str, below: str) -> int | None:
        """A descriptor of a folder below the attempt's, None where that is gone. No link is followed."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
        try:
            here = os.open(f"{self._attempts}/{attempt}", flags)
            for part in below.split("/"):
                try:
                    inner = os.open(part, flags | os.O_NOFOLLOW, dir_fd=here)
                finally:
                    os.close(here)
                here = inner
        except OSError:
            return None
        return here


def _owner(account: str | None) -> Owner:
    uid = os.geteuid()
    try:
        entry = pwd.getpwuid(uid) if account is None else pwd.getpwnam(account)
    except (KeyError, ValueError):
        if account is None:  # a container's user, say, need not be in the account database
            return Owner(str(uid), uid, os.getegid(), tuple(os.getgroups()))
        raise NoOwner(f"account: this machine has no account {account!r}") from None
    groups = os.getgrouplist(entry.pw_name, entry.pw_gid)
    return Owner(entry.pw_name, entry.pw_uid, entry.pw_gid, tuple(groups), entry.pw_uid == uid)


def _read_host(paths: Sequence[str]) -> list[bytes]:
    found = []
    for pattern in paths:
        places = sorted(Path(pattern).parent.glob("*")) if pattern.endswith("/*") else [Path(pattern)]
        for place in places[:100]:
            with suppress(OSError), place.open("rb") as file:
                found.append(file.read(4 << 20))
    return found


def _modified(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mtime_ns
    except OSError:
        return 0  # it was taken away in this moment


def _make(path: str, entry: Entry) -> None:
    if entry.link is not None:
        os.symlink(entry.link, path)  # noqa: PTH211
    elif entry.content is None:
        os.mkdir(path, entry.mode)  # noqa: PTH102
    else:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            if isinstance(entry.content, Path):
                with entry.content.open("rb") as source:
                    shutil.copyfileobj(source, file, 1 << 20)
            else:
                file.write(entry.content)
            os.fchmod(file.fileno(), entry.mode)


def _content(path: str) -> bytes | None:
    try:
        return Path(path).read_bytes()
    except OSError:
        return None


def _text(path: str) -> str:
    found = read_plain(path)
    return found[0].decode("utf-8", "replace") if found else ""


def _read_log(folder: str, stream: str, offset: int, limit: int) -> LogChunk | None:
    try:
        owner = os.lstat(folder).st_uid
    except OSError:
        return None
    try:
        file = os.open(f"{folder}/{stream}", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return LogChunk(0, b"", 0)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_uid != owner:
            return LogChunk(0, b"", 0)
        start = max(0, status.st_size + offset) if offset < 0 else min(offset, status.st_size)
        amount = max(0, min(limit, status.st_size - start, MOST_OUTPUT))
        return LogChunk(start, os.pread(file, amount, start), status.st_size)
    finally:
        os.close(file)
