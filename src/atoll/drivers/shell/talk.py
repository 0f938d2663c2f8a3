"""A command's three streams, carried to their ends together, within a time and a size; the same near and far."""

import asyncio
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine
from typing import Any, Protocol

from atoll.drivers.shell.base import MOST_ERROR, MOST_OUTPUT

PIECE = 256 << 10
"""Bytes that are read or written at once."""
AFTER_END = 1.0
"""Seconds for which output is awaited once the command itself has ended: what it left behind may hold its pipes."""


class Reader(Protocol):
    """One of the command's outputs."""

    async def read(self, n: int, /) -> bytes:
        """At most `n` bytes; empty at the end."""


class Writer(Protocol):
    """The command's input."""

    def write(self, data: bytes, /) -> None:
        """Send when there is room."""

    async def drain(self) -> None:
        """Wait for room."""

    def write_eof(self) -> None:
        """Say that nothing more will be sent."""


class TooMuch(Exception):
    """The command wrote more than is taken without a sink."""


class Stalled(Exception):
    """Nothing moved for too long."""


Sink = Callable[[bytes], Awaitable[None]]


class Talk:
    """Feeds a command and gathers what it writes; each piece that moves puts the deadline off."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._limit = asyncio.timeout(seconds)
        self._pieces: list[bytes] = []
        self._size = 0
        self._error = bytearray()
        self._ended = False

    @property
    def out(self) -> bytes:
        """What was written so far, and not taken by a sink."""
        return b"".join(self._pieces)

    @property
    def error(self) -> bytes:
        """The end of the error output."""
        return bytes(self._error)

    async def carry(
        self, writer: Writer | None, out: Reader, error: Reader, stdin: bytes | AsyncIterable[bytes],
        sink: Sink | None, ended: Callable[[], Awaitable[object]],
    ) -> None:  # fmt: skip
        """Return when `ended` has returned and both outputs are at their end, or silent since.

        Raises Stalled, TooMuch, and whatever the streams, `stdin` and `sink` raise.
        """
        parts = [self._read_out(out, sink), self._read_error(error), self._await_end(ended)]
        if writer is not None:
            parts.append(self._feed(writer, stdin))
        try:
            async with self._limit:
                await together(*parts)
        except TimeoutError:
            if not self._limit.expired():
                raise
            if not self._ended:
                raise Stalled from None

    async def _await_end(self, ended: Callable[[], Awaitable[object]]) -> None:
        await ended()
        self._ended = True
        self._seconds = min(self._seconds, AFTER_END)
        self._moved()

    def _moved(self) -> None:
        if not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._seconds)

    async def _feed(self, writer: Writer, stdin: bytes | AsyncIterable[bytes]) -> None:
        try:
            if isinstance(stdin, bytes):
                for start in range(0, len(stdin), PIECE):
                    await self._write(writer, stdin[start : start + PIECE])
            else:
                async for piece in stdin:
                    await self._write(writer, piece)
            writer.write_eof()
        except (BrokenPipeError, ConnectionResetError):
            return  # the command wants no more; how it ended is told by its exit code

    async def _write(self, writer: Writer, piece: bytes) -> None:
        writer.write(piece)
        await writer.drain()
        self._moved()

    async def _read_out(self, reader: Reader, sink: Sink | None) -> None:
        while piece := await reader.read(PIECE):
            self._moved()
            if sink is not None:
                await sink(piece)
                self._moved()
                continue
            self._size += len(piece)
            if self._size > MOST_OUTPUT:
                raise TooMuch
            self._pieces.append(piece)

    async def _read_error(self, reader: Reader) -> None:
        while piece := await reader.read(PIECE):
            self._moved()
            self._error += piece
            del self._error[:-MOST_ERROR]


async def together(*parts: Coroutine[Any, Any, None]) -> None:
    """Wait for all; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for part in parts:
                group.create_task(part)
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
