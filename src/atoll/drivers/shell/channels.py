"""Streams of this machine as channels."""

import asyncio
import contextlib

from atoll.drivers.base import DriverError
from atoll.drivers.shell.base import system_words


class StreamChannel:
    """A pair of asyncio streams as a Channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str) -> None:
        self._reader = reader
        self._writer = writer
        self._name = name
        """What errors call the other side."""

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end. Raises DriverError where the stream broke."""
        try:
            return await self._reader.read(limit)
        except OSError as error:
            raise DriverError(f"The connection to {self._name} broke: {system_words(error)}.") from error

    async def write(self, data: bytes) -> None:
        """Send. Raises DriverError where the other side is gone."""
        if self._writer.is_closing():
            raise DriverError(f"The connection to {self._name} is closed.")
        try:
            self._writer.write(data)
            await self._writer.drain()
        except OSError as error:
            raise DriverError(f"The connection to {self._name} broke: {system_words(error)}.") from error

    async def end(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(OSError):  # it is gone already: it will read nothing either
            if self._writer.can_write_eof() and not self._writer.is_closing():
                self._writer.write_eof()

    async def close(self) -> None:
        """Let go of both directions."""
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()
