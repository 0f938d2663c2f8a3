"""Asks a site what it has and can do, now and then, and notes that it is well."""

import json

from sqlalchemy import Connection

from atoll.control.work import SiteWork
from atoll.core.site import Health, SiteReport
from atoll.drivers.base import DriverError
from atoll.store import events, sites
from atoll.store.leases import Lease

EVERY = 60.0
"""Seconds between two descriptions of a site that is well."""


async def step(work: SiteWork, lease: Lease) -> float | None:
    """Describe the site; an event tells everybody where something has changed."""
    tools = work.tools
    tools.check(lease)
    try:
        report = await work.driver.describe()
    except DriverError as error:
        words = str(error)
        await tools.guarded(lease, lambda connection: note(connection, work.site, None, words, tools.now()))
        raise
    await tools.guarded(lease, lambda connection: note(connection, work.site, report, "", tools.now()))
    return EVERY


def note(connection: Connection, name: str, report: SiteReport | None, words: str, now: int) -> None:
    """Note how a site is: its report, or why it does not answer; an event where that has changed."""
    before = next((site for site in sites.load(connection) if site.name == name), None)
    if before is None:
        return
    health = Health.OK if report is not None else Health.UNREACHABLE
    if report is not None:
        sites.set_report(connection, name, report, now)
    else:
        sites.set_health(connection, name, health, words)
    if before.health is not health or (report is not None and before.report != report):
        data = json.dumps({"site": name, "health": health, "message": words})
        events.append(connection, [{"at": now, "kind": "site", "state": health, "data": data}])


def note_answer(connection: Connection, name: str, now: int) -> None:
    """Note that a site which was described before answers again."""
    before = next((site for site in sites.load(connection) if site.name == name), None)
    if before is not None and before.report is not None:
        note(connection, name, before.report, "", now)
