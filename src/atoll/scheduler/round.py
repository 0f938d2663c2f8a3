"""One round of the queue: what is left of room, quotas and shares while jobs are looked at, and what was decided."""

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.keeping import Keeping
from atoll.scheduler.kinds import alike, buckets_in, demands_in, kinds_of, levels_in
from atoll.scheduler.line import Right
from atoll.scheduler.model import OPPORTUNISTIC, Promise
from atoll.scheduler.noderoom import NodeRoom, Plan
from atoll.scheduler.nodevictims import Harm, Spares, harm, lateness
from atoll.scheduler.quota import Amounts
from atoll.scheduler.relief import relieved
from atoll.scheduler.room import ENDLESS, Kept
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.starting import SECOND, Rows
from atoll.scheduler.victims import Claim, Victim

_CHUNKS = 64
"""An array that is not alone starts at most so many of its tasks' share at once, then others have their turn."""
_SEARCHES = 300
"""For how many jobs a cycle looks in vain for others to evict."""
_LOOKS = 1000
"""How many kinds of blocked jobs a cycle looks at to have others leave for them, or for a reservation."""
_TASKS = 256
"""For how many tasks of an array a cycle has others leave."""
_OVERDUE = 100
_FEW = 64
"""So many jobs of one kind have others leave for them in one cycle."""


class Round(Keeping):
    """The state of one cycle. Nothing of the snapshot is changed."""

    def __init__(self, snapshot: Snapshot, now: int, most: int | None = None) -> None:
        super().__init__(snapshot, now, most)
        self._full = np.zeros(len(snapshot.demands.totals), np.bool_)
        self._relieved: NDArray[np.bool_] | None = None
        """By demand: whether others might leave for jobs of the class that is looked at; None: that is not known."""
        self._kinds = _Kinds(np.zeros(0, np.intp), np.zeros(0, np.intp))
        self.dead = bytearray()
        """By row: whether it need not be looked at any more."""
        self._vain: set[tuple[Right, int, int]] = set()
        self._helped: dict[int, int] = {}
        """For how many tasks of each row others leave, or leave enough for somebody else."""

    # ---- in turn

    def serve_overdue(self, rows: Rows) -> None:
        """Look first at those within their nominal quota that have waited too long: nothing passes them."""
        waiting = self.snapshot.rows
        late = self.now - self.snapshot.policy.max_wait * SECOND
        found = rows[(waiting["submitted"][rows] <= late) & (waiting["rank"][rows] != OPPORTUNISTIC)]
        if not len(found):
            return
        found = found[np.lexsort((waiting["job"][found], waiting["submitted"][found]))]
        kinds, inverse, _ = alike(self.snapshot, found)
        within = self._quota_fits(kinds, None if self.quotas is None else self.quotas.subtree - self.quotas.usage)
        for row in found[within[inverse]][:_OVERDUE].tolist():
            if self.is_cut_short():
                return
            self.serve(row)

    def worth_a_look(self, rows: Rows) -> Rows:
        """Of the rows of one class those that may start, and the first few of each other kind: others may help them.

        Rows of a kind are of one person in one project, and demand the same.
        """
        snapshot = self.snapshot
        demands = snapshot.demands
        rights = self._rights(rows) if self.room.of_engines.any() else []
        self._full = ~self.room.fitting(demands.totals, demands.requests, demands.possible, rights)
        self._relieved = np.zeros(len(self._full), np.bool_)
        self.dead = bytearray(len(snapshot.rows))
        rows = rows[self.below_width(rows)]
        if len(rows) and snapshot.rows["rank"][rows[0]] == OPPORTUNISTIC:
            return self._worth_of_idle(rows)
        kinds, inverse, first = alike(snapshot, rows)
        fits = ~self._full[demands_in(kinds)]
        quota = self._quota_fits(kinds, None if self.quotas is None else self.quotas.available())
        worth = (fits & quota)[inverse]
        worth[_first_few(inverse, self._may_be_helped(rows, first, kinds, fits, quota))] = True
        worth |= np.isin(rows, self._reserved_rows())
        self._kinds = _Kinds(rows[worth], inverse[worth])
        found: Rows = rows[worth]
        return found

    def _worth_of_idle(self, rows: Rows) -> Rows:
        """The same for opportunistic rows: those that may start.

        No quota tells them apart, and no walltime. Where Atoll chooses the nodes they are of one kind if they would
        take the same room, whoever sent them: an endless backlog is looked at in the time of its few sizes.
        """
        demands, numbers = self.snapshot.demands, self.snapshot.rows["demand"][rows]
        fits = ~self._full[numbers]
        rows, numbers = rows[fits], numbers[fits]
        kinds = kinds_of(self.snapshot, rows)
        if not self.snapshot.bookings:  # nobody is asked to leave for a booking: there the walltime counts
            anyone = ~demands.possible[numbers][:, self.room.of_engines].any(axis=1)
            kinds = np.where(anyone, -1 - demands.shapes[numbers], kinds)
        self._kinds = _Kinds(rows, np.unique(kinds, return_inverse=True)[1])
        return rows

    def _may_be_helped(
        self, rows: Rows, first: Rows, kinds: NDArray[np.int64], fits: NDArray[np.bool_], quota: NDArray[np.bool_]
    ) -> NDArray[np.bool_]:
        """Which kinds others may make room for, or may have a reservation; the first `_LOOKS` of either.

        `first` tells for each kind which of `rows`, all of one class, is its first; `fits` which have room, and
        `quota` which have quota.
        """
        if not len(rows):
            return np.zeros(0, np.bool_)
        waiting, numbers = self.snapshot.rows, demands_in(kinds)
        rank, priority = int(waiting["rank"][rows[0]]), int(waiting["priority"][rows].max())
        helped = relieved(self.snapshot, self.room, self.quotas, rank, priority, numbers)
        self._relieved = np.zeros(len(self._full), np.bool_)
        self._relieved[numbers] = helped
        most = self.snapshot.policy.reservations
        if most is None:
            ours = np.array([can and not self._queues(n) for n, can in enumerate(self.room.open)], np.bool_)
            possible = self.snapshot.demands.within(numbers, levels_in(kinds)) & ours
            covered = sorted(self._covered_for_certain(kinds[fits | helped]))
            reservable = quota & possible.any(axis=1) & ~possible[:, covered].any(axis=1)
        else:
            reservable = quota & (len(self._covered_jobs(kinds[fits | helped])) < most)
        found = np.zeros(len(kinds), np.bool_)
        for which in (helped, reservable):
            found[np.flatnonzero(which)[np.argsort(first[which])][:_LOOKS]] = True
        return found

    def _covered_jobs(self, kinds: NDArray[np.int64]) -> list[int]:
        """The jobs that have a reservation and are not of some kinds: those may start now, and leave it to others."""
        rows = {job_id: self.snapshot.row_of(job_id) for job_id in self._reserved}
        return [
            job_id
            for job_id, row in rows.items()
            if row is None or not np.isin(kinds_of(self.snapshot, np.array([row], np.intp)), kinds).any()
        ]

    def _covered_for_certain(self, kinds: NDArray[np.int64]) -> set[int]:
        """The pools that their reservations cover."""
        return {number for job_id in self._covered_jobs(kinds) for number in self._covered[job_id]}

    def _reserved_rows(self) -> list[int]:
        return [row for job_id in self._reserved if (row := self.snapshot.row_of(job_id)) is not None]

    def _rights(self, rows: Rows) -> list[Right]:
        """The greatest right in each project, of rows of one class."""
        buckets = self.snapshot.rows["bucket"][rows]
        # those of one bucket adjoin, and the first of them has the highest priority
        firsts = rows[np.flatnonzero(np.diff(buckets, prepend=-1))]
        highest: dict[str, Right] = {}
        for row in firsts.tolist():
            right = self._right(row)
            if right.project not in highest or right.beats(highest[right.project]):
                highest[right.project] = right
        return list(highest.values())

    def below_width(self, rows: Rows) -> NDArray[np.bool_]:
        """Which rows' own arrays let one more task hold room."""
        width = self.snapshot.rows["width"][rows]
        below = np.ones(len(rows), np.bool_)
        limited = np.flatnonzero(width >= 0)
        below[limited] = self.holders[self.snapshot.rows["limit"][rows[limited]]] < width[limited]
        return below

    def _quota_fits(self, kinds: NDArray[np.int64], available: Amounts | None) -> NDArray[np.bool_]:
        """For which kinds that much of quota is enough for one task in one of the pools that they could use."""
        quotas, snapshot = self.quotas, self.snapshot
        if quotas is None or available is None:
            return np.ones(len(kinds), np.bool_)
        demands, buckets = demands_in(kinds), buckets_in(kinds)
        index = quotas.tree.index
        node_of = np.full(int(buckets.max(initial=0)) + 1, -1, np.intp)
        node_of[buckets] = 0
        for bucket in np.flatnonzero(node_of == 0).tolist():
            node_of[bucket] = index.get(snapshot.bucket_key(bucket)[1], -1)
        nodes = node_of[buckets]
        totals, possible = snapshot.demands.totals, snapshot.demands.within(demands, levels_in(kinds))
        found = np.zeros(len(kinds), np.bool_)
        for number, pool in enumerate(self.room.pools):
            fits = possible[:, number] & self.room.open[number]
            for name, column in quotas.tree.governed.get(pool.flavor.name, ()):
                wanted = totals[name][demands]
                fits &= (wanted == 0) | ((nodes >= 0) & (wanted <= available[nodes, column]))
            found |= fits
        return found

    def serve(self, row: int, *, alone: bool = False) -> tuple[int, bool]:
        """Start a row, or see to it that it can.

        For how many tasks that was so, and whether there are more that are to have their turn again.
        """
        wanted = self.wanted(row)
        if not wanted:
            if self.left_of(row):
                self._pass_over_limit(row)
            return 0, False
        wanted -= self._helped.get(row, 0)
        if wanted <= 0:
            return 0, False
        reserved = self._unreserve(row)  # what is kept for it is not kept from it, though it was from its like
        chunk = min(wanted if alone else max(1, wanted // _CHUNKS), self._starts_left)
        full = reserved is None and bool(self._full[int(self.snapshot.rows["demand"][row])])
        count, promised = self._serve(row, chunk, full)
        # what others leave beyond their need is no promise: a reserved start stays until there is one, or it starts
        if not self._is_promised(row) and (count + promised < chunk or (reserved is not None and not count)):
            self._reserve(row, reserved)
        if not count and not promised:
            self._pass_over(row)
        return count + promised, count + promised == chunk < wanted

    def _is_promised(self, row: int) -> bool:
        """Whether others leave for a row, and where they do it is to start."""
        job_id = int(self.snapshot.rows["job"][row])
        return job_id in self.promises or job_id in self._kept

    def _pass_over(self, row: int) -> None:
        """Look at no other row of the kind of one, but at what has a reservation: its own is not kept from it."""
        self._kinds.pass_over(row, self.dead)
        for job_id in self._reserved:
            other = self.snapshot.row_of(job_id)
            if other is not None and other != row and other < len(self.dead):
                self.dead[other] = False

    def _serve(self, row: int, chunk: int, full: bool) -> tuple[int, int]:
        """Start tasks, else have others leave for them, else let them into a site's own queue.

        How many started, and for how many others leave now.
        """
        choices, count = self._choices(row), 0
        none = False
        if not full:
            count, none = self._start_spread(row, chunk, choices)
        if count == chunk:
            return count, 0
        promised = self.make_others_leave(row, chunk - count)
        if promised or full or self._is_promised(row) or int(self.snapshot.rows["job"][row]) in self._leaving:
            return count, promised
        more, none_queued = self._start(row, chunk - count, choices, queued=True)
        if self.snapshot.level(row) == 0:  # else others who demand the same may go to more places
            # it may have been quota that lacked, which others have
            self._full[int(self.snapshot.rows["demand"][row])] = none and none_queued
        return count + more, 0

    def _pass_over_limit(self, row: int) -> None:
        """Look at no other row with the same width, which is used up."""
        limits = self.snapshot.rows["limit"]
        others = self._kinds.rows[limits[self._kinds.rows] == limits[row]]
        if len(others) > 1:
            np.frombuffer(self.dead, np.bool_)[others] = True

    # ---- making room

    def _may_evict(self, row: int) -> bool:
        """Whether others may be asked to leave for a row now, and nobody was before."""
        job = self.snapshot.rows[row]
        return (
            job["rank"] != OPPORTUNISTIC and len(self._vain) < _SEARCHES
            and (self._relieved is None or bool(self._relieved[job["demand"]]))
            and self._search(row) not in self._vain
            and (int(job["job"]) not in self._leaving or int(job["job"]) in self._left_alone)
        )  # fmt: skip

    def _search(self, row: int) -> tuple[Right, int, int]:
        """What a search for others to evict depends on: where it was in vain for one row, it is for all."""
        return self._right(row), int(self.snapshot.rows["demand"][row]), self.snapshot.level(row)

    def make_others_leave(self, row: int, wanted: int) -> int:
        """Choose who has to leave for tasks of a row; for how many of them others do now."""
        job_id = int(self.snapshot.rows["job"][row])
        if not self._may_evict(row):
            return 0
        known = self.promises.get(job_id)
        if known is not None:
            wanted = min(wanted, _TASKS - known.count)
        claim = self._best_claim(row, None if known is None else self._pools[known.site, known.flavor])
        if claim is None:
            self._vain.add(self._search(row))
            return 0
        chosen = len(self.evictions.chosen)
        count = self._evict_for(row, claim, wanted)
        if count:
            self._helped[row] = self._helped.get(row, 0) + count
            self._charge(row, claim.pool, count)
        if known is not None or len(self.evictions.chosen) > chosen:  # else others leave enough for it as well
            pool = self.room.pools[claim.pool]
            self.promises[job_id] = Promise(pool.site, pool.flavor.name, count + (known.count if known else 0))
        return count

    def _best_claim(self, row: int, only: int | None) -> Claim | None:
        """Where the fewest and cheapest would have to leave for one task; `only`: in this pool."""
        found: list[tuple[Harm, int, Claim]] = []
        on_nodes: list[Claim] = []
        orders: dict[int, int] = {}
        for order, claim in enumerate(self._claims(row)):
            if only is not None and claim.pool != only:
                continue
            if self.room.nodes_of(claim.pool) is not None:
                on_nodes.append(claim)
                orders[claim.pool] = order
                continue
            victims = self.evictions.free_for(claim, self.room.to_come(claim.pool))
            if victims is not None and self._spares(row, 1, claim, victims):
                found.append((harm(victims), order, claim))
        if on_nodes and self._node_victims is not None:
            best = self._node_victims.best(on_nodes, self._end(row), partial(self._spares, row, 1))
            if best is not None:
                found.append((best[0], orders[best[1].pool], best[1]))
        return min(found, key=lambda each: each[:-1])[-1] if found else None

    def _spares(self, row: int, count: int, claim: Claim, victims: Sequence[Victim]) -> bool:
        """Whether what is held for others stays theirs where a claim starts when its victims have left."""
        stay = self._stay(row, lateness(victims))
        if not self.room.spares_holds(claim.pool, claim.total * count, stay):
            return False
        held = self._held_quotas
        if held is None or stay.end <= self._first_hold:
            return True
        leaving = [victim for victim in victims if victim.kind]
        for victim in leaving:
            held.add(victim.project, claim.flavor, victim.total, -1)
        fits = held.fits(claim.project, claim.flavor, claim.total)
        for victim in leaving:
            held.add(victim.project, claim.flavor, victim.total)
        return fits

    def _claims(self, row: int) -> Iterator[Claim]:
        """What a row could claim in each pool that it prefers, where no reservation is in the way."""
        demand, stay, right = self._demand(row), self._stay(row), self._right(row)
        total = demand.total
        job_id = int(self.snapshot.rows["job"][row])
        for number in self._preference(row):
            pool = self.room.pools[number]
            if (
                self.room.open[number]
                and self.room.slots[pool.site] > 0
                and self.room.spares_holds(number, total, stay)
            ):
                yield Claim(job_id, right.rank, right.project, right.priority, number, pool.flavor.name, total, demand)

    def _evict_for(self, row: int, claim: Claim, wanted: int) -> int:
        """Have others leave for as many tasks as that helps; how many."""
        if (nodes := self.room.nodes_of(claim.pool)) is not None:
            return self._evict_on_nodes(nodes, row, claim, wanted)
        count, late, coming = 0, 0, Resources()
        before = free = self.room.to_come(claim.pool)
        while count < wanted:
            victims = self.evictions.free_for(claim, free)
            if victims is None or not self._spares(row, count + 1, claim, victims):
                break
            late = max(late, lateness(victims))
            self.evictions.evict(claim, victims)
            for victim in victims:
                self._count_leaving(victim, claim)
                if victim.here:
                    coming += victim.total
            free = before + coming - claim.total * (count + 1)
            count += 1
            self._count_quota(claim.project, claim.pool, claim.total)
        if count:
            end = min(ENDLESS, self._end(row) + late)
            self.room.promise_more(claim.pool, claim.total * count, coming, end)
            if claim.pool in self.room.recalling:
                self.room.make_way(claim.pool, Right(claim.rank, claim.project, claim.priority))
        return count

    def _evict_on_nodes(self, nodes: NodeRoom, row: int, claim: Claim, wanted: int) -> int:
        """The same where Atoll chooses the nodes: a task after the first may find room on what is freed already."""
        assert self._node_victims is not None
        plan, count, late = Plan(nodes, claim.pool, self._end(row), with_surplus=True), 0, 0
        while count < wanted:
            spares = partial(self._spares, row, count + 1)
            if not (count and self._is_left_over(plan, claim, spares)):
                victims = self._node_victims.find(claim, plan, spares)
                if victims is None:
                    break
                late = max(late, lateness(victims))
                self.evictions.evict(claim, victims)
                for victim in victims:
                    self._count_leaving(victim, claim)
                plan.leave([victim.row for victim in victims])
                plan.wait(late)
                if not plan.place(claim.demand):
                    break
            count += 1
            self._count_quota(claim.project, claim.pool, claim.total)
        if count:
            nodes.keep(claim.job_id, plan)
            end = min(ENDLESS, self._end(row) + late)
            self.room.promise(claim.pool, Kept(Resources(), Resources(), claim.total * count, end))
        return count

    def _is_left_over(self, plan: Plan, claim: Claim, spares: Spares) -> bool:
        """Put one more where those before it have changed something, if there is room and quota for it."""
        if self.evictions.lacks_quota(claim) or not spares(claim, ()):
            return False
        return plan.place(claim.demand, elsewhere=False)

    def _count_leaving(self, victim: Victim, claim: Claim) -> None:
        if victim.kind:
            self._count_quota(victim.project, claim.pool, victim.total, -1)

    # ---- what was decided

    def close(self, rows: Rows) -> None:
        """Let no worse class into the queues of engines for which some of the rows, all of a class, still wait."""
        if not self.room.recalling:
            return
        demands = self.snapshot.demands
        waits = np.zeros(len(self.snapshot.rows), np.bool_)
        waits[rows[self.below_width(rows)]] = True
        waits[[row for row in self.started if not self.left_of(row)]] = False
        found = np.flatnonzero(waits)
        numbers, levels = self.snapshot.rows["demand"][found], self.snapshot.levels(found)
        wanted = np.zeros(len(self.room.pools), np.bool_)
        for level in np.unique(levels).tolist():
            here = np.unique(numbers[levels == level])
            wanted |= demands.within(here, np.full(len(here), level)).any(axis=0)
        self.room.close(wanted)

    def recalls(self) -> tuple[str, ...]:
        """What is to be pulled back out of sites' queues, and was not evicted from there."""
        evicted = {eviction.attempt_id for eviction in self.evictions.chosen}
        return tuple(attempt_id for attempt_id in self.room.recalls() if attempt_id not in evicted)

    def wakeups(self) -> list[int]:
        """When time alone changes something."""
        starts = [start for _, start in self._reserved.values() if start > self.now]
        told = [eviction.at for eviction in self.evictions.chosen if eviction.at]
        ready = [self.evictions.next_ready] if self.evictions.next_ready < ENDLESS else []
        return starts + self._moments + told + ready


def _first_few(kinds: NDArray[np.intp], which: NDArray[np.bool_]) -> Rows:
    """The places of the first `_FEW` of each kind that a mask over the kinds names."""
    places = np.flatnonzero(which[kinds])
    places = places[np.argsort(kinds[places], kind="stable")]
    # the one that is so many places before it is of another kind
    found: Rows = places[:_FEW]
    later = places[_FEW:]
    return np.concatenate([found, later[kinds[later] != kinds[places[:-_FEW]]]])


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
