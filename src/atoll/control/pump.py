"""Tells everybody in this process that something changed in the database, whoever changed it.

One cheap question (what is the newest event's id?) at an interval, and at once after a write of this process.
"""

import asyncio
import logging

from atoll.store import events
from atoll.store.database import Database

log = logging.getLogger(__name__)


class Pump:
    """Follows the outbox. `poke` after a write; `wait` for what comes after a cursor."""

    def __init__(self, database: Database, interval: float = 0.5, gap: float = 0.01) -> None:
        self.cursor = 0
        self._database = database
        self._interval = interval
        self._gap = gap
        self._poked = asyncio.Event()
        self._changed = asyncio.Condition()

    def poke(self) -> None:
        """Something was just committed; look now instead of at the next interval."""
        self._poked.set()

    async def wait(self, cursor: int, seconds: float | None = None) -> int:
        """Wait until there are events after `cursor`, or for `seconds`; returns the newest event's id."""
        async with self._changed:
            try:
                async with asyncio.timeout(seconds):
                    await self._changed.wait_for(lambda: self.cursor > cursor)
            except TimeoutError:
                return self.cursor
            return self.cursor

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            self._poked.clear()
            try:
                newest = await self._database.read(events.last_id)
            except Exception as error:
                # without the pump nothing moves: whatever it was, it is tried again
                log.warning("the outbox cannot be read: %s", error)
                await asyncio.sleep(self._interval)
                continue
            if newest != self.cursor:
                async with self._changed:
                    self.cursor = newest
                    self._changed.notify_all()
            try:
                # not wait_for: in Python 3.11 that loses a cancellation which comes together with a poke
                async with asyncio.timeout(self._interval):
                    await self._poked.wait()
                # one look serves all the writes that come close together
                await asyncio.sleep(self._gap)
            except TimeoutError:
                continue
