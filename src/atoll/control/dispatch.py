"""Keeps the scheduler's snapshot current from the outbox, asks it for decisions, and writes them down.

The snapshot belongs to one tenure of the lease: whoever becomes the leader builds a new one.
"""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import lru_cache, partial
from itertools import islice

from sqlalchemy import Connection

from atoll.control.pace import Pace
from atoll.control.work import Tools
from atoll.core.ids import new_attempt_id
from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.site import Health, Site
from atoll.core.spec import JobClass, read_spec
from atoll.core.states import JobState
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import (
    RANKS,
    Change,
    Decisions,
    Demand,
    JobGone,
    JobWaits,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    SiteGone,
    SiteState,
    Waiting,
)  # fmt: skip
from atoll.scheduler.snapshot import Snapshot
from atoll.store import attempts, events, jobs, leases, sites
from atoll.store.attempts import Placing, Room
from atoll.store.jobs import JobRow
from atoll.store.leases import Lease
from atoll.store.tables import jobs as job_table

log = logging.getLogger(__name__)

LEASE = "dispatch"
MAX_PLACED = 2000
"""Most attempts that one transaction makes; the rest follows in the next round."""
EVENTS_AT_ONCE = 20_000
"""Most events that are caught up with in one go."""
_PAGE = 5000
_QUEUEING = frozenset({JobState.QUEUED, JobState.RUNNING})


_SITES_EVERY = 15 * 1_000_000
"""Microseconds after which the sites are looked at again, event or not."""
_SILENT_AFTER = timedelta(seconds=180)
"""A site that nobody works with and that was not seen for so long counts as unreachable."""
_RECALL_AFTER = timedelta(seconds=60)
"""What waits for a site that has not answered for so long may go elsewhere."""


class Dispatcher:
    """The dispatch loop's memory: a snapshot, and how far in the outbox it goes."""

    def __init__(self, tools: Tools) -> None:
        self._tools = tools
        self._epoch: int | None = None
        self._snapshot = Snapshot()
        self._cursor = 0
        self._rooms: dict[int, dict[str, Room]] = {}
        """Attempts that hold room, by row of the job."""
        self._sites: dict[str, SiteState] = {}
        self._pace = Pace()
        self._sites_at = 0
        self._silent: set[str] = set()
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
        if now - self._sites_at > _SITES_EVERY:
            await self._load_sites()
            if await self._recall(lease):
                return 0
        decisions = await asyncio.to_thread(cycle, self._snapshot, now)
        placings, rest = self._placings(decisions)
        try:
            await self._write(lease, decisions, placings, now)
        except BaseException:
            # what the snapshot believes to have told may not have been written
            self._epoch = None
            raise
        if rest:
            return 0
        if decisions.next_wakeup is None:
            return _SITES_EVERY / 1_000_000
        return max(0.001, min(_SITES_EVERY, decisions.next_wakeup - now) / 1_000_000)

    async def _write(self, lease: Lease, decisions: Decisions, placings: list[Placing], now: int) -> None:
        reasons = [(job_id, reason.code, reason.sentence) for job_id, reason in decisions.reasons]

        def write(connection: Connection) -> None:
            attempts.place(connection, placings, now)
            attempts.pull_back(connection, decisions.recalls, now)
            jobs.set_reasons(connection, reasons)

        if placings or reasons or decisions.recalls:
            await self._tools.guarded(lease, write)

    def _placings(self, decisions: Decisions) -> tuple[list[Placing], bool]:
        """The decisions with attempt ids, at most MAX_PLACED attempts, and whether some are left for later."""
        placings: list[Placing] = []
        room = MAX_PLACED
        wanted = sum(1 if place.tasks is None else len(place.tasks) for place in decisions.placements)
        # sorted, because those of one moment are in any order, and they are handed over by their names
        names = iter(sorted(new_attempt_id(self._tools.instance, self._tools.clock) for _ in range(min(wanted, room))))
        for place in decisions.placements:
            tasks = place.tasks.take(room)[0] if place.tasks is not None else None
            count = len(tasks) if tasks is not None else 1
            ids = list(islice(names, count))
            placings.append(Placing(place.job_id, tasks, place.site, place.flavor, ids))
            room -= count
            if room <= 0:
                return placings, True
        return placings, False

    async def _load(self) -> None:
        """Build the snapshot from the store. The cursor is read first: what changes meanwhile is read again."""
        database = self._tools.database
        self._cursor = await database.read(events.last_id)
        self._snapshot, self._rooms, self._sites = Snapshot(), {}, {}
        await self._load_sites()
        rooms = await database.read(lambda connection: attempts.rooms(connection, None))
        for room in rooms:
            self._rooms.setdefault(room.job_id, {})[room.attempt_id] = room
        self._snapshot.apply(RoomTaken(_running(room)) for room in rooms)
        last = 0
        while True:
            page, changes = await database.read(partial(_read_page, after=last))
            await asyncio.to_thread(self._snapshot.apply, changes)
            if not page:
                break
            last = page
        log.info("scheduler ready: %d entries wait, %d attempts hold room", len(self._snapshot), len(rooms))

    async def _catch_up(self) -> bool:
        """Apply what the outbox says has changed; whether there is more."""
        database, cursor = self._tools.database, self._cursor

        def read(connection: Connection) -> tuple[events.Changed, list[Change], list[Room]]:
            changed = events.changed(connection, cursor, EVENTS_AT_ONCE)
            if not changed.jobs:
                return changed, [], []
            return changed, _changes(connection, changed.jobs), attempts.rooms(connection, changed.jobs)

        changed, changes, rooms = await database.read(read)
        if changed.sites:
            await self._load_sites()
        changes += self._room_changes(changed.jobs, rooms)
        if changes:
            await asyncio.to_thread(self._snapshot.apply, changes)
        moved = changed.cursor - cursor
        self._cursor = changed.cursor
        return moved >= EVENTS_AT_ONCE

    def _room_changes(self, job_ids: Sequence[int], rooms: Sequence[Room]) -> list[Change]:
        held: dict[int, dict[str, Room]] = {}
        for room in rooms:
            held.setdefault(room.job_id, {})[room.attempt_id] = room
        freed: dict[str, Room] = {}
        for job_id in job_ids:
            now, before = held.get(job_id, {}), self._rooms.pop(job_id, {})
            freed |= {attempt_id: room for attempt_id, room in before.items() if attempt_id not in now}
            if now:
                self._rooms[job_id] = now
        # what was refused or taken back has freed no room at the site
        self._pace.count(Counter(room.site for room in freed.values() if not room.waits), self._tools.now())
        changes: list[Change] = [RoomFreed(attempt_id) for attempt_id in freed]
        changes += [RoomTaken(_running(room)) for room in rooms]
        return changes

    def _learn(self, now: int) -> None:
        """Have the snapshot know the sites' paces, where they have changed by more than a little."""
        for name, state in self._sites.items():
            pace = self._pace.of(name, now)
            if pace > state.pace or pace < state.pace * 0.8:
                self._sites[name] = replace(state, pace=pace)
                self._snapshot.apply([SiteChanged(self._sites[name])])

    async def _load_sites(self) -> None:
        def read(connection: Connection) -> list[SiteState]:
            drained = sites.drained(connection)
            return [
                SiteState(
                    _as_reached(connection, site, now), site.name in drained, self._pace.of(site.name, self._sites_at)
                )
                for site in sites.load(connection)
            ]

        now = self._tools.clock()
        self._sites_at = self._tools.now()
        states = await self._tools.database.read(read)
        before, self._sites = self._sites, {state.site.name: state for state in states}
        self._snapshot.apply(
            [*map(SiteChanged, states), *(SiteGone(name) for name in before.keys() - self._sites.keys())]
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


def _seen_since(site: Site, moment: datetime) -> bool:
    return site.seen_at is not None and site.seen_at > moment


def _as_reached(connection: Connection, site: Site, now: datetime) -> Site:
    """The site, unreachable where its replica is gone: nobody else would say so."""
    silent = site.seen_at is not None and now - site.seen_at > _SILENT_AFTER
    if site.health is Health.OK and silent and not leases.is_held(connection, f"site:{site.name}"):
        return replace(site, health=Health.UNREACHABLE, message="No replica of the platform works with this site.")
    return site


def _running(room: Room) -> Running:
    return Running(
        room.attempt_id, room.array_id or room.job_id, room.site, room.flavor, room.request, room.nodes,
        RANKS[JobClass(room.class_)], room.waits, room.priority, room.leaving,
    )  # fmt: skip


def _read_page(connection: Connection, after: int) -> tuple[int, list[Change]]:
    rows = jobs.load_unended(connection, after, _PAGE)
    return (rows[-1].id if rows else 0), _waits(connection, rows)


def _changes(connection: Connection, ids: Sequence[int]) -> list[Change]:
    rows = jobs.get_many(connection, ids, tuple(job_table.c))
    gone: list[Change] = [JobGone(job_id) for job_id in ids if job_id not in rows]
    return gone + _waits(connection, list(rows.values()))


def _waits(connection: Connection, rows: Sequence[JobRow]) -> list[Change]:
    """What these rows mean for the queue."""
    missing = {row.array_id for row in rows if row.array_id is not None and row.state == JobState.QUEUED}
    arrays = jobs.get_many(connection, sorted(missing), (job_table.c.id, job_table.c.spec, job_table.c.width))
    changes: list[Change] = []
    for row in rows:
        whole = row if row.array_id is None else arrays.get(row.array_id)
        if whole is not None and _is_waiting(row):
            changes.append(JobWaits(_waiting(row, whole)))
        else:
            changes.append(JobGone(row.id))
    return changes


def _is_waiting(row: JobRow) -> bool:
    states = _QUEUEING if row.waiting_count else {JobState.QUEUED}
    return JobState(row.state) in states and not row.hold and not row.blockers


_NO_DEMAND = ("name", "command", "script", "args", "env", "labels", "begin", "array", "dependencies", "priority")
"""Fields that differ from job to job and say nothing of where it fits."""


def _demand(text: str, person: str, memory: int) -> Demand:
    """The demand of a specification; jobs that differ only in what does not matter here share one."""
    document = json.loads(text)
    for name in _NO_DEMAND:
        document.pop(name, None)
    return _demand_of(json.dumps(document), person, memory)


@lru_cache(maxsize=2048)
def _demand_of(rest: str, person: str, memory: int) -> Demand:
    document = json.loads(rest)
    return Demand.of(read_spec({**document, "command": ["-"]}), person, memory)


def _waiting(row: JobRow, whole: JobRow) -> Waiting:
    """The entry of a job, an array or a task; `whole` has the specification and the width (of a task: its array's)."""
    demand = _demand(whole.spec, row.owner, row.memory)
    return Waiting(
        job_id=row.id,
        rank=RANKS[JobClass(row.class_)],
        priority=row.priority,
        submitted=row.submitted_at,
        request=demand.request,
        nodes=row.nodes,
        flavors=demand.flavors,
        placement=demand.placement,
        not_before=row.not_before,
        backing_off=row.reason == ReasonCode.BACKOFF,
        tasks=Ranges.stored(row.waiting) if row.waiting_count else None,
        width=whole.width,
        group=row.array_id,
    )
