"""The tokens by which slurmrestd knows whose question it is: one for each account, from a file or a command."""

import asyncio
import base64
import binascii
import json
import shlex
import stat
import time
from pathlib import Path

from atoll.drivers.base import DriverError
from atoll.drivers.shell import NoAccount, Shell

_SYMBOL = "{account}"
_SPARE = 30.0
"""Seconds before its end at which a token is not used any more."""
_KEPT = 300.0
"""Seconds for which a token is kept that does not say when it ends."""
_LONGEST = 16 << 10


class Tokens:
    """Finds the token of an account; what a command printed is kept until shortly before the token's end."""

    def __init__(self, reference: str, own: str, shell: Shell) -> None:
        """`reference`: a path, or a command that prints a token, with {account} in it where it serves several.

        `own` is the name of the account that this process runs as.
        """
        self._reference = reference
        self._own = own
        self._shell = shell
        self._kept: dict[str, tuple[float, str]] = {}

    async def of(self, account: str) -> str:
        """The account's token. Raises NoAccount where it has none, DriverError where the command fails."""
        if account != self._own and _SYMBOL not in self._reference:
            raise NoAccount(
                f"The site's token is {self._own}'s alone: write {_SYMBOL} into config.token, so that {account} has "
                "one too."
            )
        kept = self._kept.get(account)
        if kept is not None and time.time() < kept[0]:
            return kept[1]
        reference = self._reference.replace(_SYMBOL, account)
        if reference.startswith("/") and len(shlex.split(reference)) == 1:
            token = await asyncio.to_thread(_read, reference, account)
        else:
            token = await self._printed(reference, account)
        end = end_of(token)
        if end is not None and end < time.time():
            raise NoAccount(f"The token of {account} for slurmrestd has expired: renew {self._reference}.")
        if not reference.startswith("/"):
            self._kept[account] = (time.time() + _KEPT if end is None else end - _SPARE), token
        return token

    def drop(self, account: str) -> None:
        """Do not use the kept token again: it was not accepted."""
        self._kept.pop(account, None)

    async def _printed(self, command: str, account: str) -> str:
        ran = await self._shell.run(None, shlex.split(command), seconds=15)
        if ran.code != 0:
            raise DriverError(f"The command for the token of {account} failed: {ran.complaint}.")
        return _checked(ran.out.decode("ascii", "replace"), f"the command for the token of {account}", account)


def _read(path: str, account: str) -> str:
    try:
        with Path(path).open("rb") as file:
            mode = Path(path).stat().st_mode
            text = file.read(_LONGEST).decode("ascii", "replace")
    except OSError as error:
        raise NoAccount(f"The token of {account} in {path} cannot be read: {error.strerror}.") from None
    if stat.S_IMODE(mode) & 0o077:
        raise NoAccount(f"The token of {account} in {path} is open to others than its owner: chmod 600 {path}.")
    return _checked(text, path, account)


def _checked(text: str, source: str, account: str) -> str:
    """The token in what a file holds or a command printed: alone, or as scontrol prints it."""
    token = text.strip().removeprefix("SLURM_JWT=").strip()
    if not token or len(token) >= _LONGEST or any(not "!" <= letter <= "~" for letter in token):
        raise NoAccount(f"There is no token of {account} in what {source} says.")
    return token


def end_of(token: str) -> float | None:
    """When a JSON web token ends, in seconds since 1970; None where it does not say."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        return float(claims["exp"])
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
