"""From the store's rows to what the scheduler knows, and from its decisions to what the store carries out."""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, cast

from sqlalchemy import Connection

from atoll.control.forecasting import like
from atoll.core.project import RESOURCES, TreeNode, clearances
from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.resources import Resources
from atoll.core.site import Flavor
from atoll.core.spec import JobClass, read_spec
from atoll.core.states import JobState
from atoll.scheduler.model import (
    RANKS,
    Booking,
    Change,
    Demand,
    JobGone,
    JobWaits,
    Promise,
    Reservation,
    Running,
    SiteState,
    Spent,
    Waiting,
)
from atoll.scheduler.runtimes import Runtimes
from atoll.store import jobs, spent
from atoll.store.jobs import JobRow
from atoll.store.reservations import Reservation as Kept
from atoll.store.reserved import Start
from atoll.store.rooms import Room
from atoll.store.tables import jobs as job_table

log = logging.getLogger(__name__)


class Mirror:
    """Translates rows.

    Without a project tree, what jobs say of their project means nothing to the queue: each person stands alone.
    `runtimes` tells how long jobs are expected to run.
    """

    def __init__(self, runtimes: Runtimes, nodes: Sequence[TreeNode] = ()) -> None:
        """`nodes` are the project tree."""
        self._runtimes = runtimes
        self.has_tree = bool(nodes)
        self._clearances = clearances(nodes)

    def reads_alike(self, nodes: Sequence[TreeNode]) -> bool:
        """Whether jobs mean to the queue under another tree what they mean under this one, quotas apart."""
        return bool(nodes) == self.has_tree and clearances(nodes) == self._clearances

    def _project(self, name: str | None, person: str) -> str:
        return name or "" if self.has_tree else person

    def running(self, room: Room) -> Running:
        """The attempt that takes this room."""
        return Running(
            room.attempt_id,
            room.array_id or room.job_id,
            room.site,
            room.flavor,
            room.request,
            room.nodes,
            RANKS[JobClass(room.class_)],
            room.waits,
            room.priority,
            room.leaving,
            project=self._project(room.project, room.person),
            person=room.person,
            placed=room.placed,
            started=room.started,
            saved=room.saved,
            walltime=room.walltime,
            expected=self._runtimes.expected(room.person, room.name, room.walltime),
            grace=room.grace,
            evictions=room.evictions,
            leaves_for=room.leaves_for,
            notice=room.notice,
            spots=room.spots,
        )

    def read_page(self, connection: Connection, after: int, limit: int) -> tuple[int, list[Change]]:
        """What waits of the next rows that have not ended, and the last one's id; 0 where there are no more."""
        rows = jobs.load_unended(connection, after, limit)
        return (rows[-1].id if rows else 0), self._waits(connection, rows)

    def changes(self, connection: Connection, ids: Sequence[int]) -> list[Change]:
        """What rows that have changed, or are gone, mean for the queue."""
        rows = jobs.get_many(connection, ids, tuple(job_table.c))
        gone: list[Change] = [JobGone(job_id) for job_id in ids if job_id not in rows]
        return gone + self._waits(connection, list(rows.values()))

    def _waits(self, connection: Connection, rows: Sequence[JobRow]) -> list[Change]:
        missing = {row.array_id for row in rows if row.array_id is not None and row.state == JobState.QUEUED}
        arrays = jobs.get_many(connection, sorted(missing), (job_table.c.id, job_table.c.spec, job_table.c.width))
        changes: list[Change] = []
        for row in rows:
            whole = row if row.array_id is None else arrays.get(row.array_id)
            waiting = self._waiting(row, whole) if whole is not None and jobs.waits(row) else None
            changes.append(JobGone(row.id) if waiting is None else JobWaits(waiting))
        return changes

    def hypothetical(self, job_id: int, columns: Mapping[str, Any], now: int) -> Waiting | None:
        """The entry that a job with such columns would be, if it was submitted now."""
        given = {"id": job_id, "submitted_at": now, "array_id": None, "promised_count": None, "site": None, **columns}
        row = cast(JobRow, SimpleNamespace(**given))
        return self._waiting(row, row)

    def _waiting(self, row: JobRow, whole: JobRow) -> Waiting | None:
        """The entry of a job, an array or a task; `whole` has the specification and the width (of a task: its array's).

        None for a row that makes no sense: it must not keep the others from their turn.
        """
        try:
            clearance = self._clearances.get(row.project or "", _NO_WORDS)
            demand = _demand(whole.spec, row.owner, row.memory, clearance, row.site or "")
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
                project=self._project(row.project, row.owner),
                expected=self._runtimes.expected(row.owner, row.name, row.walltime),
                promise=_promise(row),
                like=like(row.owner, row.name),
            )
        except Exception:
            log.exception("job %d cannot be read, and is not looked at", row.id)
            return None

    def spent(self, connection: Connection, now: int) -> Iterator[Spent]:
        """What ended attempts used, each day's as of its middle."""
        for day in spent.load(connection):
            at = min(now, day.day * spent.DAY + spent.DAY // 2)
            yield Spent(self._project(day.project, day.person), day.person, day.flavor, day.used, at, day.opportunistic)


def reservation(start: Start) -> Reservation:
    """The scheduler's own word for a reserved start."""
    return Reservation(start.job_id, start.site, start.flavor, start.start)


def bookings(kept: Iterable[Kept], states: Iterable[SiteState]) -> tuple[Booking, ...]:
    """What people reserved, in amounts of what the sites have now."""
    flavors = [
        (state.site.name, flavor)
        for state in states
        for flavor in (state.site.report.flavors if state.site.report else ())
    ]
    found = []
    for each in kept:
        amount = each.resources
        if each.nodes:
            here = [flavor for site, flavor in flavors if flavor.name == each.flavor and each.site in (None, site)]
            amount = _of_nodes(each.nodes, here)
        people = frozenset(each.people)
        found.append(
            Booking(each.id, each.flavor, each.site, amount, each.starts_at, each.ends_at, each.project, people)
        )
    return tuple(found)


def _of_nodes(wanted: int, flavors: Sequence[Flavor]) -> Resources:
    """What so many nodes of a flavor have together, site after site."""
    amount = Resources()
    for flavor in flavors:
        nodes = min(wanted, flavor.nodes)
        wanted -= nodes
        total = flavor.total
        share = Resources(*(getattr(total, name) * nodes // max(1, flavor.nodes) for name in RESOURCES))
        amount += share
    return amount


def reserved_start(reservation: Reservation) -> Start:
    """The store's."""
    return Start(reservation.job_id, reservation.site, reservation.flavor, reservation.start)


def _promise(row: JobRow) -> Promise | None:
    if not row.promised_count:
        return None
    return Promise(row.promised_site, row.promised_flavor, row.promised_count)


_NO_DEMAND = ("name", "command", "script", "args", "env", "labels", "begin", "array", "dependencies", "priority")
"""Fields that differ from job to job and say nothing of where it fits."""
_NO_WORDS: frozenset[str] = frozenset()


def _demand(text: str, person: str, memory: int, clearance: frozenset[str], last_site: str) -> Demand:
    """The demand of a specification; jobs that differ only in what does not matter here share one."""
    document = json.loads(text)
    kept_at = last_site if document.get("checkpoint") is not None else ""
    for name in _NO_DEMAND:
        document.pop(name, None)
    return _demand_of(json.dumps(document), person, memory, clearance, kept_at)


@lru_cache(maxsize=2048)
def _demand_of(rest: str, person: str, memory: int, clearance: frozenset[str], kept_at: str) -> Demand:
    document = json.loads(rest)
    demand = Demand.of(read_spec({**document, "command": ["-"]}), person, memory, clearance)
    return replace(demand, placement=replace(demand.placement, kept_at=kept_at))
