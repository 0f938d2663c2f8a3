"""Random small worlds of a project tree, sites and jobs, and their course on a virtual clock. Used by test_rules."""

import heapq
from collections.abc import Callable
from dataclasses import dataclass, replace

from hypothesis import strategies as st

from atoll.scheduler.consistency import contents
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import (
    Change,
    Decisions,
    JobWaits,
    Placement,
    Policy,
    PolicyChanged,
    RoomFreed,
    RoomTaken,
    SiteChanged,
    SiteState,
    TreeChanged,
    Waiting,
)
from atoll.scheduler.quota import Limit, Tree, TreeNode
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import carried_out, flavor, job, site

SECOND = 1_000_000
BEGIN = 1_767_268_800 * SECOND
CPU = ("cpu", "cpu")
POLICY = Policy(max_wait=1500, notice=60, minimum_run=(0, 0, 10, 0), walltimes=(600, None, 600, 600))
LEAVES = ("astro", "nano", "bio")


@dataclass(frozen=True)
class Planned:
    """A job that arrives `at` (seconds from the beginning) and would run for `runs` seconds if it was let."""

    waiting: Waiting
    at: int
    runs: int | None


@dataclass(frozen=True)
class World:
    """What there is, and what will come."""

    tree: Tree
    sites: tuple[SiteState, ...]
    jobs: tuple[Planned, ...]
    policy: Policy = POLICY
    most: int | None = None
    """So many start in one cycle at most."""


limits = st.builds(
    Limit,
    st.integers(0, 4).map(lambda cpus: cpus * 1000),
    borrowing=st.sampled_from([None, None, None, 0, 1000, 2000]),
)


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Two departments; one has two projects, one has one."""
    own = {name: {CPU: draw(limits)} for name in ("physics", "life", *LEAVES)}
    root = {CPU: Limit(draw(st.integers(0, 4)) * 1000)}
    parents = {"physics": "root", "life": "root", "astro": "physics", "nano": "physics", "bio": "life"}
    return Tree([TreeNode("root", None, quotas=root), *(TreeNode(n, parents[n], quotas=own[n]) for n in own)])


@st.composite
def planned(draw: st.DrawFn, job_id: int, sites: int, *, still: bool) -> Planned:
    """A job; in a `still` world it is there from the beginning, or soon, and never ends."""
    rank = draw(st.sampled_from([0, 1, 2, 2, 2, 2, 3, 3]))
    walltime = draw(st.sampled_from([60, 300, 600, 900])) * (10_000 if still else 1)  # what never ends is not overdue
    where = draw(st.sampled_from([(), (), *range(sites)]))
    flavors = () if where == () else (("cpu", "gpu")[int(where)],)
    waiting = job(
        job_id,
        cpu=draw(st.sampled_from([1, 1, 2, 2, 3, 4])),
        memory=0,
        rank=rank,
        priority=draw(st.integers(0, 1)),
        project=draw(st.sampled_from(LEAVES)),
        flavors=flavors,
        placement=Placement(draw(st.sampled_from(["ana", "eve"])), walltime=None if rank == 1 else walltime),
    )
    at = draw(st.integers(0, 60 if still else 400))
    runs = None if still else draw(st.integers(1, walltime + Placement().grace))
    return Planned(waiting, at, runs)


@st.composite
def worlds(draw: st.DrawFn, *, still: bool = False) -> World:
    """One or two sites with a flavor each, a tree, and 6 to 14 jobs."""
    count = draw(st.integers(1, 2))
    sites = tuple(site(name, flavor(kind, cpu=draw(st.integers(4, 6)))) for name, kind in PLACES[:count])
    jobs = tuple(draw(planned(number, count, still=still)) for number in range(1, draw(st.integers(6, 14)) + 1))
    policy = replace(POLICY, minimum_run=(0, 0, 0, 0), most_evictions=10**6) if still else POLICY
    return World(draw(trees()), sites, jobs, policy, draw(st.sampled_from([None, None, 1, 3])))


PLACES = (("east", "cpu"), ("west", "gpu"))
Look = Callable[[Snapshot, Decisions, int], None]


class Course:
    """The course of a world: what arrives and ends, and what is decided at each such moment."""

    def __init__(self, world: World, look: Look, *, until: int = 6000) -> None:
        """`look` sees the snapshot before each of the decisions is carried out; `until` in seconds."""
        self.snapshot = Snapshot()
        self.evictions = 0
        self._look = look
        self._until = BEGIN + until * SECOND
        self._most = world.most
        self._jobs = {plan.waiting.job_id: plan for plan in world.jobs}
        self._times_evicted = dict.fromkeys(self._jobs, 0)
        self._events: list[tuple[int, int, str]] = []  # (time, job that arrives or 0, attempt that ends)
        self._ends: dict[str, bool] = {}  # of each attempt that began, whether it was known to leave
        self.snapshot.apply([PolicyChanged(world.policy), TreeChanged(world.tree)])
        self.snapshot.apply(SiteChanged(state) for state in world.sites)
        for plan in world.jobs:
            heapq.heappush(self._events, (BEGIN + plan.at * SECOND, plan.waiting.job_id, ""))

    def run(self) -> None:
        """Let it go on until nothing happens any more, or the time is over."""
        while self._events and self._events[0][0] <= self._until:
            now = self._events[0][0]
            while self._events and self._events[0][0] == now:
                _, job_id, attempt = heapq.heappop(self._events)
                self.snapshot.apply([self._waits(job_id)] if job_id else self._end(attempt, now))
            self._decide(now)

    def _waits(self, job_id: int) -> JobWaits:
        plan = self._jobs[job_id]
        return JobWaits(replace(plan.waiting, submitted=BEGIN + plan.at * SECOND))

    def _end(self, attempt: str, now: int) -> list[Change]:
        if attempt not in self._ends:
            return []  # it left before, or time alone has passed
        running = self.snapshot.running(attempt)
        del self._ends[attempt]
        if not running.leaving:
            return [RoomFreed(attempt, now)]
        self._times_evicted[running.job_id] += 1
        return [RoomFreed(attempt, now), self._waits(running.job_id)]

    def _decide(self, now: int) -> None:
        """Decide and carry out, again and again, until nothing follows."""
        for _ in range(50):
            decisions = cycle(self.snapshot, now, most=self._most)
            self._look(self.snapshot, decisions, now)
            self.evictions += sum(not eviction.at for eviction in decisions.evictions)
            self.snapshot.apply(carried_out(self.snapshot, decisions, now))
            self._follow(now)
            if not (decisions.placements or decisions.evictions or decisions.reprieved or decisions.promises):
                break
        else:
            raise AssertionError("decisions without end at one moment")
        if decisions.next_wakeup is not None:
            assert decisions.next_wakeup > now, "a wake-up in the past"
            heapq.heappush(self._events, (decisions.next_wakeup, 0, ""))

    def _follow(self, now: int) -> None:
        """Note when what has started will end, and when what was asked to leave will be gone."""
        for attempt, running in contents(self.snapshot)[1].items():
            if attempt not in self._ends:
                self._ends[attempt] = False
                self.snapshot.apply([RoomTaken(replace(running, evictions=self._times_evicted[running.job_id]))])
                runs = self._jobs[running.job_id].runs
                if runs is not None:
                    heapq.heappush(self._events, (now + runs * SECOND, 0, attempt))
            if running.leaving and not self._ends[attempt]:
                self._ends[attempt] = True
                needs = running.grace if running.job_id % 2 else 1
                heapq.heappush(self._events, (now + needs * SECOND, 0, attempt))
