"""Keeps this replica's leases: asks for those that its loops want, renews them, and knows when one has run out."""

import asyncio
import logging
import secrets
import socket
from collections.abc import Callable

from sqlalchemy import Connection

from atoll.core.errors import AtollError
from atoll.store import leases as store
from atoll.store.database import Database
from atoll.store.leases import Lease, StaleLease

log = logging.getLogger(__name__)

TTL = 9.0
"""Seconds that a lease lasts without renewal: the longest that a dead leader's work stands still."""
_MARGIN = 1.0
"""Seconds before its end in which a lease is not relied on any more."""


class LeaseKeeper:
    """Holds the leases of one replica. `get` is what a loop asks before each step and each call to an engine."""

    def __init__(self, database: Database, monotonic: Callable[[], float], ttl: float = TTL) -> None:
        self.holder = f"{socket.gethostname()[:40]}-{secrets.token_hex(6)}"
        self._database = database
        self._monotonic = monotonic
        self._ttl = ttl
        self._wanted: dict[str, asyncio.Event] = {}
        self._held: dict[str, tuple[Lease, float]] = {}
        self._poke = asyncio.Event()

    def want(self, name: str) -> None:
        """From now on try to hold the lease `name`."""
        if name not in self._wanted:
            self._wanted[name] = asyncio.Event()
            self._poke.set()

    def drop(self, name: str) -> None:
        """Stop renewing the lease `name`; it runs out by itself."""
        self._wanted.pop(name, None)
        self._held.pop(name, None)

    def get(self, name: str, seconds: float = 0.0) -> Lease | None:
        """The lease, if it is ours for `seconds` more at least."""
        lease, until = self._held.get(name, (None, 0.0))
        return lease if self._monotonic() + seconds + _MARGIN < until else None

    async def wait(self, name: str) -> Lease:
        """Wait until the lease is ours."""
        while (lease := self.get(name)) is None:
            self._wanted[name].clear()
            await self._wanted[name].wait()
        return lease

    def lost(self, lease: Lease) -> None:
        """A guarded write was refused: whatever we thought, this lease is somebody else's."""
        held = self._held.get(lease.name)
        if held is not None and held[0].epoch == lease.epoch:
            del self._held[lease.name]

    async def run(self) -> None:
        """Acquire and renew until cancelled; then give all back."""
        try:
            while True:
                try:
                    await self.renew()
                except AtollError as error:
                    log.warning("leases could not be renewed: %s", error.sentence)
                except Exception:
                    log.exception("leases could not be renewed")
                self._poke.clear()
                try:
                    # not wait_for: in Python 3.11 that loses a cancellation which comes together with a poke
                    async with asyncio.timeout(self._ttl / 3):
                        await self._poke.wait()
                except TimeoutError:
                    continue
        finally:
            await self._give_back()

    async def renew(self) -> None:
        """Ask once for every lease that is wanted. Raises Unavailable."""
        names = sorted(self._wanted)
        asked_at = self._monotonic()  # before the database's clock is read, so that ours always runs out first

        def work(connection: Connection) -> dict[str, Lease | None]:
            return {name: store.acquire(connection, name, self.holder, self._ttl) for name in names}

        for name, lease in (await self._database.write(work)).items():
            if name not in self._wanted:
                continue
            if lease is None:
                self._held.pop(name, None)
            else:
                if name not in self._held:
                    log.info("holding lease %s, epoch %d", name, lease.epoch)
                self._held[name] = (lease, asked_at + self._ttl)
                self._wanted[name].set()

    async def _give_back(self) -> None:
        held = [lease for lease, _ in self._held.values()]
        self._held.clear()

        def work(connection: Connection) -> None:
            for lease in held:
                store.release(connection, lease)

        try:
            await self._database.write(work)
        except AtollError as error:
            log.warning("leases could not be given back: %s", error.sentence)


__all__ = ["TTL", "LeaseKeeper", "StaleLease"]
