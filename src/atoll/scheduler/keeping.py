"""What was booked, promised and reserved before, and what is reserved now: room that a cycle keeps from others."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.model import OPPORTUNISTIC, Booking, Demand, Eviction, Promise, Reservation
from atoll.scheduler.noderoom import NodeRoom, Plan
from atoll.scheduler.room import ENDLESS, Kept
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.starting import SECOND, Rows, Starting
from atoll.scheduler.victims import Claim

_BEGINNING = 600
"""How many seconds what starts may take to begin, and with it what waits for its end."""


class Keeping(Starting):
    """What is kept in one cycle for whom."""

    def __init__(self, snapshot: Snapshot, now: int, most: int | None = None) -> None:
        super().__init__(snapshot, now, most)
        self._reserved: dict[int, tuple[int, int]] = {}  # (pool, start) by job
        self._covered: dict[int, set[int]] = {}  # by job that has a reservation, where it could have had one
        self._holders: dict[int, set[int]] = {}
        self._leaving = self._leaving_for()
        self._left_alone = {job_id for job_id in self._leaving if not self._still_wants(job_id)}
        self._moments: list[int] = []
        self._kept: set[int] = set()  # jobs for which others still leave
        self._void: dict[int, Promise] = {}  # promises that came to nothing, with no count

    # ---- what was booked, promised and reserved before

    def keep_bookings(self) -> None:
        """Keep from others what is booked, apart from what those for whom it is use of it already."""
        for booking in self.snapshot.bookings:
            if booking.end <= self.now:
                continue
            self._moments += [moment for moment in (booking.start, booking.end) if moment > self.now]
            left = booking.amount
            for number, pool in enumerate(self.room.pools):
                if pool.flavor.name == booking.flavor and booking.site in (None, pool.site):
                    here = _least(left, pool.flavor.total)
                    left = _lacking(left, here)
                    used = self._used_in(booking, number) if booking.start <= self.now else Resources()
                    self.room.book(
                        number, booking.number, _lacking(here, used), max(self.now, booking.start), booking.end
                    )

    def _used_in(self, booking: Booking, number: int) -> Resources:
        """What attempts for whom something is booked hold in a pool."""
        holding, used = self.snapshot.holding, Resources()
        for row in self.snapshot.holders_of(number).tolist():
            if booking.admits(*self.snapshot.owner_of(row)):
                amount = Resources(*(int(holding[name][row]) for name in RESOURCES))
                used += amount * int(holding["nodes"][row])
        return used

    def _leaving_for(self) -> dict[int, Rows]:
        """The rows of attempts that leave, or will, by the job for which they do."""
        holding = self.snapshot.holding
        rows = np.flatnonzero((holding["leaves_for"] >= 0) & (holding["nodes"] > 0))
        found: dict[int, list[int]] = {}
        for row, job_id in zip(rows.tolist(), holding["leaves_for"][rows].tolist(), strict=True):
            found.setdefault(job_id, []).append(row)
        return {job_id: np.array(each, np.intp) for job_id, each in found.items()}

    def keep_promises(self) -> None:
        """Start the jobs for which others left, and keep the room of those for which they still do."""
        kept = [self._keep(job_id) for job_id in self.snapshot.promised()]
        for job_id, row, promise, number in filter(None, kept):
            self._release(job_id, row, promise, number)
            # elsewhere it may start in its turn, where that breaks no reservation
            wanted = min(promise.count, self.wanted(row), self._starts_left) if self._is_due(row) else 0
            count = self._start(row, wanted, ((number,),))[0]
            more = min(promise.count - count, self.left_of(row))
            if more and (self.is_cut_short() or self._is_being_left(job_id, number)):
                self._promise(job_id, row, number, more)
                self._kept.add(job_id)
            elif more:
                self._void[job_id] = replace(promise, count=0)
        for job_id, rows in self._leaving.items():
            self._tell(job_id, rows)

    def _is_being_left(self, job_id: int, number: int) -> bool:
        """Whether anybody still leaves for a job, or for others who leave something over in the same pool."""
        return job_id in self._leaving or any(
            not self._holders_of(number).isdisjoint(rows.tolist()) for rows in self._leaving.values()
        )

    def promised(self) -> tuple[tuple[int, Promise], ...]:
        """What is promised anew, and of what was promised before what is no more: nobody leaves for it now."""
        return tuple((self._void | self.promises).items())

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
        coming, late = Resources(), 0
        holding, here = self.snapshot.holding, self._holders_of(number)
        for other in self._leaving.get(job_id, ()):
            asked = self.now if holding["leaving"][other] else max(self.now, int(holding["notice"][other]))
            late = max(late, asked - self.now + int(holding["grace"][other]) * SECOND)
            total = Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
            if other in here:
                coming += total
            if holding["rank"][other] != OPPORTUNISTIC:
                self._count_quota(self.snapshot.owner_of(int(other))[0], number, total, -sign)
        wanted, end = demand.total * count, min(ENDLESS, self.now + late + self._duration(row))
        change = self.room.promise if sign > 0 else self.room.unpromise
        if (nodes := self.room.nodes_of(number)) is None:
            change(number, Kept(_lacking(wanted, coming), _lacking(coming, wanted), wanted, end))
        else:
            change(number, Kept(Resources(), Resources(), wanted, end))  # what is kept of it is told by the nodes
            self._promise_nodes(nodes, job_id, number, demand, count * sign, end)
        self._count_quota(self.snapshot.bucket(row)[1], number, wanted, sign)

    def _promise_nodes(self, nodes: NodeRoom, job_id: int, number: int, demand: Demand, count: int, end: int) -> None:
        """Keep nodes for so many tasks until `end`; below 0: no more."""
        if count < 0:
            nodes.release(job_id)
            return
        plan = Plan(nodes, number, end)
        plan.leave(self._leaving.get(job_id, np.zeros(0, np.intp)))
        plan.place_many(demand, count)
        nodes.keep(job_id, plan)

    def _release(self, job_id: int, row: int, promise: Promise, number: int) -> None:
        self._promise(job_id, row, number, promise.count, -1)

    def _holders_of(self, number: int) -> set[int]:
        if number not in self._holders:
            self._holders[number] = set(self.snapshot.holders_of(number).tolist())
        return self._holders[number]

    def _tell(self, job_id: int, rows: Rows) -> None:
        """Ask those to leave whose notice is over."""
        if not self._still_wants(job_id):
            return
        holding = self.snapshot.holding
        for other in rows.tolist():
            if not holding["leaving"][other] and holding["notice"][other]:
                if holding["notice"][other] <= self.now:
                    self.evictions.chosen.append(Eviction(self.snapshot.attempt(other), job_id))
                else:
                    self._moments.append(int(holding["notice"][other]))

    def _still_wants(self, job_id: int) -> bool:
        """Whether a job still waits for what others were to leave to it, at a site that takes it."""
        row, promise = self.snapshot.row_of(job_id), self.snapshot.promise(job_id)
        if row is None or not self.left_of(row):
            return False
        number = None if promise is None else self._pools.get((promise.site, promise.flavor))
        return promise is None or (number is not None and self.room.open[number])

    def reprieved(self) -> tuple[str, ...]:
        """Those that were told to leave for a job that no longer waits for it, and need not for another."""
        found: list[str] = []
        holding = self.snapshot.holding
        for job_id, rows in self._leaving.items():
            if not self._still_wants(job_id):
                found += [self.snapshot.attempt(other) for other in rows.tolist() if not holding["leaving"][other]]
        return tuple(sorted(found))

    def keep_reservations(self) -> None:
        """Start what has its reserved start now, and hold the room of the others."""
        for known in sorted(self.snapshot.reservations.values(), key=lambda each: (each.start, each.job_id)):
            row, number = self.snapshot.row_of(known.job_id), self._pools.get((known.site, known.flavor))
            if row is None or number is None or not self.room.open[number] or known.job_id in self._kept:
                continue
            if not self._is_due(row) or not self.wanted(row) or not self._has_quota_at(row, number, known.start):
                continue  # it could not start if it were time
            if known.start <= self.now and not self.is_cut_short():
                self._start(row, 1, ((number,),))
            if row not in self.started and (start := self._kept_start(row, number, known.start)) is not None:
                self._hold(row, number, start)

    def _has_quota_at(self, row: int, number: int, moment: int) -> bool:
        """Whether one task has quota in a pool now, or when those have given theirs back who end before a moment."""
        if self._allowed(row, number, 1, self.now):
            return True
        if self._held_quotas is None or moment <= self.now:
            return False
        then, holding = self._held_quotas.copy(), self.snapshot.holding
        rows = np.flatnonzero((holding["nodes"] > 0) & (holding["rank"] != OPPORTUNISTIC))
        rows = rows[self.snapshot.ends(rows, self.now) <= moment]
        counted_as_gone = {other for rows in self._leaving.values() for other in rows.tolist()}
        for other in set(rows.tolist()) - counted_as_gone:
            total = Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
            then.add(self.snapshot.owner_of(other)[0], self.snapshot.flavor_of(other), total, -1)
        return self._quota_count(then, row, number, 1) > 0

    def _kept_start(self, row: int, number: int, start: int) -> int | None:
        """A reserved start, or when there is room after all where that is over or something failed.

        What leaves or begins just now may seem to end later than it will: only time will show that.
        """
        found = self.room.earliest(
            number, self._demand(row), max(start, self.now), self._duration(row), self._booked_for(row)
        )
        if start <= self.now or found is None:
            return found
        if found - start <= _BEGINNING * SECOND:
            return start
        graces = self.snapshot.holding["grace"][self.snapshot.holders_of(number)]
        late = _BEGINNING + int(graces.max(initial=0))
        return start if found - start <= late * SECOND else found

    def _hold(self, row: int, number: int, start: int) -> None:
        """Hold room and quota from `start` on."""
        job_id, demand = int(self.snapshot.rows["job"][row]), self._demand(row)
        self.room.hold(number, job_id, demand, start, min(ENDLESS, start + self._duration(row)))
        if self._held_quotas is not None:
            self._held_quotas.add(self.snapshot.bucket(row)[1], self.room.pools[number].flavor.name, demand.total)
        self._reserved[job_id] = number, start
        self._covered[job_id] = set(self._reservable(row))
        self._first_hold = min(self._first_hold, start)

    def ask_idle(self) -> None:
        """Ask opportunistic attempts, which use reserved room, to leave in time for its start."""
        holding = self.snapshot.holding
        for job_id, (number, start) in self._reserved.items():
            idle = self._idle_on(job_id, number)
            grace = max(self._graces.get(number, 0), int(holding["grace"][idle].max(initial=0)))
            if grace and start - grace * SECOND > self.now:
                self._moments.append(start - grace * SECOND)
            elif len(idle) and job_id not in self._leaving and job_id not in self.promises:
                self._ask_idle(job_id, number, idle)

    def _idle_on(self, job_id: int, number: int) -> Rows:
        """The opportunistic attempts that may be where room is held for a job, and were not asked to leave."""
        if self._node_victims is not None and (nodes := self.room.nodes_of(number)) is not None:
            held = nodes.holds.get(job_id)
            return np.zeros(0, np.intp) if held is None else self._node_victims.idle_on(number, held)
        here, holding = self.snapshot.holders_of(number), self.snapshot.holding
        found: Rows = here[(holding["rank"][here] == OPPORTUNISTIC) & ~holding["leaving"][here]]
        return found

    def _ask_idle(self, job_id: int, number: int, idle: Rows) -> None:
        row = self.snapshot.row_of(job_id)
        if row is None or not self.left_of(row):
            return
        demand, right = self._demand(row), self._right(row)
        claim = Claim(
            job_id, right.rank, right.project, right.priority, number, self.room.pools[number].flavor.name,
            demand.total, demand,
        )  # fmt: skip
        if self._node_victims is not None and (nodes := self.room.nodes_of(number)) is not None:
            victims = self._node_victims.idle_for(claim, nodes.holds[job_id], idle)
        else:
            victims = self.evictions.idle_for(claim, self._free_for_held(job_id, number, idle))
        self.evictions.evict(claim, victims or [])

    def _free_for_held(self, job_id: int, number: int, idle: Rows) -> Resources:
        """What a job has in a pool when its hold begins, if opportunistic attempts of some rows stay."""
        holding = self.snapshot.holding
        hold = next(hold for hold in self.room.holds[number] if hold.job_id == job_id)
        free = hold.left + hold.total
        # as free by then, see `Releases`
        counted = self.now + holding["grace"][idle].astype(np.int64) * SECOND <= hold.start
        for other in idle[counted].tolist():
            free -= Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
        return free

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
        demand, duration, own = self._demand(row), self._duration(row), self._booked_for(row)
        starts = [
            (start, order, number)
            for order, number in enumerate(pools)
            if self.room.slots[self.room.pools[number].site] > 0
            and self._allowed(row, number, 1, ENDLESS)
            and (start := self.room.earliest(number, demand, self.now, duration, own)) is not None
        ]
        if before is not None and (not starts or before[1] <= min(starts)[0]):
            self._hold(row, *before)
        elif starts:
            start, _, number = min(starts)
            self._hold(row, number, start)

    def _is_covered(self, pools: Sequence[int]) -> bool:
        most = self.snapshot.policy.reservations
        if most is not None:
            return len(self._reserved) >= most
        return any(not covered.isdisjoint(pools) for covered in self._covered.values())

    def _unreserve(self, row: int) -> tuple[int, int] | None:
        """Keep nothing for a row any more; the pool and start that were its own."""
        job_id, total = int(self.snapshot.rows["job"][row]), self._demand(row).total
        reserved = self._reserved.pop(job_id, None)
        if reserved is not None:
            self.room.unhold(reserved[0], job_id)
            if self._held_quotas is not None:
                flavor = self.room.pools[reserved[0]].flavor.name
                self._held_quotas.add(self.snapshot.bucket(row)[1], flavor, total, -1)
            del self._covered[job_id]
            self._first_hold = min((start for _, start in self._reserved.values()), default=ENDLESS)
        return reserved

    def reservations(self) -> tuple[Reservation, ...]:
        """All that is reserved now for what has not started, the first first."""
        found = {
            job_id: Reservation(job_id, self.room.pools[number].site, self.room.pools[number].flavor.name, start)
            for job_id, (number, start) in self._reserved.items()
        }
        if self.is_cut_short():  # what has not had its turn has its reservation still
            found = {job: known for job, known in self.snapshot.reservations.items() if not self._starts(job)} | found
        waits = [each for each in found.values() if self._waits(each.job_id) and each.job_id not in self.promises]
        return tuple(sorted(waits, key=lambda each: (each.start, each.job_id)))

    def _starts(self, job_id: int) -> bool:
        """Whether a job, or any task of an array, starts now."""
        return self.snapshot.row_of(job_id) in self.started

    def _waits(self, job_id: int) -> bool:
        """Whether a job, or any task of an array, still waits."""
        row = self.snapshot.row_of(job_id)
        return row is not None and self.left_of(row) > 0


def _lacking(wanted: Resources, coming: Resources) -> Resources:
    """What of something wanted is not coming."""
    return Resources(*(max(0, getattr(wanted, name) - getattr(coming, name)) for name in RESOURCES))


def _least(one: Resources, other: Resources) -> Resources:
    """What both have."""
    return Resources(*(min(getattr(one, name), getattr(other, name)) for name in RESOURCES))
