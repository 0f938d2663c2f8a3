"""What is free in each pool, counted down while a cycle places jobs, and what of it is kept for a later start."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.fit import Pool, Used, is_open
from atoll.scheduler.line import Line, Right
from atoll.scheduler.model import CLASSES, Demand, SiteState
from atoll.scheduler.noderoom import NodeRoom

ENDLESS = 2**62
"""The end, in microseconds, of what has none."""


@dataclass(slots=True)
class Hold:
    """Room of a pool that a job, or those of a booking, will have from `start` on.

    `left` is what others may use beside it then. Of a booking the job id is the booking's number, negative.
    """

    job_id: int
    start: int
    end: int
    total: Resources
    left: Resources


@dataclass(frozen=True, slots=True)
class Stay:
    """How long something would stay in a pool, in microseconds, and the bookings that are its own."""

    end: int
    """Until when, if it is asked to leave where it has to."""
    whole: int
    """Until when by its walltime: nobody is asked to leave for a booking."""
    own: frozenset[int] = frozenset()

    def minds(self, hold: Hold) -> bool:
        """Whether a hold is in its way."""
        if hold.job_id < 0:
            return -hold.job_id not in self.own and hold.start < self.whole
        return hold.start < self.end


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept for a job for which others leave."""

    now: Resources
    """Of what is free now."""
    surplus: Resources
    """What others leave beyond what it needs."""
    total: Resources
    """What it will have in all."""
    end: int
    """Until when, in microseconds."""


@dataclass(frozen=True, slots=True)
class Releases:
    """When what a pool's attempts hold becomes free: `ends` in microseconds, rising, and what all before then held."""

    ends: NDArray[np.int64]
    sums: NDArray[np.int64]
    """A row more than `ends`, beginning with nothing; a column for each of RESOURCES."""

    @classmethod
    def of(cls, ends: NDArray[np.int64], amounts: NDArray[np.int64]) -> "Releases":
        """From the attempts in any order."""
        order = np.argsort(ends, kind="stable")
        sums = np.zeros((len(ends) + 1, len(RESOURCES)), np.int64)
        np.cumsum(amounts[order], axis=0, out=sums[1:])
        return cls(ends[order], sums)

    def with_more(self, more: Sequence[tuple[int, Resources]]) -> "Releases":
        """These and more, each an end and an amount."""
        if not more:
            return self
        ends = np.array([end for end, _ in more], np.int64)
        amounts = np.array([[getattr(amount, name) for name in RESOURCES] for _, amount in more], np.int64)
        mine = np.diff(self.sums, axis=0)
        return Releases.of(np.concatenate([self.ends, ends]), np.concatenate([mine, amounts]))

    def by(self, moment: int) -> Resources:
        """What is free again at a moment."""
        return Resources(*self.sums[np.searchsorted(self.ends, moment, side="right")].tolist())


class Room:
    """What is free in each pool, counted down while a cycle places jobs. Closed pools take nothing."""

    def __init__(
        self,
        pools: Sequence[Pool],
        states: Mapping[str, SiteState],
        used: Mapping[tuple[str, str], Used],
        releases: Callable[[int], Releases],
        nodes: NodeRoom | None = None,
    ) -> None:
        """`releases` tells of a pool, by its number, when its attempts end; `nodes` are those that Atoll chooses."""
        self.pools = pools
        self.states = states
        self.open = [is_open(states[pool.site]) for pool in pools]
        unused = Used()
        # from the sites themselves: the pools are not made anew each time that others' load changes
        others = {
            (name, flavor.name): flavor.others
            for name, state in states.items()
            for flavor in (state.site.report.flavors if state.site.report else ())
        }
        nothing = Resources()
        self.free = [
            pool.flavor.total
            - others.get((pool.site, pool.flavor.name), nothing)
            - used.get((pool.site, pool.flavor.name), unused).resources
            for pool in pools
        ]
        self.nodes = nodes
        """The room by node, where Atoll chooses the nodes of any pool."""
        if nodes is not None:
            for number in nodes.owned.stretches:
                self.free[number] = nodes.owned.free(number)
        taken = dict.fromkeys(states, 0)
        self.backlog = {name: [state.backlog(rank) for rank in range(len(CLASSES))] for name, state in states.items()}
        """How many more attempts of each rank may wait in each site's own queue."""
        for (site, _), use in used.items():
            if site in taken:
                taken[site] += use.attempts
                self.backlog[site] = [
                    left - waiting for left, waiting in zip(self.backlog[site], use.waiting, strict=True)
                ]
        self.slots = {name: _limit(state) - taken[name] for name, state in states.items()}
        """How many more attempts each site takes."""
        self.recalling = frozenset(number for number, pool in enumerate(pools) if _recalls(states[pool.site]))
        """The pools of whose queues attempts can be pulled back."""
        self.holds: dict[int, list[Hold]] = {}
        """What is kept for later, by pool."""
        self._kept: dict[int, Resources] = {}
        self._surplus: dict[int, Resources] = {}
        self._promised: dict[int, list[tuple[int, Resources]]] = {}
        self._used = used
        self._releases = releases
        self._started: dict[int, list[tuple[int, Resources]]] = {}
        self._timelines: dict[int, tuple[int, Releases]] = {}
        self._free_at_first = list(self.free)
        self._lines: dict[int, Line] = {}
        self._closed: set[int] = set()

    # ---- starting now

    def nodes_of(self, number: int) -> NodeRoom | None:
        """The room by node of a pool whose nodes Atoll chooses; None where an engine does."""
        return self.nodes if self.nodes is not None and number in self.nodes.owned.stretches else None

    @property
    def of_engines(self) -> NDArray[np.bool_]:
        """Which pools are of engines that choose the nodes themselves."""
        return np.array([self.nodes_of(number) is None for number in range(len(self.pools))], np.bool_)

    @property
    def is_limited(self) -> bool:
        """Whether anything but the room on nodes limits what goes to pools whose nodes Atoll chooses."""
        if self.nodes is None:
            return True
        sites = {self.pools[number].site for number in self.nodes.owned.stretches}
        return any(self.nodes.owned.unplaced.values()) or any(self.slots[name] < ENDLESS // 2 for name in sites)

    def fitting(
        self,
        totals: NDArray[np.void],
        requests: NDArray[np.void],
        possible: NDArray[np.bool_],
        rights: Sequence[Right],
    ) -> NDArray[np.bool_]:
        """Which of many demands are taken somewhere now; all arrays have a row for each, see `Demands`.

        `rights` are the greatest of the jobs that have them; only engines' pools want to know them. What is kept for
        later is not looked at.
        """
        fits = np.zeros(len(totals), np.bool_)
        owned = np.zeros(len(self.pools), np.bool_)
        for number, free in self._with_room():
            if self.nodes_of(number) is not None:
                owned[number] = True
                continue
            if any(self.count_queued(number, 1, right) for right in rights):
                fits |= possible[:, number]
                continue
            fits |= (
                possible[:, number]
                & (totals["cpu"] <= free.cpu)
                & (totals["memory"] <= free.memory)
                & (totals["gpu"] <= free.gpu)
            )
        if self.nodes is not None:
            fits |= self.nodes.fitting(requests, possible & owned)
        return fits

    def _with_room(self) -> Iterator[tuple[int, Resources]]:
        for number, pool in enumerate(self.pools):
            if self.open[number] and self.slots[pool.site] > 0:
                yield number, self.free[number]

    def count(self, number: int, total: Resources, most: int, stay: Stay) -> int:
        """How many times, at most `most`, `total` fits into a pool now for a stay."""
        if not self.open[number]:
            return 0
        most = min(most, self.slots[self.pools[number].site], times(self.usable(number), total))
        for hold in self.holds.get(number, ()):
            if stay.minds(hold):
                most = min(most, times(hold.left, total))
        return max(0, most)

    def usable(self, number: int) -> Resources:
        """What is free in a pool now, and not promised."""
        free, kept = self.free[number], self._kept.get(number)
        return free if kept is None else _least(free, free - kept)

    def take(self, number: int, total: Resources, count: int, stay: Stay) -> None:
        """Count `total` down from a pool, `count` times, for a stay."""
        amount = total * count
        self.free[number] -= amount
        self.slots[self.pools[number].site] -= count
        for hold in self.holds.get(number, ()):
            if stay.minds(hold):
                hold.left -= amount
        self._started.setdefault(number, []).append((stay.end, amount))

    def to_come(self, number: int) -> Resources:
        """What is free in a pool now and not promised, with what will be left over where others leave."""
        return self.usable(number) + self._surplus.get(number, Resources())

    def promise(self, number: int, kept: Kept) -> None:
        """Keep room for somebody for whom others leave.

        Nothing more goes into the pool's own queue in this cycle: it would take what others leave.
        """
        self._kept[number] = self._kept.get(number, Resources()) + kept.now
        self._surplus[number] = self._surplus.get(number, Resources()) + kept.surplus
        self._promised.setdefault(number, []).append((kept.end, kept.total))
        self._timelines.pop(number, None)
        for hold in self.holds.get(number, ()):
            if hold.start < kept.end:
                hold.left -= kept.total
        self._closed.add(number)

    def promise_more(self, number: int, total: Resources, coming: Resources, end: int) -> None:
        """Keep `total` for somebody, of what is coming, of what was left over of that before, and of what is free."""
        surplus = self._surplus.get(number, Resources())
        self._surplus[number] = Resources()
        ahead = coming + surplus
        self.promise(number, Kept(_beyond(total, ahead), _beyond(ahead, total), total, end))

    def unpromise(self, number: int, kept: Kept) -> None:
        """Take back what was promised before any job was held room. Raises ValueError where nothing was."""
        self._kept[number] -= kept.now
        self._surplus[number] -= kept.surplus
        self._promised[number].remove((kept.end, kept.total))
        self._timelines.pop(number, None)
        for hold in self.holds.get(number, ()):
            if hold.start < kept.end:
                hold.left += kept.total

    def spares_holds(self, number: int, total: Resources, stay: Stay) -> bool:
        """Whether `total` may be used in a pool for a stay beside all that is held."""
        return all(total.fits(hold.left) for hold in self.holds.get(number, ()) if stay.minds(hold))

    def with_room(self, number: int, demand: Demand) -> int:
        """How many nodes of a pool, where Atoll chooses them, have room for a demand; 0 elsewhere."""
        nodes = self.nodes_of(number)
        return 0 if nodes is None else nodes.with_room(number, demand.request)

    def has_room(self, number: int, demand: Demand) -> bool:
        """Whether a demand fits into a pool now, whatever is held for later."""
        nodes = self.nodes_of(number)
        if nodes is not None and nodes.with_room(number, demand.request) < demand.nodes:
            return False
        return demand.total.fits(self.usable(number))

    def is_held(self, number: int) -> bool:
        """Whether anything of a pool is held for later."""
        return bool(self.holds.get(number)) or (self.nodes is not None and self.nodes.is_held(number))

    # ---- starting later

    def free_at(self, number: int, moment: int) -> Resources:
        """What will be free in a pool at a moment, apart from what is held."""
        free = self.free[number] + self._timeline(number).by(moment)
        for _, total in self._promised.get(number, ()):
            free -= total
        return free

    def _timeline(self, number: int) -> Releases:
        """The releases of a pool with those of what has started in this cycle, or will where others leave."""
        started = self._started.get(number, []) + self._promised.get(number, [])
        count, timeline = self._timelines.get(number, (-1, None))
        if timeline is None or count != len(started):
            timeline = self._releases(number).with_more(started)
            self._timelines[number] = len(started), timeline
        return timeline

    def earliest(
        self, number: int, demand: Demand, now: int, duration: int, own: frozenset[int] = frozenset()
    ) -> int | None:
        """When a pool will have room for `duration` (microseconds); None: as it is now, never.

        `own` are the bookings that are not kept from it.
        """
        total = demand.total
        holds = [hold for hold in self.holds.get(number, ()) if -hold.job_id not in own]
        if (nodes := self.nodes_of(number)) is not None:
            for moment in sorted({now, *(hold.end for hold in holds if hold.end > now)}):
                found = nodes.earliest(number, demand, moment)
                if found is None:
                    return None
                if not holds or self._holds_at(number, holds, total, found[0], found[0] + duration):
                    return found[0]
            return None
        ends = self._timeline(number).ends
        moments = {now, *(hold.end for hold in holds)}
        # what is free only grows but for what is held: the first moment that is enough is found by halves
        low, high = 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            if total.fits(self.free_at(number, max(now, int(ends[middle])))):
                high = middle
            else:
                low = middle + 1
        later: list[int] = ends[low : low + 1 if not holds else None].tolist()
        for moment in sorted({*moments, *(max(now, end) for end in later)}):
            if now <= moment < ENDLESS and self._holds_at(number, holds, total, moment, moment + duration):
                return moment
        return None

    def _holds_at(self, number: int, holds: Sequence[Hold], total: Resources, begin: int, end: int) -> bool:
        """Whether `total` is free from `begin` to `end`, beside what is held."""
        free = self.free_at(number, begin)
        for hold in holds:
            if hold.start <= begin < hold.end:
                free -= hold.total
        if not total.fits(free):
            return False
        return all(total.fits(hold.left) for hold in holds if begin < hold.start < end)

    def unhold(self, number: int, job_id: int) -> None:
        """Keep room for a job no longer. Raises StopIteration for one that holds none."""
        if (nodes := self.nodes_of(number)) is not None:
            nodes.unhold(job_id)
            return
        holds = self.holds[number]
        found = next(hold for hold in holds if hold.job_id == job_id)
        holds.remove(found)
        for other in holds:
            if found.start <= other.start < found.end:
                other.left += found.total

    def hold(self, number: int, job_id: int, demand: Demand, start: int, end: int) -> None:
        """Keep room for a job from `start` to `end`."""
        if (nodes := self.nodes_of(number)) is not None:
            nodes.hold(job_id, number, demand, start)
            return
        self._hold(number, job_id, demand.total, start, end)

    def book(self, number: int, booking: int, total: Resources, start: int, end: int) -> None:
        """Keep room for those of a booking from `start` to `end`, on whatever nodes."""
        self._hold(number, -booking, total, start, end)

    def _hold(self, number: int, job_id: int, total: Resources, start: int, end: int) -> None:
        holds = self.holds.setdefault(number, [])
        left = self.free_at(number, start) - total
        for other in holds:
            if other.start <= start < other.end:
                left -= other.total
            if start <= other.start < end:
                other.left -= total
        holds.append(Hold(job_id, start, end, total, left))

    # ---- waiting in a site's own queue

    def count_queued(self, number: int, most: int, right: Right) -> int:
        """How many attempts, at most `most`, with a `right` may be given to the queue of a pool's site.

        The places that others give up for it count too.
        """
        if not self.open[number] or number in self._closed:
            return 0
        site = self.pools[number].site
        places = self.backlog[site][right.rank]
        if (line := self._line(number)) is not None:
            if line.keeps_out(right):
                return 0
            places += line.places_for(right) if places < most else 0
        return max(0, min(most, self.slots[site], places))

    def take_queued(self, number: int, total: Resources, count: int, right: Right) -> None:
        """Count `total` down from a pool for attempts that go into its queue, where others make way."""
        self.take(number, total, count, Stay(ENDLESS, ENDLESS))
        self.backlog[self.pools[number].site][right.rank] -= count
        self.make_way(number, right)

    def make_way(self, number: int, right: Right) -> None:
        """Pull back what waits in a pool's queue and has less right."""
        if (line := self._line(number)) is not None:
            line.make_way(right)

    def close(self, wanted: NDArray[np.bool_]) -> None:
        """Let nothing more into the queues of those pools (a column for each) for which others with more right wait.

        Only where it would be pulled back again as soon as one of the others comes into the queue.
        """
        self._closed |= self.recalling.intersection(np.flatnonzero(wanted).tolist())

    def recalls(self) -> tuple[str, ...]:
        """The attempts that are to be pulled back out of sites' queues."""
        lines = [self._line(number) for number in sorted(self.recalling) if self.open[number]]
        return tuple(sorted(attempt_id for line in lines if line is not None for attempt_id in line.recalled))

    def _line(self, number: int) -> Line | None:
        """What waits in the queue of a pool; None where nothing does, or nothing of it can be pulled back."""
        if (known := self._lines.get(number)) is not None:
            return known
        pool = self.pools[number]
        used = self._used.get((pool.site, pool.flavor.name))
        if used is None or not used.line or number not in self.recalling:
            return None
        line = self._lines[number] = Line(used.line.values(), self._free_at_first[number])
        return line


def times(free: Resources, total: Resources) -> int:
    """How often `total` fits into `free`; many times where it is nothing at all."""
    most = ENDLESS
    for name in RESOURCES:
        if wanted := getattr(total, name):
            most = min(most, getattr(free, name) // wanted)
    return most


def _beyond(one: Resources, other: Resources) -> Resources:
    """What one has more than the other."""
    return Resources(*(max(0, getattr(one, name) - getattr(other, name)) for name in RESOURCES))


def _least(one: Resources, other: Resources) -> Resources:
    return Resources(*(min(getattr(one, name), getattr(other, name)) for name in RESOURCES))


def _recalls(state: SiteState) -> bool:
    return state.site.report is not None and state.site.report.recalls


def _limit(state: SiteState) -> int:
    limit = state.site.report.max_jobs if state.site.report else None
    return 2**62 if limit is None else limit
