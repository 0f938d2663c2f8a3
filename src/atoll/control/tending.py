"""Works with one site: its loops run, in this replica, from when the site is configured until it is not any more."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

from atoll.control import finish, observe, stop
from atoll.control.describe import Describer
from atoll.control.finish import Finisher
from atoll.control.loop import Loop
from atoll.control.submit import Submitter
from atoll.control.work import SiteWork
from atoll.drivers.base import DriverError, Watch
from atoll.store.leases import Lease

log = logging.getLogger(__name__)


class Tending:
    """The loops of one site. `start` and `end` them; what runs at the site goes on."""

    def __init__(self, work: SiteWork) -> None:
        self.work = work
        self._observing = self._loop("observe", partial(observe.step, work), on_changes=False, gap=work.observe_gap)
        self._describing = self._loop("describe", Describer(work).step, on_changes=False)
        self._submitter = Submitter(work, lambda: self._sending.nudge())
        self._sending = self._loop("send", self._submitter.step_large, on_changes=False)
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Ask the site anew what it has."""
        self._describing.nudge()

    def start(self) -> None:
        """Begin, and want the site's lease."""
        self.work.tools.keeper.want(self.work.lease_name)
        self._task = asyncio.create_task(self._run(), name=f"site {self.work.site}")

    async def end(self) -> None:
        """End the loops and let go of the driver."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        with suppress(DriverError):
            await self.work.driver.close()

    async def _run(self) -> None:
        work = self.work
        loops = [
            self._observing,
            self._describing,
            self._loop("submit", self._submitter.step, gap=0.05),
            self._sending,
            self._loop("stop", partial(stop.step, work), gap=0.05),
            self._loop("finish", Finisher(work, with_files=False).step, gap=0.05),
            self._loop("bring out", Finisher(work, with_files=True).step, gap=0.05),
            self._loop("forget", partial(finish.forget, work), gap=0.5),
        ]
        async with asyncio.TaskGroup() as group:
            for loop in loops:
                group.create_task(loop.run(), name=loop.name)
            if isinstance(work.driver, Watch):
                group.create_task(self._watch(work.driver), name=f"watch {work.site}")

    def _loop(
        self, name: str, step: Callable[[Lease], Awaitable[float | None]], *, on_changes: bool = True, gap: float = 0.0
    ) -> Loop:
        work, tools = self.work, self.work.tools
        return Loop(
            f"{name} {work.site}", step, keeper=tools.keeper, lease_name=work.lease_name, pump=tools.pump,
            on_changes=on_changes, gap=gap,
        )  # fmt: skip

    async def _watch(self, driver: Watch) -> None:
        """Have the observe loop look whenever the driver hints at news; without hints it looks at its interval."""
        while True:
            try:
                async for _ in driver.changes():
                    self._observing.nudge()
            except Exception as error:
                # without hints the observe loop looks at its interval: no reason to stop anything
                log.debug("no hints from site %s for now: %s", self.work.site, error)
            await asyncio.sleep(1.0)
