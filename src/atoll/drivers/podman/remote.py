"""The folders of a Podman site behind SSH: the same as here, by commands of a shell at the host.

Each question is one command, however many attempts it is about. Wants GNU's coreutils, find and tar at the host, which
every Linux server has. No link in an attempt's folder is followed, and what comes back is bounded.
"""

import asyncio
import io
import shlex
import tarfile
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

from atoll.drivers.base import DriverError, LogChunk
from atoll.drivers.podman.folders import MOST_OUTPUT, MOST_WORDS, NoOwner, Order, Told
from atoll.drivers.podman.layout import BELL, PLAN, REFUSED, SCRIPTS, STOP, VERDICT, Entry, Owner
from atoll.drivers.shell import Ran, Shell
from atoll.drivers.wrapper import STDERR, STDOUT, Record, parse_end, parse_start

_ABSENT = 44
"""Exit code of a script for what is not there."""
_THERE = 45
"""Exit code of a script for what was made before."""
_AT_ONCE = 500
_TEXTS = (VERDICT, STOP, REFUSED)
_OURS = frozenset({BELL, STOP, REFUSED})
"""What counts of the orders; all else counts of the attempt's own folder."""
_KNOWN_FOR = 60.0
"""Seconds for which an account's numbers are believed."""
_LOOK = r"""
set --
while read -r id; do [ ! -d "attempts/$id" ] || set -- "$@" "attempts/$id" "orders/$id"; done
[ $# -gt 0 ] || exit 0
find "$@" -maxdepth 1 \( -name claim \( -type d -o -type l \) -o -name bell -type p -o -type f -size -9 \
    \( -name start -o -name end -o -name verdict -o -name stop -o -name refused \) \) -print0 2>/dev/null |
    tar -c --format=posix --no-recursion --null -T - -f - 2>/dev/null
"""
_LAY_OUT = r"""
umask 022
[ -d "checkpoints/$2" ] || mkdir -m 700 -- "checkpoints/$2" || [ -d "checkpoints/$2" ] || exit
if [ "$(stat -c '%u %F' -- "checkpoints/$2")" != "$3 directory" ]; then
    # ours and empty: another attempt of the same account has just made it, or died before it gave it away
    [ "$(stat -c '%u %F' -- "checkpoints/$2")" = "$(id -u) directory" ] &&
        [ -z "$(ls -A -- "checkpoints/$2")" ] && [ -n "$4" ] ||
        { echo "another account's checkpoints have that name" >&2; exit 1; }
    chown -- "$3:$4" "checkpoints/$2" || exit
fi
[ ! -d "attempts/$1" ] || exit 45
rm -rf -- "orders/$1" "staging/$1" && mkdir -m 700 -- "staging/$1" || exit
# the plan comes last: without it the line broke off, which tar need not notice
tar -C "staging/$1" --numeric-owner -pxf - && [ -f "staging/$1/orders/plan" ] &&
    mv -T -- "staging/$1/orders" "orders/$1" &&
    mv -T -- "staging/$1/attempt" "attempts/$1" && rmdir -- "staging/$1"
"""
_READ_LOG = r"""
[ -d "attempts/$1" ] || exit 44
file=attempts/$1/$2
[ "$(stat -c '%u %F' -- "$file" 2>/dev/null)" = "$(stat -c %u -- "attempts/$1") regular file" ] ||
    [ "$(stat -c '%u %F' -- "$file" 2>/dev/null)" = "$(stat -c %u -- "attempts/$1") regular empty file" ] ||
    { echo 0 0; exit 0; }
size=$(stat -c %s -- "$file") start=$3
[ "$start" -ge 0 ] || { start=$((size + start)); [ "$start" -ge 0 ] || start=0; }
[ "$start" -le "$size" ] || start=$size
count=$((size - start))
[ "$count" -le "$4" ] || count=$4
echo "$size $start"
[ "$count" -eq 0 ] ||
    exec dd if="$file" bs=256K skip="$start" count="$count" \
        iflag=nofollow,nonblock,skip_bytes,count_bytes,fullblock 2>/dev/null
"""
_READ_STOPS = r"""
while read -r id; do
    [ -d "orders/$id" ] || continue
    stop=
    [ ! -e "orders/$id/stop" ] || read -r stop <"orders/$id/stop"
    printf '%s %s\n' "$id" "$stop"
done
"""
_ORDER = r"""
umask 022
tab=$(printf '\t')
while IFS=$tab read -r id line stop; do
    cd "orders/$id" 2>/dev/null || continue
    [ -z "$stop" ] || { printf '%s\n' "$stop" >stop.new && mv -- stop.new stop; } || exit
    [ ! -p bell ] ||
        printf '%s\n' "$line" | timeout 2 dd of=bell oflag=nonblock,nofollow conv=nocreat,notrunc 2>/dev/null
    cd ../..
done
exit 0
"""
_WITHDRAW = r"""
[ -d "attempts/$1" ] || exit 0
umask 022
before=
[ ! -e "orders/$1/refused" ] || before=$(stat -c '%u %F' -- "attempts/$1/claim" 2>/dev/null)
printf %s "$2" >"orders/$1/refused" || exit
ln -sT . "attempts/$1/claim" 2>/dev/null || [ "$before" = "$(id -u) symbolic link" ] ||
    { rm -f -- "orders/$1/refused"; exit 45; }
"""
_REMOVE = r"""
while read -r id; do rm -rf -- "attempts/$id" "orders/$id" "staging/$id" "waiting/$id"; done
"""
_LEAVE = 'while read -r key; do rmdir -- "checkpoints/$key" 2>/dev/null; done; exit 0'


class RemoteFolders:
    """Folders of another machine."""

    def __init__(self, shell: Shell, root: str, seconds: float) -> None:
        self.root = root
        self._shell = shell
        self._seconds = seconds
        self._owners: dict[str | None, tuple[float, Owner]] = {}

    async def _script(self, text: str, *words: str, stdin: bytes | AsyncIterator[bytes] = b"") -> Ran:
        """Run a script in the site's folder. Raises DriverError where the host does not answer."""
        enter = f"cd -- {shlex.quote(self.root)} || exit\n"
        return await self._shell.run(
            None, ["/bin/sh", "-c", enter + text, "sh", *words], stdin=stdin, seconds=self._seconds
        )

    async def _done(self, text: str, *words: str, stdin: bytes | AsyncIterator[bytes] = b"") -> bytes:
        """The same, where the script must succeed."""
        ran = await self._script(text, *words, stdin=stdin)
        if ran.code != 0:
            raise DriverError(f"The folder {self.root} at the host cannot be worked with: {ran.complaint}.")
        return ran.out

    async def prepare(self) -> None:
        """See Folders."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as tar:
            for name, source in SCRIPTS.items():
                _add(tar, name, source.read_bytes(), mode=0o644)
        make = (
            'umask 022; cd / && mkdir -p -- "$1" && cd -- "$1" && '
            "mkdir -p attempts orders checkpoints waiting staging tools && "
            "chmod 711 . attempts orders checkpoints && chmod 700 staging && exec tar -C tools --no-same-owner -pxf -"
        )
        words = ["/bin/sh", "-c", make, "sh", self.root]
        ran = await self._shell.run(None, words, stdin=packed.getvalue(), seconds=self._seconds)
        if ran.code != 0:
            raise DriverError(f"The site's folder {self.root} cannot be prepared: {ran.complaint}.")

    async def owner(self, account: str | None) -> Owner:
        """See Folders."""
        known = self._owners.get(account)
        if known is not None and known[0] + _KNOWN_FOR > time.monotonic():
            return known[1]
        names = ["--", account] if account is not None else []
        text = 'id -un "$@" && id -u "$@" && id -g "$@" && id -G "$@"'
        ran = await self._shell.run(None, ["/bin/sh", "-c", text, "sh", *names], seconds=self._seconds)
        lines = ran.out.decode("utf-8", "replace").splitlines()
        if ran.code != 0 or len(lines) != 4:
            raise NoOwner(f"account: the host has no account {account!r} ({ran.complaint})")
        try:
            owner = Owner(lines[0], int(lines[1]), int(lines[2]), tuple(int(group) for group in lines[3].split()))
        except ValueError:
            raise DriverError("The host answered what is no account.") from None
        if account is not None:
            owner = replace(owner, own=owner.uid == (await self.owner(None)).uid)
        self._owners[account] = (time.monotonic(), owner)
        return owner

    async def read_host(self, paths: Sequence[str]) -> list[bytes]:
        """See Folders."""
        text = 'for f in $1; do [ ! -f "$f" ] || { wc -c <"$f"; head -c 4194304 -- "$f"; }; done'
        ran = await self._shell.run(None, ["/bin/sh", "-c", text, "sh", " ".join(paths)], seconds=self._seconds)
        found, rest = [], ran.out
        while rest:
            size, _, rest = rest.partition(b"\n")
            if not size.strip().isdigit():
                break
            length = min(int(size), 4 << 20)
            found.append(rest[:length])
            rest = rest[length:]
        return found

    async def lay_out(self, attempt: str, owner: Owner, entries: Sequence[Entry], plan: bytes, key: str) -> bool:
        """See Folders. All is unpacked where nobody else can enter, and moved to its place when it is whole."""
        with tempfile.TemporaryFile() as packed:
            try:
                await asyncio.to_thread(_pack, packed, owner, entries, plan)
            except OSError as error:
                raise DriverError(f"The files of the attempt cannot be read: {error.strerror}.") from error
            gid = "" if owner.own else str(owner.gid)
            ran = await self._script(_LAY_OUT, attempt, key, str(owner.uid), gid, stdin=_pieces(packed))
        if ran.code not in (0, _THERE):
            raise DriverError(f"The attempt's folder cannot be made in {self.root}/attempts: {ran.complaint}.")
        return ran.code == 0

    async def plan(self, attempt: str) -> bytes | None:
        """See Folders."""
        return await self._file(f"orders/{attempt}/{PLAN}")

    async def _file(self, path: str) -> bytes | None:
        ran = await self._script('[ -e "$1" ] || exit 44; exec cat -- "$1"', path)
        if ran.code == _ABSENT:
            return None
        if ran.code != 0:
            raise DriverError(f"{self.root}/{path} cannot be read: {ran.complaint}.")
        return ran.out

    async def waiting(self) -> list[str]:
        """See Folders."""
        return (await self._done("exec ls -1tr waiting")).decode("utf-8", "replace").splitlines()

    async def wait(self, attempt: str) -> None:
        """See Folders."""
        await self._done('exec touch -- "waiting/$1"', attempt)

    async def wait_no_more(self, attempt: str) -> None:
        """See Folders."""
        await self._done('exec rm -f -- "waiting/$1"', attempt)

    async def withdraw(self, attempt: str, why: str) -> bool:
        """See Folders."""
        ran = await self._script(_WITHDRAW, attempt, why[:MOST_WORDS])
        if ran.code not in (0, _THERE):
            raise DriverError(f"{attempt} cannot be withdrawn in {self.root}: {ran.complaint}.")
        return ran.code == 0

    async def tell(self, attempts: Iterable[str]) -> dict[str, Told]:
        """See Folders."""
        told: dict[str, Told] = {}
        names = list(attempts)
        for start in range(0, len(names), _AT_ONCE):
            asked = "".join(f"{name}\n" for name in names[start : start + _AT_ONCE])
            packed = await self._done(_LOOK, stdin=asked.encode())
            try:
                told |= await asyncio.to_thread(read_told, packed)
            except (tarfile.TarError, EOFError, ValueError) as error:
                raise DriverError(f"The host answered what is no archive of records: {error}.") from error
        return told

    async def read_stops(self, attempts: Sequence[str]) -> dict[str, str]:
        """See Folders."""
        out = await self._done(_READ_STOPS, stdin="".join(f"{attempt}\n" for attempt in attempts).encode())
        lines = out.decode("utf-8", "replace").splitlines()
        return {attempt: f"{stop}\n" if stop else "" for attempt, _, stop in (line.partition(" ") for line in lines)}

    async def order(self, orders: Sequence[Order]) -> None:
        """See Folders."""
        lines = [f"{order.attempt}\t{order.line}\t{order.stop.rstrip()}\n" for order in orders]
        await self._done(_ORDER, stdin="".join(lines).encode())

    async def read_log(self, attempt: str, stream: str, offset: int, limit: int) -> LogChunk | None:
        """See Folders."""
        if stream not in (STDOUT, STDERR):
            raise KeyError(stream)
        ran = await self._script(_READ_LOG, attempt, stream, str(offset), str(max(0, min(limit, MOST_OUTPUT))))
        if ran.code == _ABSENT:
            return None
        head, _, data = ran.out.partition(b"\n")
        numbers = head.split()
        if ran.code != 0 or len(numbers) != 2 or not all(number.isdigit() for number in numbers):
            raise DriverError(f"The output of {attempt} cannot be read: {ran.complaint}.")
        return LogChunk(int(numbers[1]), data, int(numbers[0]))

    async def scrub(self, attempt: str) -> None:
        """See Folders."""
        await self._done('exec rm -rf -- "attempts/$1/secrets"', attempt)

    async def remove(self, attempts: Sequence[str]) -> None:
        """See Folders."""
        await self._done(_REMOVE, stdin="".join(f"{attempt}\n" for attempt in attempts).encode())

    async def leave_checkpoints(self, keys: Sequence[str]) -> None:
        """See Folders."""
        await self._done(_LEAVE, stdin="".join(f"{key}\n" for key in keys).encode())


def read_told(packed: bytes) -> dict[str, Told]:
    """What an archive of records says of attempts. Raises TarError and ValueError for what is none."""
    files: dict[str, dict[str, tuple[bytes, float]]] = {}
    links: set[str] = set()
    if not packed:
        return {}
    with tarfile.open(fileobj=io.BytesIO(packed), mode="r:") as tar:
        for member in tar:
            parts = member.name.strip("/").split("/")
            if len(parts) != 3 or (parts[0] == "orders") != (parts[2] in _OURS):
                continue  # what the job wrote does not count as ours
            if member.issym():
                links.add(parts[1])
            opened = tar.extractfile(member) if member.isreg() else None
            found = files.setdefault(parts[1], {})
            found[parts[2]] = (opened.read() if opened is not None else b"", float(member.mtime))
    return {attempt: _told(found, withdrawn=attempt in links) for attempt, found in files.items() if BELL in found}


def _told(found: Mapping[str, tuple[bytes, float]], *, withdrawn: bool) -> Told:
    record = Record(claimed="claim" in found)
    if "start" in found and (start := parse_start(found["start"][0])):
        record = record._replace(claimed=True, started_at=found["start"][1], pid=start[0], native_id=start[1])
    if "end" in found and (end := parse_end(found["end"][0])):
        record = record._replace(
            claimed=True, ended_at=found["end"][1], exit_code=end[0], signal=end[1], cpu_seconds=end[2]
        )
    verdict, stop, refused = (found.get(name, (b"", 0.0))[0].decode("utf-8", "replace") for name in _TEXTS)
    return Told(record, verdict, stop, refused if withdrawn else "")


def _add(
    tar: tarfile.TarFile, name: str, content: bytes | Path | None, *, mode: int, owner: Owner | None = None,
    link: str | None = None, fifo: bool = False,
) -> None:  # fmt: skip
    member = tarfile.TarInfo(name)
    member.mode = mode
    if owner is not None:
        member.uid, member.gid = owner.uid, owner.gid
    if fifo:
        member.type = tarfile.FIFOTYPE
    elif link is not None:
        member.type, member.linkname = tarfile.SYMTYPE, link
    elif content is None:
        member.type = tarfile.DIRTYPE
    elif isinstance(content, Path):
        with content.open("rb") as file:
            member.size = content.stat().st_size
            tar.addfile(member, file)
        return
    else:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
        return
    tar.addfile(member)


def _pack(packed: IO[bytes], owner: Owner, entries: Sequence[Entry], plan: bytes) -> None:
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        _add(tar, "orders", None, mode=0o755)
        _add(tar, f"orders/{BELL}", None, mode=0o600, owner=owner, fifo=True)
        _add(tar, "attempt", None, mode=0o700, owner=owner)
        for entry in entries:
            _add(tar, f"attempt/{entry.path}", entry.content, mode=entry.mode, owner=owner, link=entry.link)
        _add(tar, f"orders/{PLAN}", plan, mode=0o600)
    packed.seek(0)


async def _pieces(packed: IO[bytes]) -> AsyncIterator[bytes]:
    while piece := await asyncio.to_thread(packed.read, 1 << 20):
        yield piece
