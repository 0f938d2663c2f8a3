"""The simulation itself: a heap of events, the cycle between them, and its decisions carried out on nodes.

What control, the drivers and the engines do to jobs happens here at once and without fault: an attempt that was placed
begins as soon as a node has room for it, and waits at its site until then; it ends after its work or at its walltime.
No job is ever lost: each ends, or is unfinished when nothing can happen any more.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from itertools import count

from atoll.core.resources import Resources
from atoll.scheduler.model import Change, Decisions, JobGone, JobWaits, Place, Reserved, RoomFreed, RoomTaken, Running
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.simulate.cluster import Cluster
from atoll.scheduler.simulate.machines import Machines, Spot
from atoll.scheduler.simulate.meter import Meter
from atoll.scheduler.simulate.policies import Policy
from atoll.scheduler.simulate.runs import JobRun, running_of, waiting_of
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.traces.model import SECOND, TraceJob

INTERVAL = SECOND
"""Least time between two cycles, in microseconds; the platform pauses less, but its engines answer no faster."""
_FRUITLESS = 1000
"""So many cycles that place nothing, while nobody is to come or to end, show that nothing will change."""

_ENDLESS = 2**62


class _Kind(IntEnum):
    """What happens; of what happens at one time, the smaller number goes first."""

    END = 0
    STOP = 1
    ARRIVAL = 2
    WAKEUP = 3


@dataclass(slots=True)
class _Attempt:
    run: JobRun
    running: Running
    order: tuple[int, int, int]
    """Rank, age and number: who goes first at a site."""
    spots: tuple[Spot, ...] = ()
    begun: int | None = None
    ends: int = -1
    """The time of the event that ends it; others are out of date."""
    evicted: bool = False

    @property
    def pool(self) -> tuple[str, str]:
        return self.running.site, self.running.flavor


class Simulation:
    """One run of jobs, which must all be possible, on a cluster under a policy; without `departures` nothing ends."""

    def __init__(
        self,
        jobs: Sequence[TraceJob],
        cluster: Cluster,
        policy: Policy,
        *,
        interval: int = INTERVAL,
        departures: bool = True,
        runtimes: Runtimes | None = None,
    ) -> None:
        """`runtimes` learns from what ends, and tells how long others are expected to run; without it nobody knows."""
        self.jobs, self.cluster, self.policy = jobs, cluster, policy
        self.interval, self.departures, self.runtimes = interval, departures, runtimes
        self.runs = [JobRun(number, job, job.runtime if departures else _ENDLESS) for number, job in enumerate(jobs)]
        self.snapshot = Snapshot.from_changes(cluster.changes(owned=policy.owned, quotas=policy.ranked))
        self.machines = Machines(cluster.nodes)
        self._node_numbers = {(node.site, node.name): number for number, node in enumerate(cluster.nodes)}
        self.meter = Meter(cluster, [job.project for job in jobs], any(job.request.gpu for job in jobs))
        self.cycles = 0
        self._events: list[tuple[int, int, int, str | int]] = []  # time, kind, number, attempt or job
        self._numbers = count()
        self._pending = 0  # events that are no wakeups
        self._attempts: dict[str, _Attempt] = {}
        self._lines: dict[tuple[str, str], list[_Attempt]] = {}  # what waits at a site for a node, by pool
        self._freed: set[tuple[str, str]] = set()  # pools that something left at this moment
        self._changes: list[Change] = []
        self._next_cycle = 0
        self._wakes_at = -1
        self._fruitless = 0
        for run in self.runs:
            self._at(run.job.submitted, _Kind.ARRIVAL, run.number)

    def run(self, until: int = _ENDLESS) -> None:
        """Let everything happen, or what happens before a time (microseconds)."""
        while self._events and self._fruitless < _FRUITLESS:
            now = self._events[0][0]
            if now >= until:
                self.meter.advance(until)
                return
            self.meter.advance(now)
            changed = self._happen(now)
            if changed and now < self._next_cycle:
                self._wake(self._next_cycle)
            elif changed and len(self.snapshot):
                self._decide(now)

    # ---- what happens

    def _at(self, time: int, kind: _Kind, what: str | int) -> None:
        heapq.heappush(self._events, (time, kind, next(self._numbers), what))
        self._pending += kind != _Kind.WAKEUP

    def _wake(self, time: int) -> None:
        if self._wakes_at != time:
            self._wakes_at = time
            self._at(time, _Kind.WAKEUP, 0)

    def _happen(self, now: int) -> bool:
        """All events of this moment; whether there is something new to decide about."""
        changed = False
        while self._events and self._events[0][0] == now:
            _, kind, _, what = heapq.heappop(self._events)
            self._pending -= kind != _Kind.WAKEUP
            if kind == _Kind.WAKEUP:
                changed = True
            elif isinstance(what, int):
                self._expect(self.runs[what])
                self._wait(self.runs[what])
                self.meter.waits(self.runs[what].job.project)
                changed = True
            elif (attempt := self._attempts.get(what)) is None:
                continue
            elif kind == _Kind.STOP:
                self._stop(attempt, now)
                changed = True
            elif attempt.ends == now:
                self._end(attempt, now)
                changed = True
        for pool in sorted(self._freed):
            self._begin_waiting(pool, now)
        self._freed.clear()
        self._apply()
        return changed

    def _apply(self) -> None:
        self.snapshot.apply(self._changes)
        self._changes.clear()

    def _wait(self, run: JobRun) -> None:
        self._changes.append(JobWaits(waiting_of(run, self.policy)))

    def _expect(self, run: JobRun) -> None:
        if self.runtimes is not None:
            run.expected = self.runtimes.expected(run.job.person, run.job.name, run.job.walltime)

    def _begin_waiting(self, pool: tuple[str, str], now: int) -> None:
        """Begin those that wait at a site for a node, as far as there is room; one that has none holds nobody up."""
        line = self._lines.get(pool, [])
        line.sort(key=lambda attempt: attempt.order)
        left: list[_Attempt] = []
        full: set[tuple[Resources, int]] = set()  # room only shrinks: what did not fit once does not fit again
        for attempt in line:
            wanted = attempt.running.request, attempt.running.nodes
            if wanted not in full and self._begin(attempt, now):
                self._changes.append(RoomTaken(attempt.running))
            else:
                full.add(wanted)
                left.append(attempt)
        self._lines[pool] = left

    def _begin(self, attempt: _Attempt, now: int) -> bool:
        """Begin an attempt if nodes have room; whether they had. Raises ValueError where chosen nodes have none."""
        running, run = attempt.running, attempt.run
        spots: tuple[Spot, ...] | None
        if running.spots:
            spots = tuple(Spot(self._node_numbers[running.site, held.node], held.gpus) for held in running.spots)
            self.machines.put_at(spots, running.request)
        else:
            spots = self.machines.put(attempt.pool, running.request, running.nodes, self.policy.choose_node)
        if spots is None:
            return False
        attempt.spots, attempt.begun = spots, now
        if run.begun is None:
            run.begun = now
        self.meter.begins(run.job.project, running.request * running.nodes)
        if self.departures:
            limit = run.left if run.job.walltime is None else min(run.left, run.job.walltime * SECOND)
            self._end_at(attempt, now + limit)
        attempt.running = replace(running, waits=False, started=max(1, now))  # 0 says that it has not begun
        return True

    def _end_at(self, attempt: _Attempt, time: int) -> None:
        attempt.ends = time
        self._at(time, _Kind.END, attempt.running.attempt_id)

    def _end(self, attempt: _Attempt, now: int) -> None:
        """An attempt that began is over: its job too, or it waits again."""
        run = attempt.run
        self._give_back(attempt, now)
        assert attempt.begun is not None
        done = now - attempt.begun
        if attempt.evicted and done < run.left:
            lost = done if run.job.checkpoint is None else done % max(1, run.job.checkpoint * SECOND)
            run.left -= done - lost
            run.lost += lost
            run.evictions += 1
            self.meter.loses(attempt.running.request * attempt.running.nodes, lost)
            self.meter.waits(run.job.project)
            self._wait(run)
            return
        if self.runtimes is not None and not run.evictions:
            job = run.job
            self.runtimes.learn(job.person, job.name, job.job_class, job.walltime, done // SECOND)
        run.timed_out = done < run.left
        run.left = max(0, run.left - done)
        run.ended = now

    def _give_back(self, attempt: _Attempt, now: int) -> None:
        """An attempt holds room no longer."""
        running = attempt.running
        del self._attempts[running.attempt_id]
        self._changes.append(RoomFreed(running.attempt_id, now))
        if attempt.begun is None:
            self._lines[attempt.pool].remove(attempt)
        else:
            self.machines.leave(attempt.spots, running.request)
            self.meter.ends(attempt.run.job.project, running.request * running.nodes)
            self._freed.add(attempt.pool)

    # ---- what is decided

    def _decide(self, now: int) -> None:
        self._next_cycle = now + self.interval
        self.cycles += 1
        decisions = self.policy.decide(self.snapshot, now)
        for place in decisions.placements:
            self._place(place, now)
        for attempt_id in decisions.recalls:
            self._recall(attempt_id, now)
        for job_id, promise in decisions.promises:
            self.runs[job_id].promise = promise
            self._wait(self.runs[job_id])
        for eviction in decisions.evictions:
            self._tell(eviction.attempt_id, eviction.for_job, eviction.at)
            if not eviction.at:
                self.evict(eviction.attempt_id, now)
        for attempt_id in decisions.reprieved:
            self._tell(attempt_id, None, 0)
        self._changes.append(Reserved(decisions.reservations))
        self._apply()
        if decisions.recalls:
            self._wake(self._next_cycle)  # they wait again
        if decisions.next_wakeup is not None and decisions.next_wakeup > now:
            self._wake(max(decisions.next_wakeup, self._next_cycle))
        self._watch(decisions)
        self.decided(now)

    def decided(self, now: int) -> None:
        """A cycle is over, and what it decided carried out: for those who look at what is then."""

    def _watch(self, decisions: Decisions) -> None:
        """Notice when cycles wake one another up and nothing comes of it."""
        idle = not decisions.placements and not self._pending
        self._fruitless = self._fruitless + 1 if idle else 0

    def _place(self, place: Place, now: int) -> None:
        """Let a job go to a site, and begin there if a node has room.

        Where a decision names nodes, they are what is held instead of what `choose_node` finds.
        """
        run = self.runs[place.job_id]
        run.promise = None
        running = running_of(run, self.policy, place, f"{place.job_id}-{next(self._numbers)}", now)
        attempt = _Attempt(run, running, (running.rank, run.job.submitted, run.number))
        self._attempts[running.attempt_id] = attempt
        if not self._begin(attempt, now):
            self._lines.setdefault(attempt.pool, []).append(attempt)
        self._changes += [JobGone(place.job_id), RoomTaken(attempt.running)]

    def _tell(self, attempt_id: str, for_job: int | None, notice: int) -> None:
        """Note for which job an attempt is to leave, and when; None: for none any more."""
        attempt = self._attempts[attempt_id]
        if for_job is not None and attempt.begun is not None:
            self.runs[for_job].made_room = max(self.runs[for_job].made_room, attempt.run.job.grace or 0)
        attempt.running = replace(attempt.running, leaves_for=for_job, notice=notice)
        self._changes.append(RoomTaken(attempt.running))

    def _recall(self, attempt_id: str, now: int) -> None:
        """Pull an attempt back that has not begun."""
        attempt = self._attempts.get(attempt_id)
        if attempt is not None and attempt.begun is None:
            self._give_back(attempt, now)
            self._wait(attempt.run)

    def evict(self, attempt_id: str, time: int) -> None:
        """Ask an attempt, at a time not yet over, to stop; it has its grace, and its job then waits again."""
        self._at(time, _Kind.STOP, attempt_id)

    def _stop(self, attempt: _Attempt, now: int) -> None:
        if attempt.begun is None:
            self._recall(attempt.running.attempt_id, now)
        elif not attempt.evicted:
            attempt.evicted = True
            attempt.running = replace(attempt.running, leaving=True)
            self._changes.append(RoomTaken(attempt.running))
            ends = now + (attempt.run.job.grace or 0) * SECOND
            if attempt.ends < 0 or ends < attempt.ends:
                self._end_at(attempt, ends)
