"""The scheduler's columnar mirror of the store, kept current by changes.

Jobs are rows of numbers; a 100,000-job queue costs some 20 MB. An array is one row, whatever its size. What a
cycle needs again (the order of the queue, what each pool holds, which pools a demand could use) is kept beside
them; `validate` holds these caches against what they are made from.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.ranges import Ranges
from atoll.core.reasons import Reason
from atoll.core.resources import Resources
from atoll.core.site import Flavor
from atoll.scheduler import model
from atoll.scheduler.demands import Demands
from atoll.scheduler.fit import Pool, Room, Used, pools_of
from atoll.scheduler.model import Change, Running, SiteState, Waiting
from atoll.scheduler.table import Columns, Table

_WAITING: Columns = [
    ("job", "i8"), ("submitted", "i8"), ("not_before", "i8"), ("priority", "i8"), ("told", "i8"),
    ("group", "i8"), ("demand", "i4"), ("width", "i4"), ("limit", "i4"), ("rank", "i1"), ("backing_off", "?"),
    ("live", "?"),
]  # fmt: skip
_RUNNING: Columns = [
    ("job", "i8"), ("cpu", "i8"), ("memory", "i8"), ("gpu", "i8"), ("nodes", "i4"), ("place", "i4"),
    ("priority", "i8"), ("rank", "i1"), ("waits", "?"), ("leaving", "?"),
]  # fmt: skip
_LIMITS: Columns = [("holders", "i4"), ("uses", "i4")]
_ENDLESS = -1  # width and limit of what has no limit
_OWN = -1  # group of what has none but its own id


class Snapshot:
    """What waits, what holds room, and the sites."""

    def __init__(self) -> None:
        self.demands = Demands()
        self.sites: dict[str, SiteState] = {}
        self.pools: tuple[Pool, ...] = ()
        self._waiting: Table[int] = Table(_WAITING)
        self._tasks: dict[int, Ranges] = {}  # by row, of arrays only
        self._queue: NDArray[np.intp] = np.zeros(0, np.intp)
        self._arrived: list[int] = []  # rows that the queue lacks
        self._left: list[int] = []  # rows that the queue has and that wait no more
        self._running: Table[str] = Table(_RUNNING)
        self._places: list[tuple[str, str]] = []  # the (site, flavor) of each number in `place`
        self._place_numbers: dict[tuple[str, str], int] = {}
        self._used: dict[tuple[str, str], Used] = {}
        self._holders: dict[int, int] = {}  # attempts that hold room, by job or array
        self._limits: Table[int] = Table(_LIMITS)  # the same, of what has a width and waits: a cycle's columns

    @classmethod
    def from_changes(cls, changes: Iterable[Change]) -> "Snapshot":
        """A snapshot made from scratch."""
        snapshot = cls()
        snapshot.apply(changes)
        return snapshot

    # ---- keeping it current

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in what changed, in order. Repeats are harmless; so is the end of what is not known."""
        for change in changes:
            match change:
                case model.JobWaits(waiting):
                    self._job_waits(waiting)
                case model.JobGone(job_id):
                    self._job_gone(job_id)
                case model.RoomTaken(running):
                    self._room_taken(running)
                case model.RoomFreed(attempt_id):
                    self._room_freed(attempt_id)
                case model.SiteChanged(state):
                    self._site_changed(state)
                case model.SiteGone(name):
                    if self.sites.pop(name, None) is not None:
                        self._rebuild_pools()

    def _job_waits(self, waiting: Waiting) -> None:
        if waiting.tasks is not None and not waiting.tasks.parts:
            self._job_gone(waiting.job_id)
            return
        row, told = self._waiting.index.get(waiting.job_id), 0
        number = self.demands.hold(waiting.demand)
        if row is not None:
            before = self._waiting.rows[row]
            told = before["told"]
            if (waiting.rank, waiting.priority, waiting.submitted) == _order(before):
                self.demands.drop(int(before["demand"]))
                self._drop_limit(before)
            else:
                self._job_gone(waiting.job_id)
                row = None
        if row is None:
            row = self._waiting.add(waiting.job_id)
            self._arrived.append(row)
        self._waiting.rows[row] = (
            waiting.job_id, waiting.submitted, waiting.not_before, waiting.priority, told,
            _OWN if waiting.group is None else waiting.group, number,
            _ENDLESS if waiting.width is None else waiting.width, self._hold_limit(waiting),
            waiting.rank, waiting.backing_off, True,
        )  # fmt: skip
        if waiting.tasks is None:
            self._tasks.pop(row, None)
        else:
            self._tasks[row] = waiting.tasks

    def _job_gone(self, job_id: int) -> None:
        row = self._waiting.pop(job_id)
        if row is not None:
            self.demands.drop(int(self._waiting.rows["demand"][row]))
            self._drop_limit(self._waiting.rows[row])
            self._tasks.pop(row, None)
            self._waiting.rows["live"][row] = False
            self._left.append(row)

    def _hold_limit(self, waiting: Waiting) -> int:
        """The number of the limit that a job counts to, with one user more."""
        if waiting.width is None:
            return _ENDLESS
        group = waiting.job_id if waiting.group is None else waiting.group
        number = self._limits.index.get(group)
        if number is None:
            number = self._limits.add(group)
            self._limits.rows["holders"][number] = self._holders.get(group, 0)
        self._limits.rows["uses"][number] += 1
        return number

    def _drop_limit(self, job: Any) -> None:
        """One user less of the limit of a waiting row; one that nobody has is forgotten."""
        number = int(job["limit"])
        if number != _ENDLESS:
            self._limits.rows["uses"][number] -= 1
            if not self._limits.rows["uses"][number]:
                self._limits.pop(_group(job))
                self._limits.release((number,))

    def _count_holder(self, job_id: int, change: int) -> None:
        holders = self._holders.get(job_id, 0) + change
        if holders:
            self._holders[job_id] = holders
        else:
            self._holders.pop(job_id, None)
        number = self._limits.index.get(job_id)
        if number is not None:
            self._limits.rows["holders"][number] = holders

    def _room_taken(self, running: Running) -> None:
        known = self._running.index.get(running.attempt_id)
        if known is not None:
            if self._running_at(running.attempt_id, known) == running:
                return
            self._room_freed(running.attempt_id)
        place = (running.site, running.flavor)
        number = self._place_numbers.setdefault(place, len(self._places))
        if number == len(self._places):
            self._places.append(place)
        request = running.request
        row = self._running.add(running.attempt_id)
        self._running.rows[row] = (
            running.job_id, request.cpu, request.memory, request.gpu, running.nodes, number, running.priority,
            running.rank, running.waits, running.leaving,
        )  # fmt: skip
        self._used.setdefault(place, Used()).add(running)
        self._count_holder(running.job_id, 1)

    def _room_freed(self, attempt_id: str) -> None:
        row = self._running.pop(attempt_id)
        if row is not None:
            running = self._running_at(attempt_id, row)
            place = (running.site, running.flavor)
            self._used[place].remove(running)
            if not self._used[place].attempts:
                del self._used[place]
            self._running.release((row,))
            self._count_holder(running.job_id, -1)

    def _site_changed(self, state: SiteState) -> None:
        before = self.sites.get(state.site.name)
        self.sites[state.site.name] = state
        if before is None or _essence(before) != _essence(state):
            self._rebuild_pools()

    def _rebuild_pools(self) -> None:
        self.pools = pools_of(self.sites.values())
        self.demands.place(self.pools, self.sites)

    # ---- reading it

    def __len__(self) -> int:
        """How many entries wait; an array is one."""
        return len(self._waiting)

    @property
    def rows(self) -> NDArray[Any]:
        """The columns of what waits, by row number. Valid until the next change."""
        return self._waiting.rows

    def queue(self) -> NDArray[np.intp]:
        """The row numbers of all that waits, in order: rank, priority (high first), age, id."""
        rows = self._waiting.rows
        if self._left:
            self._queue = self._queue[rows["live"][self._queue]]
            arrived = [row for row in self._arrived if rows["live"][row]]
            self._waiting.release(self._left)
            self._left = []
        else:
            arrived = self._arrived
        self._arrived = []
        if len(arrived) * 64 > len(self._queue):
            everyone = np.concatenate([self._queue, np.array(arrived, np.intp)])
            columns = (rows["job"], rows["submitted"], -rows["priority"], rows["rank"])
            self._queue = everyone[np.lexsort([column[everyone] for column in columns])]
        elif arrived:
            arrived.sort(key=self._key)
            places = [bisect_left(self._queue, self._key(row), key=self._key) for row in arrived]
            self._queue = np.insert(self._queue, places, arrived)
        return self._queue

    def _key(self, row: int) -> tuple[int, int, int, int]:
        rank, priority, submitted = _order(self._waiting.rows[row])
        return rank, -priority, submitted, int(self._waiting.rows["job"][row])

    def row_of(self, job_id: int) -> int | None:
        """The row of a waiting job, None for one that does not wait."""
        return self._waiting.index.get(job_id)

    def tasks(self, row: int) -> Ranges | None:
        """The waiting tasks of an array, None for a single job."""
        return self._tasks.get(row)

    def holders(self, row: int) -> int:
        """How many attempts of a job or array, or of the array whose task it is, hold room."""
        return self._holders.get(_group(self._waiting.rows[row]), 0)

    def limits(self) -> NDArray[np.int32]:
        """How many tasks hold room, by the number that `limit` of a row is; to be counted up."""
        return self._limits.rows["holders"].copy()

    def room(self) -> Room:
        """What is free now, to be counted down."""
        return Room(self.pools, self.sites, self._used)

    def waiting(self, job_id: int) -> Waiting:
        """What is known of a waiting job. Raises KeyError."""
        number = self._waiting.index[job_id]
        row = self._waiting.rows[number]
        demand = self.demands[int(row["demand"])]
        width = int(row["width"])
        return Waiting(
            job_id,
            *_order(row),
            demand.request,
            demand.nodes,
            demand.flavors,
            demand.placement,
            not_before=int(row["not_before"]),
            backing_off=bool(row["backing_off"]),
            tasks=self._tasks.get(number),
            width=None if width == _ENDLESS else width,
            group=None if row["group"] == _OWN else int(row["group"]),
        )

    def running(self, attempt_id: str) -> Running:
        """What is known of an attempt that holds room. Raises KeyError."""
        return self._running_at(attempt_id, self._running.index[attempt_id])

    def _running_at(self, attempt_id: str, number: int) -> Running:
        job, cpu, memory, gpu, nodes, place, priority, rank, waits, leaving = self._running.rows[number].item()
        site, flavor = self._places[place]
        request = Resources(cpu, memory, gpu)
        return Running(attempt_id, job, site, flavor, request, nodes, rank, waits, priority, leaving)

    # ---- reasons told before

    def tell(self, row: int, reason: Reason) -> bool:
        """Remember that a job's reason was told; whether that is news."""
        mark = hash(reason) or 1
        news = self._waiting.rows["told"][row] != mark
        self._waiting.rows["told"][row] = mark
        return bool(news)

    def retell(self) -> None:
        """Forget what was told, so that the next cycle tells it again; for when the telling failed."""
        self._waiting.rows["told"] = 0

    # ---- checking it

    def contents(self) -> tuple[dict[int, Waiting], dict[str, Running], dict[str, SiteState]]:
        """All that the changes said: what waits by job, what holds room by attempt, the sites by name."""
        return (
            {job: self.waiting(job) for job in sorted(self._waiting.index)},
            {attempt: self.running(attempt) for attempt in sorted(self._running.index)},
            dict(sorted(self.sites.items())),
        )

    def __eq__(self, other: object) -> bool:
        """Whether both hold the same, however they came to it; what was told does not count."""
        return isinstance(other, Snapshot) and self.contents() == other.contents()

    __hash__ = None  # type: ignore[assignment]  # it changes

    def validate(self) -> None:
        """Hold every cache against what it is made from. Raises AssertionError."""
        waiting, running, _ = self.contents()
        order = [int(self.rows["job"][row]) for row in self.queue()]
        expected = sorted((job.rank, -job.priority, job.submitted, job.job_id) for job in waiting.values())
        assert order == [key[-1] for key in expected], "the queue is not in order"
        arrays = sum(job.tasks is not None for job in waiting.values())
        assert len(self._tasks) == arrays, "tasks without a job"
        used: dict[tuple[str, str], Used] = {}
        for attempt in running.values():
            used.setdefault((attempt.site, attempt.flavor), Used()).add(attempt)
        assert self._used == used, "what the pools hold is not the sum of what runs"
        holders = Counter(attempt.job_id for attempt in running.values())
        assert self._holders == holders, "those that hold room are miscounted"
        limited = Counter(
            job.job_id if job.group is None else job.group for job in waiting.values() if job.width is not None
        )
        limits = {group: self._limits.rows[number].item() for group, number in self._limits.index.items()}
        assert limits == {group: (holders[group], uses) for group, uses in limited.items()}, "limits are miscounted"
        users: dict[int, int] = {}
        for job in waiting:
            number = int(self.rows["demand"][self._waiting.index[job]])
            users[number] = users.get(number, 0) + 1
        assert len(self.demands) == len(users), "a demand without a job is kept"
        assert users == {number: self.demands.uses(number) for number in users}, "users are miscounted"
        fresh = Demands()
        fresh.place(pools_of(self.sites.values()), self.sites)
        assert self.pools == pools_of(self.sites.values()) or self._only_free_differs(), "the pools are stale"
        for number in users:
            judged = fresh.possible[fresh.hold(self.demands[number])]
            assert (self.demands.possible[number] == judged).all(), "a demand is judged by what was"

    def _only_free_differs(self) -> bool:
        def bare(pools: Iterable[Pool]) -> list[Pool]:
            return [replace(pool, flavor=_lasting(pool.flavor)) for pool in pools]

        return bare(self.pools) == bare(pools_of(self.sites.values()))


def _group(row: Any) -> int:
    """The id that the holders of room of a waiting row have in common."""
    return int(row["job"] if row["group"] == _OWN else row["group"])


def _order(row: Any) -> tuple[int, int, int]:
    return int(row["rank"]), int(row["priority"]), int(row["submitted"])


def _essence(state: SiteState) -> Any:
    """What of a site decides which demands it could ever run. The rest changes often; each cycle reads it."""
    report = state.site.report
    if report is None:
        return None
    flavors = tuple(map(_lasting, report.flavors))
    return (
        state.site.all_labels, flavors, report.abilities, report.max_walltime, report.owner, state.site.identity,
    )  # fmt: skip


def _lasting(flavor: Flavor) -> Flavor:
    return replace(flavor, free=None, others=Resources())
