"""What a driver sees of a shell, wherever it is."""

import os
from collections.abc import AsyncIterable, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from atoll.drivers.base import Channel, DriverError, Execution

MOST_OUTPUT = 64 << 20
"""Bytes that a command may write where no sink takes them; one that writes more is ended."""
MOST_ERROR = 64 << 10
"""Bytes of a command's error output that are kept: the last."""


class NoAccount(DriverError):
    """The account is not there, or we may not act as it. The message names it and says what to do."""

    lasting = True


class Unfinished(DriverError):
    """The command was begun, and nobody knows how far it came: it hung and was ended, or the site went away.

    Every other DriverError of `run` says that the command was not begun.
    """


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    """As a shell tells it: 128 + n where signal n ended it, 127 where there is no such command."""
    out: bytes
    error: bytes
    """At most the last 64 KiB."""

    @property
    def complaint(self) -> str:
        """The last line of the error output that is not empty, as part of a sentence; else the exit code."""
        lines = self.error.decode("utf-8", "replace").splitlines()
        said = next((line for line in reversed(lines) if line.strip()), "")
        return plain_words(said) or f"exit code {self.code}"


class Shell(Protocol):
    """Runs commands at a site. Every method raises DriverError where the site does not answer in time."""

    async def run(
        self, account: str | None, words: Sequence[str], *, stdin: bytes | AsyncIterable[bytes] = b"",
        sink: Callable[[bytes], Awaitable[None]] | None = None, seconds: float = 30.0,
    ) -> Ran:  # fmt: skip
        """Run a command as `account` (None: the site's own), in that account's home and a clean environment.

        With `sink` the output goes there piece by piece, and `out` of the answer is empty. After `seconds` without
        any progress the command is ended. What `stdin` or `sink` raises ends the command too, and goes on to the
        caller. Raises NoAccount, Unfinished where the command had begun, DriverError where it had not.
        """

    async def open(self, account: str | None, words: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command whose input and output are a channel; its error output comes with the output.

        To close the channel ends the command. Raises NoAccount and DriverError.
        """

    async def connect(self, account: str | None, host: str, port: int) -> Channel:
        """A stream to a TCP port as it is reached from the site. Raises DriverError where nobody listens."""

    async def connect_unix(self, account: str | None, path: str) -> Channel:
        """A stream to a unix socket of the site, with the rights of `account`. Raises DriverError where nobody
        listens."""

    async def close(self) -> None:
        """Let go of connections."""


def check_words(words: Sequence[str]) -> None:
    """Raise DriverError for words that no machine can run."""
    if not words or not words[0] or words[0].startswith("-") or "=" in words[0]:
        raise DriverError("A command begins with the name of a program, without '=' in it.")
    if any("\0" in word for word in words):
        raise DriverError(f"A word of the command {words[0]} has a NUL in it, which no program can be given.")


def plain_words(said: object) -> str:
    """What somebody said as part of a sentence: printable, at most 500 characters, without a full stop."""
    text = "".join(letter if letter.isprintable() else " " for letter in str(said)).strip()
    return text[:500].rstrip(".")


def system_words(error: OSError) -> str:
    """The system's words for an error, which asyncio hides in words of its own."""
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return plain_words(error.strerror or error)
