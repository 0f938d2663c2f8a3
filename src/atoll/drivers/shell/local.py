"""Commands on this machine, as the account that a job belongs to."""

import asyncio
import subprocess
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any

from atoll.drivers.base import Channel, DriverError, Execution
from atoll.drivers.shell.accounts import Identity, identity_of
from atoll.drivers.shell.base import MOST_OUTPUT, Ran, Unfinished, check_words, system_words
from atoll.drivers.shell.channels import StreamChannel
from atoll.drivers.shell.commands import open_command
from atoll.drivers.shell.process import Process, start
from atoll.drivers.shell.relay import answered, relay_words
from atoll.drivers.shell.talk import Stalled, Talk, TooMuch

_CONNECT_WITHIN = 10.0
_LOOK_UP_WITHIN = 10.0
"""Seconds for the machine's directory service to tell of an account."""
_KNOWN_FOR = 60.0
"""Seconds for which an account's groups are believed."""


class LocalShell:
    """A Shell on this machine. Other accounts than our own only where we are root."""

    def __init__(self, environment: Mapping[str, str] | None = None, *, at_once: int = 32) -> None:
        """`environment`: variables that all commands get; `at_once`: most commands that run beside each other."""
        self._environment = dict(environment or {})
        self._turns = asyncio.Semaphore(at_once)
        self._identities: dict[str | None, tuple[float, Identity]] = {}

    async def run(
        self, account: str | None, words: Sequence[str], *, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Callable[[bytes], Awaitable[None]] | None = None, seconds: float = 30.0,
    ) -> Ran:  # fmt: skip
        """Run a command; see Shell."""
        check_words(words)
        identity = await self._identity(account)
        async with self._turns:
            process = self._start(identity, words, stdin=subprocess.PIPE if stdin != b"" else subprocess.DEVNULL)
            if isinstance(process, Ran):
                return process
            talk = Talk(seconds)
            try:
                await process.take_pipes()
                assert process.stdout is not None
                assert process.stderr is not None
                await talk.carry(process.stdin, process.stdout, process.stderr, stdin, sink, process.wait)
            except Stalled:
                raise Unfinished(f"{words[0]} did nothing for {seconds:g} s, and was ended.") from None
            except TooMuch:
                raise Unfinished(f"{words[0]} wrote more than {MOST_OUTPUT >> 20} MiB, and was ended.") from None
            finally:
                await process.end()
            assert process.code is not None
            return Ran(process.code, talk.out, talk.error)

    async def open(self, account: str | None, words: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command as a channel; see Shell."""
        check_words(words)
        identity = await self._identity(account)
        return await open_command(identity, words, identity.environment() | self._environment, terminal=terminal)

    async def connect(self, account: str | None, host: str, port: int) -> Channel:
        """A stream to a TCP port; the account does not matter here."""
        name = f"{host}:{port}"
        return await _opened(asyncio.open_connection(host, port), name)

    async def connect_unix(self, account: str | None, path: str) -> Channel:
        """A stream to a unix socket; another account's rights are used by way of a process of that account."""
        identity = await self._identity(account)
        if identity.own:
            return await _opened(asyncio.open_unix_connection(path), path)
        return await answered(await self.open(account, relay_words(path)), path, _CONNECT_WITHIN)

    async def close(self) -> None:
        """Nothing is kept."""

    async def _identity(self, account: str | None) -> Identity:
        now = time.monotonic()
        known = self._identities.get(account)
        if known is not None and now - known[0] < _KNOWN_FOR:
            return known[1]
        try:
            identity = await asyncio.wait_for(asyncio.to_thread(identity_of, account), _LOOK_UP_WITHIN)
        except TimeoutError:
            raise DriverError(
                f"This machine's directory of accounts did not tell of {account!r} within {_LOOK_UP_WITHIN:.0f} s."
            ) from None
        self._identities[account] = (now, identity)
        return identity

    def _start(self, identity: Identity, words: Sequence[str], *, stdin: int) -> Process | Ran:
        """The process; or, for a command that is not there, what a shell would say of it."""
        environment = identity.environment() | self._environment
        try:
            return start(identity, words, environment, stdin=stdin)
        except FileNotFoundError:
            return Ran(127, b"", f"{words[0]}: not found on {environment['PATH']}\n".encode())
        except (PermissionError, NotADirectoryError) as error:
            return Ran(126, b"", f"{words[0]}: {error.strerror}\n".encode())
        except OSError as error:
            raise DriverError(f"{words[0]} cannot be started on this machine: {error.strerror}.") from error


async def _opened(
    opening: Coroutine[Any, Any, tuple[asyncio.StreamReader, asyncio.StreamWriter]], name: str
) -> StreamChannel:
    try:
        return StreamChannel(*await asyncio.wait_for(opening, _CONNECT_WITHIN), name)
    except TimeoutError:
        raise DriverError(f"{name} did not answer within {_CONNECT_WITHIN:.0f} s.") from None
    except OSError as error:
        raise DriverError(f"{name} cannot be reached: {system_words(error)}.") from error
