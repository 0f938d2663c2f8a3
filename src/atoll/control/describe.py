"""Asks a site what it has and can do, now and then, and notes that it is well."""

from dataclasses import replace

from sqlalchemy import Connection

from atoll.control.work import SiteWork
from atoll.core.resources import Resources
from atoll.core.site import Health, SiteReport
from atoll.drivers.base import DriverError
from atoll.store import figures, sites
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

    def tell(connection: Connection) -> None:
        note(connection, work.site, _with_others(connection, work.site, report), "", tools.now())

    await tools.guarded(lease, tell)
    return EVERY


def _with_others(connection: Connection, site: str, report: SiteReport) -> SiteReport:
    """The report with what others hold: what is neither free nor held by what runs of ours."""
    ours = figures.used(connection, running=True)
    flavors = []
    for flavor in report.flavors:
        if flavor.free is not None:
            used = ours.get((site, flavor.name))
            left = flavor.total - flavor.free - (used.resources if used is not None else Resources())
            others = Resources(max(0, left.cpu), max(0, left.memory), max(0, left.gpu))
            flavor = replace(flavor, others=others)
        flavors.append(flavor)
    return replace(report, flavors=tuple(flavors))


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
        sites.tell(connection, name, health, words, now)


def note_answer(connection: Connection, name: str, now: int) -> None:
    """Note that a site which was described before answers again."""
    before = next((site for site in sites.load(connection) if site.name == name), None)
    if before is not None and before.report is not None:
        note(connection, name, before.report, "", now)
