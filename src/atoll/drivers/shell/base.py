"""What a driver sees of a shell, wherever it is."""

from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from atoll.drivers.base import Channel, DriverError


class NoAccount(DriverError):
    """The account is not there, or we may not act as it. The message names it and says what to do."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    """As a shell tells it: 128 + n where signal n ended it."""
    out: bytes
    error: bytes
    """At most the last 64 KiB."""


class Shell(Protocol):
    """Runs commands at a site. Every method raises DriverError where the site does not answer in time."""

    async def run(
        self, account: str | None, words: Sequence[str], *, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Callable[[bytes], Awaitable[None]] | None = None, seconds: float = 30.0,
    ) -> Ran:  # fmt: skip
        """Run a command as `account` (None: the site's own), in that account's home and environment.

        With `sink` the output goes there piece by piece, and `out` of the answer is empty. After `seconds` without
        any progress the command is ended. Raises NoAccount.
        """

    async def connect(self, account: str | None, host: str, port: int) -> Channel:
        """A stream to a TCP port as it is reached from the site. Raises DriverError where nobody listens."""

    async def connect_unix(self, account: str | None, path: str) -> Channel:
        """A stream to a unix socket of the site. Raises DriverError where nobody listens."""

    async def close(self) -> None:
        """Let go of connections."""
