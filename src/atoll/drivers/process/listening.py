"""Ports of an attempt's own processes, and streams to them: nobody else's port is reached through an attempt."""

import asyncio
import ipaddress
import os
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from atoll.drivers.base import DriverError

_LISTENS = "0A"
_CONNECT_WITHIN = 10.0


def address_of(pids: Iterable[int], port: int) -> str | None:
    """Where to reach TCP `port` of the processes `pids` on this machine; None where none of them listens on it."""
    listening = dict(_listening(port))
    if not listening:
        return None
    for pid in pids:
        for inode in _sockets(pid):
            if inode in listening:
                return listening[inode]
    return None


def _listening(port: int) -> Iterator[tuple[str, str]]:
    """Inode and address of each socket that listens on `port`."""
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text("ascii").splitlines()[1:]
        except OSError:
            continue  # no IPv6 here
        for line in lines:
            fields = line.split()
            address, _, number = fields[1].partition(":")
            if fields[3] == _LISTENS and int(number, 16) == port:
                yield fields[9], _reachable(address)


def _reachable(text: str) -> str:
    """The address that reaches a socket bound to the one that /proc writes as `text`: 32-bit words of this machine."""
    words = [int(text[start : start + 8], 16) for start in range(0, len(text), 8)]
    address = ipaddress.ip_address(struct.pack(f"={len(words)}I", *words))
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "::1"
    return str(address)


def _sockets(pid: int) -> Iterator[str]:
    """Inodes of the sockets that a process has open; none where it is gone."""
    try:
        names = os.listdir(f"/proc/{pid}/fd")  # noqa: PTH208  # plain names are enough
    except OSError:
        return
    for name in names:
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")  # noqa: PTH115
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            yield target[8:-1]


class PortChannel:
    """A Channel to a port of this machine."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, address: str, port: int) -> "PortChannel":
        """Connect. Raises DriverError where nobody listens."""
        try:
            async with asyncio.timeout(_CONNECT_WITHIN):
                return cls(*await asyncio.open_connection(address, port))
        except (OSError, TimeoutError) as error:
            raise DriverError(f"Nobody answers at port {port}: {error}.") from error

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end. Raises DriverError where the connection broke."""
        try:
            return await self._reader.read(limit)
        except OSError as error:
            raise DriverError(f"The connection broke: {error.strerror or error}.") from error

    async def write(self, data: bytes) -> None:
        """Send. Raises DriverError where the other side is gone."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except (OSError, RuntimeError) as error:  # RuntimeError: closed by ourselves
            raise DriverError(f"The connection broke: {error}.") from error

    async def end(self) -> None:
        """Send no more; reading goes on."""
        with suppress(OSError):  # it is gone, and reads nothing either
            if not self._writer.is_closing():
                self._writer.write_eof()

    async def close(self) -> None:
        """Let go of both directions."""
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()
