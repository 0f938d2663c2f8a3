"""What a forecast keeps for later: reservations, and what is booked. Counted by pools, from walltimes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from atoll.scheduler.ahead import Amounts, Part, RoomAhead, as_row
from atoll.scheduler.model import Booking
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

Owner = tuple[str, str]
"""A project and a person."""


@dataclass(slots=True)
class Hold:
    """Room of a pool that somebody has from `start` on."""

    pool: int
    start: int
    left: Amounts
    """What others may use beside it then."""
    pools: frozenset[int]
    """All where it could have been."""


class Holds:
    """What is held at the moment that `room` is at."""

    def __init__(self, snapshot: Snapshot, room: RoomAhead) -> None:
        self._room = room
        numbers = {(pool.site, pool.flavor.name): number for number, pool in enumerate(snapshot.pools)}
        self._starts: dict[int, tuple[int, int, Amounts]] = {}
        """The pool, start and total that a job has for certain: it may only become sooner."""
        for known in snapshot.reservations.values():
            row, pool = snapshot.row_of(known.job_id), numbers.get((known.site, known.flavor))
            if row is not None and pool is not None and room.open[pool]:
                total = snapshot.demands[int(snapshot.rows["demand"][row])].total
                self._starts[known.job_id] = pool, known.start, np.array(as_row(total), np.int64)
        self._most = snapshot.policy.reservations
        self._queues = {
            number
            for number, pool in enumerate(snapshot.pools)
            if (report := snapshot.sites[pool.site].site.report) is not None and report.queues
        }
        self._held: dict[int, Hold] = {}
        self._bookings: list[tuple[Booking, int, Amounts]] = []
        for booking in snapshot.bookings:
            self._book(booking, snapshot)

    def _book(self, booking: Booking, snapshot: Snapshot) -> None:
        """Take what is booked while the booking lasts."""
        left = np.array(as_row(booking.amount), np.int64)
        for number, pool in enumerate(snapshot.pools):
            if (
                pool.flavor.name == booking.flavor
                and booking.site in (None, pool.site)
                and booking.end > self._room.now
            ):
                here = np.minimum(left, as_row(pool.flavor.total))
                left = left - here
                self._room.add(Part(max(self._room.now, booking.start), number, tuple((-here).tolist())))
                self._room.add(Part(booking.end, number, tuple(here.tolist())))
                self._bookings.append((booking, number, here))

    # ---- bookings

    def booked(self, pool: int, owner: Owner) -> Amounts | int:
        """What is booked of a pool now for somebody; what they use of it already is not looked at."""
        now = self._room.now
        mine = [
            amount
            for booking, number, amount in self._bookings
            if number == pool and booking.start <= now < booking.end and booking.admits(*owner)
        ]
        return sum(mine, np.zeros(3, np.int64)) if mine else 0

    def booked_pools(self) -> list[int]:
        """The pools of which something is booked now."""
        now = self._room.now
        return sorted({number for booking, number, _ in self._bookings if booking.start <= now < booking.end})

    def limits(self, pool: int, owner: Owner, until: int) -> Iterator[Amounts]:
        """What is left of a pool for somebody who may stay until a time, by each thing that is held before then."""
        for hold in self._held.values():
            if hold.pool == pool and hold.start < until:
                yield hold.left
        for booking, number, amount in self._bookings:
            if number == pool and self._room.now < booking.start < until and not booking.admits(*owner):
                yield self._room.free_at(pool, booking.start - 1) - amount

    # ---- reservations

    def renew(self) -> None:
        """Forget what was held at another moment, but what is reserved for certain."""
        self._held.clear()
        for job_id, (pool, start, total) in self._starts.items():
            moment = max(start, self._room.now)
            self._held[job_id] = Hold(pool, moment, self._room.free_at(pool, moment) - total, frozenset((pool,)))

    def take(self, pool: int, amounts: Amounts, until: int) -> None:
        """Count what has started in a pool, and may stay until a time."""
        for hold in self._held.values():
            if hold.pool == pool and hold.start < until:
                hold.left = hold.left - amounts

    def jobs(self) -> list[int]:
        """Those that have a reservation."""
        return list(self._held)

    def of(self, job_id: int) -> Hold | None:
        """What is held for a job."""
        return self._held.get(job_id)

    def release(self, job_id: int) -> bool:
        """Hold nothing for a job, whose turn it is; whether anything was."""
        return self._held.pop(job_id, None) is not None

    def started(self, job_id: int) -> None:
        """A job needs no reservation any more."""
        self._starts.pop(job_id, None)

    def may_reserve(self, job_id: int, pools: Sequence[int]) -> bool:
        """Whether a job may have a reservation in one of some pools: it has one, or no other has one there."""
        return bool(pools) and (job_id in self._starts or not self._is_covered(pools))

    def reserve(self, job_id: int, total: Amounts, pools: Sequence[int], nearest: Mapping[int, int]) -> None:
        """Give a job a reservation in one of some pools where it has quota.

        `nearest` says when nodes are large enough, where that is known.
        """
        could = [pool for pool in pools if pool not in self._queues]
        starts = [(max(self._room.earliest(pool, total), nearest.get(pool, 0)), pool) for pool in could]
        if job_id in self._starts:
            pool, start, _ = self._starts[job_id]
            starts.append((max(start, self._room.now), pool))
        start, pool = min(starts, default=(ENDLESS, 0))
        if start < ENDLESS:
            self._held[job_id] = Hold(pool, start, self._room.free_at(pool, start) - total, frozenset(could))

    def _is_covered(self, pools: Iterable[int]) -> bool:
        if self._most is not None:
            return len(self._held) >= self._most
        return any(not hold.pools.isdisjoint(pools) for hold in self._held.values())
