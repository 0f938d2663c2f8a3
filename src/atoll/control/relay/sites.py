"""The relay's own drivers: one for each site at which it carries streams."""

import asyncio
import logging
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from atoll.control.drivers import Drivers
from atoll.core.errors import AtollError
from atoll.drivers.base import Connect, Driver, DriverError, DriverSetup
from atoll.store.sites import Configured

log = logging.getLogger(__name__)


class ConnectedSite:
    """A site's driver, which is closed when it is not needed any more."""

    def __init__(self, name: str, connect: Connect, driver: Driver) -> None:
        self.name = name
        self._connect = connect
        self._driver = driver
        self._users = 0
        self._retired = False

    @contextmanager
    def used(self) -> Iterator[Connect]:
        """The driver, for as long as a stream goes through it."""
        self._users += 1
        try:
            yield self._connect
        finally:
            self._users -= 1
            self._close_if_done()

    def retire(self) -> None:
        """Let the streams go on that it has, and then close it."""
        self._retired = True
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._retired and not self._users:
            self._closing = asyncio.create_task(self.close())

    async def close(self) -> None:
        """Let go of the driver's connections."""
        with suppress(DriverError, OSError):
            await self._driver.close()


class ConnectedSites:
    """Makes drivers as sites are configured and changed; what cannot be made is complained of once."""

    def __init__(self, drivers: Drivers, folder: Path, owner: str) -> None:
        """`folder`: where sites have their folders; `owner`: the person to whom the platform belongs."""
        self._drivers = drivers
        self._folder = folder
        self._owner = owner
        self._made: dict[str, tuple[Configured, ConnectedSite | None]] = {}

    def bring_up_to_date(self, configured: Mapping[str, Configured]) -> None:
        """Let go of the drivers of sites that were removed, or changed in what concerns their driver."""
        for name, (before, site) in list(self._made.items()):
            now = configured.get(name)
            if now is None or _driver_part(now) != _driver_part(before):
                del self._made[name]
                if site is not None:
                    site.retire()

    def get(self, site: Configured, instance: str) -> ConnectedSite | None:
        """The site with its driver; None where it can have none here."""
        if site.name not in self._made:
            self._made[site.name] = site, self._make(site, instance)
        return self._made[site.name][1]

    async def close(self) -> None:
        """Let go of all drivers."""
        await asyncio.gather(*(site.close() for _, site in self._made.values() if site is not None))

    def _make(self, site: Configured, instance: str) -> ConnectedSite | None:
        config: dict[str, Any] = dict(site.config)
        folder = self._folder / site.name
        if site.local:
            host, folder = config.pop("host", None), Path(config.pop("folder", folder))
            if host != socket.gethostname():
                log.warning("site %s is the machine %s: streams to it go through that machine's relay", site.name, host)
                return None
        shared = site.identity is not None and site.identity.shared
        try:
            driver = self._drivers.make(
                site.driver, DriverSetup(site.name, instance, folder, config, self._owner, shared=shared)
            )
        except AtollError as error:
            log.error("site %s: %s", site.name, error.sentence)
            return None
        if not isinstance(driver, Connect):
            log.error("site %s: the driver %s cannot connect to what runs there", site.name, site.driver)
            return None
        return ConnectedSite(site.name, driver, driver)


def _driver_part(site: Configured) -> tuple[object, ...]:
    return site.driver, site.config, site.identity, site.local
