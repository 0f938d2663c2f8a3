"""The queue as it will probably go: a forward simulation of the first in line, by pools, for `forecast`.

It does what a cycle does, without evictions: in the order of the queue each starts that has quota and room; the first
that has quota and no room gets a reservation, one for each disjoint set of pools, from the walltimes of what holds
room; those behind it pass where that breaks none. Time goes from one expected end to the next. The order stays.
"""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.scheduler.ahead import Part, QuotasAhead, RoomAhead, Rows, Times, expected_ends
from atoll.scheduler.candidates import Candidates
from atoll.scheduler.chances import Chances
from atoll.scheduler.holds import Holds
from atoll.scheduler.openings import parts_of_openings
from atoll.scheduler.quota import Tree
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot

_HASTENED = 32
"""So many of the first in line may start sooner by chance."""
_CHUNKS = 64
"""An array starts at most so many of its tasks' share at once, then others have their turn; see `round`."""


class Outlook:
    """Who starts when, from now on."""

    def __init__(self, snapshot: Snapshot, now: int, rows: Rows, tree: Tree | None = None) -> None:
        """`rows`, of what waits, are the first in line in the order of the queue.

        `tree` has the projects of the snapshot's tree with other quotas; None: with the quotas that they have.
        """
        self.snapshot, self.now = snapshot, now
        self.starts: Times = np.full(len(rows), -1, np.int64)
        """When each of them starts, in microseconds; -1 for never."""
        self.promised = np.zeros(len(rows), np.bool_)
        """For which of them others leave."""
        self._line = Candidates(snapshot, now, rows)
        self._alive = np.ones(len(rows), np.bool_)
        self._rows_of = np.bincount(self._line.kind, minlength=len(self._line.demand))
        """How many rows of each kind are alive."""
        self._holders = snapshot.limits().astype(np.int64)
        self._room = RoomAhead(snapshot, now, self._line.limits_of_running(snapshot))
        for part in parts_of_openings(snapshot, self._room):
            self._room.add(part)
        tree = tree or snapshot.tree
        self._quotas = None if tree is None else QuotasAhead(snapshot, tree)
        self._holds = Holds(snapshot, self._room)
        self._possible = self._line.possible & self._room.open
        self._sets = np.unique(self._possible, axis=0, return_inverse=True)[1].reshape(-1)
        """A number for each set of pools that a kind could use."""
        self._nearest = np.full(self._possible.shape, -1, np.int64)
        """When a node is first large enough, by kind and pool; -1: not looked up."""
        self._fits = np.zeros_like(self._possible)
        """At this moment, by kind and pool: whether a task may find room and quota."""
        self._allowed = np.zeros_like(self._possible)
        """At first, by kind and pool: whether there is quota for a task."""
        self._make_way()

    def _make_way(self) -> None:
        """Start what others leave for, when they have left; what it takes beyond their room is its own from now on."""
        snapshot, line, holding = self.snapshot, self._line, self.snapshot.holding
        numbers = {(pool.site, pool.flavor.name): number for number, pool in enumerate(snapshot.pools)}
        places = {job_id: place for place, job_id in enumerate(line.jobs)}
        for job_id in snapshot.promised():
            promise, place = snapshot.promise(job_id), places.get(job_id)
            pool = None if promise is None else numbers.get((promise.site, promise.flavor))
            others = np.flatnonzero((holding["leaves_for"] == job_id) & (holding["nodes"] > 0))
            if promise is None or place is None or pool is None or not len(others) or not self._room.open[pool]:
                continue
            late = int(expected_ends(snapshot, others, self.now).max())
            here = np.intersect1d(others, snapshot.holders_of(pool))
            coming = [int((holding[name][here] * holding["nodes"][here]).sum()) for name in RESOURCES]
            count = min(promise.count, line.left[place])
            total = line.total[line.kind[place]] * count
            first = np.maximum(0, total - coming)
            self._room.free[pool] -= first
            self._room.add(Part(late, pool, tuple((first - total).tolist())))
            self._begin(place, pool, count, late)
            self.promised[place] = True

    def hasten(self, runtimes: Runtimes) -> None:
        """Let the first in line start sooner, where some of the many attempts whose end would do will end by then."""
        line, chances = self._line, Chances(self.snapshot, self.now, runtimes)
        before: list[NDArray[np.bool_]] = []
        for place in np.flatnonzero((self.starts > self.now) & (line.begins <= self.now)).tolist():
            kind = int(line.kind[place])
            if len(before) == _HASTENED:
                return
            if line.limits[place] >= 0 or not (self.promised[place] or self._allowed[kind].any()):
                continue
            pools = tuple(np.flatnonzero(self._possible[kind]).tolist())
            ahead = sum(bool((self._possible[kind] & other).any()) for other in before)
            demand, until = self.snapshot.demands[int(line.demand[kind])], int(self.starts[place])
            self.starts[place] = chances.first(demand, pools, ahead, until, line.jobs[place])
            before.append(self._possible[kind])

    def run(self, until: int | None = None) -> None:
        """Let time go on until all have started, or the one at the place `until`, or nothing changes any more."""
        awaited = slice(None) if until is None else slice(until, until + 1)
        moment = self.now
        self._room.advance(moment, self._quotas, self._holders)
        self._allowed = self._look()
        begins = sorted({begin for begin in self._line.begins.tolist() if begin > self.now}, reverse=True)
        while moment < ENDLESS and (self.starts[awaited] < 0).any():
            self._room.advance(moment, self._quotas, self._holders)
            self._serve()
            while begins and begins[-1] <= moment:
                begins.pop()
            moment = min(self._room.next(), begins[-1] if begins else ENDLESS)

    def _serve(self) -> None:
        """Start all that can start at this moment."""
        line = self._line
        allowed = self._look()
        due = self._alive & (line.begins <= self._room.now)
        ready = due & np.asarray(self._fits.any(axis=1))[line.kind]
        if not ready.any():
            return  # then nobody is in anybody's way
        self._holds.renew()
        for job_id in self._holds.jobs():
            self._spare(job_id)
        blocked = np.flatnonzero(due & ~ready & np.asarray((self._possible & allowed).any(axis=1))[line.kind])
        _, first = np.unique(self._sets[line.kind[blocked]], return_index=True)
        turns = deque(np.union1d(np.flatnonzero(ready), blocked[first]).tolist())
        dead: set[int] = set()
        while turns:
            place = turns.popleft()
            kind = int(line.kind[place])
            if kind in dead or (wanted := self._wanted(place)) <= 0:
                continue
            if self._holds.release(line.jobs[place]):
                self._fits[kind] = self._possible[kind]  # what is kept for it is not kept from it
            if self._fits[kind].any() and self._start(place, -(-wanted // _CHUNKS) if turns else wanted):
                if self._alive[place]:
                    turns.append(place)
                continue
            dead.add(kind)
            pools = [pool for pool in line.preference[kind] if self._possible[kind, pool] and allowed[kind, pool]]
            if self._holds.may_reserve(line.jobs[place], pools):
                nearest = {pool: int(self._nearest[kind, pool]) for pool in pools}
                self._holds.reserve(line.jobs[place], line.total[kind], pools, nearest)
                self._spare(line.jobs[place])

    def _look(self) -> NDArray[np.bool_]:
        """Find for which kinds, by pool, there is room and quota for one task now; for which there is quota."""
        line, room = self._line, self._room
        self._fits, allowed = np.zeros_like(self._possible), np.zeros_like(self._possible)
        wanted = np.flatnonzero(self._rows_of > 0)
        total = line.total[wanted, None, :]
        self._fits[wanted] = (total <= room.free).all(axis=2)
        for pool in self._holds.booked_pools():
            for kind in wanted.tolist():
                free = room.free[pool] + self._holds.booked(pool, line.owner[kind])
                self._fits[kind, pool] = (line.total[kind] <= free).all()
        self._fits &= self._possible & (room.slots[room.site] > 0) & (self._nearest <= room.now)
        if self._quotas is None:
            allowed[wanted] = True
        else:
            allowed[wanted] = ((total == 0) | (total <= self._quotas.available(line.project[wanted]))).all(axis=2)
        self._fits &= allowed
        found: NDArray[np.bool_] = allowed
        return found

    def _spare(self, job_id: int) -> None:
        """Leave out at once all kinds that could not start beside what is held for a job."""
        hold = self._holds.of(job_id)
        if hold is not None:
            line = self._line
            late = self._room.now + line.wall_of_kind > hold.start
            self._fits[late & (line.total > hold.left).any(axis=1), hold.pool] = False

    def _wanted(self, place: int) -> int:
        """How many tasks of a row may start now, as far as its own width goes."""
        width, left = self._line.widths[place], self._line.left[place]
        return left if width < 0 else min(left, width - int(self._holders[self._line.limits[place]]))

    # ---- starting

    def _start(self, place: int, wanted: int) -> int:
        """Start up to so many tasks where they fit; how many."""
        line, room, kind, started = self._line, self._room, int(self._line.kind[place]), 0
        until = min(ENDLESS, room.now + line.wall[place])
        for pool in line.preference[kind]:
            if started == wanted:
                break
            if not self._fits[kind, pool]:
                continue
            if not (count := self._most(kind, pool, wanted - started, until)):
                self._fits[kind, pool] = False
                continue
            if self._nearest[kind, pool] < 0:
                self._nearest[kind, pool] = line.nearest(kind, pool)
            if self._nearest[kind, pool] <= room.now:
                total = line.total[kind] * count
                room.free[pool] -= total
                self._holds.take(pool, total, until)
                self._begin(place, pool, count, room.now)
                started += count
                if pool not in self._holds.booked_pools():
                    self._fits[:, pool] &= (line.total <= room.free[pool]).all(axis=1)
        return started

    def _most(self, kind: int, pool: int, most: int, until: int) -> int:
        """How many tasks, at most `most`, fit into a pool from now until a time, beside what is held."""
        line, room, owner = self._line, self._room, self._line.owner[kind]
        limits = [room.free[pool] + self._holds.booked(pool, owner), *self._holds.limits(pool, owner, until)]
        if self._quotas is not None:
            limits.append(np.array(self._quotas.available_at(int(line.project[kind]), pool)))
        most = min(most, int(room.slots[room.site[pool]]))
        total = line.total[kind].tolist()
        for limit in limits:
            for want, left in zip(total, limit.tolist(), strict=True):
                if want:
                    most = min(most, left // want)
        return max(0, most)

    def _begin(self, place: int, pool: int, count: int, start: int) -> None:
        """Have tasks hold, until their end, room that was taken for them, and quota."""
        line = self._line
        kind, limit = int(line.kind[place]), line.limits[place]
        total, project = line.total[kind] * count, int(line.project[kind])
        end, wall = min(ENDLESS, start + line.run[place]), min(ENDLESS, start + line.wall[place])
        self._room.slots[self._room.site[pool]] -= count
        self._room.add(Part(end, pool, tuple(total.tolist()), project, limit, count, wall))
        if self._quotas is not None:
            self._quotas.take(project, pool, total)
        if limit >= 0:
            self._holders[limit] += count
        line.left[place] -= count
        if not line.left[place]:
            self._alive[place] = False
            self._rows_of[kind] -= 1
        if self.starts[place] < 0:
            self.starts[place] = start
            self._holds.started(line.jobs[place])
