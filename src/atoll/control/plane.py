"""The control plane of one replica: its leases, its pump, and a set of loops for each site."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from atoll.control import describe, dispatch, finish, observe, purge, stop, submit
from atoll.control.dispatch import Dispatcher
from atoll.control.finish import Finisher
from atoll.control.loop import Loop
from atoll.control.purge import Ages
from atoll.control.work import SiteWork, Tools
from atoll.drivers.base import Driver, DriverError, Watch
from atoll.store.leases import Lease

log = logging.getLogger(__name__)


class ControlPlane:
    """Runs the loops. Give it its sites, then `run` it until it is cancelled."""

    def __init__(self, tools: Tools, works: Mapping[str, SiteWork], ages: Ages | None = None) -> None:
        self.tools = tools
        self.works = dict(works)
        self._ages = ages or Ages()
        self.dispatcher = Dispatcher(tools)

    def driver_for(self, site: str) -> Driver | None:
        """The driver of a site, None where this replica has none."""
        work = self.works.get(site)
        return work.driver if work is not None else None

    async def run(self) -> None:
        """Run everything until cancelled; jobs go on without us."""
        tools = self.tools
        tools.keeper.want(dispatch.LEASE)
        tools.keeper.want(purge.LEASE)
        loops = [
            self._loop("dispatch", self.dispatcher.step, dispatch.LEASE, gap=0.02),
            self._loop("purge", partial(purge.step, tools, self._ages), purge.LEASE, on_changes=False),
        ]
        watches: list[Callable[[], Coroutine[Any, Any, None]]] = []
        for work in self.works.values():
            tools.keeper.want(work.lease_name)
            watching = self._loop(
                f"observe {work.site}", partial(observe.step, work), work.lease_name,
                on_changes=False, gap=work.observe_gap,
            )  # fmt: skip
            loops += [watching, *self._site_loops(work)]
            if isinstance(work.driver, Watch):
                watches.append(partial(_watch, work.driver, watching))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(tools.pump.run(), name="pump")
                group.create_task(tools.keeper.run(), name="leases")
                for loop in loops:
                    group.create_task(loop.run(), name=loop.name)
                for watch in watches:
                    group.create_task(watch(), name="watch")
        finally:
            for work in self.works.values():
                with suppress(DriverError):
                    await work.driver.close()

    def _site_loops(self, work: SiteWork) -> list[Loop]:
        name = work.site
        return [
            self._loop(f"describe {name}", partial(describe.step, work), work.lease_name, on_changes=False),
            self._loop(f"submit {name}", partial(submit.step, work), work.lease_name, gap=0.05),
            self._loop(f"stop {name}", partial(stop.step, work), work.lease_name, gap=0.05),
            self._loop(f"finish {name}", Finisher(work, with_files=False).step, work.lease_name, gap=0.05),
            self._loop(f"bring out {name}", Finisher(work, with_files=True).step, work.lease_name, gap=0.05),
            self._loop(f"forget {name}", partial(finish.forget, work), work.lease_name, gap=0.5),
        ]

    def _loop(
        self, name: str, step: Callable[[Lease], Awaitable[float | None]], lease: str, *,
        on_changes: bool = True, gap: float = 0.0,
    ) -> Loop:  # fmt: skip
        return Loop(
            name, step, keeper=self.tools.keeper, lease_name=lease, pump=self.tools.pump,
            on_changes=on_changes, gap=gap,
        )  # fmt: skip


async def _watch(driver: Watch, loop: Loop) -> None:
    """Have the observe loop look whenever the driver hints at news; without hints it looks at its interval."""
    while True:
        try:
            async for _ in driver.changes():
                loop.nudge()
        except Exception as error:
            # without hints the observe loop looks at its interval: no reason to stop anything
            log.debug("no hints from the site for now: %s", error)
        await asyncio.sleep(1.0)
