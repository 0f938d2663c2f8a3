"""One round of the queue: what is left of room, quotas and shares while jobs are looked at, and what was decided."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.ranges import Ranges
from atoll.core.resources import Resources
from atoll.scheduler.evict import Claim, Evictions, Victim
from atoll.scheduler.line import Right
from atoll.scheduler.model import OPPORTUNISTIC, Demand, Eviction, NodeSpot, Place, Promise, Reservation
from atoll.scheduler.noderoom import NodeRoom, Plan
from atoll.scheduler.nodes import Mask
from atoll.scheduler.nodevictims import NodeVictims, harm
from atoll.scheduler.quota import Quotas
from atoll.scheduler.relief import relieved
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

Rows = NDArray[np.intp]
_SECOND = 1_000_000
_CHUNKS = 64
"""An array that is not alone starts at most so many of its tasks' share at once, then others have their turn."""
_SEARCHES = 300
"""For how many jobs a cycle looks in vain for others to evict."""
_LOOKS = 1000
"""How many kinds of blocked jobs a cycle looks at to have others leave for them."""
_TASKS = 256
"""For how many tasks of an array a cycle has others leave."""
_OVERDUE = 100
_LOW = 2**32 - 1


class Round:
    """The state of one cycle. Nothing of the snapshot is changed."""

    def __init__(self, snapshot: Snapshot, now: int) -> None:
        self.snapshot = snapshot
        self.now = now
        self.room = snapshot.room(now)
        self.quotas = None if snapshot.quotas is None else snapshot.quotas.copy()
        self.shares = snapshot.shares.fork()
        self.evictions = Evictions(snapshot, self.quotas, now)
        self._node_victims = None if self.room.nodes is None else NodeVictims(self.evictions, self.room.nodes)
        self.holders = snapshot.limits()
        """How many tasks hold room, by the number of their limit."""
        self.started: dict[int, int] = {}
        """How many tasks (1 for a single job) of each row start."""
        self.promises: dict[int, Promise] = {}
        """What is promised anew, by job."""
        self._held_quotas = None if self.quotas is None else self.quotas.copy()
        self._first_hold = ENDLESS
        self._reserved: dict[int, tuple[int, int]] = {}  # (pool, start) by job
        self._covered: set[int] = set()
        self._places: dict[tuple[int, str, str], Ranges | None] = {}
        self._spots: dict[tuple[int, str, str], list[tuple[NodeSpot, ...]]] = {}
        self._masks: dict[tuple[int, ...], Mask] = {}
        self._is_simple = self.quotas is None and not self.room.is_limited
        self._full = np.zeros(len(snapshot.demands.totals), np.bool_)
        self._kinds = _Kinds(np.zeros(0, np.intp), np.zeros(0, np.intp))
        self.dead = bytearray()
        """By row: whether it need not be looked at any more."""
        self._vain: set[tuple[str, int]] = set()
        self._pools = {(pool.site, pool.flavor.name): number for number, pool in enumerate(self.room.pools)}
        self._leaving = self._leaving_for()
        self._due_notices: list[int] = []

    # ---- what is known of a row

    def left_of(self, row: int) -> int:
        """How many tasks (1 of a single job) of a row still wait."""
        tasks = self.snapshot.tasks(row)
        return (1 if tasks is None else len(tasks)) - self.started.get(row, 0)

    def wanted(self, row: int) -> int:
        """How many tasks of a row may start now, as far as its own width goes."""
        job = self.snapshot.rows[row]
        left, width = self.left_of(row), int(job["width"])
        return left if width < 0 else max(0, min(left, width - int(self.holders[job["limit"]])))

    def _duration(self, row: int) -> int:
        """How long a row may run, in microseconds."""
        job = self.snapshot.rows[row]
        demand = self.snapshot.demands[int(job["demand"])]
        seconds = self.snapshot.walltime(int(job["rank"]), demand.placement.walltime)
        return ENDLESS if seconds is None else seconds * _SECOND

    def _end(self, row: int) -> int:
        """Until when it holds room, if it starts now: opportunistic ones leave when they are asked to."""
        if self.snapshot.rows["rank"][row] == OPPORTUNISTIC:
            return self.now
        return min(ENDLESS, self.now + self._duration(row))

    def _right(self, row: int) -> Right:
        job = self.snapshot.rows[row]
        return Right(int(job["rank"]), self.snapshot.bucket(row)[1], int(job["priority"]))

    def is_over(self, name: str) -> bool:
        """Whether a node of the tree uses more than its own quota, with what starts now."""
        quotas = self.quotas
        return quotas is not None and name in quotas.tree and quotas.is_over(name)

    # ---- what was promised and reserved before

    def _leaving_for(self) -> dict[int, Rows]:
        """The rows of attempts that leave, or will, by the job for which they do."""
        holding = self.snapshot.holding
        rows = np.flatnonzero((holding["leaves_for"] >= 0) & (holding["place"] >= 0) & (holding["nodes"] > 0))
        found: dict[int, list[int]] = {}
        for row, job_id in zip(rows.tolist(), holding["leaves_for"][rows].tolist(), strict=True):
            found.setdefault(job_id, []).append(row)
        return {job_id: np.array(each, np.intp) for job_id, each in found.items()}

    def keep_promises(self) -> None:
        """Start the jobs for which others left, and keep the room of those for which they still do."""
        kept = [self._keep(job_id) for job_id in self.snapshot.promised()]
        for job_id, row, promise, number in filter(None, kept):
            self._release(job_id, row, promise, number)
            count = self._start(row, promise.count, self._choices(row))[0] if self._is_due(row) else 0
            if count < promise.count and job_id in self._leaving and self.left_of(row):
                self._promise(job_id, row, number, promise.count - count)
        for job_id, rows in self._leaving.items():
            self._tell(job_id, rows)

    def _is_due(self, row: int) -> bool:
        return bool(self.snapshot.rows["not_before"][row] <= self.now)

    def _keep(self, job_id: int) -> tuple[int, int, Promise, int] | None:
        promise, row = self.snapshot.promise(job_id), self.snapshot.row_of(job_id)
        number = None if promise is None else self._pools.get((promise.site, promise.flavor))
        if promise is None or row is None or number is None or not self.room.open[number]:
            return None
        self._promise(job_id, row, number, promise.count)
        return job_id, row, promise, number

    def _promise(self, job_id: int, row: int, number: int, count: int, sign: int = 1) -> None:
        """Keep room and quota of `count` tasks for a row, apart from what is still coming; sign -1: no more."""
        demand = self._demand(row)
        coming, is_owned = Resources(), self.room.nodes_of(number) is not None
        holding = self.snapshot.holding
        for other in self._leaving.get(job_id, ()):
            total = Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
            if not is_owned and other in self._holders_of(number):
                coming += total
            if holding["rank"][other] != OPPORTUNISTIC:
                self._count_quota(self.snapshot.owner_of(int(other))[0], number, total, -sign)
        wanted = demand.total * count
        if (nodes := self.room.nodes_of(number)) is None:
            self.room.promise(number, _lacking(wanted, coming) * sign)
        elif sign < 0:
            nodes.release(job_id)
        else:
            plan = Plan(nodes, number, self._end(row))
            plan.leave(self._leaving.get(job_id, np.zeros(0, np.intp)).tolist())
            plan.place_many(demand, count)
            nodes.keep(job_id, plan)
        self._count_quota(self.snapshot.bucket(row)[1], number, wanted, sign)

    def _release(self, job_id: int, row: int, promise: Promise, number: int) -> None:
        self._promise(job_id, row, number, promise.count, -1)

    def _holders_of(self, number: int) -> set[int]:
        return set(self.snapshot.holders_of(number).tolist())

    def _tell(self, job_id: int, rows: Rows) -> None:
        """Ask those to leave whose notice is over."""
        row = self.snapshot.row_of(job_id)
        if row is None or not self.left_of(row):
            return
        holding = self.snapshot.holding
        for other in rows.tolist():
            if not holding["leaving"][other] and holding["notice"][other]:
                if holding["notice"][other] <= self.now:
                    self.evictions.chosen.append(Eviction(self.snapshot.attempt(other), job_id))
                else:
                    self._due_notices.append(int(holding["notice"][other]))

    def reprieved(self) -> tuple[str, ...]:
        """Those that were told to leave for a job that no longer waits for it."""
        found = []
        holding = self.snapshot.holding
        for job_id, rows in self._leaving.items():
            row = self.snapshot.row_of(job_id)
            if row is None or not self.left_of(row):
                found += [self.snapshot.attempt(other) for other in rows.tolist() if not holding["leaving"][other]]
        return tuple(sorted(found))

    def keep_reservations(self) -> None:
        """Start what has its reserved start now, and hold the room of the others."""
        for known in sorted(self.snapshot.reservations.values(), key=lambda each: (each.start, each.job_id)):
            row, number = self.snapshot.row_of(known.job_id), self._pools.get((known.site, known.flavor))
            if row is None or number is None or not self.room.open[number] or self.snapshot.promise(known.job_id):
                continue
            if known.start <= self.now and self._is_due(row) and self.wanted(row):
                self._start(row, 1, ((number,),))
            if row not in self.started:
                self._hold(row, number, known.start)

    def _hold(self, row: int, number: int, start: int) -> None:
        """Hold room from `start` on, or from when there is enough."""
        job_id, demand, duration = int(self.snapshot.rows["job"][row]), self._demand(row), self._duration(row)
        begin = self.room.earliest(number, demand, max(start, self.now), duration)
        if begin is None:
            return
        self.room.hold(number, job_id, demand, begin, min(ENDLESS, begin + duration))
        if self._held_quotas is not None:
            flavor = self.room.pools[number].flavor.name
            self._held_quotas.add(self.snapshot.bucket(row)[1], flavor, demand.total)
        self._first_hold = min(self._first_hold, begin)
        self._reserved[job_id] = number, begin
        self._covered |= set(self._reservable(row))

    # ---- in turn

    def serve_overdue(self, rows: Rows) -> None:
        """Look first at those within their quota that have waited too long: nothing passes them."""
        waiting = self.snapshot.rows
        late = self.now - self.snapshot.policy.max_wait * _SECOND
        found = rows[(waiting["submitted"][rows] <= late) & (waiting["rank"][rows] != OPPORTUNISTIC)]
        if not len(found):
            return
        oldest = found[np.lexsort((waiting["job"][found], waiting["submitted"][found]))][:_OVERDUE]
        for row in oldest.tolist():
            pools = [number for number in self._reservable(row) if self._is_within(row, number)]
            if pools and not self._covered.intersection(pools) and int(waiting["job"][row]) not in self._reserved:
                self.serve(row, alone=False)

    def _is_within(self, row: int, number: int) -> bool:
        project, flavor = self.snapshot.bucket(row)[1], self.room.pools[number].flavor.name
        if self.quotas is None:
            return True
        return project in self.quotas.tree and self.quotas.within(project, flavor, self._demand(row).total)

    def worth_a_look(self, rows: Rows) -> Rows:
        """Of the rows of one class those that may start, and of others the first of each kind that others may help.

        Rows of a kind are of one person in one project, and demand the same.
        """
        snapshot = self.snapshot
        demands = snapshot.demands
        opportunistic = bool(snapshot.rows["rank"][rows[0]] == OPPORTUNISTIC)
        self._full = ~self.room.fitting(demands.totals, demands.requests, demands.possible, self._rights(rows))
        kinds = snapshot.rows["bucket"][rows].astype(np.int64) << 32 | snapshot.rows["demand"][rows]
        kinds, first, inverse = np.unique(kinds, return_index=True, return_inverse=True)
        fits = ~self._full[kinds & _LOW]
        if opportunistic:
            worth = fits[inverse]
        else:
            quota = self._quota_fits(kinds)
            worth = (fits & quota)[inverse]
            worth[self._may_be_helped(rows, first, kinds, quota)] = True
        worth &= self._below_width(rows)
        self._kinds = _Kinds(rows[worth], inverse[worth])
        self.dead = bytearray(len(snapshot.rows))
        found: Rows = rows[worth]
        return found

    def _may_be_helped(self, rows: Rows, first: Rows, kinds: NDArray[np.int64], quota: NDArray[np.bool_]) -> Rows:
        """Of the first of each kind those that others may make room for, or that may have a reservation.

        `quota` says which kinds have quota. The rows are told as their places in `rows`.
        """
        waiting, numbers = self.snapshot.rows, kinds & _LOW
        rank, priority = int(waiting["rank"][rows[0]]), int(waiting["priority"][rows].max())
        helped = relieved(self.snapshot, self.room, self.quotas, rank, priority, numbers)
        most = self.snapshot.policy.reservations
        if most is None:
            ours = np.array([can and not self._queues(n) for n, can in enumerate(self.room.open)], np.bool_)
            possible = self.snapshot.demands.possible[numbers] & ours
            reservable = quota & possible.any(axis=1) & ~possible[:, sorted(self._covered)].any(axis=1)
        else:
            reservable = quota & (len(self._reserved) < most)
        reserved = [row for job_id in self._reserved if (row := self.snapshot.row_of(job_id)) is not None]
        places = np.flatnonzero(np.isin(rows, reserved)) if reserved else np.zeros(0, np.intp)
        return np.concatenate([np.sort(first[helped])[:_LOOKS], first[reservable], places])

    def _rights(self, rows: Rows) -> list[Right]:
        """The greatest right in each project, of rows of one class."""
        highest: dict[str, Right] = {}
        for (_, project, _), part in self.snapshot.buckets(rows):
            right = self._right(part[0])
            if project not in highest or right.beats(highest[project]):
                highest[project] = right
        return list(highest.values())

    def _below_width(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows' own arrays let one more task hold room."""
        width = self.snapshot.rows["width"][rows]
        # what has no width has limit -1, the last of all: it does not matter
        below: NDArray[np.bool_] = (width < 0) | (self.holders[self.snapshot.rows["limit"][rows]] < width)
        return below

    def _quota_fits(self, kinds: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which kinds have quota for one task in one of the pools that they could use."""
        quotas, snapshot = self.quotas, self.snapshot
        if quotas is None:
            return np.ones(len(kinds), np.bool_)
        demands, buckets = kinds & _LOW, kinds >> 32
        index = quotas.tree.index
        nodes = np.array([index.get(snapshot.bucket_key(bucket)[1], -1) for bucket in buckets.tolist()], np.intp)
        available = quotas.available()
        totals, possible = snapshot.demands.totals, snapshot.demands.possible
        found = np.zeros(len(kinds), np.bool_)
        for number, pool in enumerate(self.room.pools):
            fits = possible[demands, number] & self.room.open[number]
            for name, column in quotas.tree.governed.get(pool.flavor.name, ()):
                wanted = totals[name][demands]
                fits &= (wanted == 0) | ((nodes >= 0) & (wanted <= available[nodes, column]))
            found |= fits
        return found

    def serve(self, row: int, *, alone: bool = False) -> tuple[int, bool]:
        """Start a row, or see to it that it can; how many tasks started, and whether more of it may at once."""
        wanted = self.wanted(row)
        if not wanted:
            if self.left_of(row):  # else it has started already, for a promise or because it is overdue
                self._pass_over_limit(row)
            return 0, False
        reserved = self._unreserve(row)  # what is kept for it is not kept from it
        chunk = wanted if alone else max(1, wanted // _CHUNKS)
        count = self._serve(row, chunk, wanted)
        if count < chunk and int(self.snapshot.rows["job"][row]) not in self.promises:
            self._reserve(row, reserved)
        if not count:
            self._kinds.pass_over(row, self.dead)
        return count, count == chunk and wanted > chunk

    def _serve(self, row: int, chunk: int, wanted: int) -> int:
        """Start tasks, else have others leave for them, else let them into a site's own queue; how many started."""
        number, choices, count = int(self.snapshot.rows["demand"][row]), self._choices(row), 0
        full = is_full = bool(self._full[number])
        if not full:
            count, is_full = self._start(row, chunk, choices)
        if count == chunk or self.make_others_leave(row, wanted - count) or full:
            return count
        more, no_queue = self._start(row, chunk - count, choices, queued=True)
        self._full[number] = is_full and no_queue
        return count + more

    def _pass_over_limit(self, row: int) -> None:
        """Look at no other row with the same width, which is used up."""
        limits = self.snapshot.rows["limit"]
        others = self._kinds.rows[limits[self._kinds.rows] == limits[row]]
        if len(others) > 1:
            np.frombuffer(self.dead, np.bool_)[others] = True

    def _start(
        self, row: int, wanted: int, choices: Sequence[Sequence[int]], *, queued: bool = False
    ) -> tuple[int, bool]:
        """Give a row as much room as it wants and there is, in these pools, or places in their queues (`queued`).

        `choices` are as in `Demands.choices`. How many tasks start, and whether there was no more room for its kind.
        """
        right, end, total = self._right(row), self._end(row), self._demand(row).total
        count, full = 0, True
        for choice in choices:
            left, number = wanted - count, choice[0]
            if not left:
                return count, False
            if (nodes := self.room.nodes_of(number)) is not None:
                if not queued:
                    taken, no_room = self._start_on_nodes(nodes, row, left, choice)
                    count, full = count + taken, full and no_room
                continue
            if queued:
                most = self.room.count_queued(number, left, right)
            else:
                most = self.room.count(number, total, left, end)
            taken = self._allowed(row, number, most, end)
            full &= taken == most < left
            if taken:
                if queued:
                    self.room.take_queued(number, total, taken, right)
                else:
                    self.room.take(number, total, taken, end)
                self._note(row, number, taken, end)
                count += taken
        return count, full

    def _start_on_nodes(self, nodes: NodeRoom, row: int, wanted: int, choice: Sequence[int]) -> tuple[int, bool]:
        """Give a row the best nodes of pools that it likes alike, one task after the other.

        How many tasks start, and whether there was no more room for its kind.
        """
        demand, end = self._demand(row), self._end(row)
        total = demand.total
        for count in range(wanted):
            pools, all_allowed = self._open_pools(row, demand, choice, end)
            spots = None if pools is None else nodes.find(demand, pools, end)
            if spots is None:
                return count, all_allowed
            number = int(nodes.nodes.pool[spots[0].node])
            nodes.take(spots, demand.request, end)
            self.room.take(number, total, 1, end)
            self._note(row, number, 1, end, nodes.owned.named(spots))
        return wanted, False

    def _open_pools(self, row: int, demand: Demand, choice: Sequence[int], end: int) -> tuple[Mask | None, bool]:
        """A mask of those of the pools where one task has quota, None for none; whether only room closes the others."""
        room, key = self.room, tuple(choice)
        if self._is_simple and (mask := self._masks.get(key)) is not None:
            return mask if mask.any() else None, True
        usable = [number for number in choice if room.count(number, demand.total, 1, end)]
        allowed = [number for number in usable if self._allowed(row, number, 1, end)]
        if self._is_simple:  # then nothing but the nodes themselves decides
            allowed = [number for number in choice if room.open[number]]
        else:
            key = tuple(allowed)
        if (mask := self._masks.get(key)) is None:
            mask = self._masks[key] = np.zeros(len(room.pools), np.bool_)
            mask[allowed] = True
        return mask if allowed else None, len(allowed) == len(usable)

    def _allowed(self, row: int, number: int, most: int, end: int) -> int:
        """For how many tasks, at most `most`, there is quota in a pool until `end`."""
        if self.quotas is None or not most or self.snapshot.rows["rank"][row] == OPPORTUNISTIC:
            return most
        most = self._quota_count(self.quotas, row, number, most)
        if most and end > self._first_hold:
            assert self._held_quotas is not None
            most = self._quota_count(self._held_quotas, row, number, most)
        return most

    def _quota_count(self, quotas: Quotas, row: int, number: int, most: int) -> int:
        total, tree = self._demand(row).total, quotas.tree
        node = tree.index.get(self.snapshot.bucket(row)[1])
        for name, column in tree.governed.get(self.room.pools[number].flavor.name, ()):
            if wanted := getattr(total, name):
                most = 0 if node is None else min(most, quotas.available_at(node, column) // wanted)
        return max(0, most)

    def _note(self, row: int, number: int, count: int, end: int, spots: tuple[NodeSpot, ...] = ()) -> None:
        """Write down that tasks of a row start, and count what they use."""
        snapshot, pool = self.snapshot, self.room.pools[number]
        job, demand = snapshot.rows[row], self._demand(row)
        job_id, rank = int(job["job"]), int(job["rank"])
        _, project, person = snapshot.bucket(row)
        if rank != OPPORTUNISTIC:
            self._count_quota(project, number, demand.total * count, held=end > self._first_hold)
        seconds = snapshot.charged_seconds(rank, demand.placement.walltime, int(job["expected"]))
        self.shares.charge(
            project, person, pool.flavor.name, demand.total * (seconds * count), self.now, rank == OPPORTUNISTIC
        )
        if (limit := job["limit"]) >= 0:
            self.holders[limit] += count
        tasks, before = snapshot.tasks(row), self.started.get(row, 0)
        self.started[row] = before + count
        place = (job_id, pool.site, pool.flavor.name)
        if spots:
            self._spots.setdefault(place, []).append(spots)
        if tasks is None:
            self._places[place] = None
        else:
            taken = tasks.take(before + count)[0]
            if before:
                taken = taken.without(tasks.take(before)[0])
            self._places.setdefault(place, Ranges())
            known = self._places[place]
            self._places[place] = taken if known is None else known.union(taken)

    def _count_quota(self, project: str, number: int, amount: Resources, sign: int = 1, *, held: bool = True) -> None:
        flavor = self.room.pools[number].flavor.name
        if self.quotas is not None and self._held_quotas is not None:
            self.quotas.add(project, flavor, amount, sign)
            if held:
                self._held_quotas.add(project, flavor, amount, sign)

    def _demand(self, row: int) -> Demand:
        return self.snapshot.demands[int(self.snapshot.rows["demand"][row])]

    def _choices(self, row: int) -> Sequence[Sequence[int]]:
        return self.snapshot.demands.choices(int(self.snapshot.rows["demand"][row]))

    def _preference(self, row: int) -> Sequence[int]:
        return self.snapshot.demands.preference(int(self.snapshot.rows["demand"][row]))

    # ---- making room

    def _may_evict(self, row: int) -> bool:
        """Whether others may be asked to leave for a row now, and nobody is already."""
        job = self.snapshot.rows[row]
        return (
            job["rank"] != OPPORTUNISTIC and int(job["job"]) not in self._leaving
            and int(job["job"]) not in self.promises and len(self._vain) < _SEARCHES
            and (self.snapshot.bucket(row)[1], int(job["demand"])) not in self._vain
        )  # fmt: skip

    def make_others_leave(self, row: int, wanted: int) -> bool:
        """Choose who has to leave for a row; whether anybody does, or did before."""
        job_id = int(self.snapshot.rows["job"][row])
        if job_id in self._leaving or job_id in self.promises:
            return True
        if not self._may_evict(row):
            return False
        claims = list(self._claims(row))
        found = [
            (harm(victims), order, claim)
            for order, claim in enumerate(claims)
            if self.room.nodes_of(claim.pool) is None
            and (victims := self.evictions.free_for(claim, self.room.usable(claim.pool)))
        ]
        if self._node_victims is not None:
            on_nodes = [claim for claim in claims if self.room.nodes_of(claim.pool) is not None]
            if (best := self._node_victims.best(on_nodes, self._end(row))) is not None:
                found.append((best[0], claims.index(best[1]), best[1]))
        if not found:
            self._vain.add((self.snapshot.bucket(row)[1], int(self.snapshot.rows["demand"][row])))
            return False
        claim = min(found, key=lambda each: each[:-1])[-1]
        count = self._evict_for(claim, min(wanted, _TASKS))
        pool = self.room.pools[claim.pool]
        self.promises[job_id] = Promise(pool.site, pool.flavor.name, count)
        return True

    def _claims(self, row: int) -> Iterator[Claim]:
        """What a row could claim in each pool that it prefers, where no reservation is in the way."""
        demand, end, right = self._demand(row), self._end(row), self._right(row)
        total = demand.total
        job_id = int(self.snapshot.rows["job"][row])
        for number in self._preference(row):
            pool = self.room.pools[number]
            holds = [hold for hold in self.room.holds.get(number, ()) if hold.start < end]
            if (
                self.room.open[number]
                and self.room.slots[pool.site] > 0
                and all(total.fits(hold.left) for hold in holds)
            ):
                yield Claim(job_id, right.rank, right.project, right.priority, number, pool.flavor.name, total, demand)

    def _evict_for(self, claim: Claim, wanted: int) -> int:
        """Have others leave for as many tasks as that helps; how many."""
        if (nodes := self.room.nodes_of(claim.pool)) is not None:
            return self._evict_on_nodes(nodes, claim, wanted)
        free, count = self.room.usable(claim.pool), 0
        coming = Resources()
        while count < wanted:
            victims = self.evictions.free_for(claim, free)
            if victims is None:
                break
            self.evictions.evict(claim, victims)
            for victim in victims:
                self._count_leaving(victim, claim)
                if victim.here:
                    coming += victim.total
                    free += victim.total
            free -= claim.total
            count += 1
            self._count_quota(claim.project, claim.pool, claim.total)
        self.room.promise(claim.pool, _lacking(claim.total * count, coming))
        if claim.pool in self.room.recalling:
            self.room.make_way(claim.pool, Right(claim.rank, claim.project, claim.priority))
        return count

    def _evict_on_nodes(self, nodes: NodeRoom, claim: Claim, wanted: int) -> int:
        """The same where Atoll chooses the nodes: a task after the first may find room on what is freed already."""
        row = self.snapshot.row_of(claim.job_id)
        assert row is not None
        assert self._node_victims is not None
        plan, count, end = Plan(nodes, claim.pool, self._end(row)), 0, self._end(row)
        while count < wanted:
            if not (count and self._allowed(row, claim.pool, 1, end) and plan.place(claim.demand, elsewhere=False)):
                victims = self._node_victims.find(claim, plan)
                if victims is None:
                    break
                self.evictions.evict(claim, victims)
                for victim in victims:
                    self._count_leaving(victim, claim)
                plan.leave([victim.row for victim in victims])
                if not plan.place(claim.demand):
                    break
            count += 1
            self._count_quota(claim.project, claim.pool, claim.total)
        nodes.keep(claim.job_id, plan)
        return count

    def _count_leaving(self, victim: Victim, claim: Claim) -> None:
        if victim.kind:
            self._count_quota(victim.project, claim.pool, victim.total, -1)

    # ---- starting later

    def _reservable(self, row: int) -> list[int]:
        """The pools in which a row could have a reservation: there Atoll itself decides who starts."""
        return [number for number in self._preference(row) if self.room.open[number] and not self._queues(number)]

    def _queues(self, number: int) -> bool:
        report = self.snapshot.sites[self.room.pools[number].site].site.report
        return report is not None and report.queues

    def _reserve(self, row: int, before: tuple[int, int] | None) -> None:
        """Give a row a reservation, if it has quota and no other has one in the same pools.

        `before`: the pool and start that it has, which may only become sooner.
        """
        if self.snapshot.rows["rank"][row] == OPPORTUNISTIC:
            return
        pools = self._reservable(row)
        if not pools or (before is None and self._is_covered(pools)):
            return
        demand, duration = self._demand(row), self._duration(row)
        starts = [
            (start, order, number)
            for order, number in enumerate(pools)
            if self._allowed(row, number, 1, ENDLESS)
            and (start := self.room.earliest(number, demand, self.now, duration)) is not None
        ]
        if before is not None and (not starts or before[1] <= min(starts)[0]):
            self._hold(row, *before)
        elif starts:
            start, _, number = min(starts)
            self._hold(row, number, start)

    def _is_covered(self, pools: Sequence[int]) -> bool:
        most = self.snapshot.policy.reservations
        return bool(self._covered.intersection(pools)) if most is None else len(self._reserved) >= most

    def _unreserve(self, row: int) -> tuple[int, int] | None:
        """Keep nothing for a row any more; the pool and start that were its own."""
        reserved = self._reserved.pop(int(self.snapshot.rows["job"][row]), None)
        if reserved is not None:
            self.room.unhold(reserved[0], int(self.snapshot.rows["job"][row]))
            if self._held_quotas is not None:
                flavor, total = self.room.pools[reserved[0]].flavor.name, self._demand(row).total
                self._held_quotas.add(self.snapshot.bucket(row)[1], flavor, total, -1)
        return reserved

    # ---- what was decided

    def close(self, rows: Rows) -> None:
        """Let no worse class into the queues of engines for which some of the rows, all of a class, still wait."""
        if not self.room.recalling:
            return
        demands = self.snapshot.demands
        waits = np.zeros(len(self.snapshot.rows), np.bool_)
        waits[rows[self._below_width(rows)]] = True
        waits[[row for row in self.started if not self.left_of(row)]] = False
        numbers = np.zeros(len(demands.totals), np.bool_)
        numbers[self.snapshot.rows["demand"][waits]] = True
        self.room.close(np.asarray(demands.possible[numbers].any(axis=0), np.bool_))

    def recalls(self) -> tuple[str, ...]:
        """What is to be pulled back out of sites' queues, and was not evicted from there."""
        evicted = {eviction.attempt_id for eviction in self.evictions.chosen}
        return tuple(attempt_id for attempt_id in self.room.recalls() if attempt_id not in evicted)

    def placements(self) -> tuple[Place, ...]:
        """What starts, and where, in the order in which it was decided."""
        return tuple(
            Place(place[0], tasks, place[1], place[2], tuple(self._spots.get(place, ())))
            for place, tasks in self._places.items()
        )

    def reservations(self) -> tuple[Reservation, ...]:
        """All that is reserved now for what has not started, the first first."""
        found = []
        for job_id, (number, start) in self._reserved.items():
            row = self.snapshot.row_of(job_id)
            if row is not None and row not in self.started and job_id not in self.promises:
                pool = self.room.pools[number]
                found.append(Reservation(job_id, pool.site, pool.flavor.name, start))
        return tuple(sorted(found, key=lambda each: (each.start, each.job_id)))

    def wakeups(self) -> list[int]:
        """When time alone changes something."""
        starts = [start for _, start in self._reserved.values() if start > self.now]
        told = [eviction.at for eviction in self.evictions.chosen if eviction.at]
        ready = [self.evictions.next_ready] if self.evictions.next_ready < ENDLESS else []
        return starts + self._due_notices + told + ready


class _Kinds:
    """Which rows are of the same kind."""

    def __init__(self, rows: Rows, kinds: NDArray[np.intp]) -> None:
        """`kinds` are numbers from 0 on, one for each of `rows`."""
        self.rows = rows
        self._kinds = kinds
        self._by_kind: tuple[Rows, NDArray[np.intp], dict[int, int]] | None = None

    def pass_over(self, row: int, dead: bytearray) -> None:
        """Mark all rows of the kind of one."""
        if self._by_kind is None:
            order = np.argsort(self._kinds, kind="stable")
            kind_of = dict(zip(self.rows.tolist(), self._kinds.tolist(), strict=True))
            self._by_kind = self.rows[order], self._kinds[order], kind_of
        rows, kinds, kind_of = self._by_kind
        if (kind := kind_of.get(row)) is not None:
            begin, end = np.searchsorted(kinds, (kind, kind + 1)).tolist()
            if end - begin > 1:
                np.frombuffer(dead, np.bool_)[rows[begin:end]] = True


def _lacking(wanted: Resources, coming: Resources) -> Resources:
    """What of something wanted is not coming."""
    return Resources(*(max(0, getattr(wanted, name) - getattr(coming, name)) for name in RESOURCES))
