"""A queue of 100,000 jobs: what it costs. Limits are several times what is measured, so that they tell of an order."""

import random
import time
import tracemalloc

import pytest

from atoll.core.resources import Resources
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import OPPORTUNISTIC, JobWaits, Placement, RoomFreed, RoomTaken, Running, SiteChanged
from atoll.scheduler.round import Round
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import flavor, job, node, owned, site

JOBS = 100_000


def full_house() -> Snapshot:
    """100,000 jobs of 50 kinds in random order, before three full sites."""
    snapshot = Snapshot()
    for name in ("a", "b", "c"):
        holders = [RoomTaken(Running(f"{name}{n}", 0, name, "cpu", Resources(1000), evictions=9)) for n in range(64)]
        snapshot.apply([SiteChanged(site(name, flavor(cpu=64, memory=256))), *holders])
    ages = list(range(JOBS))
    random.Random(4).shuffle(ages)
    snapshot.apply(
        JobWaits(job(number + 1, cpu=1 + number % 50 / 10, rank=number % 4, submitted=age))
        for number, age in enumerate(ages)
    )
    return snapshot


def queues_full() -> Snapshot:
    """The same before engines with queues of their own, which are as full as they may be."""
    snapshot = full_house()
    for name in ("a", "b", "c"):
        ranks = [0] * 4 + [1] * 4 + [2] * 16
        line = [
            Running(f"{name}-{n:02}", 0, name, "cpu", Resources(1000), 1, rank, True) for n, rank in enumerate(ranks)
        ]
        snapshot.apply([SiteChanged(site(name, flavor(cpu=64, memory=256), queues=True, recalls=True))])
        snapshot.apply(map(RoomTaken, line))
    return snapshot


def quickest(snapshot: Snapshot, times: int = 5) -> float:
    seconds = []
    for _ in range(times):
        begun = time.perf_counter()
        cycle(snapshot, 0)
        seconds.append(time.perf_counter() - begun)
    return min(seconds)


def test_a_cycle_in_which_nothing_fits_is_quick() -> None:
    snapshot = full_house()
    assert len(cycle(snapshot, 0).reasons) == 1000
    assert quickest(snapshot) < 0.080


def test_a_cycle_after_one_job_ended_is_quick_and_starts_the_first_that_fits() -> None:
    snapshot = full_house()
    cycle(snapshot, 0)
    snapshot.apply([RoomFreed("b0"), JobWaits(job(JOBS + 1, rank=0, submitted=-1))])
    begun = time.perf_counter()
    decisions = cycle(snapshot, 0)
    assert time.perf_counter() - begun < 0.150
    assert [(place.job_id, place.site) for place in decisions.placements] == [(JOBS + 1, "b")]


def test_a_cycle_over_full_queues_of_engines_is_quick_and_so_is_pulling_back() -> None:
    snapshot = queues_full()
    decisions = cycle(snapshot, 0)
    assert (decisions.placements, decisions.recalls) == ((), ())
    assert quickest(snapshot) < 0.120
    snapshot.apply(JobWaits(job(JOBS + number, rank=0, priority=number)) for number in range(1, 2000))
    decisions = cycle(snapshot, 0)
    assert (len(decisions.placements), len(decisions.recalls)) == (3 * 4, 3 * 24)
    assert quickest(snapshot) < 0.200


def test_100_000_tasks_that_run_again_under_a_width_are_passed_over_quickly() -> None:
    snapshot = Snapshot()
    snapshot.apply([SiteChanged(site("a", flavor(cpu=64, memory=256)))])
    snapshot.apply(JobWaits(job(number + 10, group=1, width=2)) for number in range(JOBS))
    assert len(cycle(snapshot, 0).placements) == 2
    assert quickest(snapshot) < 0.200
    snapshot.apply([RoomTaken(Running(f"{n}", 1, "a", "cpu", Resources(1000))) for n in range(2)])
    assert cycle(snapshot, 0).placements == ()
    assert quickest(snapshot) < 0.080


def test_an_endless_backlog_of_many_people_is_looked_at_by_its_few_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    serve = Round.serve

    def counted(this: Round, row: int, *, alone: bool = False) -> tuple[int, bool]:
        looked_at.append(row)
        return serve(this, row, alone=alone)

    monkeypatch.setattr(Round, "serve", counted)
    snapshot = Snapshot()
    snapshot.apply([SiteChanged(owned("own", *(node(f"n{number:03}", cpu=8) for number in range(100))))])
    # each has a walltime of its own, and so a demand of its own; most find that all room was taken meanwhile
    snapshot.apply(
        JobWaits(
            job(
                number,
                rank=OPPORTUNISTIC,
                cpu=1 + number % 4,
                placement=Placement(f"u{number % 50}", walltime=1000 + number),
            )
        )
        for number in range(1, 8001)
    )
    decisions = cycle(snapshot, 0, head=0)
    assert sum(1 + place.job_id % 4 for place in decisions.placements) == 800
    assert len(looked_at) <= len(decisions.placements) + 4  # and each size once in vain


def test_waiting_jobs_are_rows_and_not_objects() -> None:
    tracemalloc.start()
    try:
        snapshot = full_house()
        cycle(snapshot, 0)
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(snapshot) == JOBS
    assert kept < 40e6
