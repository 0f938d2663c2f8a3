"""What operators do with sites, for the API and the pages alike: the use cases, carried out on a running platform."""

import asyncio
import time
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.site import SiteReport
from atoll.core.site_file import SiteFile
from atoll.drivers.base import DriverError
from atoll.faces.http.platform import Platform
from atoll.jobs.prepare import SitesView
from atoll.sites import service

Document = dict[str, Any]
_ANSWER_WITHIN = 30.0
"""Seconds that a site has for describing itself while somebody waits."""


async def configure(platform: Platform, view: SitesView, file: SiteFile) -> tuple[bool | None, Document]:
    """Add a site (True), change it (False), or find it so (None); and the site. Raises Invalid, Conflict."""
    platform.check_site(file)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> tuple[bool | None, Document]:
        return service.put(connection, file, now), service.get(connection, file.name)

    found = await platform.database.write(work)
    platform.changed()
    view.forget()  # so that a job for it is not refused
    return found


async def set_drained(platform: Platform, name: str, drained: bool) -> Document:
    """Let a site get no new work, or work again. Raises NotFound."""
    now = to_micros(platform.clock())

    def work(connection: Connection) -> Document:
        service.set_drained(connection, name, drained, now)
        return service.get(connection, name)

    document = await platform.database.write(work)
    platform.changed()
    return document


async def question(platform: Platform, name: str) -> Document:
    """Ask a site what it has, now: its answer, or why there is none. Raises NotFound."""
    await platform.database.read(lambda connection: service.get(connection, name))
    began = time.monotonic()
    message, report = "", None
    driver = platform.driver_for(name)
    if driver is None:
        message = "It cannot be reached from this part of the platform now; try again."
    else:
        try:
            async with asyncio.timeout(_ANSWER_WITHIN):
                report = await driver.describe()
        except (DriverError, TimeoutError) as error:
            message = str(error) or f"No answer within {_ANSWER_WITHIN:.0f} seconds."
    said = service.described(name, report or SiteReport(()), {})
    seconds = round(time.monotonic() - began, 3)
    return {"answers": report is not None, "message": message, "seconds": seconds, **said}
