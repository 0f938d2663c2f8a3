"""A command beside an attempt's own, seen from the driver: its pipes or its terminal, and its end."""

import asyncio
import errno
import fcntl
import json
import os
import struct
import termios
from collections.abc import Callable

from atoll.drivers.base import DriverError


class Ends:
    """Our ends of a command's pipes, or of its terminal, and the ends that are to be handed to the command."""

    def __init__(self, terminal: bool) -> None:
        self.terminal = terminal
        if terminal:
            ours, theirs = os.openpty()
            self.reads = self.writes = ours
            self.handed = [theirs]
        else:
            given, self.writes = os.pipe()
            self.reads, taken = os.pipe()
            self.handed = [given, taken]
        for descriptor in {self.reads, self.writes}:
            os.set_blocking(descriptor, False)

    def hand_over(self) -> None:
        """Close what the command has now."""
        while self.handed:
            os.close(self.handed.pop())

    def close(self) -> None:
        """Close everything."""
        self.hand_over()
        for descriptor in {self.reads, self.writes} - {-1}:
            os.close(descriptor)
        self.reads = self.writes = -1


class ProcessExecution:
    """An Execution. Reading and writing wait for the descriptors themselves, so that nothing is kept in between."""

    def __init__(self, ends: Ends, reader: asyncio.StreamReader, let_go: Callable[[], None]) -> None:
        self._ends = ends
        self._reader = reader
        """Tells of the command's end."""
        self._let_go = let_go
        self._asking = asyncio.Lock()
        self._code: int | None = None
        self._waiting: set[asyncio.Future[None]] = set()

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes of output; empty once everybody has closed it."""
        while self._ends.reads >= 0:
            try:
                return os.read(self._ends.reads, limit)
            except BlockingIOError:
                await self._ready(self._ends.reads, writing=False)
            except OSError as error:
                if error.errno == errno.EIO:
                    return b""  # a terminal's way of saying so
                raise DriverError(f"The command's output cannot be read: {error.strerror}.") from error
        return b""

    async def write(self, data: bytes) -> None:
        """Send input. Raises DriverError where the command reads no more."""
        view = memoryview(data)
        while view:
            if self._ends.writes < 0:
                raise DriverError("The command's input is closed.")
            try:
                view = view[os.write(self._ends.writes, view) :]
            except BlockingIOError:
                await self._ready(self._ends.writes, writing=True)
            except OSError as error:
                raise DriverError(f"The command reads no more input: {error.strerror}.") from error

    async def end(self) -> None:
        """Close the input; of a terminal, send its end-of-file character."""
        if self._ends.terminal:
            await self.write(b"\x04")
        elif self._ends.writes >= 0:
            self._forget(self._ends.writes)
            os.close(self._ends.writes)
            self._ends.writes = -1

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""
        if self._ends.terminal and self._ends.reads >= 0:
            fcntl.ioctl(self._ends.reads, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def wait(self) -> int:
        """The exit code, 128 + n where signal n ended it. Raises DriverError where nobody can tell."""
        async with self._asking:
            if self._code is None:
                try:
                    said = await self._reader.readline()
                except ConnectionError:
                    said = b""
                if not said:
                    raise DriverError("The supervisor of this machine ended, and with it the command.")
                self._code = int(json.loads(said)["ended"])
            return self._code

    async def close(self) -> None:
        """Let go of it: a command that still runs is ended."""
        for descriptor in {self._ends.reads, self._ends.writes} - {-1}:
            self._forget(descriptor)
        self._ends.close()
        for waiting in self._waiting:
            _settle(waiting)
        self._let_go()

    async def _ready(self, descriptor: int, *, writing: bool) -> None:
        """Wait until a descriptor can be read or written."""
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()
        add, remove = (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
        add(descriptor, _settle, ready)
        self._waiting.add(ready)
        try:
            await ready
        finally:
            self._waiting.discard(ready)
            if descriptor in (self._ends.reads, self._ends.writes):
                remove(descriptor)

    @staticmethod
    def _forget(descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        loop.remove_reader(descriptor)
        loop.remove_writer(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
