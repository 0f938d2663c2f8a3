"""What starts in one cycle, counted down from room, quotas and shares; `keeping` and `round` build on it."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.core.ranges import Ranges
from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.scheduler.evict import Evictions
from atoll.scheduler.line import Right
from atoll.scheduler.model import OPPORTUNISTIC, Demand, Place, Promise
from atoll.scheduler.noderoom import NodeRoom
from atoll.scheduler.nodes import Mask
from atoll.scheduler.nodevictims import NodeVictims
from atoll.scheduler.quota import Quotas
from atoll.scheduler.room import ENDLESS, Stay
from atoll.scheduler.snapshot import Snapshot

Rows = NDArray[np.intp]
SECOND = 1_000_000
"""Microseconds."""
_PIECES = 8
"""In so many pieces the tasks of an array are spread over sites."""


class Starting:
    """What is left while jobs are looked at, and which of them start. Nothing of the snapshot is changed."""

    def __init__(self, snapshot: Snapshot, now: int, most: int | None = None) -> None:
        """`most`: so many attempts start at most; None: all that can."""
        self.snapshot = snapshot
        self.now = now
        self._starts_left = ENDLESS if most is None else most
        self.room = snapshot.room(now)
        self.quotas = None if snapshot.quotas is None else snapshot.quotas.copy()
        """What is used when those have left who are asked to, and those started for whom they are."""
        self.shares = snapshot.shares.fork()
        self.evictions = Evictions(snapshot, self.quotas, now)
        self._node_victims = None if self.room.nodes is None else NodeVictims(self.evictions, self.room.nodes)
        self.holders = snapshot.limits()
        """How many tasks hold room, by the number of their limit."""
        self.started: dict[int, int] = {}
        """How many tasks (1 for a single job) of each row start."""
        self.promises: dict[int, Promise] = {}
        """What is promised anew, by job."""
        # `quotas` count those who leave as gone, and whom they leave for as there; these only what holds room
        self._used_quotas = None if self.quotas is None else self.quotas.copy()
        self._held_quotas = None if self.quotas is None else self.quotas.copy()
        self._first_hold = ENDLESS
        self._places: dict[tuple[int, str, str], Ranges | None] = {}
        self._spots: dict[tuple[int, str, str], list[tuple[NodeSpot, ...]]] = {}
        self._masks: dict[tuple[int, ...], Mask] = {}
        self._stays: dict[tuple[int, int], Stay] = {}  # by demand and bucket
        self._is_simple = self.quotas is None and not snapshot.bookings and not self.room.is_limited
        self._pools = {(pool.site, pool.flavor.name): number for number, pool in enumerate(self.room.pools)}
        self._leaving: dict[int, Rows] = {}
        """The rows of attempts that leave, or will, by the job for which they do."""
        self._graces: dict[int, int] = {}  # the longest grace of the opportunistic jobs that start in a pool

    def is_cut_short(self) -> bool:
        """Whether as many start as may: what was not looked at before stays as it is, and has its turn next time."""
        return self._starts_left <= 0

    # ---- what is known of a row

    def left_of(self, row: int) -> int:
        """How many tasks (1 of a single job) of a row still wait."""
        tasks = self.snapshot.tasks(row)
        return (1 if tasks is None else len(tasks)) - self.started.get(row, 0)

    def wanted(self, row: int) -> int:
        """How many tasks of a row may start now, as far as its own width goes."""
        rows = self.snapshot.rows
        left, width = self.left_of(row), rows["width"].item(row)
        return left if width < 0 else max(0, min(left, width - int(self.holders[rows["limit"][row]])))

    def _duration(self, row: int) -> int:
        """How long a row may hold room, in microseconds: its walltime, and the grace that it then has."""
        job = self.snapshot.rows[row]
        demand = self.snapshot.demands[int(job["demand"])]
        seconds = self.snapshot.walltime(int(job["rank"]), demand.placement.walltime)
        return ENDLESS if seconds is None else (seconds + demand.placement.grace) * SECOND

    def _end(self, row: int) -> int:
        """Until when it holds room, if it starts now: opportunistic ones leave when they are asked to."""
        if self.snapshot.rows["rank"][row] == OPPORTUNISTIC:
            return self.now + self._demand(row).placement.grace * SECOND
        return min(ENDLESS, self.now + self._duration(row))

    def _stay(self, row: int, later: int = 0) -> Stay:
        """The same with all that decides what is in its way, if it starts so much later (microseconds)."""
        rows = self.snapshot.rows
        alike = rows["demand"].item(row), rows["bucket"].item(row)
        if not later and (known := self._stays.get(alike)) is not None:
            return known
        end, whole = self._end(row) + later, self.now + self._duration(row) + later
        stay = Stay(min(ENDLESS, end), min(ENDLESS, whole), self._booked_for(row))
        if not later:
            self._stays[alike] = stay
        return stay

    def _booked_for(self, row: int) -> frozenset[int]:
        """The bookings in which a row may run."""
        if not self.snapshot.bookings:
            return frozenset()
        _, project, person = self.snapshot.bucket(row)
        return frozenset(booking.number for booking in self.snapshot.bookings if booking.admits(project, person))

    def _right(self, row: int) -> Right:
        rank, project, _ = self.snapshot.bucket(row)
        return Right(rank, project, self.snapshot.rows["priority"].item(row))

    def is_over(self, name: str) -> bool:
        """Whether a node of the tree uses more than its own quota, with what starts now."""
        quotas = self.quotas
        return quotas is not None and name in quotas.tree and quotas.is_over(name)

    # ---- starting

    def _start_spread(self, row: int, wanted: int, choices: Sequence[Sequence[int]]) -> tuple[int, bool]:
        """The same as `_start`, so that sites which are liked about alike are filled alike."""
        spread = self.snapshot.spread(row)
        if not spread:
            return self._start(row, wanted, choices)
        count, piece, full = 0, -(-wanted // _PIECES), False
        while count < wanted:
            part = min(piece, wanted - count)
            started, full = self._start(row, part, self._emptier_first(row, choices, spread))
            count += started
            if started < part:
                break
        return count, full

    def _emptier_first(
        self, row: int, choices: Sequence[Sequence[int]], spread: Sequence[tuple[int, float]]
    ) -> list[Sequence[int]]:
        """The choices, with what is used of their sites counted against them."""
        room, request = self.room, self._demand(row).request
        whole: dict[str, int] = {}
        free: dict[str, int] = {}
        for number in (number for choice in choices for number in choice):
            site, left, total = room.pools[number].site, room.free[number], room.pools[number].flavor.total
            free[site] = free.get(site, 0) + max(0, left.gpu if request.gpu else left.cpu)
            whole[site] = whole.get(site, 0) + (total.gpu if request.gpu else total.cpu)
        weight = self.snapshot.policy.weights.spread

        def key(place: int) -> tuple[int, float, int]:
            site = room.pools[choices[place][0]].site
            wish, against = spread[place]
            return wish, against + weight * (1 - free[site] / max(1, whole[site])), place

        return [choices[place] for place in sorted(range(len(choices)), key=key)]

    def _start(
        self, row: int, wanted: int, choices: Sequence[Sequence[int]], *, queued: bool = False
    ) -> tuple[int, bool]:
        """Give a row as much room as it wants and there is, in these pools, or places in their queues (`queued`).

        `choices` are as in `Demands.choices`. How many tasks start, and whether there was no more room for its kind.
        """
        right, stay, total = self._right(row), self._stay(row), self._demand(row).total
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
                most = self.room.count(number, total, left, stay)
            taken = self._allowed(row, number, most, stay.end)
            full &= taken == most < left
            if taken:
                if queued:
                    self.room.take_queued(number, total, taken, right)
                else:
                    self.room.take(number, total, taken, stay)
                self._note(row, number, taken, stay.end)
                count += taken
        return count, full

    def _start_on_nodes(self, nodes: NodeRoom, row: int, wanted: int, choice: Sequence[int]) -> tuple[int, bool]:
        """Give a row the best nodes of pools that it likes alike, one task after the other.

        How many tasks start, and whether there was no more room for its kind.
        """
        demand, stay = self._demand(row), self._stay(row)
        total = demand.total
        for count in range(wanted):
            pools, all_allowed = self._open_pools(row, demand, choice, stay)
            spots = None if pools is None else nodes.find(demand, pools, stay.end)
            if spots is None:
                return count, all_allowed
            number = int(nodes.nodes.pool[spots[0].node])
            nodes.take(spots, demand.request, stay.end)
            self.room.take(number, total, 1, stay)
            self._note(row, number, 1, stay.end, nodes.owned.named(spots))
        return wanted, False

    def _open_pools(self, row: int, demand: Demand, choice: Sequence[int], stay: Stay) -> tuple[Mask | None, bool]:
        """A mask of those of the pools where one task has quota, None for none; whether only room closes the others."""
        room, key = self.room, tuple(choice)
        if self._is_simple and (mask := self._masks.get(key)) is not None:
            return mask if mask.any() else None, True
        usable = [number for number in choice if room.count(number, demand.total, 1, stay)]
        allowed = [number for number in usable if self._allowed(row, number, 1, stay.end)]
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
        if most and (self._leaving or self.promises):
            assert self._used_quotas is not None
            most = self._quota_count(self._used_quotas, row, number, most)
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
        demand, (rank, project, _) = self._demand(row), snapshot.bucket(row)
        job_id, limit = snapshot.rows["job"].item(row), snapshot.rows["limit"].item(row)
        if rank != OPPORTUNISTIC:
            self._count_quota(project, number, demand.total * count, held=end > self._first_hold)
            if self._used_quotas is not None:
                self._used_quotas.add(project, pool.flavor.name, demand.total * count)
        else:
            self._graces[number] = max(self._graces.get(number, 0), demand.placement.grace)
        self._charge(row, number, count)
        self._starts_left -= count
        if limit >= 0:
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

    def _charge(self, row: int, number: int, count: int) -> None:
        """Count tasks that start, or will, in the fair shares of this cycle."""
        demand, expected = self._demand(row), self.snapshot.rows["expected"].item(row)
        rank, project, person = self.snapshot.bucket(row)
        seconds = self.snapshot.charged_seconds(rank, demand.placement.walltime, expected)
        flavor = self.room.pools[number].flavor.name
        self.shares.charge(project, person, flavor, demand.total * (seconds * count), self.now, rank == OPPORTUNISTIC)

    def _count_quota(self, project: str, number: int, amount: Resources, sign: int = 1, *, held: bool = True) -> None:
        flavor = self.room.pools[number].flavor.name
        if self.quotas is not None and self._held_quotas is not None:
            self.quotas.add(project, flavor, amount, sign)
            if held:
                self._held_quotas.add(project, flavor, amount, sign)

    def _demand(self, row: int) -> Demand:
        return self.snapshot.demands[self.snapshot.rows["demand"].item(row)]

    def _choices(self, row: int) -> Sequence[Sequence[int]]:
        return self.snapshot.choices(row)

    def _preference(self, row: int) -> Sequence[int]:
        return self.snapshot.preference(row)

    def placements(self) -> tuple[Place, ...]:
        """What starts, and where, in the order in which it was decided."""
        return tuple(
            Place(place[0], tasks, place[1], place[2], tuple(self._spots.get(place, ())))
            for place, tasks in self._places.items()
        )
