"""The scheduler's columnar mirror of the store, kept current by changes.

Jobs are rows of numbers; a 100,000-job queue costs some 20 MB. An array is one row, whatever its size. What a
cycle needs again (the order of the queue, what each pool holds, which pools a demand could use) is kept beside
them; `consistency` holds these caches against what they are made from.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.ranges import Ranges
from atoll.core.reasons import Reason
from atoll.core.resources import Resources
from atoll.core.site import Node
from atoll.scheduler import model
from atoll.scheduler.demands import Demands
from atoll.scheduler.fit import Pool, is_open, lasting, pools_of
from atoll.scheduler.fragmentation import Typical
from atoll.scheduler.holding import Holding
from atoll.scheduler.model import (
    OPPORTUNISTIC,
    Booked,
    Booking,
    Change,
    Expects,
    Policy,
    PolicyChanged,
    Promise,
    Reservation,
    Reserved,
    Running,
    SiteState,
    Spent,
    TreeChanged,
    Waiting,
)
from atoll.scheduler.noderoom import NodeRoom
from atoll.scheduler.order import Standing
from atoll.scheduler.owned import OwnedNodes
from atoll.scheduler.quota import Quotas, Tree
from atoll.scheduler.room import Releases, Room
from atoll.scheduler.shares import Shares
from atoll.scheduler.table import Columns, Counted, Table

_WAITING: Columns = [
    ("job", "i8"), ("submitted", "i8"), ("not_before", "i8"), ("priority", "i8"), ("told", "i8"),
    ("group", "i8"), ("demand", "i4"), ("width", "i4"), ("limit", "i4"), ("bucket", "i4"), ("expected", "i4"),
    ("kind", "i4"), ("like", "i8"), ("rank", "i1"), ("backing_off", "?"), ("live", "?"),
]  # fmt: skip
_LIMITS: Columns = [("holders", "i4"), ("uses", "i4")]
_ENDLESS = -1  # width and limit of what has no limit
_OWN = -1  # group of what has none but its own id
_DAY = 86400
_LEARN = 1000
"""After so many arrivals, sooner at first, what typically comes is looked at anew."""
Bucket = tuple[int, str, str]
"""A class (its rank), a project and a person: what waits of these is in one order among itself."""


class Snapshot:
    """What waits, what holds room, and the sites."""

    def __init__(self) -> None:
        self.demands = Demands()
        self.sites: dict[str, SiteState] = {}
        self.pools: tuple[Pool, ...] = ()
        self._waiting: Table[int] = Table(_WAITING)
        self._tasks: dict[int, Ranges] = {}  # by row, of arrays only
        self._promises: dict[int, Promise] = {}  # by job
        self._buckets: Table[Bucket] = Table([("uses", "i4")])
        self._bucket_keys: dict[int, Bucket] = {}
        self._empty: set[int] = set()  # buckets that may have no rows any more
        self._kinds: Counted[tuple[int, int]] = Counted()  # pairs of a bucket and a demand
        self._ordered: tuple[int, NDArray[np.intp]] | None = None
        self._placed: tuple[int, NDArray[np.int32]] | None = None
        self._queue: NDArray[np.intp] = np.zeros(0, np.intp)
        self._arrived: list[int] = []  # rows that the queue lacks
        self._left: list[int] = []  # rows that the queue has and that wait no more
        self._held = Holding()
        self._holders: dict[int, int] = {}  # attempts that hold room, by job or array
        self._limits: Table[int] = Table(_LIMITS)  # the same, of what has a width and waits: a cycle's columns
        self.policy = Policy()
        self.tree: Tree | None = None
        self.quotas: Quotas | None = None
        """What each node of the tree uses; None where there is no tree."""
        self.owned = OwnedNodes((), {})
        """The nodes of the sites where Atoll itself places."""
        self._arrivals = self._learnt = 0
        self.shares = Shares(self.policy.half_life)
        self.reservations: dict[int, Reservation] = {}
        """What has a start for certain, by job."""
        self.bookings: tuple[Booking, ...] = ()
        """What is kept for some people, or for nobody, for a time."""

    @classmethod
    def from_changes(cls, changes: Iterable[Change]) -> "Snapshot":
        """A snapshot made from scratch."""
        snapshot = cls()
        snapshot.apply(changes)
        return snapshot

    # ---- keeping it current

    def apply(self, changes: Iterable[Change]) -> None:
        """Take in what changed, in order. Repeats are harmless, but of `Spent`; so is the end of what is not known."""
        for change in changes:
            match change:
                case model.JobWaits(waiting):
                    self._job_waits(waiting)
                case model.JobGone(job_id):
                    self._job_gone(job_id)
                case model.RoomTaken(running):
                    self._room_taken(running)
                case model.RoomFreed(attempt_id, at):
                    self._room_freed(attempt_id, at)
                case model.SiteChanged(state):
                    self._site_changed(state)
                case model.SiteGone(name):
                    if self.sites.pop(name, None) is not None:
                        self._rebuild_pools()
                case _:
                    self._set(change)

    def _set(self, change: TreeChanged | PolicyChanged | Spent | Reserved | Booked | Expects) -> None:
        """Take in what rarely changes."""
        match change:
            case model.TreeChanged(tree):
                self._set_tree(tree)
            case model.PolicyChanged(policy):
                self._set_policy(policy)
            case model.Spent(project, person, flavor, used, at, opportunistic):
                self.shares.spend(project, person, flavor, used, at, opportunistic)
            case model.Reserved(reservations):
                self.reservations = {reservation.job_id: reservation for reservation in reservations}
            case model.Booked(bookings):
                self.bookings = bookings
            case model.Expects(like, seconds):
                self._expect(like, seconds)

    def _expect(self, like: int, seconds: int) -> None:
        rows = self._waiting.rows
        same = np.flatnonzero(rows["live"] & (rows["like"] == like))
        demands = rows["demand"][same]
        for number in np.unique(demands).tolist():
            walltime = self.demands[number].placement.walltime
            rows["expected"][same[demands == number]] = seconds if walltime is None else min(seconds, walltime)

    def _job_waits(self, waiting: Waiting) -> None:
        if waiting.tasks is not None and not waiting.tasks.parts:
            self._job_gone(waiting.job_id)
            return
        row, told = self._waiting.index.get(waiting.job_id), 0
        number = self.demands.hold(waiting.demand)
        if row is not None:
            before = self._waiting.rows[row]
            told = before["told"]
            if self._bucket_of(waiting) == self._bucket_keys[int(before["bucket"])] and (
                (waiting.priority, waiting.submitted) == (int(before["priority"]), int(before["submitted"]))
            ):
                self._drop_all(before)
            else:
                self._job_gone(waiting.job_id)
                row = None
        if row is None:
            row = self._waiting.add(waiting.job_id)
            self._arrived.append(row)
            self._arrivals += 1
        bucket = self._hold_bucket(self._bucket_of(waiting))
        self._waiting.rows[row] = (
            waiting.job_id, waiting.submitted, waiting.not_before, waiting.priority, told,
            _OWN if waiting.group is None else waiting.group, number,
            _ENDLESS if waiting.width is None else waiting.width, self._hold_limit(waiting),
            bucket, waiting.expected, self._kinds.hold((bucket, number)), waiting.like, waiting.rank,
            waiting.backing_off, True,
        )  # fmt: skip
        if waiting.promise is None or not waiting.promise.count:
            self._promises.pop(waiting.job_id, None)
        else:
            self._promises[waiting.job_id] = waiting.promise
        if waiting.tasks is None:
            self._tasks.pop(row, None)
        else:
            self._tasks[row] = waiting.tasks

    def _job_gone(self, job_id: int) -> None:
        row = self._waiting.pop(job_id)
        if row is not None:
            self._drop_all(self._waiting.rows[row])
            self._tasks.pop(row, None)
            self._promises.pop(job_id, None)
            self._waiting.rows["live"][row] = False
            self._left.append(row)

    def _drop_all(self, job: Any) -> None:
        """One user less of all that a waiting row uses."""
        self._kinds.drop(int(job["kind"]))
        self.demands.drop(int(job["demand"]))
        self._drop_limit(job)
        self._drop_bucket(int(job["bucket"]))

    def _bucket_of(self, waiting: Waiting) -> Bucket:
        return waiting.rank, waiting.project, waiting.placement.person

    def _hold_bucket(self, key: Bucket) -> int:
        number = self._buckets.index.get(key)
        if number is None:
            number = self._buckets.add(key)
            self._bucket_keys[number] = key
            self._placed = None
        self._buckets.rows["uses"][number] += 1
        return number

    def _drop_bucket(self, number: int) -> None:
        """One user less of a bucket. An empty one is kept while rows that left are still in the queue's order."""
        self._buckets.rows["uses"][number] -= 1
        if not self._buckets.rows["uses"][number]:
            self._empty.add(number)

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
        if running.attempt_id in self._held:
            if self._held.running(running.attempt_id) == running:
                return
            self._let_go(running.attempt_id)
        self.owned.take(running, self._held.take(running))
        self._count_holder(running.job_id, 1)
        self._count_use(running, 1)

    def _room_freed(self, attempt_id: str, at: int) -> None:
        running = self._let_go(attempt_id)
        if running is not None and running.started and at > running.started:
            total, seconds = running.request * running.nodes, (at - running.started) // 1_000_000
            self.shares.spend(
                running.project, running.person, running.flavor, total * seconds, running.placed,
                running.rank == OPPORTUNISTIC,
            )  # fmt: skip

    def _let_go(self, attempt_id: str) -> Running | None:
        running = self._held.give(attempt_id)
        if running is not None:
            self.owned.give(running)
            self._count_holder(running.job_id, -1)
            self._count_use(running, -1)
        return running

    def _count_use(self, running: Running, sign: int) -> None:
        """Count what an attempt holds in quotas, and what it is expected to use in the fair shares."""
        total, opportunistic = running.request * running.nodes, running.rank == OPPORTUNISTIC
        if self.quotas is not None and not opportunistic:
            self.quotas.add(running.project, running.flavor, total, sign)
        seconds = self.charged_seconds(running.rank, running.walltime, running.expected)
        self.shares.charge(
            running.project, running.person, running.flavor, total * seconds, running.placed, opportunistic, sign
        )

    def charged_seconds(self, rank: int, walltime: int | None, expected: int) -> int:
        """For how long a start counts in the fair shares: expected, or at most, or a day where it has no end."""
        return expected or self.walltime(rank, walltime) or _DAY

    def walltime(self, rank: int, walltime: int | None) -> int | None:
        """The seconds that a job of a class (its rank) may run at most; None: for ever."""
        return self.policy.walltimes[rank] if walltime is None else walltime

    def _set_tree(self, tree: Tree | None) -> None:
        self.tree = tree
        self.quotas = None if tree is None else Quotas(tree)
        self._count_all()

    def _set_policy(self, policy: Policy) -> None:
        if policy != self.policy:
            if policy.half_life != self.policy.half_life:
                self.shares = self.shares.with_half_life(policy.half_life)
            self.demands.weigh(policy.weights)
            self.policy = policy
            self._count_all()

    def _count_all(self) -> None:
        """Count anew what all that runs uses."""
        if self.quotas is not None:
            self.quotas = Quotas(self.quotas.tree)
        self.shares.rebuild(self.tree)
        for _, running in self._held.each():
            self._count_use(running, 1)

    def is_over(self, name: str) -> bool:
        """Whether a node of the tree uses more than its own quota."""
        return self.quotas is not None and name in self.quotas.tree and self.quotas.is_over(name)

    def _site_changed(self, state: SiteState) -> None:
        before = self.sites.get(state.site.name)
        self.sites[state.site.name] = state
        if before is None or _essence(before) != _essence(state):
            self._rebuild_pools()
            return
        if _terms(before) != _terms(state):
            self.demands.weigh(self.policy.weights)
        if _nodes(before) != _nodes(state):
            self._rebuild_nodes()

    def _rebuild_pools(self) -> None:
        self.pools = pools_of(self.sites.values())
        self.demands.place(self.pools, self.sites)
        capacity: dict[str, Resources] = {}
        for pool in self.pools:
            capacity[pool.flavor.name] = capacity.get(pool.flavor.name, Resources()) + pool.flavor.total
        self.shares.set_capacity(capacity)
        self._rebuild_nodes()

    def _rebuild_nodes(self) -> None:
        """Count anew what is free on each node."""
        had = bool(self.owned)
        self.owned = OwnedNodes(self.pools, self.sites)
        if had or self.owned:
            for row, running in self._held.each():
                self.owned.take(running, row)
        self._learnt = 0

    def learn_if_due(self) -> None:
        """Look at what typically comes, where much has come since that was done last."""
        if self.owned and self._arrivals > self._learnt + min(_LEARN, self._learnt):
            self.learn()

    def learn(self) -> None:
        """Let what is placed on nodes from now on leave room for what waits and runs now, as it typically comes."""
        self._learnt = self._arrivals
        self.owned.learn(self._typical())

    def _typical(self) -> Iterator[Typical]:
        """What waits, with the pools that it could use, and what runs, of which that is not known any more."""
        tasks = Counter[tuple[Resources, frozenset[int] | None]]()
        entries = Counter(self._waiting.rows["demand"][list(self._waiting.index.values())].tolist())
        for row, several in self._tasks.items():
            entries[self._waiting.rows["demand"].item(row)] += len(several) - 1
        for number, count in entries.items():
            demand = self.demands[number]
            pools = frozenset(np.flatnonzero(self.demands.possible[number] & self.owned.pools).tolist())
            if demand.request.gpu and pools:
                tasks[demand.request, pools] += count * demand.nodes
        for request, nodes in self._held.requests():
            tasks[request, None] += nodes
        return (Typical(request, pools, count) for (request, pools), count in tasks.items() if request.gpu)

    # ---- reading it

    def __len__(self) -> int:
        """How many entries wait; an array is one."""
        return len(self._waiting)

    @property
    def rows(self) -> NDArray[Any]:
        """The columns of what waits, by row number. Valid until the next change."""
        return self._waiting.rows

    def queue(self) -> NDArray[np.intp]:
        """The row numbers of all that waits, in order: rank, fair shares, priority (high first), age, id."""
        rows, by_bucket = self._waiting.rows, self._by_bucket()
        mark = self.shares.version
        if self._ordered is None or self._ordered[0] != mark:
            positions = self._positions()[rows["bucket"][by_bucket]]
            self._ordered = mark, by_bucket[np.argsort(positions, kind="stable")]
        return self._ordered[1]

    def _positions(self) -> NDArray[np.int32]:
        """The place of each bucket in the queue."""
        mark = self.shares.version
        if self._placed is None or self._placed[0] != mark:
            keys = Standing(self.shares, self.is_over).sort_keys(self._bucket_keys.values())
            numbers = [number for _, number in sorted(zip(keys, self._bucket_keys, strict=True))]
            positions = np.zeros(len(self._buckets.rows), np.int32)
            positions[numbers] = np.arange(len(keys), dtype=np.int32)
            self._placed = mark, positions
        return self._placed[1]

    def _by_bucket(self) -> NDArray[np.intp]:
        """The row numbers of all that waits: by bucket, priority (high first), age, id."""
        rows = self._waiting.rows
        if self._left:
            self._queue = self._queue[rows["live"][self._queue]]
            arrived = [row for row in self._arrived if rows["live"][row]]
            self._waiting.release(self._left)
            self._left = []
            self._release_buckets()
            self._ordered = None
        else:
            arrived = self._arrived
        self._arrived = []
        if not arrived:
            return self._queue
        self._ordered = None
        if len(arrived) * 64 > len(self._queue):
            everyone = np.concatenate([self._queue, np.array(arrived, np.intp)])
            columns = (rows["job"], rows["submitted"], -rows["priority"], rows["bucket"])
            self._queue = everyone[np.lexsort([column[everyone] for column in columns])]
        else:
            arrived.sort(key=self._key)
            places = [bisect_left(self._queue, self._key(row), key=self._key) for row in arrived]
            self._queue = np.insert(self._queue, places, arrived)
        return self._queue

    def _release_buckets(self) -> None:
        for number in self._empty:
            if not self._buckets.rows["uses"][number] and number in self._bucket_keys:
                self._buckets.pop(self._bucket_keys.pop(number))
                self._buckets.release((number,))
                self._placed = None
        self._empty.clear()

    def _key(self, row: int) -> tuple[int, int, int, int]:
        job = self._waiting.rows[row]
        return int(job["bucket"]), -int(job["priority"]), int(job["submitted"]), int(job["job"])

    def bucket(self, row: int) -> Bucket:
        """The class (its rank), project and person of a row."""
        return self._bucket_keys[self._waiting.rows["bucket"].item(row)]

    def bucket_key(self, number: int) -> Bucket:
        """The class, project and person of a number in the column `bucket`."""
        return self._bucket_keys[number]

    def buckets(self, rows: NDArray[np.intp]) -> Iterator[tuple[Bucket, list[int]]]:
        """Rows that are in the order of the queue, one bucket after the other."""
        numbers = self._waiting.rows["bucket"][rows]
        edges = np.flatnonzero(np.diff(numbers)) + 1
        for part in np.split(rows, edges) if len(rows) else ():
            yield self.bucket(int(part[0])), part.tolist()

    @property
    def kinds_end(self) -> int:
        """Beyond all numbers in the column `kind`: the same for rows of one bucket that demand the same."""
        return self._kinds.end

    def levels(self, rows: NDArray[np.intp]) -> NDArray[np.int64]:
        """At how many usual waits rows look, as `Demands.levels` tells."""
        return self.demands.levels(self._waiting.rows["demand"][rows], self._waiting.rows["expected"][rows])

    def preference(self, row: int) -> tuple[int, ...]:
        """The pools that a row may use, the preferred first."""
        return self.demands.preference(self._waiting.rows["demand"].item(row), self.level(row))

    def choices(self, row: int) -> tuple[tuple[int, ...], ...]:
        """The same as `Demands.choices` has them."""
        return self.demands.choices(self._waiting.rows["demand"].item(row), self.level(row))

    def spread(self, row: int) -> tuple[tuple[int, float], ...]:
        """The same as `Demands.spread` has it."""
        return self.demands.spread(self._waiting.rows["demand"].item(row), self.level(row))

    def level(self, row: int) -> int:
        """The same of one row."""
        return int(self.levels(np.array([row]))[0]) if self.demands.has_levels else 0

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

    def room(self, now: int) -> Room:
        """What is free at `now` (microseconds), to be counted down."""
        owned = NodeRoom(self.owned, lambda rows: self.ends(rows, now)) if self.owned else None
        return Room(self.pools, self.sites, self._held.used, partial(self._releases, now), owned)

    def _releases(self, now: int, number: int) -> Releases:
        return self._held.releases(self._place(number), now, self.policy.walltimes)

    def _place(self, number: int) -> tuple[str, str]:
        pool = self.pools[number]
        return pool.site, pool.flavor.name

    def ends(self, rows: NDArray[np.intp], now: int) -> NDArray[np.int64]:
        """When each of the attempts in these rows of `holding` has left at the latest, in microseconds."""
        return self._held.ends(rows, now, self.policy.walltimes)

    @property
    def jobs(self) -> Sequence[int]:
        """The ids of all that waits, rising."""
        return sorted(self._waiting.index)

    def waiting(self, job_id: int) -> Waiting:
        """What is known of a waiting job. Raises KeyError."""
        number = self._waiting.index[job_id]
        row = self._waiting.rows[number]
        demand = self.demands[int(row["demand"])]
        width = int(row["width"])
        return Waiting(
            job_id,
            int(row["rank"]),
            int(row["priority"]),
            int(row["submitted"]),
            demand.request,
            demand.nodes,
            demand.flavors,
            demand.placement,
            not_before=int(row["not_before"]),
            backing_off=bool(row["backing_off"]),
            tasks=self._tasks.get(number),
            width=None if width == _ENDLESS else width,
            group=None if row["group"] == _OWN else int(row["group"]),
            project=self._bucket_keys[int(row["bucket"])][1],
            expected=int(row["expected"]),
            promise=self._promises.get(job_id),
            ordered=demand.ordered,
            like=int(row["like"]),
        )

    @property
    def attempts(self) -> Sequence[str]:
        """All attempts that hold room, in the order of their names."""
        return self._held.attempts

    def running(self, attempt_id: str) -> Running:
        """What is known of an attempt that holds room. Raises KeyError."""
        return self._held.running(attempt_id)

    @property
    def holding(self) -> NDArray[Any]:
        """The columns of what holds room; unused rows have no nodes. Valid until the next change."""
        return self._held.rows

    def attempt(self, row: int) -> str:
        """The attempt of a row of `holding`."""
        return self._held.attempt(row)

    def holders_of(self, number: int) -> NDArray[np.intp]:
        """The rows of `holding` of the attempts in a pool; not to be changed."""
        return self._held.rows_at(self._place(number))

    def flavor_of(self, row: int) -> str:
        """The flavor of a row of `holding`."""
        return self._held.flavor_of(row)

    def owner_of(self, row: int) -> tuple[str, str]:
        """The project and person of a row of `holding`."""
        return self._held.owner_of(row)

    @property
    def owners(self) -> Sequence[tuple[str, str]]:
        """The (project, person) of each number in the column `owner`."""
        return self._held.owners

    def promise(self, job_id: int) -> Promise | None:
        """The room that others leave for a waiting job."""
        return self._promises.get(job_id)

    def promised(self) -> Iterable[int]:
        """The waiting jobs for which others leave, the older first."""
        return sorted(self._promises)

    # ---- reasons told before

    def tell(self, row: int, reason: Reason) -> bool:
        """Remember that a job's reason was told; whether that is news."""
        mark = hash(reason) or 1
        told = self._waiting.rows["told"]
        news = bool(told[row] != mark)
        if news:
            told[row] = mark
        return news

    def retell(self) -> None:
        """Forget what was told, so that the next cycle tells it again; for when the telling failed."""
        self._waiting.rows["told"] = 0


def _group(row: Any) -> int:
    """The id that the holders of room of a waiting row have in common."""
    return int(row["job"] if row["group"] == _OWN else row["group"])


def _essence(state: SiteState) -> Any:
    """What of a site decides which demands it could ever run. The rest changes often; each cycle reads it."""
    report = state.site.report
    if report is None:
        return None
    flavors = tuple(map(lasting, report.flavors))
    return (
        state.site.all_labels, flavors, report.abilities, report.max_walltime, report.owner, state.site.identity,
        bool(report.nodes), state.site.clearance, report.volumes,
    )  # fmt: skip


def _nodes(state: SiteState) -> tuple[Node, ...]:
    return state.site.report.nodes if state.site.report else ()


def _terms(state: SiteState) -> Any:
    """What of a site decides whether others are preferred to it."""
    return is_open(state), state.site.wait, state.site.price, state.site.energy
