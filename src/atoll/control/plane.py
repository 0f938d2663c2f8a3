"""The control plane of one replica: its leases, its pump, and the loops of each site that is configured."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from functools import partial

from sqlalchemy import Connection

from atoll.control import dispatch, purge
from atoll.control.dispatch import Dispatcher
from atoll.control.loop import Loop
from atoll.control.purge import Ages
from atoll.control.tending import Tending
from atoll.control.work import SiteWork, Tools
from atoll.core.errors import AtollError
from atoll.core.site import Health
from atoll.drivers.base import Driver
from atoll.store import leases, sites
from atoll.store.sites import Configured

log = logging.getLogger(__name__)

Open = Callable[[Configured], SiteWork]
"""Makes what the loops of a configured site work with. Raises Invalid where its driver cannot be made."""
_LOOK_AGAIN = 30.0
"""Seconds after which the configured sites are looked at, news or not."""
_GAP = 0.5
"""Seconds between two looks."""


class ControlPlane:
    """Runs the loops until it is cancelled.

    `works` are the sites that are this replica's own; `open_site` makes the others, as they are configured.
    """

    def __init__(
        self, tools: Tools, works: Mapping[str, SiteWork], ages: Ages | None = None, open_site: Open | None = None
    ) -> None:
        self.tools = tools
        self._own = frozenset(works)
        self._open_site = open_site
        self._ages = ages or Ages()
        self._tended = {name: Tending(work) for name, work in works.items()}
        self._revisions: dict[str, int] = {}
        self.dispatcher = Dispatcher(tools)

    @property
    def sites(self) -> list[str]:
        """The sites that this replica can work with."""
        return list(self._tended)

    def driver_for(self, site: str) -> Driver | None:
        """The driver of a site, None where this replica has none."""
        tending = self._tended.get(site)
        return tending.work.driver if tending is not None else None

    async def run(self) -> None:
        """Run everything until cancelled; jobs go on without us."""
        tools = self.tools
        tools.keeper.want(dispatch.LEASE)
        tools.keeper.want(purge.LEASE)
        loops = [
            Loop("dispatch", self.dispatcher.step, keeper=tools.keeper, lease_name=dispatch.LEASE, pump=tools.pump,
                 gap=0.02),
            Loop("purge", partial(purge.step, tools, self._ages), keeper=tools.keeper, lease_name=purge.LEASE,
                 pump=tools.pump, on_changes=False),
        ]  # fmt: skip
        for tending in self._tended.values():
            tending.start()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(tools.pump.run(), name="pump")
                group.create_task(tools.keeper.run(), name="leases")
                for loop in loops:
                    group.create_task(loop.run(), name=loop.name)
                if self._open_site is not None:
                    group.create_task(self._follow_sites(self._open_site), name="sites")
        finally:
            for tending in self._tended.values():
                await tending.end()

    async def _follow_sites(self, open_site: Open) -> None:
        """Begin and end to work with sites as they are configured, changed and removed."""
        tools = self.tools
        while True:
            cursor = tools.pump.cursor
            try:
                revisions = await tools.database.read(sites.revisions)
                if revisions != self._revisions:
                    await self._bring_up_to_date(open_site)
            except AtollError as error:
                log.warning("the sites cannot be looked up: %s", error.sentence)
            except Exception:
                log.exception("the sites cannot be looked up")
            await asyncio.sleep(_GAP)
            await tools.pump.wait(cursor, _LOOK_AGAIN)

    async def _bring_up_to_date(self, open_site: Open) -> None:
        configured = await self.tools.database.read(sites.configured)
        for name in set(self._tended) - self._own - set(configured):
            await self._leave(name)
        for name, site in configured.items():
            if site.local or name in self._own or self._revisions.get(name) == site.revision:
                continue
            if name in self._tended:
                await self._tended.pop(name).end()
            try:
                work = open_site(site)
            except AtollError as error:
                await self._complain(name, error.sentence)
                continue
            self._tended[name] = Tending(work)
            self._tended[name].start()
            log.info("working with site %s (%s)", name, site.driver)
        self._revisions = {name: site.revision for name, site in configured.items()}

    async def _leave(self, name: str) -> None:
        tending = self._tended.pop(name)
        await tending.end()
        self.tools.keeper.drop(tending.work.lease_name)
        log.info("site %s is not worked with any more", name)

    async def _complain(self, name: str, words: str) -> None:
        """Tell why a site cannot be worked with, unless another replica works with it."""
        log.error("site %s: %s", name, words)

        def note(connection: Connection) -> None:
            if not leases.is_held(connection, f"site:{name}"):
                sites.set_health(connection, name, Health.UNREACHABLE, words)
                sites.tell(connection, name, Health.UNREACHABLE, words, self.tools.now())

        await self.tools.database.write(note)
        self.tools.pump.poke()
