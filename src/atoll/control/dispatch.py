"""Keeps the scheduler's snapshot current from the outbox, asks it for decisions, and writes them down.

The snapshot belongs to one tenure of the lease: whoever becomes the leader builds a new one.
"""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice

from sqlalchemy import Connection

from atoll.control import mirror
from atoll.control.answering import AT_ONCE, Answerer
from atoll.control.forecasting import Forecaster
from atoll.control.mirror import Mirror
from atoll.control.news import Newsreader
from atoll.control.pace import Pace
from atoll.control.waits import Waits, is_another
from atoll.control.work import Tools
from atoll.core.ids import new_attempt_id
from atoll.core.project import TreeNode
from atoll.core.site import Health, Site, UsualWait
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import (
    Booked,
    Change,
    Decisions,
    PolicyChanged,
    Reserved,
    RoomTaken,
    SiteChanged,
    SiteGone,
    SiteState,
    TreeChanged,
)  # fmt: skip
from atoll.scheduler.quota import Tree
from atoll.scheduler.snapshot import Snapshot
from atoll.store import (
    attempts,
    events,
    evictions,
    forecasts,
    jobs,
    leases,
    projects,
    questions,
    reservations,
    reserved,
    rooms,
    sites,
)
from atoll.store.attempts import Placing
from atoll.store.evictions import Eviction
from atoll.store.jobs import Promised
from atoll.store.leases import Lease
from atoll.store.reservations import Reservation as Kept
from atoll.store.reserved import Start
from atoll.store.rooms import Room

log = logging.getLogger(__name__)

LEASE = "dispatch"
MAX_PLACED = 2000
"""Most attempts that one cycle starts and one transaction makes; the rest follows in the next round."""
_PAGE = 5000
_SITES_EVERY = 15 * 1_000_000
"""Microseconds after which the sites are looked at again, event or not."""
_SILENT_AFTER = timedelta(seconds=180)
"""A site that nobody works with and that was not seen for so long counts as unreachable."""
_RECALL_AFTER = timedelta(seconds=60)
"""What waits for a site that has not answered for so long may go elsewhere."""


class Dispatcher:
    """The dispatch loop's memory: a snapshot, kept current by the news."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._epoch: int | None = None
        self._snapshot = Snapshot()
        self._pace = Pace()
        self._waits = Waits()
        self._forecaster = Forecaster()
        self._mirror = Mirror(self._forecaster.runtimes)
        self._newsreader = Newsreader(0, (), self._mirror, self._forecaster, self._pace, self._waits)
        self._reserved: dict[int, Start] = {}
        """The reserved starts as the store has them, by job."""
        self._sites: dict[str, SiteState] = {}
        self._sites_at = 0
        self._silent: set[str] = set()
        self._asked = True
        """Whether there may be questions."""
        self._answerer = Answerer()
        self.paused = False
        """Set: nothing is placed any more."""

    async def step(self, lease: Lease) -> float | None:
        """Catch up, decide, write; the seconds after which time alone changes something."""
        tools = self._tools
        if self.paused:
            return None
        if self._epoch != lease.epoch:
            await self._load()
            self._epoch = lease.epoch
        if await self._catch_up():
            return 0  # what was decided before may not be in the snapshot yet: no decision without it
        now = tools.now()
        self._learn(now)
        await self._learn_waits(lease, now)
        if now - self._sites_at > _SITES_EVERY:
            await self._load_sites()
            if await self._recall(lease):
                return 0
        decisions = await asyncio.to_thread(cycle, self._snapshot, now, most=MAX_PLACED)
        placings = self._placings(decisions)
        try:
            await self._write(lease, decisions, placings, now)
        except BaseException:
            # what the snapshot believes to have told may not have been written
            self._epoch = None
            raise
        if decisions.cut_short:
            return 0
        if self._asked and await self._answer(lease, now):
            return 0
        pauses = [_SITES_EVERY]
        if not placings:  # else what was placed comes back as news at once
            pauses += await self._forecast(lease, now)
        if decisions.next_wakeup is not None:
            pauses.append(decisions.next_wakeup - now)
        return max(0.001, min(pauses) / 1_000_000)

    async def _answer(self, lease: Lease, now: int) -> bool:
        """Answer questions, as far as there is time; whether there may be more."""
        open_ones = await self._tools.database.read(partial(questions.unanswered, most=AT_ONCE))
        self._asked = bool(open_ones)
        if open_ones:
            found = await asyncio.to_thread(
                self._answerer.answers, open_ones, self._snapshot, self._mirror, self._forecaster, now
            )
            if found:
                await self._tools.guarded(lease, partial(questions.answer, answers=found, now=now))
        return self._asked

    async def _forecast(self, lease: Lease, now: int) -> list[int]:
        """Forecast the queue where it is time; the microseconds until it is again, unless nothing waits."""
        forecaster = self._forecaster
        if forecaster.due_in(now) == 0:
            kept = await asyncio.to_thread(forecaster.make, self._snapshot, now)
            if kept is not None:
                await self._tools.guarded(lease, lambda connection: forecasts.write(connection, kept))
        pause = forecaster.due_in(now)
        return [] if pause is None else [pause]

    async def _write(self, lease: Lease, decisions: Decisions, placings: list[Placing], now: int) -> None:
        reasons = [(job_id, reason.code, reason.sentence) for job_id, reason in decisions.reasons]
        promises = [
            Promised(job_id, promise.site, promise.flavor, promise.count) for job_id, promise in decisions.promises
        ]
        leaving = self._leaving(decisions)
        starts = {each.job_id: mirror.reserved_start(each) for each in decisions.reservations}
        before = self._reserved

        def write(connection: Connection) -> None:
            attempts.place(connection, placings, now)
            attempts.pull_back(connection, decisions.recalls, now)
            jobs.set_promises(connection, promises, now)
            evictions.evict(connection, leaving, now)
            evictions.reprieve(connection, decisions.reprieved, now)
            reserved.replace(connection, before, starts.values())
            jobs.set_reasons(connection, reasons)

        news = (placings, reasons, decisions.recalls, promises, leaving, decisions.reprieved)
        if any(news) or starts != before:
            await self._tools.guarded(lease, write)
        if starts != before:
            self._reserved = starts
            self._snapshot.apply([Reserved(tuple(map(mirror.reservation, starts.values())))])

    def _leaving(self, decisions: Decisions) -> list[Eviction]:
        return [
            Eviction(each.attempt_id, each.for_job, each.at, self._is_recalling(each.attempt_id))
            for each in decisions.evictions
        ]

    def _is_recalling(self, attempt_id: str) -> bool:
        """Whether the site of an attempt takes back what has not begun."""
        state = self._sites.get(self._snapshot.running(attempt_id).site)
        return state is not None and state.site.report is not None and state.site.report.recalls

    def _placings(self, decisions: Decisions) -> list[Placing]:
        """The placements with attempt ids."""
        counts = [1 if place.tasks is None else len(place.tasks) for place in decisions.placements]
        # sorted, because those of one moment are in any order, and they are handed over by their names
        names = iter(sorted(new_attempt_id(self._tools.instance, self._tools.clock) for _ in range(sum(counts))))
        return [
            Placing(place.job_id, place.tasks, place.site, place.flavor, list(islice(names, count)), place.spots)
            for place, count in zip(decisions.placements, counts, strict=True)
        ]

    async def _load(self) -> None:
        """Build the snapshot from the store. The cursor is read first: what changes meanwhile is read again."""
        database, now = self._tools.database, self._tools.now()
        cursor = await database.read(events.last_id)
        self._snapshot, self._sites = Snapshot(), {}
        self._answerer = Answerer()  # what was begun looks at the snapshot before
        nodes = await database.read(projects.load)
        self._forecaster = await database.read(Forecaster.load)
        self._mirror = Mirror(self._forecaster.runtimes, nodes)
        self._snapshot.apply([PolicyChanged(self._tools.policy), TreeChanged(_tree(nodes))])
        await self._load_sites()

        def read(connection: Connection) -> tuple[list[Change], list[Room], list[Start]]:
            # at once, so that what ends just now is either running or spent
            used = list(self._mirror.spent(connection, now))
            return [*used], rooms.load(connection, None), reserved.load(connection)

        used, taken, starts = await database.read(read)
        self._newsreader = Newsreader(cursor, taken, self._mirror, self._forecaster, self._pace, self._waits)
        self._reserved = {start.job_id: start for start in starts}
        changes = [*used, *(RoomTaken(self._mirror.running(room)) for room in taken)]
        await asyncio.to_thread(self._snapshot.apply, changes)
        last = 0
        while True:
            page, changes = await database.read(partial(self._mirror.read_page, after=last, limit=_PAGE))
            await asyncio.to_thread(self._snapshot.apply, changes)
            if not page:
                break
            last = page
        self._snapshot.apply([Reserved(tuple(map(mirror.reservation, starts)))])
        log.info("scheduler ready: %d entries wait, %d attempts hold room", len(self._snapshot), len(taken))

    async def _catch_up(self) -> bool:
        """Apply what the outbox says has changed; whether there is more."""
        now = self._tools.now()
        found = await self._tools.database.read(partial(self._newsreader.read, now=now))
        try:
            news = self._newsreader.take(found, now)
            if news.nodes is not None:
                if not self._mirror.reads_alike(news.nodes):
                    # now every job's project means something, or none does any more; or data may go elsewhere
                    await self._load()
                    return False
                self._snapshot.apply([TreeChanged(_tree(news.nodes))])
            self._asked |= news.changed.questions
            if news.changed.sites or news.changed.reservations:
                await self._load_sites()
            if news.changes:
                self._forecaster.changed()
                await asyncio.to_thread(self._snapshot.apply, news.changes)
        except BaseException:
            self._epoch = None  # what was read is not read again
            raise
        return news.more

    def _learn(self, now: int) -> None:
        """Have the snapshot know the sites' paces, where they have changed by more than a little."""
        for name, state in self._sites.items():
            pace = self._pace.of(name, now)
            if pace > state.pace or pace < state.pace * 0.8:
                self._sites[name] = replace(state, pace=pace)
                self._snapshot.apply([SiteChanged(self._sites[name])])

    async def _learn_waits(self, lease: Lease, now: int) -> None:
        """Note how long attempts usually wait in the sites' own queues, where that is another by more than a little."""
        changed: dict[str, UsualWait] = {}
        for name, state in self._sites.items():
            queues = state.site.report is not None and state.site.report.queues
            wait = self._waits.of(name, now) if queues else UsualWait()
            if is_another(wait, state.site.wait):
                changed[name] = wait
        if not changed:
            return
        await self._tools.guarded(lease, partial(sites.set_waits, waits=changed))
        for name, wait in changed.items():
            state = self._sites[name]
            self._sites[name] = replace(state, site=replace(state.site, wait=wait))
            self._snapshot.apply([SiteChanged(self._sites[name])])

    async def _load_sites(self) -> None:
        def read(connection: Connection) -> tuple[list[SiteState], list[Kept]]:
            drained = sites.drained(connection)
            return [
                SiteState(
                    _as_reached(connection, site, now), site.name in drained, self._pace.of(site.name, self._sites_at)
                )
                for site in sites.load(connection)
            ], reservations.load(connection, self._sites_at)

        now = self._tools.clock()
        self._sites_at = self._tools.now()
        states, kept = await self._tools.database.read(read)
        for state in states:
            self._waits.recall(state.site.name, state.site.wait, self._sites_at)
        before, self._sites = self._sites, {state.site.name: state for state in states}
        self._snapshot.apply(
            [
                *map(SiteChanged, states),
                *(SiteGone(name) for name in before.keys() - self._sites.keys()),
                Booked(mirror.bookings(kept, states)),
            ]
        )
        self._silent = {
            state.site.name
            for state in states
            if state.site.health is Health.UNREACHABLE and not _seen_since(state.site, now - _RECALL_AFTER)
        }

    async def _recall(self, lease: Lease) -> int:
        """Take back what was placed at sites that are silent or gone, and has not been handed over."""
        tools, message = self._tools, "The site did not answer before it was handed over."
        placed = await tools.database.read(attempts.sites_with_placed)
        stuck = [name for name in placed if name in self._silent or name not in self._sites]
        if not stuck:
            return 0

        def take_back(connection: Connection) -> int:
            return sum(attempts.recall(connection, name, message, tools.now()) for name in stuck)

        count = await tools.guarded(lease, take_back)
        log.warning("%d attempts go back to the queue: %s did not answer", count, ", ".join(stuck))
        return count


def _tree(nodes: Sequence[TreeNode]) -> Tree | None:
    return Tree(nodes) if nodes else None


def _seen_since(site: Site, moment: datetime) -> bool:
    return site.seen_at is not None and site.seen_at > moment


def _as_reached(connection: Connection, site: Site, now: datetime) -> Site:
    """The site, unreachable where its replica is gone: nobody else would say so."""
    silent = site.seen_at is not None and now - site.seen_at > _SILENT_AFTER
    if site.health is Health.OK and silent and not leases.is_held(connection, f"site:{site.name}"):
        return replace(site, health=Health.UNREACHABLE, message="No replica of the platform works with this site.")
    return site
