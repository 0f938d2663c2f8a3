"""Streams into pods over websockets: commands (the protocol of `kubectl exec`) and ports (of `kubectl port-forward`).

Each message begins with one byte that names its channel. In the newest protocol, v5, a side can also say that one
channel has ended; with an older server the input of a command cannot be ended without ending the command.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import aiohttp

from atoll.drivers.base import DriverError

EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
PORT_PROTOCOLS = ("v4.channel.k8s.io",)
_STDIN, _STDOUT, _STDERR, _STATUS, _RESIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_KILLED = 137
_SETTLED = 0.3
"""Seconds within which a node tells that nobody listens at a port."""
_QUEUED = 256
"""Messages that may wait to be read; then the other side has to wait."""
_PIECE = 1 << 16


class _Stream:
    """Messages of a websocket, sorted by channel, and read at the reader's pace."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, closed: Callable[[], Awaitable[None]] | None) -> None:
        self._socket = socket
        self._closed = closed
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(_QUEUED)
        self._left = b""
        self._over = False
        self._sending = asyncio.Lock()
        self._task = asyncio.create_task(self._receive())

    async def _receive(self) -> None:
        try:
            async for message in self._socket:
                if message.type is aiohttp.WSMsgType.BINARY and message.data:
                    await self._take(message.data[0], message.data[1:])
                elif message.type is aiohttp.WSMsgType.TEXT and message.data:
                    data = message.data.encode()
                    await self._take(data[0], data[1:])
        finally:
            self._ended()
            await self._pieces.put(None)

    async def _take(self, channel: int, data: bytes) -> None:
        raise NotImplementedError

    def _ended(self) -> None:
        """Called when nothing more will come."""

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end."""
        if not self._left and not self._over:
            piece = await self._pieces.get()
            if piece is None:
                self._over = True
            else:
                self._left = piece
        data, self._left = self._left[:limit], self._left[limit:]
        return data

    async def _send(self, channel: int, data: bytes) -> None:
        if self._socket.closed or self._over:
            raise DriverError("The connection into the pod has ended.")
        try:
            async with self._sending:
                await self._socket.send_bytes(bytes([channel]) + data)
        except (aiohttp.ClientError, OSError) as error:
            raise DriverError(f"The connection into the pod broke: {error}.") from error

    async def write(self, data: bytes) -> None:
        """Send. Raises DriverError where the other side is gone."""
        for start in range(0, len(data), _PIECE):
            await self._send(_STDIN, data[start : start + _PIECE])

    async def close(self) -> None:
        """Let go of both directions."""
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._socket.close()
        if self._closed is not None:
            await self._closed()


class PodExecution(_Stream):
    """A command in a container. Without a terminal its error output comes with its output, unless kept apart."""

    def __init__(
        self, socket: aiohttp.ClientWebSocketResponse, *, terminal: bool = False, apart: bool = False,
        closed: Callable[[], Awaitable[None]] | None = None,
    ) -> None:  # fmt: skip
        self._terminal = terminal
        self._apart = apart
        self.error_output = b""
        """The beginning of the error output, where it is kept apart."""
        self._code: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        super().__init__(socket, closed)

    async def _take(self, channel: int, data: bytes) -> None:
        if channel == _STATUS:
            if not self._code.done():
                self._code.set_result(_exit_code(data, self))
        elif channel == _STDERR and self._apart:
            self.error_output = (self.error_output + data)[:4096]
        elif channel in (_STDOUT, _STDERR) and data:
            await self._pieces.put(data)

    def _ended(self) -> None:
        if not self._code.done():
            self._code.set_result(_KILLED)  # its container has ended, or the way to it has

    async def end(self) -> None:
        """Say that nothing more will be sent: to a terminal as ^D, else where the server speaks v5."""
        if self._socket.closed or self._over:
            return
        if self._terminal:
            await self._send(_STDIN, b"\x04")
        elif self._socket.protocol == EXEC_PROTOCOLS[0]:
            await self._send(_CLOSE, bytes([_STDIN]))

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""
        await self._send(_RESIZE, json.dumps({"Width": columns, "Height": lines}).encode())

    async def wait(self) -> int:
        """The exit code; 137 where the container ended, or the connection broke, before it was told."""
        return await asyncio.shield(self._code)


def _exit_code(status: bytes, execution: PodExecution) -> int:
    """The exit code in the server's word at the end."""
    try:
        said = json.loads(status)
        if said.get("status") == "Success":
            return 0
        for cause in said.get("details", {}).get("causes", ()):
            if cause.get("reason") == "ExitCode":
                return int(cause["message"])
        words = str(said.get("message", ""))
    except (ValueError, AttributeError, TypeError, KeyError):
        words = ""
    execution.error_output = execution.error_output or words.encode()[:4096]
    # the runtime found nothing to start
    return 127 if "no such file or directory" in words or "executable file not found" in words else 126


class PortChannel(_Stream):
    """A TCP port inside a pod."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._named: set[int] = set()
        self._said = b""
        self._news = asyncio.Event()
        super().__init__(socket, None)

    async def _take(self, channel: int, data: bytes) -> None:
        if channel not in self._named:  # the first message of each channel repeats the port's number
            self._named.add(channel)
            data = data[2:]
        if not data:
            return
        if channel == 0:
            await self._pieces.put(data)
        else:
            self._said = (self._said + data)[:2000]
        self._news.set()

    def _ended(self) -> None:
        self._news.set()

    async def opened(self) -> None:
        """Return when the connection seems to stand. Raises DriverError where nobody listens."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._news.wait(), _SETTLED)
        self._check()

    def _check(self) -> None:
        if self._said:
            words = " ".join(self._said.decode("utf-8", "replace").split())[-300:].rstrip(". ")
            raise DriverError(f"The port cannot be reached: {words}.")

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end. Raises DriverError where nobody listens."""
        data = await super().read(limit)
        if not data:
            self._check()
        return data

    async def end(self) -> None:
        """Nothing: this protocol cannot end one direction alone; `close` ends both."""
