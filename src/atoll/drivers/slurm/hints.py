"""Hints of attempts that began or ended: what their keepers write down, followed without a question to Slurm.

Hints may be lost, and accounts may be hostile: an account's hints count for its own attempts only, and all that a hint
does is to have the attempt's folder looked at before the next listing.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

from atoll.core.ids import is_attempt_id
from atoll.drivers.base import DriverError
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.site import SlurmSite

_MOST_ACCOUNTS = 50
"""Accounts that are followed at a time, each by a small process at the site; others are seen at the interval.

Where all accounts share one login it is one connection's sessions: the others are for terminals and notebooks.
"""
_MOST_WAITING = 20_000
"""Hints kept of an account until somebody takes them."""
_LONGEST_LINE = 100
_MOST_AT_ONCE = 65536
"""Bytes of news that come at once at most: 2,600 begins or ends."""
_PACE = 0.25
"""Seconds from one piece of news to the next, whatever an account writes."""
_WANTED_FOR = 120.0
"""Seconds after which accounts that nobody has asked for again are not followed any further."""
_AGAIN = 30.0
"""Seconds until an account that cannot be followed is tried again."""

_logger = logging.getLogger(__name__)


class Hints:
    """Follows the news of those accounts that have attempts at the site, while somebody iterates `changes`."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site
        shared = site.config.transport == "ssh" and bool(site.config.ssh().impersonate)
        self._most = site.config.ssh().sessions if shared else _MOST_ACCOUNTS
        self._wanted: frozenset[str | None] = frozenset()
        self._wanted_at = 0.0
        self._told: dict[str | None, set[str]] = {}
        self._stirred = asyncio.Event()
        """Set when there is a hint, or when other accounts are wanted."""

    def want(self, accounts: Iterable[str | None]) -> None:
        """From now on these accounts have attempts at the site; to be said again as long as it is so."""
        self._wanted_at = time.monotonic()
        wanted = frozenset(list(accounts)[: self._most])
        if wanted != self._wanted:
            self._wanted = wanted
            self._stirred.set()

    def want_too(self, account: str | None) -> None:
        """This account has attempts at the site as well."""
        self.want([*self._wanted, account])

    def take(self) -> dict[str | None, set[str]]:
        """The attempts that were hinted at since the last call, by account."""
        told, self._told = self._told, {}
        return told

    async def changes(self) -> AsyncIterator[None]:
        """Yields after there was a hint."""
        following: dict[str | None, asyncio.Task[None]] = {}
        try:
            while True:
                self._stirred.clear()
                for account in following.keys() - self._wanted:
                    following.pop(account).cancel()
                for account in self._wanted - following.keys():
                    following[account] = asyncio.create_task(self._follow(account), name=f"hints {account}")
                if self._told:
                    yield
                with suppress(TimeoutError):
                    async with asyncio.timeout(_WANTED_FOR):
                        await self._stirred.wait()
                if time.monotonic() - self._wanted_at > _WANTED_FOR:
                    self._wanted, self._told = frozenset(), {}  # another replica works with the site by now
        finally:
            for task in following.values():
                task.cancel()
            await asyncio.gather(*following.values(), return_exceptions=True)
            self._told = {}  # who follows no hints any more wants whole answers

    async def _follow(self, account: str | None) -> None:
        while True:
            try:
                await self._read(account)
                await asyncio.sleep(_PACE)
            except DriverError as error:
                _logger.debug("no hints of %s for now: %s", account or "the site's own account", error)
                await asyncio.sleep(_AGAIN)

    async def _read(self, account: str | None) -> None:
        """Follow until the process ends, as it does by itself after a while. Raises DriverError."""
        root = (await self._site.home(account)).root
        command = await self._site.shell.open(account, ["/bin/sh", "-c", scripts.NEWS, "atoll", root])
        rest = b""
        try:
            while piece := await command.read(_MOST_AT_ONCE):
                if len(piece) == _MOST_AT_ONCE:
                    raise DriverError("More is written there than attempts can begin and end.")
                *lines, rest = (rest + piece).split(b"\n")
                rest = rest[-_LONGEST_LINE:]
                self._learn(account, lines)
                await asyncio.sleep(_PACE)
            if await command.wait() not in (0, scripts.NEWS_OVER):
                raise DriverError("The news at the site cannot be followed.")
        finally:
            await command.close()

    def _learn(self, account: str | None, lines: Iterable[bytes]) -> None:
        told = self._told.setdefault(account, set())
        for line in lines:
            attempt = line.decode("ascii", "replace")
            if is_attempt_id(attempt, self._site.setup.instance) and len(told) < _MOST_WAITING:
                told.add(attempt)
        if told:
            self._stirred.set()
        else:
            del self._told[account]
