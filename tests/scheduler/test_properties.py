"""Rules that hold whatever happens, tried on random histories of a queue and its sites."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.ranges import Ranges
from atoll.core.resources import Resources
from atoll.core.site import Ability, Health, UsualWait
from atoll.core.site_file import Price
from atoll.core.spec import ConstraintTerm, JobClass
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.fit import eligible
from atoll.scheduler.model import (
    Change,
    JobGone,
    JobWaits,
    Placement,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    SiteGone,
    SiteState,
    Waiting,
)
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import carried_out, flavor, job, site, snapshot_of

NAMES = ("a", "b", "c")
ABILITIES = st.sets(st.sampled_from([Ability.IMAGE, Ability.MULTINODE])).map(frozenset)

WAITS = st.builds(
    UsualWait, st.sampled_from([0, 60, 300]), st.dictionaries(st.sampled_from(list(JobClass)), st.sampled_from([0, 60]))
)
WORDS = st.sampled_from([frozenset[str](), frozenset({"internal"})])

flavors = st.lists(
    st.builds(
        flavor,
        st.sampled_from(["cpu", "gpu"]),
        cpu=st.integers(1, 4),
        memory=st.integers(1, 4),
        gpu=st.integers(0, 2),
        nodes=st.integers(1, 3),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda made: made.name,
)


@st.composite
def sites(draw: st.DrawFn) -> SiteState:
    made = site(
        draw(st.sampled_from(NAMES)),
        *draw(flavors),
        abilities=draw(ABILITIES),
        health=draw(st.sampled_from([Health.OK, Health.OK, Health.OK, Health.UNREACHABLE])),
        drained=draw(st.integers(0, 9)) == 0,
        queues=(queues := draw(st.booleans())),
        recalls=queues and draw(st.booleans()),
        backlog=draw(st.dictionaries(st.sampled_from(list(JobClass)), st.integers(0, 3))),
        max_jobs=draw(st.none() | st.integers(0, 3)),
        labels=draw(st.sampled_from([{}, {"remote": "true"}])),
    )
    told = replace(
        made.site, wait=draw(WAITS), energy=draw(st.sampled_from([None, 30, 400])),
        clearance=draw(WORDS), price=draw(st.sampled_from([None, Price(cpu=1, gpu=2)])),
    )  # fmt: skip
    return replace(made, site=told)


placements = st.builds(
    Placement,
    constraints=st.sampled_from([(), (ConstraintTerm.parse("site!=a"),), (ConstraintTerm.parse("site=a,b"),)]),
    abilities=ABILITIES,
    walltime=st.sampled_from([None, 30, 120, 600]),
    clearance=st.one_of(st.just(frozenset[str]()), WORDS),
    kept_at=st.sampled_from(["", "", "a"]),
    class_=st.sampled_from([None, *JobClass]),
)
# The entries of one array, its own and those of its tasks, have the same width.
WIDTHS = {101: 1, 102: 3}
JOB_WIDTHS = {number: (None, 1, 2, 4)[number % 4] for number in range(1, 13)}


def some_job(job_id: int, *, group: int | None, **rest: Any) -> Waiting:
    return job(job_id, group=group, width=JOB_WIDTHS[job_id] if group is None else WIDTHS[group], **rest)


waiting_jobs = st.builds(
    some_job,
    st.integers(1, 12),
    cpu=st.integers(1, 4),
    memory=st.integers(0, 4),
    gpu=st.sampled_from([0, 0, 0.5, 1]),
    nodes=st.sampled_from([1, 1, 1, 2]),
    rank=st.integers(0, 3),
    priority=st.integers(-1, 1),
    submitted=st.integers(0, 3),
    flavors=st.sampled_from([(), (), ("gpu",), ("gpu", "cpu")]),
    placement=placements,
    not_before=st.sampled_from([0, 0, 0, 5, 10]),
    expected=st.sampled_from([0, 0, 10, 100]),
    backing_off=st.booleans(),
    tasks=st.none() | st.sets(st.integers(0, 20), max_size=8).map(Ranges.of),
    group=st.sampled_from([None, None, 101, 102]),
)
attempts = st.sampled_from(["u", "v", "w", "x", "y", "z"])
running = st.builds(
    Running,
    attempts,
    st.integers(1, 12) | st.sampled_from(sorted(WIDTHS)),
    st.sampled_from(NAMES),
    st.sampled_from(["cpu", "gpu"]),
    st.builds(Resources, st.integers(0, 2000), st.integers(0, 2**30), st.integers(0, 1000)),
    st.integers(1, 2),
    rank=st.integers(0, 3),
    waits=st.booleans(),
    priority=st.integers(-1, 1),
    leaving=st.integers(0, 4).map(lambda number: number == 0),
)
changes: st.SearchStrategy[Change] = st.one_of(
    st.builds(JobWaits, waiting_jobs),
    st.builds(JobWaits, waiting_jobs),
    st.builds(JobGone, st.integers(1, 12)),
    st.builds(RoomTaken, running),
    st.builds(RoomFreed, attempts),
    st.builds(SiteChanged, sites()),
    st.builds(SiteGone, st.sampled_from(NAMES)),
)
# Most histories begin with a queue before two sites, so that there is something to decide.
beginnings = st.lists(st.builds(JobWaits, waiting_jobs), min_size=4, max_size=12).map(
    lambda jobs: [SiteChanged(site("a", flavor(cpu=4))), SiteChanged(site("b", flavor("gpu", gpu=1))), *jobs]
)
histories = st.builds(
    lambda beginning, steps: [beginning, *steps],
    st.one_of(beginnings, beginnings, st.lists(changes, max_size=12)),
    st.lists(st.lists(changes, max_size=6), max_size=5),
)


def remembered(history: Sequence[Sequence[Change]]) -> list[Change]:
    """What a history comes to, as the shortest list of changes: the model that a snapshot is held against."""
    jobs: dict[int, Waiting] = {}
    held: dict[str, Running] = {}
    states: dict[str, SiteState] = {}
    for change in (change for step in history for change in step):
        match change:
            case JobWaits(waiting):
                if waiting.tasks is not None and not waiting.tasks.parts:
                    jobs.pop(waiting.job_id, None)
                else:
                    jobs[waiting.job_id] = waiting
            case JobGone(job_id):
                jobs.pop(job_id, None)
            case RoomTaken(attempt):
                held[attempt.attempt_id] = attempt
            case RoomFreed(attempt_id):
                held.pop(attempt_id, None)
            case SiteChanged(state):
                states[state.site.name] = state
            case SiteGone(name):
                states.pop(name, None)
    return [
        *map(RoomTaken, held.values()),
        *map(JobWaits, reversed(jobs.values())),
        *map(SiteChanged, states.values()),
    ]


@given(histories)
@settings(max_examples=200, deadline=None)
def test_a_snapshot_kept_by_changes_equals_one_from_scratch_and_decides_the_same(
    history: list[list[Change]],
) -> None:
    kept = Snapshot()
    for step in history:
        kept.apply(step)
        cycle(kept, 0)  # makes the caches that later changes must keep right
        validate(kept)
    scratch = Snapshot.from_changes(remembered(history))
    validate(scratch)
    assert contents(kept) == contents(scratch)
    kept.retell()
    assert cycle(kept, 7) == cycle(scratch, 7)


@given(histories)
@settings(max_examples=100, deadline=None)
def test_repeating_every_change_changes_nothing(history: list[list[Change]]) -> None:
    once, twice = Snapshot(), Snapshot()
    for change in (change for step in history for change in step):
        once.apply([change])
        twice.apply([change, change])
    validate(twice)
    assert contents(once) == contents(twice)


@given(histories)
@settings(max_examples=200, deadline=None)
def test_no_room_is_given_twice_and_every_job_is_placed_or_told_why_not(history: list[list[Change]]) -> None:
    snapshot = Snapshot()
    for now, step in enumerate(history):
        snapshot.apply(step)
        full_before = overfull(snapshot)
        before, held, states = contents(snapshot)
        snapshot.retell()
        decisions = cycle(snapshot, now)
        for place in decisions.placements:
            state, waiting = states[place.site], before[place.job_id]
            assert state.site.health is Health.OK
            assert not state.drained
            assert eligible(waiting, state.site) is None
            assert waiting.not_before <= now
        snapshot.apply(carried_out(snapshot, decisions))
        validate(snapshot)
        # What the history itself overfilled may stay so; placing must not add to it.
        assert overfull(snapshot) <= full_before
        after, now_held, _ = contents(snapshot)
        holders, holders_before = (Counter(run.job_id for run in each.values()) for each in (now_held, held))
        for group, width in (WIDTHS | JOB_WIDTHS).items():
            assert width is None or holders[group] <= max(width, holders_before[group])
        assert {job_id for job_id, _ in decisions.reasons} == set(after)
        again = cycle(snapshot, now)
        assert again.placements == ()
        assert again.reasons == ()
        assert again.recalls == ()


def test_jobs_that_arrive_one_by_one_find_their_place_in_a_long_queue() -> None:
    chance = random.Random(7)

    def random_job(job_id: int) -> JobWaits:
        return JobWaits(
            job(job_id, rank=chance.randrange(4), priority=chance.randrange(-1, 2), submitted=chance.randrange(9))
        )

    snapshot = Snapshot.from_changes(random_job(job_id) for job_id in range(1000))
    for step in range(60):
        arrivals = [random_job(chance.randrange(1500)) for _ in range(step % 8)]
        departures = [JobGone(chance.randrange(1500)) for _ in range(step % 5)]
        snapshot.apply([*arrivals, *departures, *arrivals[:2]])
        validate(snapshot)


def overfull(snapshot: Snapshot) -> set[tuple[str, str, int]]:
    """The pools and sites that hold more than they have, with how much: nobody may be added to these."""
    _, held, states = contents(snapshot)
    sums: dict[tuple[str, str], Resources] = defaultdict(Resources)
    counts: dict[str, int] = defaultdict(int)
    for attempt in held.values():
        sums[attempt.site, attempt.flavor] += attempt.request * attempt.nodes
        counts[attempt.site] += 1
    found = set()
    for name, state in states.items():
        report = state.site.report
        assert report is not None
        if report.max_jobs is not None and counts[name] > report.max_jobs:
            found.add((name, "attempts", counts[name] - report.max_jobs))
        if report.queues:
            continue  # what is too much waits in the engine's own queue
        for kind in report.flavors:
            over = sums[name, kind.name] - kind.total
            for resource in ("cpu", "memory", "gpu"):
                if getattr(over, resource) > 0:
                    found.add((name, f"{kind.name} {resource}", getattr(over, resource)))
    return found


def test_the_overfull_check_sees_a_pool_that_holds_too_much() -> None:
    held = Running("x", 1, "a", "cpu", Resources(3000, 0))
    assert overfull(snapshot_of(site("a", flavor(cpu=2), max_jobs=0), held)) == {
        ("a", "cpu cpu", 1000),
        ("a", "attempts", 1),
    }
