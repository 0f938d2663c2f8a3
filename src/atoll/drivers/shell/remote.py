"""A command as one line that every login shell (sh, csh, fish) hands on unchanged, and how its begin is seen."""

import re
import shlex
from collections.abc import Mapping, Sequence

from atoll.drivers.base import DriverError
from atoll.drivers.shell.talk import Reader

_LONGEST = 120_000
"""Bytes of a command: the kernel takes 128 KiB in one word."""
_MARK = re.compile(rb"\x02atoll(\d*)\x03[^\n]*\n")
_SAY_BEGUN = (
    "read -r a b c d e f </proc/$$/stat; printf '\\002atoll%s\\003\\n' \"${e-}\"; unset a b c d e f; umask 077; "
)
"""The first output of every command is its process group. What comes before is a start-up file's chatter, and where it
does not come at all the account may not run commands there."""
_BEGIN = _SAY_BEGUN + "exec "
_BEGIN_AS = (
    _SAY_BEGUN + 'eval "HOME=~$0"; cd "$HOME" 2>/dev/null || cd /; '
    'set -- /usr/bin/env -i HOME="$HOME" USER="$0" LOGNAME="$0" PATH=/usr/local/bin:/usr/bin:/bin "$@"; exec '
)  # fmt: skip
_ALL = '"$@"'
_ALL_MERGED = '2>&1 "$@"'
_NOT_EVERYWHERE = re.compile(r"[\n\r!]")
"""What csh would not pass on in quotes."""
_PLAIN = re.compile(rb"[^A-Za-z0-9_./=:,@%+-]")
_MOST_CHATTER = 256 << 10


def command_text(
    words: Sequence[str], environment: Mapping[str, str], *, become: Sequence[str] = (), account: str = "",
    merged: bool = False,
) -> str:  # fmt: skip
    """The line that runs `words`; behind the words `become`, which make it `account`'s, at home in a clean environment.

    `merged`: error output goes with the output. Raises DriverError for a command that is too long.
    """
    begin = (_BEGIN_AS if become else _BEGIN) + (_ALL_MERGED if merged else _ALL)
    settings = [f"{name}={value}" for name, value in environment.items()]
    env = [] if become else ["/usr/bin/env"]
    text = shlex.join([*become, "/bin/sh", "-c", begin, account or "sh", *env, *settings, *words])
    if _NOT_EVERYWHERE.search(text):
        octal = _PLAIN.sub(lambda match: b"\\0%03o" % match[0][0], f"exec {text}".encode())
        text = shlex.join(["/bin/sh", "-c", 'eval "$(printf %b "$0")"', octal.decode()])
    if len(text.encode()) > _LONGEST:
        raise DriverError(f"The command {words[0]} is too long to be sent: give it its input by stdin.")
    return f"exec {text}"


class Begun:
    """A command's output without what came before its begin."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._before = b""
        self.begun = False
        """Whether the begin was seen."""
        self.group: int | None = None
        """The command's process group at the site, where that was told."""

    @property
    def chatter(self) -> bytes:
        """What came before the begin."""
        return self._before

    async def read(self, n: int, /) -> bytes:
        """At most `n` bytes; empty at the end."""
        while not self.begun:
            piece = await self._reader.read(n)
            if not piece or len(self._before) > _MOST_CHATTER:
                return b""
            self._before += piece
            if (match := _MARK.search(self._before)) is not None:
                self.begun = True
                self.group = int(match[1]) if match[1] else None
                rest = self._before[match.end() :]
                self._before = self._before[: match.start()]
                if rest:
                    return rest
        return await self._reader.read(n)


def kill_words(group: int) -> list[str]:
    """The command that ends all processes of a group."""
    return ["/bin/sh", "-c", 'kill -s KILL -- "-$0"', str(group)]
