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
_AGAIN = 7.0
"""Seconds until a look that needs confirmation is repeated."""


class Describer:
    """The describe loop's memory: what others seemed to hold at the site when it was last looked at."""

    def __init__(self, work: SiteWork) -> None:
        self._work = work
        self._seemed: dict[str, Resources] | None = None
        self._asked_again = False

    async def step(self, lease: Lease) -> float | None:
        """Describe the site; an event tells everybody where something has changed."""
        work, tools = self._work, self._work.tools
        tools.check(lease)
        try:
            report = await work.driver.describe()
        except DriverError as error:
            words = str(error)
            await tools.guarded(lease, lambda connection: note(connection, work.site, None, words, tools.now()))
            raise

        def tell(connection: Connection) -> bool:
            whole, certain = self._with_others(connection, report)
            note(connection, work.site, whole, "", tools.now())
            return certain

        certain = await tools.guarded(lease, tell)
        self._asked_again = not certain and not self._asked_again
        return _AGAIN if self._asked_again else EVERY

    def _with_others(self, connection: Connection, report: SiteReport) -> tuple[SiteReport, bool]:
        """The report with what others hold, and whether that is certain.

        It is what is neither free nor held by what runs of ours. As our own begin and end while the site is asked,
        more than the time before counts only when the next look confirms it.
        """
        ours = figures.used(connection, running=True)
        seemed: dict[str, Resources] = {}
        flavors = []
        for flavor in report.flavors:
            if flavor.free is not None:
                used = ours.get((self._work.site, flavor.name))
                left = flavor.total - flavor.free - (used.resources if used is not None else Resources())
                now = seemed[flavor.name] = Resources(max(0, left.cpu), max(0, left.memory), max(0, left.gpu))
                before = now if self._seemed is None else self._seemed.get(flavor.name, Resources())
                others = Resources(min(now.cpu, before.cpu), min(now.memory, before.memory), min(now.gpu, before.gpu))
                flavor = replace(flavor, others=others)
            flavors.append(flavor)
        self._seemed = seemed
        certain = all(flavor.others == seemed.get(flavor.name, flavor.others) for flavor in flavors)
        return replace(report, flavors=tuple(flavors)), certain


def note(connection: Connection, name: str, report: SiteReport | None, words: str, now: int) -> None:
    """Note how a site is: its report, or why it does not answer; an event where that has changed."""
    before = next((site for site in sites.load(connection) if site.name == name), None)
    if before is None:
        return
    health = Health.OK if report is not None else Health.UNREACHABLE
    if report is None:
        sites.set_health(connection, name, health, words)
    elif before.report == report:
        sites.set_seen(connection, name, now)
    else:
        sites.set_report(connection, name, report, now)
    if before.health is not health or (report is not None and before.report != report):
        sites.tell(connection, name, health, words, now)


def note_answer(connection: Connection, name: str, now: int) -> None:
    """Note that a site which was described before answers again."""
    before = next((site for site in sites.load(connection) if site.name == name), None)
    if before is not None and before.report is not None:
        note(connection, name, before.report, "", now)
