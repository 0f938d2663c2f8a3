"""One round of the queue: what is left of room, quotas and shares while jobs are looked at, and what was decided."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.ranges import Ranges
from atoll.core.resources import Resources
from atoll.scheduler.evict import Claim, Evictions, Victim
from atoll.scheduler.line import Right
from atoll.scheduler.model import OPPORTUNISTIC, Booking, Demand, Eviction, Place, Promise, Reservation
from atoll.scheduler.quota import Amounts, Quotas
from atoll.scheduler.room import ENDLESS, Kept, Stay
from atoll.scheduler.snapshot import Snapshot

Rows = NDArray[np.intp]
_SECOND = 1_000_000
_CHUNKS = 64
"""An array that is not alone starts at most so many of its tasks' share at once, then others have their turn."""
_SEARCHES = 300
"""For how many jobs a cycle looks in vain for others to evict."""
_TASKS = 256
"""For how many tasks of an array a cycle has others leave."""
_OVERDUE = 100
_FEW = 64
"""So many jobs of one kind have others leave for them in one cycle."""
_BEGINNING = 600
"""How many seconds what starts may take to begin, and with it what waits for its end."""
_LOW = 2**32 - 1


class Round:
    """The state of one cycle. Nothing of the snapshot is changed."""

    def __init__(self, snapshot: Snapshot, now: int) -> None:
        self.snapshot = snapshot
        self.now = now
        self.room = snapshot.room(now)
        self.quotas = None if snapshot.quotas is None else snapshot.quotas.copy()
        """What is used when those have left who are asked to, and those started for whom they are."""
        self.shares = snapshot.shares.fork()
        self.evictions = Evictions(snapshot, self.quotas, now)
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
        self._reserved: dict[int, tuple[int, int]] = {}  # (pool, start) by job
        self._covered: dict[int, set[int]] = {}  # by job that has a reservation, where it could have had one
        self._places: dict[tuple[int, str, str], Ranges | None] = {}
        self._full = np.zeros(len(snapshot.demands.totals), np.bool_)
        self._kinds = _Kinds(np.zeros(0, np.intp), np.zeros(0, np.intp))
        self.dead = bytearray()
        """By row: whether it need not be looked at any more."""
        self._vain: set[tuple[Right, int]] = set()
        self._pools = {(pool.site, pool.flavor.name): number for number, pool in enumerate(self.room.pools)}
        self._holders: dict[int, set[int]] = {}
        self._leaving = self._leaving_for()
        self._left_alone = {job_id for job_id in self._leaving if not self._still_wants(job_id)}
        self._moments: list[int] = []
        self._graces: dict[int, int] = {}  # the longest grace of the opportunistic jobs that start in a pool
        self._kept: set[int] = set()  # jobs for which others still leave

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
        """How long a row may hold room, in microseconds: its walltime, and the grace that it then has."""
        job = self.snapshot.rows[row]
        demand = self.snapshot.demands[int(job["demand"])]
        seconds = self.snapshot.walltime(int(job["rank"]), demand.placement.walltime)
        return ENDLESS if seconds is None else (seconds + demand.placement.grace) * _SECOND

    def _end(self, row: int) -> int:
        """Until when it holds room, if it starts now: opportunistic ones leave when they are asked to."""
        if self.snapshot.rows["rank"][row] == OPPORTUNISTIC:
            return self.now + self._demand(row).placement.grace * _SECOND
        return min(ENDLESS, self.now + self._duration(row))

    def _stay(self, row: int, later: int = 0) -> Stay:
        """The same with all that decides what is in its way, if it starts so much later."""
        end, whole = self._end(row) + later, self.now + self._duration(row) + later
        return Stay(min(ENDLESS, end), min(ENDLESS, whole), self._booked_for(row))

    def _booked_for(self, row: int) -> frozenset[int]:
        """The bookings in which a row may run."""
        if not self.snapshot.bookings:
            return frozenset()
        _, project, person = self.snapshot.bucket(row)
        return frozenset(booking.number for booking in self.snapshot.bookings if booking.admits(project, person))

    def _right(self, row: int) -> Right:
        job = self.snapshot.rows[row]
        return Right(int(job["rank"]), self.snapshot.bucket(row)[1], int(job["priority"]))

    def is_over(self, name: str) -> bool:
        """Whether a node of the tree uses more than its own quota, with what starts now."""
        quotas = self.quotas
        return quotas is not None and name in quotas.tree and quotas.is_over(name)

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
                    self.room.hold(
                        number, -booking.number, _lacking(here, used), max(self.now, booking.start), booking.end
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
            count = self._start(row, min(promise.count, self.wanted(row)), (number,))[0] if self._is_due(row) else 0
            if (more := min(promise.count - count, self.left_of(row))) and job_id in self._leaving:
                self._promise(job_id, row, number, more)
                self._kept.add(job_id)
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
        coming, late = Resources(), 0
        holding, here = self.snapshot.holding, self._holders_of(number)
        for other in self._leaving.get(job_id, ()):
            asked = self.now if holding["leaving"][other] else max(self.now, int(holding["notice"][other]))
            late = max(late, asked - self.now + int(holding["grace"][other]) * _SECOND)
            total = Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
            if other in here:
                coming += total
            if holding["rank"][other] != OPPORTUNISTIC:
                self._count_quota(self.snapshot.owner_of(int(other))[0], number, total, -sign)
        wanted, end = demand.total * count, min(ENDLESS, self.now + late + self._duration(row))
        change = self.room.promise if sign > 0 else self.room.unpromise
        change(number, Kept(_lacking(wanted, coming), _lacking(coming, wanted), wanted, end))
        self._count_quota(self.snapshot.bucket(row)[1], number, wanted, sign)

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
            if not self._is_due(row) or not self.wanted(row) or not self._allowed(row, number, 1, self.now):
                continue  # it could not start if it were time
            if known.start <= self.now:
                self._start(row, 1, (number,))
            if row not in self.started and (start := self._kept_start(row, number, known.start)) is not None:
                self._hold(row, number, start)

    def _kept_start(self, row: int, number: int, start: int) -> int | None:
        """A reserved start, or when there is room after all where that is over or something failed.

        What leaves or begins just now may seem to end later than it will: only time will show that.
        """
        found = self.room.earliest(
            number, self._demand(row).total, max(start, self.now), self._duration(row), self._booked_for(row)
        )
        if start <= self.now or found is None:
            return found
        graces = self.snapshot.holding["grace"][self.snapshot.holders_of(number)]
        late = _BEGINNING + int(graces.max(initial=0))
        return start if found - start <= late * _SECOND else found

    def _hold(self, row: int, number: int, start: int) -> None:
        """Hold room and quota from `start` on."""
        job_id, total = int(self.snapshot.rows["job"][row]), self._demand(row).total
        self.room.hold(number, job_id, total, start, min(ENDLESS, start + self._duration(row)))
        if self._held_quotas is not None:
            self._held_quotas.add(self.snapshot.bucket(row)[1], self.room.pools[number].flavor.name, total)
        self._reserved[job_id] = number, start
        self._covered[job_id] = set(self._reservable(row))
        self._first_hold = min(self._first_hold, start)

    def ask_idle(self) -> None:
        """Ask opportunistic attempts, which use reserved room, to leave in time for its start."""
        holding = self.snapshot.holding
        for job_id, (number, start) in self._reserved.items():
            here = self.snapshot.holders_of(number)
            idle = here[(holding["rank"][here] == OPPORTUNISTIC) & ~holding["leaving"][here]]
            grace = max(self._graces.get(number, 0), int(holding["grace"][idle].max(initial=0)))
            if grace and start - grace * _SECOND > self.now:
                self._moments.append(start - grace * _SECOND)
            elif len(idle) and job_id not in self._leaving and job_id not in self.promises:
                self._ask_idle(job_id, number, idle)

    def _ask_idle(self, job_id: int, number: int, idle: Rows) -> None:
        row, holding = self.snapshot.row_of(job_id), self.snapshot.holding
        if row is None or not self.left_of(row):
            return
        hold = next(hold for hold in self.room.holds[number] if hold.job_id == job_id)
        free = hold.left + hold.total
        counted = (
            self.now + holding["grace"][idle].astype(np.int64) * _SECOND <= hold.start
        )  # as free by then, see `Releases`
        for other in idle[counted].tolist():
            free -= Resources(*(int(holding[name][other]) for name in RESOURCES)) * int(holding["nodes"][other])
        right, flavor = self._right(row), self.room.pools[number].flavor.name
        claim = Claim(job_id, right.rank, right.project, right.priority, number, flavor, hold.total)
        self.evictions.evict(claim, self.evictions.idle_for(claim, free) or [])

    # ---- in turn

    def serve_overdue(self, rows: Rows) -> None:
        """Look first at those within their nominal quota that have waited too long: nothing passes them."""
        waiting = self.snapshot.rows
        late = self.now - self.snapshot.policy.max_wait * _SECOND
        found = rows[(waiting["submitted"][rows] <= late) & (waiting["rank"][rows] != OPPORTUNISTIC)]
        if not len(found):
            return
        found = found[np.lexsort((waiting["job"][found], waiting["submitted"][found]))]
        kinds, inverse = np.unique(self._kinds_of(found), return_inverse=True)
        within = self._quota_fits(kinds, None if self.quotas is None else self.quotas.subtree - self.quotas.usage)
        for row in found[within[inverse]][:_OVERDUE].tolist():
            self.serve(row)

    def _kinds_of(self, rows: Rows) -> NDArray[np.int64]:
        """A number for each row; rows of one are of one person in one project and class, and demand the same."""
        waiting = self.snapshot.rows
        kinds: NDArray[np.int64] = waiting["bucket"][rows].astype(np.int64) << 32 | waiting["demand"][rows]
        return kinds

    def worth_a_look(self, rows: Rows) -> Rows:
        """Of the rows of one class those that may start, and the first few of each other kind: others may help them.

        Rows of a kind are of one person in one project, and demand the same.
        """
        snapshot = self.snapshot
        demands = snapshot.demands
        opportunistic = bool(snapshot.rows["rank"][rows[0]] == OPPORTUNISTIC)
        self._full = ~self.room.fitting(demands.totals, demands.possible, self._rights(rows))
        rows = rows[self._below_width(rows)]
        kinds, inverse, counts = np.unique(self._kinds_of(rows), return_inverse=True, return_counts=True)
        fits = ~self._full[kinds & _LOW]
        if not opportunistic:
            fits &= self._quota_fits(kinds, None if self.quotas is None else self.quotas.available())
        worth = fits[inverse]
        if not opportunistic:
            order = np.argsort(inverse, kind="stable")
            places = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
            worth[order[places < _FEW]] = True
        self._kinds = _Kinds(rows[worth], inverse[worth])
        self.dead = bytearray(len(snapshot.rows))
        found: Rows = rows[worth]
        return found

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

    def _quota_fits(self, kinds: NDArray[np.int64], available: Amounts | None) -> NDArray[np.bool_]:
        """For which kinds that much of quota is enough for one task in one of the pools that they could use."""
        quotas, snapshot = self.quotas, self.snapshot
        if quotas is None or available is None:
            return np.ones(len(kinds), np.bool_)
        demands, buckets = kinds & _LOW, kinds >> 32
        index = quotas.tree.index
        nodes = np.array([index.get(snapshot.bucket_key(bucket)[1], -1) for bucket in buckets.tolist()], np.intp)
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
        """Start a row, or see to it that it can.

        For how many tasks that was so, and whether there are more that are to have their turn again.
        """
        wanted = self.wanted(row)
        if not wanted:
            if self.left_of(row):
                self._pass_over_limit(row)
            return 0, False
        reserved = self._unreserve(row)  # what is kept for it is not kept from it, though it was from its like
        chunk = wanted if alone else max(1, wanted // _CHUNKS)
        full = reserved is None and bool(self._full[int(self.snapshot.rows["demand"][row])])
        count, promised = self._serve(row, chunk, full)
        if count + promised < chunk and not self._is_promised(row):
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
        number, choices, count = int(self.snapshot.rows["demand"][row]), self._preference(row), 0
        none = False
        if not full:
            count, none = self._start(row, chunk, choices)
        if count == chunk:
            return count, 0
        promised = self.make_others_leave(row, chunk - count)
        if promised or full or self._is_promised(row) or int(self.snapshot.rows["job"][row]) in self._leaving:
            return count, promised
        more, none_queued = self._start(row, chunk - count, choices, queued=True)
        self._full[number] = none and none_queued  # it may have been quota that lacked, which others have
        return count + more, 0

    def _pass_over_limit(self, row: int) -> None:
        """Look at no other row with the same width, which is used up."""
        limits = self.snapshot.rows["limit"]
        others = self._kinds.rows[limits[self._kinds.rows] == limits[row]]
        if len(others) > 1:
            np.frombuffer(self.dead, np.bool_)[others] = True

    def _start(self, row: int, wanted: int, choices: Sequence[int], *, queued: bool = False) -> tuple[int, bool]:
        """Give a row as much room as it wants and there is, in these pools, or places in their queues (`queued`).

        How many tasks start, and whether there was no more room for its kind.
        """
        right, stay, total = self._right(row), self._stay(row), self._demand(row).total
        count, full = 0, True
        for number in choices:
            left = wanted - count
            if not left:
                return count, False
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

    def _note(self, row: int, number: int, count: int, end: int) -> None:
        """Write down that tasks of a row start, and count what they use."""
        snapshot, pool = self.snapshot, self.room.pools[number]
        job, demand = snapshot.rows[row], self._demand(row)
        job_id, rank = int(job["job"]), int(job["rank"])
        project = snapshot.bucket(row)[1]
        if rank != OPPORTUNISTIC:
            self._count_quota(project, number, demand.total * count, held=end > self._first_hold)
            if self._used_quotas is not None:
                self._used_quotas.add(project, pool.flavor.name, demand.total * count)
        else:
            self._graces[number] = max(self._graces.get(number, 0), demand.placement.grace)
        self._charge(row, number, count)
        if (limit := job["limit"]) >= 0:
            self.holders[limit] += count
        tasks, before = snapshot.tasks(row), self.started.get(row, 0)
        self.started[row] = before + count
        place = (job_id, pool.site, pool.flavor.name)
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
        job, demand = self.snapshot.rows[row], self._demand(row)
        rank, project, person = self.snapshot.bucket(row)
        seconds = self.snapshot.charged_seconds(rank, demand.placement.walltime, int(job["expected"]))
        flavor = self.room.pools[number].flavor.name
        self.shares.charge(project, person, flavor, demand.total * (seconds * count), self.now, rank == OPPORTUNISTIC)

    def _count_quota(self, project: str, number: int, amount: Resources, sign: int = 1, *, held: bool = True) -> None:
        flavor = self.room.pools[number].flavor.name
        if self.quotas is not None and self._held_quotas is not None:
            self.quotas.add(project, flavor, amount, sign)
            if held:
                self._held_quotas.add(project, flavor, amount, sign)

    def _demand(self, row: int) -> Demand:
        return self.snapshot.demands[int(self.snapshot.rows["demand"][row])]

    def _preference(self, row: int) -> Sequence[int]:
        return self.snapshot.demands.preference(int(self.snapshot.rows["demand"][row]))

    # ---- making room

    def _may_evict(self, row: int) -> bool:
        """Whether others may be asked to leave for a row now, and nobody was before."""
        job = self.snapshot.rows[row]
        return (
            job["rank"] != OPPORTUNISTIC and len(self._vain) < _SEARCHES
            and (self._right(row), int(job["demand"])) not in self._vain
            and (int(job["job"]) not in self._leaving or int(job["job"]) in self._left_alone)
        )  # fmt: skip

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
            self._vain.add((self._right(row), int(self.snapshot.rows["demand"][row])))
            return 0
        chosen = len(self.evictions.chosen)
        count = self._evict_for(row, claim, wanted)
        if count:
            self._charge(row, claim.pool, count)
        if known is not None or len(self.evictions.chosen) > chosen:  # else others leave enough for it as well
            pool = self.room.pools[claim.pool]
            self.promises[job_id] = Promise(pool.site, pool.flavor.name, count + (known.count if known else 0))
        return count

    def _best_claim(self, row: int, only: int | None) -> Claim | None:
        """Where the fewest and cheapest would have to leave for one task; `only`: in this pool."""
        found = []
        for order, claim in enumerate(self._claims(row)):
            if only is not None and claim.pool != only:
                continue
            victims = self.evictions.free_for(claim, self.room.to_come(claim.pool))
            if victims is not None and self._spares(row, claim, 1, victims):
                harm = (max((victim.kind for victim in victims), default=-1), len(victims))
                found.append((*harm, sum(victim.lost for victim in victims), order, claim))
        return min(found, key=lambda each: each[:-1])[-1] if found else None

    def _spares(self, row: int, claim: Claim, count: int, victims: Sequence[Victim]) -> bool:
        """Whether what is held for others stays theirs where a claim starts when its victims have left."""
        stay = self._stay(row, max((victim.late for victim in victims), default=0))
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
        total, stay, right = self._demand(row).total, self._stay(row), self._right(row)
        job_id = int(self.snapshot.rows["job"][row])
        for number in self._preference(row):
            pool = self.room.pools[number]
            if (
                self.room.open[number]
                and self.room.slots[pool.site] > 0
                and self.room.spares_holds(number, total, stay)
            ):
                yield Claim(job_id, right.rank, right.project, right.priority, number, pool.flavor.name, total)

    def _evict_for(self, row: int, claim: Claim, wanted: int) -> int:
        """Have others leave for as many tasks as that helps; how many."""
        count, late, coming = 0, 0, Resources()
        before = free = self.room.to_come(claim.pool)
        while count < wanted:
            victims = self.evictions.free_for(claim, free)
            if victims is None or not self._spares(row, claim, count + 1, victims):
                break
            late = max([late, *(victim.late for victim in victims)])
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
        total, duration, own = self._demand(row).total, self._duration(row), self._booked_for(row)
        starts = [
            (start, order, number)
            for order, number in enumerate(pools)
            if self.room.slots[self.room.pools[number].site] > 0
            and self._allowed(row, number, 1, ENDLESS)
            and (start := self.room.earliest(number, total, self.now, duration, own)) is not None
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
        return tuple(Place(job_id, tasks, site, flavor) for (job_id, site, flavor), tasks in self._places.items())

    def reservations(self) -> tuple[Reservation, ...]:
        """All that is reserved now for what has not started, the first first."""
        found = []
        for job_id, (number, start) in self._reserved.items():
            row = self.snapshot.row_of(job_id)
            if row is not None and self.left_of(row) and job_id not in self.promises:
                pool = self.room.pools[number]
                found.append(Reservation(job_id, pool.site, pool.flavor.name, start))
        return tuple(sorted(found, key=lambda each: (each.start, each.job_id)))

    def wakeups(self) -> list[int]:
        """When time alone changes something."""
        starts = [start for _, start in self._reserved.values() if start > self.now]
        told = [eviction.at for eviction in self.evictions.chosen if eviction.at]
        ready = [self.evictions.next_ready] if self.evictions.next_ready < ENDLESS else []
        return starts + self._moments + told + ready


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


def _least(one: Resources, other: Resources) -> Resources:
    """What both have."""
    return Resources(*(min(getattr(one, name), getattr(other, name)) for name in RESOURCES))
