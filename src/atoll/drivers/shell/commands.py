"""A command of this machine as a channel, with or without a terminal."""

import asyncio
import contextlib
import fcntl
import os
import struct
import subprocess
import termios
from collections.abc import Callable, Mapping, Sequence

from atoll.drivers.base import DriverError
from atoll.drivers.shell.accounts import Identity
from atoll.drivers.shell.process import Process, start

_OWN_TERMINAL = ': <"$0"; exec "$@"'
"""A session's first process that opens a terminal has it as its own from then on."""
_END_OF_FILE = b"\x04"


class Command:
    """A running command with pipes as an Execution."""

    def __init__(self, process: Process, name: str) -> None:
        assert process.stdout is not None
        assert process.stdin is not None
        self._process = process
        self._reader = process.stdout
        self._writer = process.stdin
        self._name = name

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes of what the command writes; empty at the end."""
        return await self._reader.read(limit)

    async def write(self, data: bytes) -> None:
        """Send to the command. Raises DriverError where it reads no more."""
        try:
            if self._writer.is_closing():
                raise BrokenPipeError
            self._writer.write(data)
            await self._writer.drain()
        except OSError:
            raise DriverError(f"{self._name} has ended, or reads no more.") from None

    async def end(self) -> None:
        """Say that nothing more will be sent."""
        self._writer.close()

    async def resize(self, columns: int, lines: int) -> None:
        """There is no terminal."""

    async def wait(self) -> int:
        """The exit code, 128 + n where signal n ended it."""
        return await self._process.wait()

    async def close(self) -> None:
        """End the command, if it has not ended, and let go of it."""
        await self._process.end()


class TerminalCommand:
    """A running command on a terminal as an Execution."""

    def __init__(self, process: Process, terminal: int, name: str) -> None:
        os.set_blocking(terminal, False)
        self._process = process
        self._terminal: int | None = terminal
        """Our side of it; None once it is closed."""
        self._loop = asyncio.get_running_loop()
        self._name = name

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes of what the command writes; empty at the end."""
        while (terminal := self._terminal) is not None:
            try:
                return os.read(terminal, limit)
            except BlockingIOError:
                await self._ready(terminal, self._loop.add_reader, self._loop.remove_reader)
            except OSError:
                break  # so ends a terminal that nobody has open any more
        return b""

    async def write(self, data: bytes) -> None:
        """Type. Raises DriverError where the command has ended."""
        rest = memoryview(data)
        while rest:
            if (terminal := self._terminal) is None:
                raise DriverError(f"{self._name} has ended.")
            try:
                rest = rest[os.write(terminal, rest) :]
            except BlockingIOError:
                await self._ready(terminal, self._loop.add_writer, self._loop.remove_writer)
            except OSError:
                raise DriverError(f"{self._name} has ended.") from None

    async def _ready(
        self, terminal: int, add: Callable[..., object], remove: Callable[[int], object]
    ) -> None:  # fmt: skip
        ready = asyncio.Event()
        add(terminal, ready.set)
        try:
            await ready.wait()
        finally:
            if self._terminal is not None:
                remove(terminal)

    async def end(self) -> None:
        """Type the end-of-file character."""
        with contextlib.suppress(DriverError):  # it has ended already
            await self.write(_END_OF_FILE)

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""
        if self._terminal is not None:
            fcntl.ioctl(self._terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    async def wait(self) -> int:
        """The exit code, 128 + n where signal n ended it."""
        return await self._process.wait()

    async def close(self) -> None:
        """End the command, if it has not ended, and let go of it."""
        if (terminal := self._terminal) is not None:
            self._terminal = None
            self._loop.remove_reader(terminal)
            self._loop.remove_writer(terminal)
            os.close(terminal)
        await self._process.end()


async def open_command(
    identity: Identity, words: Sequence[str], environment: Mapping[str, str], *, terminal: bool
) -> Command | TerminalCommand:
    """Start a command as the account. Raises DriverError."""
    try:
        if terminal:
            return _on_terminal(identity, words, environment)
        process = start(identity, words, environment, stdin=subprocess.PIPE, stderr=subprocess.STDOUT)
    except OSError as error:
        raise DriverError(f"{words[0]} cannot be started on this machine: {error.strerror}.") from error
    await process.take_pipes()
    return Command(process, words[0])


def _on_terminal(identity: Identity, words: Sequence[str], environment: Mapping[str, str]) -> TerminalCommand:
    ours, theirs = os.openpty()
    try:
        name = os.ttyname(theirs)
        if not identity.own:
            os.chown(name, identity.uid, identity.gid)
        process = start(
            identity, ["/bin/sh", "-c", _OWN_TERMINAL, name, *words], {"TERM": "xterm-256color", **environment},
            stdin=theirs, stdout=theirs, stderr=theirs,
        )  # fmt: skip
    except BaseException:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    return TerminalCommand(process, ours, words[0])
