"""Commands at a site's login node over SSH, as the account that a job belongs to."""

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh
from asyncssh.stream import SSHClientStreamSession

from atoll.drivers.base import Channel, DriverError, Execution
from atoll.drivers.shell.base import MOST_OUTPUT, NoAccount, Ran, Unfinished, check_words, plain_words
from atoll.drivers.shell.config import SshConfig, is_account_name
from atoll.drivers.shell.lines import Line, Lines, Login
from atoll.drivers.shell.relay import answered, relay_words
from atoll.drivers.shell.remote import Begun, command_text, kill_words
from atoll.drivers.shell.talk import Stalled, Talk, TooMuch

_CONNECT_WITHIN = 10.0
_CLOSE_WITHIN = 2.0
_END_WITHIN = 5.0
_OPEN_AGAIN = (0.05, 0.1, 0.2)
"""Seconds to wait before a session is asked for again."""
_BROKEN = (asyncssh.Error, OSError)
"""What a lost connection or a closed channel gives."""

_logger = logging.getLogger(__name__)


class SshShell:
    """A Shell on a login node."""

    def __init__(self, config: SshConfig, environment: Mapping[str, str] | None = None) -> None:
        """`environment`: variables that all commands get."""
        self._config = config
        self._environment = {"LC_ALL": "C", **(environment or {})}
        self._lines = Lines(config)
        self._endings: set[asyncio.Task[None]] = set()

    async def run(
        self, account: str | None, words: Sequence[str], *, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Callable[[bytes], Awaitable[None]] | None = None, seconds: float = 30.0,
    ) -> Ran:  # fmt: skip
        """Run a command; see Shell."""
        command = self._command(account, words)
        async with self._started(command) as (line, session):
            talk = Talk(seconds)
            try:
                await talk.carry(session.stdin, session.out, session.stderr, stdin, sink, session.ended.wait)
            except Stalled:
                line.retired = True  # it may be the command that hangs, or the way to it
                raise Unfinished(
                    f"{words[0]} on {self._config.host} did nothing for {seconds:g} s, and was given up."
                ) from None
            except TooMuch:
                raise Unfinished(
                    f"{words[0]} on {self._config.host} wrote more than {MOST_OUTPUT >> 20} MiB, and was ended."
                ) from None
            except _BROKEN as error:
                raise self._broken(words[0], error) from None
            code = session.code
            if code is None:
                raise self._broken(words[0], session.lost)
            if not session.out.begun:
                raise self._not_begun(command, Ran(code, b"", talk.error or session.out.chatter))
            return Ran(code, talk.out, talk.error)

    async def open(self, account: str | None, words: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command as a channel; see Shell."""
        command = self._command(account, words, merged=True)
        options: dict[str, Any] = {"term_type": "xterm-256color", "term_size": (80, 24)} if terminal else {}
        holding = contextlib.AsyncExitStack()
        _, session = await holding.enter_async_context(self._started(command, lasting=True, **options))
        return _Execution(session, holding, f"{words[0]} on {self._config.host}", terminal=terminal)

    async def connect(self, account: str | None, host: str, port: int) -> Channel:
        """A stream to a TCP port as the login node reaches it."""
        login, become = self._login(account)
        if become:
            login, _ = self._login(None)
        return await self._stream(login, f"{host}:{port}", lambda line: line.open_connection(host, port))

    async def connect_unix(self, account: str | None, path: str) -> Channel:
        """A stream to a unix socket of the login node, with the rights of the account."""
        login, become = self._login(account)
        if become:
            return await answered(await self.open(account, relay_words(path)), path, _CONNECT_WITHIN)
        return await self._stream(login, path, lambda line: line.open_unix_connection(path))

    async def close(self) -> None:
        """Close the connections."""
        for ending in self._endings:
            ending.cancel()
        await asyncio.gather(*self._endings, return_exceptions=True)
        await self._lines.close()

    # -- who logs in ---------------------------------------------------------------------------------------------

    def _login(self, account: str | None) -> tuple[Login, list[str]]:
        """Who logs in for `account`, and the words that then make it that account. Raises NoAccount."""
        config = self._config
        own = Login(config.user, config.key, own=True)
        if account is None or account == config.user:
            return own, []
        if not is_account_name(account) or account == "root":
            raise NoAccount(f"{account!r} is no account that {config.host} is asked to act as.")
        key = config.key_of(account)
        if key is not None:
            return Login(account, key, own=False), []
        if config.impersonate:
            return own, config.words_as(account)
        raise NoAccount(
            f"The site file has no key for the account {account!r} on {config.host}, and no command to act as it: "
            "add it to keys, or set impersonate."
        )

    def _command(self, account: str | None, words: Sequence[str], *, merged: bool = False) -> "_Command":
        check_words(words)
        login, become = self._login(account)

        def text(words: Sequence[str]) -> str:
            return command_text(words, self._environment, become=become, account=account or "", merged=merged)

        return _Command(
            login, account if become else None, words[0], text(words), lambda group: text(kill_words(group))
        )

    # -- channels ------------------------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def _started(
        self, command: "_Command", *, lasting: bool = False, **options: Any
    ) -> AsyncIterator[tuple[Line, "_Session"]]:
        """A running command, and its line. At the end of the context it is ended."""
        async with self._lines.line(command.login, lasting=lasting) as first, contextlib.AsyncExitStack() as others:
            line, session = await self._on_some_line(first, others, command, options)
            try:
                yield line, session
            finally:
                if session.code is None and session.out.group is not None and not session.closed.is_set():
                    self._end_soon(line, command.kill(session.out.group))
                session.channel.close()
                # the node counts the session until it has closed its side too; an open one takes a later one's room
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(session.closed.wait(), _CLOSE_WITHIN)
                line.retired |= not session.closed.is_set()

    async def _on_some_line(
        self, line: Line, others: contextlib.AsyncExitStack, command: "_Command", options: Mapping[str, Any]
    ) -> tuple[Line, "_Session"]:
        """Send a command on `line`, or on another where that turns out to be closed."""
        pauses = iter(_OPEN_AGAIN)
        while True:
            try:
                return line, await self._open_session(line, command, options)
            except asyncssh.ChannelOpenError as error:
                pause = next(pauses, None)
                if pause is None:
                    host, said = self._config.host, plain_words(error.reason)
                    raise DriverError(f"{host} opens no session for {command.login.user}: {said}.") from None
            if line.connection.is_closed():
                line = await others.enter_async_context(self._lines.instead(line))
            else:
                await asyncio.sleep(pause)  # a session of before, which is closed here, may not be there yet

    async def _open_session(self, line: Line, command: "_Command", options: Mapping[str, Any]) -> "_Session":
        """Send a command. Raises ChannelOpenError where it was not sent, Unfinished where nobody knows."""
        patience = self._config.patience
        try:
            return await asyncio.wait_for(_begin(line, command.text, **options), patience)
        except asyncssh.ChannelOpenError:
            raise
        except asyncio.CancelledError:
            line.retired = True  # with it goes what may have been opened
            raise
        except TimeoutError:
            line.retired = True
            raise Unfinished(f"{self._config.host} did not answer within {patience:g} s.") from None
        except _BROKEN as error:
            raise self._broken(command.name, error) from None

    def _end_soon(self, line: Line, text: str) -> None:
        """End what goes on at the site: sshd does so by itself only where there is a terminal."""
        line.busy += 1
        ending = asyncio.create_task(self._end(line, text))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end(self, line: Line, text: str) -> None:
        try:
            async with asyncio.timeout(_END_WITHIN):
                session = await _begin(line, text)
                await session.closed.wait()
        except (*_BROKEN, TimeoutError) as error:
            line.retired = True  # the way is broken; whoever used it hears of that
            _logger.info("a command on %s may go on: %s", self._config.host, error)
        finally:
            self._lines.give_back(line)

    async def _stream(self, login: Login, name: str, opening: Callable[[asyncssh.SSHClientConnection], Any]) -> Channel:
        holding = contextlib.AsyncExitStack()
        line = await holding.enter_async_context(self._lines.line(login, lasting=True))
        try:
            reader, writer = await asyncio.wait_for(opening(line.connection), _CONNECT_WITHIN)
        except asyncssh.ChannelOpenError as error:
            await holding.aclose()
            # sshd says no more than "open failed" of a unix socket
            said = plain_words(error.reason).replace("open failed", "nobody listens there, or it may not be opened")
            raise DriverError(f"{name} cannot be reached from {self._config.host}: {said}.") from None
        except TimeoutError:
            await holding.aclose()
            raise DriverError(f"{name} did not answer {self._config.host} within {_CONNECT_WITHIN:.0f} s.") from None
        except _BROKEN as error:
            await holding.aclose()
            raise DriverError(f"The connection to {self._config.host} broke: {plain_words(error)}.") from None
        except BaseException:
            await holding.aclose()
            raise
        return _Stream(reader, writer, holding, f"{name} by {self._config.host}")

    def _broken(self, name: str, error: Exception | None) -> Unfinished:
        said = plain_words(error) if error is not None else "the login node ended it"
        return Unfinished(f"The connection to {self._config.host} broke while {name} ran: {said}.")

    def _not_begun(self, command: "_Command", ran: Ran) -> DriverError:
        login, host, complaint = command.login, self._config.host, ran.complaint
        if command.account is not None:
            return NoAccount(f"{login.user} cannot act as {command.account} on {host}: {complaint}.")
        kind = DriverError if login.own else NoAccount
        return kind(f"{login.user} cannot run commands on {host}: {complaint}.")


@dataclass(frozen=True)
class _Command:
    """A command as it is sent."""

    login: Login
    account: str | None
    """Whom the login acts as, where that is another."""
    name: str
    text: str
    kill: Callable[[int], str]
    """The command that ends its process group."""


class _Session(SSHClientStreamSession[bytes]):
    """A command's channel."""

    def __init__(self) -> None:
        super().__init__()
        self.ended = asyncio.Event()
        self.closed = asyncio.Event()
        self.lost: Exception | None = None

    def attach(self, channel: "asyncssh.SSHClientChannel[bytes]") -> None:
        """Make streams of the channel."""
        self.channel = channel
        self.stdin = asyncssh.SSHWriter[bytes](self, channel)
        self.out = Begun(asyncssh.SSHReader[bytes](self, channel))
        self.stderr = asyncssh.SSHReader[bytes](self, channel, asyncssh.EXTENDED_DATA_STDERR)

    def exit_status_received(self, status: int) -> None:
        super().exit_status_received(status)
        self.ended.set()

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        super().exit_signal_received(signal, core_dumped, msg, lang)
        self.ended.set()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.lost = exc
        self.ended.set()
        self.closed.set()

    @property
    def code(self) -> int | None:
        """How the command ended, as a shell tells it; None where nobody told."""
        said = self.channel.get_exit_signal()
        if said is not None:
            number = getattr(signal, f"SIG{said[0]}", None)
            return 128 + int(number) if number is not None else 255
        return self.channel.get_exit_status()


async def _begin(line: Line, text: str, **options: Any) -> _Session:
    """Send a command, and return when the node has taken it."""
    session = _Session()
    channel, _ = await line.connection.create_session(lambda: session, text, encoding=None, **options)
    session.attach(channel)
    return session


class _Stream:
    """A forwarded connection as a Channel."""

    def __init__(
        self, reader: "asyncssh.SSHReader[bytes]", writer: "asyncssh.SSHWriter[bytes]",
        holding: contextlib.AsyncExitStack, name: str,
    ) -> None:  # fmt: skip
        self._reader = reader
        self._writer = writer
        self._holding = holding
        self._name = name

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes; empty at the end. Raises DriverError where the stream broke."""
        try:
            return await self._reader.read(limit)
        except _BROKEN as error:
            raise DriverError(f"The connection to {self._name} broke: {plain_words(error)}.") from None

    async def write(self, data: bytes) -> None:
        """Send. Raises DriverError where the other side is gone."""
        try:
            self._writer.write(data)
            await self._writer.drain()
        except _BROKEN as error:
            raise DriverError(f"The connection to {self._name} broke: {plain_words(error)}.") from None

    async def end(self) -> None:
        """Say that nothing more will be sent."""
        with contextlib.suppress(*_BROKEN):  # it is gone already: it will read nothing either
            self._writer.write_eof()

    async def close(self) -> None:
        """Let go of both directions."""
        self._writer.channel.abort()
        await self._holding.aclose()


class _Execution:
    """A command on the login node as an Execution."""

    def __init__(self, session: _Session, holding: contextlib.AsyncExitStack, name: str, *, terminal: bool) -> None:
        self._session = session
        self._holding = holding
        self._name = name
        self._terminal = terminal

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes of what the command writes. Raises DriverError where it never began or was lost."""
        try:
            data = await self._session.out.read(limit)
        except _BROKEN as error:
            raise DriverError(f"The connection to {self._name} broke: {plain_words(error)}.") from None
        if not data and not self._session.out.begun:
            said = Ran(self._session.code or 0, b"", self._session.out.chatter).complaint
            raise NoAccount(f"{self._name} cannot be started: {said}.")
        return data

    async def write(self, data: bytes) -> None:
        """Send to the command. Raises DriverError where it has ended."""
        try:
            self._session.stdin.write(data)
            await self._session.stdin.drain()
        except _BROKEN:
            raise DriverError(f"{self._name} has ended, or reads no more.") from None

    async def end(self) -> None:
        """Say that nothing more will be sent; a terminal is told by its end-of-file character."""
        with contextlib.suppress(*_BROKEN):  # it has ended already
            if self._terminal:
                self._session.stdin.write(b"\x04")
            else:
                self._session.stdin.write_eof()

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""
        if self._terminal and not self._session.closed.is_set():
            self._session.channel.change_terminal_size(columns, lines)

    async def wait(self) -> int:
        """The exit code. Raises DriverError where the connection was lost."""
        await self._session.ended.wait()
        code = self._session.code
        if code is None:
            raise DriverError(f"The connection to {self._name} broke.")
        return code

    async def close(self) -> None:
        """End the command, if it has not ended, and let go of it."""
        await self._holding.aclose()
