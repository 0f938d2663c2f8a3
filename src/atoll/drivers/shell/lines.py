"""Connections to a login node: one kept for each login, more while it is busy, none faster than the back-off."""

import asyncio
import contextlib
import logging
import os
import random
import stat
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncssh

from atoll.drivers.base import DriverError
from atoll.drivers.shell.base import NoAccount, plain_words, system_words
from atoll.drivers.shell.config import SshConfig

logging.getLogger("asyncssh").setLevel(logging.WARNING)  # at lower levels it tells every command

_KEEPALIVE = 15.0
"""Seconds of silence after which the other side is asked whether it is there; three times."""
_IDLE = 300.0
"""Seconds after which an unused connection is closed."""
_EXTRA_IDLE = 10.0
"""The same for a login's second connection and further ones."""
_LINES_EACH = 4
"""Most connections of one login."""
_LINES = 128
"""Most connections of all logins."""
_FIRST_DELAY, _LONGEST_DELAY = 1.0, 60.0
"""Seconds of back-off after one failure, and after many."""


@dataclass(frozen=True)
class Login:
    """Who logs in, with which key."""

    user: str
    key: str
    own: bool
    """Whether it is the site's own login, and not a person's."""


@dataclass(eq=False)
class Line:
    """One connection."""

    connection: asyncssh.SSHClientConnection
    login: Login
    busy: int = 0
    """Commands and streams that use it now."""
    retired: bool = False
    """Whether it takes no further ones, as something hung on it."""
    timer: asyncio.TimerHandle | None = None

    @property
    def good(self) -> bool:
        """Whether it takes more."""
        return not self.retired and not self.connection.is_closed()


@dataclass
class _Kept:
    """What is kept of a login."""

    lines: list[Line] = field(default_factory=list)
    making: asyncio.Lock = field(default_factory=asyncio.Lock)
    short: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    lasting: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))


class BackOff:
    """Remembers a failure, and for how long nothing is tried again."""

    def __init__(self) -> None:
        self._failures = 0
        self._until = 0.0
        self._error: DriverError | None = None

    def check(self) -> None:
        """Raise the failure again while it is too early for another try."""
        if self._error is not None and asyncio.get_running_loop().time() < self._until:
            raise type(self._error)(str(self._error))

    def failed(self, error: DriverError) -> None:
        """Wait before the next try, twice as long as before."""
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2.0**self._failures)
        self._failures = min(self._failures + 1, 16)
        self._until = asyncio.get_running_loop().time() + delay * random.uniform(0.75, 1.0)
        self._error = error

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures, self._error = 0, None


class Lines:
    """The connections to one login node."""

    def __init__(self, config: SshConfig) -> None:
        self._config = config
        self._kept: dict[Login, _Kept] = {}
        self._freed = asyncio.Event()
        self._node = BackOff()
        self._logins: dict[Login, BackOff] = {}

    @contextlib.asynccontextmanager
    async def line(self, login: Login, *, lasting: bool = False) -> AsyncIterator[Line]:
        """A connection with room for one more command or stream, for as long as the context lasts.

        `lasting` ones (terminals, streams) never take the room of the short ones. Raises DriverError, NoAccount.
        """
        sessions = self._config.sessions
        kept = self._kept.setdefault(
            login,
            _Kept(short=asyncio.Semaphore(sessions), lasting=asyncio.Semaphore(sessions * (_LINES_EACH - 1))),
        )
        if lasting and kept.lasting.locked():
            raise DriverError(f"{login.user} has too many terminals and streams open on {self._config.host}.")
        async with kept.lasting if lasting else kept.short:
            line = await self._take(login, kept)
            try:
                yield line
            finally:
                self.give_back(line)

    @contextlib.asynccontextmanager
    async def instead(self, gone: Line) -> AsyncIterator[Line]:
        """Another connection for whoever holds `gone`, which is closed."""
        line = await self._take(gone.login, self._kept[gone.login])
        try:
            yield line
        finally:
            self.give_back(line)

    async def close(self) -> None:
        """Close all connections."""
        lines = [line for kept in self._kept.values() for line in kept.lines]
        for kept in self._kept.values():
            kept.lines = []
        for line in lines:
            if line.timer is not None:
                line.timer.cancel()
            line.connection.abort()
        for line in lines:
            await line.connection.wait_closed()

    async def _take(self, login: Login, kept: _Kept) -> Line:
        async with kept.making:  # so that many who come at once share one
            kept.lines = [line for line in kept.lines if line.good or line.busy]
            for line in kept.lines:
                if line.good and line.busy < self._config.sessions:
                    break
            else:
                await self._make_room()
                line = Line(await self._connect(login), login)
                kept.lines.append(line)
            line.busy += 1
            if line.timer is not None:
                line.timer.cancel()
                line.timer = None
            return line

    def give_back(self, line: Line) -> None:
        """One user of the line less; an unused one is closed after a while."""
        kept = self._kept[line.login]
        line.busy -= 1
        if line.busy:
            return
        if not line.good:
            line.connection.abort()
            kept.lines = [each for each in kept.lines if each is not line]
        else:
            delay = _IDLE if line is kept.lines[0] else _EXTRA_IDLE
            line.timer = asyncio.get_running_loop().call_later(delay, self._let_go, kept, line)
        self._freed.set()

    def _let_go(self, kept: _Kept, line: Line) -> None:
        if not line.busy:
            line.retired = True
            line.connection.close()
            kept.lines = [each for each in kept.lines if each is not line]

    async def _make_room(self) -> None:
        """Close an idle connection where there are too many, or wait for one."""
        try:
            async with asyncio.timeout(self._config.patience):
                while True:
                    lines = [(kept, line) for kept in self._kept.values() for line in kept.lines]
                    if len(lines) < _LINES:
                        return
                    idle = [(kept, line) for kept, line in lines if not line.busy]
                    if idle:
                        self._let_go(*idle[0])
                        return
                    self._freed.clear()
                    await self._freed.wait()
        except TimeoutError:
            raise DriverError(f"{_LINES} connections to {self._config.host} are busy.") from None

    async def _connect(self, login: Login) -> asyncssh.SSHClientConnection:
        of_login = self._logins.setdefault(login, BackOff())
        self._node.check()
        of_login.check()
        try:
            await asyncio.to_thread(self._check_files, login)
            connection = await self._open(login)
        except _LoginFailedError as error:
            failure = error.failure
            self._node.succeeded()  # the node answers; it is this login that it does not want
            of_login.failed(failure)
            raise failure from None
        except DriverError as error:
            self._node.failed(error)
            raise
        self._node.succeeded()
        of_login.succeeded()
        return connection

    def _check_files(self, login: Login) -> None:
        """Raise where the key is not there or lies open, or there is no file of known hosts."""
        try:
            mode = Path(login.key).stat().st_mode
        except OSError as error:
            raise self._login_failed(login, f"its key {login.key} cannot be read: {error.strerror}") from None
        if stat.S_IMODE(mode) & 0o077:
            raise self._login_failed(
                login, f"its key {login.key} is open to others than its owner: chmod 600 {login.key}"
            )
        if not os.access(login.key, os.R_OK):
            raise self._login_failed(login, f"its key {login.key} cannot be read")
        if not os.access(self._config.known_hosts, os.R_OK):
            raise DriverError(
                f"{self._config.host} is not trusted, as its file of known hosts {self._config.known_hosts} "
                "cannot be read."
            )

    async def _open(self, login: Login) -> asyncssh.SSHClientConnection:
        config = self._config
        try:
            return await asyncio.wait_for(
                asyncssh.connect(
                    config.host, config.port, username=login.user, client_keys=[login.key],
                    known_hosts=config.known_hosts, config=None, agent_path=None, password=None,
                    preferred_auth="publickey", keepalive_interval=_KEEPALIVE, login_timeout=config.patience,
                ),
                config.patience,
            )  # fmt: skip
        except asyncssh.HostKeyNotVerifiable as error:
            raise DriverError(self._distrust(str(error))) from None
        except asyncssh.PermissionDenied as error:
            raise self._login_failed(login, f"with the key {login.key}: {plain_words(error.reason)}") from None
        except asyncssh.KeyImportError as error:
            raise self._login_failed(
                login, f"its key {login.key} is no usable private key: {plain_words(error)}"
            ) from None
        except TimeoutError:
            raise DriverError(
                f"{config.host}:{config.port} did not complete a login within {config.patience:g} s."
            ) from None
        except OSError as error:
            raise DriverError(f"{config.host}:{config.port} cannot be reached: {system_words(error)}.") from None
        except (asyncssh.Error, ValueError) as error:
            raise DriverError(f"{config.host}:{config.port} cannot be logged in to: {plain_words(error)}.") from None

    def _login_failed(self, login: Login, why: str) -> "_LoginFailedError":
        kind = DriverError if login.own else NoAccount
        return _LoginFailedError(kind(f"{login.user} cannot log in to {self._config.host}, {why}."))

    def _distrust(self, said: str) -> str:
        """Why the host key is not believed, and which file to look at."""
        config = self._config
        try:
            listed = any(asyncssh.match_known_hosts(config.known_hosts, config.host, "", config.port)[:2])
        except (OSError, ValueError):
            listed = False
        if listed:
            return (
                f"The host key of {config.host} is another than {config.known_hosts} says ({plain_words(said)}): "
                "somebody may be listening in; if the node was set up anew, correct the file."
            )
        return (
            f"{config.host} is not trusted, as {config.known_hosts} has no key of it: ask the site for the node's "
            "host key and add it there."
        )


class _LoginFailedError(Exception):
    """The node answers, and this login is of no use there."""

    def __init__(self, failure: DriverError) -> None:
        super().__init__(str(failure))
        self.failure = failure
