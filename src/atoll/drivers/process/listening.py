"""Ports of an attempt's own processes, and streams to them: nobody else's port is reached through an attempt."""

import asyncio
import ipaddress
import os
import socket
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
    """A Channel to a port of this machine, on a socket of its own; see PlainChannel."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._loop = asyncio.get_running_loop()

    @classmethod
    async def open(cls, address: str, port: int) -> "PortChannel":
        """Connect. Raises DriverError where nobody listens."""
        connection = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            connection.setblocking(False)
            async with asyncio.timeout(_CONNECT_WITHIN):
                await asyncio.get_running_loop().sock_connect(connection, (address, port))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except (OSError, TimeoutError) as error:
            connection.close()
            raise DriverError(f"Nobody answers at port {port}: {error}.") from error
        except BaseException:
            connection.close()
            raise
        return cls(connection)

    @property
    def socket(self) -> socket.socket:
        """The socket."""
        return self._socket

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end. Raises DriverError where the connection broke."""
        try:
            return await self._loop.sock_recv(self._socket, limit)
        except OSError as error:
            raise DriverError(f"The connection broke: {error.strerror or error}.") from error

    async def write(self, data: bytes) -> None:
        """Send. Raises DriverError where the other side is gone."""
        try:
            await self._loop.sock_sendall(self._socket, data)
        except OSError as error:
            raise DriverError(f"The connection broke: {error.strerror or error}.") from error

    async def end(self) -> None:
        """Send no more; reading goes on."""
        with suppress(OSError):  # it is gone, and reads nothing either
            self._socket.shutdown(socket.SHUT_WR)

    async def close(self) -> None:
        """Let go of both directions."""
        if self._socket.fileno() < 0:
            return
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # who still reads sees the end
        await asyncio.sleep(0)
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
