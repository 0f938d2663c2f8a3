"""What all loops have in common: wait, work under the lease, survive whatever goes wrong and say so once."""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from atoll.control.leases import LeaseKeeper
from atoll.control.pump import Pump
from atoll.core.errors import AtollError
from atoll.drivers.base import DriverError
from atoll.store.leases import Lease, StaleLease

log = logging.getLogger(__name__)

_LONGEST_REST = 0.25
"""Seconds that a loop may let changes gather."""

Step = Callable[[Lease], Awaitable[float | None]]
"""One round of a loop under its lease. Returns the seconds until the next round at the latest; 0: at once."""


class Loop:
    """Runs `step` while the lease `lease_name` is ours: when something changed, and at the interval that it says.

    A step that fails is tried again after a back-off that doubles up to `longest`, and is reported when its words
    change, so that an outage of a night is one line in the log. Between two rounds lie `gap` seconds at least.
    """

    def __init__(
        self, name: str, step: Step, *, keeper: LeaseKeeper, lease_name: str, pump: Pump, idle: float = 30.0,
        longest: float = 30.0, on_changes: bool = True, gap: float = 0.0,
    ) -> None:  # fmt: skip
        self.name = name
        self._step = step
        self._keeper = keeper
        self._lease_name = lease_name
        self._pump = pump
        self._idle = idle
        self._longest = longest
        self._on_changes = on_changes
        self._gap = gap
        self._nudged = asyncio.Event()
        self._complaint = ""

    def nudge(self) -> None:
        """Have the next round now."""
        self._nudged.set()

    async def run(self) -> None:
        """Run until cancelled."""
        failures = 0
        while True:
            lease = await self._keeper.wait(self._lease_name)
            seen = self._pump.cursor
            self._nudged.clear()
            began = time.monotonic()
            try:
                pause = await self._step(lease)
                failures = 0
                if self._complaint:
                    log.info("%s works again", self.name)
                    self._complaint = ""
            except StaleLease:
                self._keeper.lost(lease)
                continue
            except Exception as error:
                failures += 1
                pause = min(self._longest, 0.25 * 2 ** min(failures, 10))
                self._complain(error)
                await asyncio.sleep(pause)
                continue
            # under load many changes are worth one round: rest as long as the round took, and again
            took = time.monotonic() - began
            await asyncio.sleep(self._gap if pause == 0 else max(self._gap, min(2 * took, _LONGEST_REST)))
            await self._rest(seen, self._idle if pause is None else pause)

    def _complain(self, error: Exception) -> None:
        words = f"{type(error).__name__}: {error}"
        if words != self._complaint:
            self._complaint = words
            if isinstance(error, AtollError | DriverError):
                log.warning("%s waits: %s", self.name, error)
            else:
                log.error("%s failed: %s\n%s", self.name, words, "".join(traceback.format_exception(error)))

    async def _rest(self, seen: int, seconds: float) -> None:
        """Wait for a nudge, for a change after event `seen`, or for `seconds`."""
        if seconds <= 0:
            return
        waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._nudged.wait())]
        if self._on_changes:
            waits.append(asyncio.create_task(self._pump.wait(seen)))
        try:
            await asyncio.wait(waits, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
