"""Placing on the nodes of sites that place nothing by themselves: which node, which GPUs, who leaves, what is kept."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.reasons import ReasonCode
from atoll.core.resources import Resources
from atoll.core.site import Ability, NodeSpot
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.explain import explain
from atoll.scheduler.model import (
    Booked,
    Booking,
    Change,
    Decisions,
    JobGone,
    JobWaits,
    Placement,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    Waiting,
)
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import GIB, carried_out, flavor, job, node, owned, sentences, site, snapshot_of, tasks

SECOND = 1_000_000
NOW = 1_000_000 * SECOND
SEVERAL = frozenset({Ability.MULTINODE})


def runs(name: str, at: str, cpu: float = 1, gpus: tuple[tuple[int, int], ...] = (), **rest: Any) -> Running:
    """A batch job that has run for a while on a node of site `own`."""
    request = Resources(round(cpu * 1000), GIB, sum(milli for _, milli in gpus))
    spots = (NodeSpot(at, gpus),)
    about: dict[str, Any] = {
        "placed": NOW - 3600 * SECOND,
        "started": NOW - 3600 * SECOND,
        "rank": 2,
        "flavor": "cpu",
    } | rest
    return Running(name, 900, "own", request=request, spots=spots, **about)


def nodes_of(decisions: Decisions) -> dict[int, list[list[str]]]:
    """By job, the nodes of each task."""
    return {place.job_id: [[spot.node for spot in spots] for spots in place.spots] for place in decisions.placements}


def evicted(decisions: Decisions) -> set[str]:
    return {eviction.attempt_id for eviction in decisions.evictions}


# ---- starting


def test_a_job_starts_on_the_node_where_it_spoils_least_for_others() -> None:
    """Half a GPU goes where one is in use already, and leaves the pair of GPUs to those who need two."""
    there = owned("own", node("a", gpu=2), node("b", gpu=2))
    snapshot = snapshot_of(there, runs("x", "b", gpus=((1, 500),)), job(1, gpu=0.5), job(2, gpu=2))
    decisions = cycle(snapshot, NOW)
    assert {place.job_id: place.spots for place in decisions.placements} == {
        1: ((NodeSpot("b", ((1, 500),)),),),
        2: ((NodeSpot("a", ((0, 1000), (1, 1000))),),),
    }


def test_each_task_of_an_array_has_its_node_and_the_rest_waits_with_a_reason() -> None:
    snapshot = snapshot_of(owned("own", node("a", cpu=3), node("b", cpu=2)), job(1, cpu=2, tasks=tasks(3)))
    decisions = cycle(snapshot, NOW)
    assert sorted(nodes_of(decisions)[1]) == [["a"], ["b"]]
    assert sentences(decisions)[1] == (
        "Waits for one node with 2 CPU and 1 GiB of memory free; site own has less than that free."
    )


def test_room_in_pieces_is_no_room_and_the_answer_to_why_says_so() -> None:
    both = runs("x", "a", cpu=5), runs("y", "b", cpu=5)
    snapshot = snapshot_of(owned("own", node("a"), node("b")), *both, job(1, cpu=4))
    assert cycle(snapshot, NOW).placements == ()
    told = explain(snapshot, 1, NOW)
    assert told is not None
    assert told.reason.sentence == (
        "Waits for one node with 4 CPU and 1 GiB of memory free; "
        "site own has 0 such nodes, the rest is in smaller pieces."
    )


def test_a_job_on_several_nodes_gets_distinct_ones_of_one_flavor() -> None:
    mixed = node("a", kind="old"), node("b", kind="new"), node("c", kind="new"), node("d", kind="new")
    snapshot = snapshot_of(owned("own", *mixed, abilities=SEVERAL), job(1, cpu=4, nodes=3), job(2, cpu=4, nodes=4))
    decisions = cycle(snapshot, NOW)
    assert [sorted(found) for found in nodes_of(decisions)[1]] == [["b", "c", "d"]]
    assert decisions.placements[0].flavor == "new"


def test_of_flavors_that_are_liked_alike_the_better_node_is_taken_and_else_the_first_flavor() -> None:
    there = owned("own", node("a", gpu=1, kind="a100"), node("h", gpu=1, kind="h100"))
    half = runs("x", "h", gpus=((0, 500),), flavor="h100")
    for ordered, name in ((True, "a"), (False, "h")):
        wanted = job(1, gpu=0.5, flavors=("a100", "h100"), ordered=ordered)
        assert nodes_of(cycle(snapshot_of(there, half, wanted), NOW)) == {1: [[name]]}


def test_sites_with_nodes_and_sites_without_go_side_by_side() -> None:
    snapshot = snapshot_of(
        owned("own", node("a", cpu=1)), site("engine", flavor("cpu", cpu=1)), *(job(n) for n in (1, 2, 3))
    )
    decisions = cycle(snapshot, NOW)
    assert [(place.job_id, place.site, len(place.spots)) for place in decisions.placements] == [
        (1, "engine", 0), (2, "own", 1),
    ]  # fmt: skip


def test_what_has_waited_too_long_and_starts_first_holds_up_nobody_behind_it() -> None:
    snapshot = snapshot_of(owned("own", node("a")), *(job(number, cpu=0.01) for number in range(300)))
    assert len(cycle(snapshot, 10 * 86400 * SECOND).placements) == 64  # of 1 GiB each


# ---- nodes that change


def test_a_node_that_is_gone_takes_nothing_and_what_was_there_takes_nothing_from_others() -> None:
    snapshot = snapshot_of(owned("own", node("a"), node("b")), runs("x", "b", cpu=8), job(1, cpu=8), job(2, cpu=8))
    snapshot.apply([SiteChanged(owned("own", node("a")))])
    validate(snapshot)
    decisions = cycle(snapshot, NOW)
    assert nodes_of(decisions) == {1: [["a"]]}
    snapshot.apply([RoomFreed("x")])
    validate(snapshot)


def test_a_node_that_shrank_below_what_runs_there_takes_nothing_until_enough_has_left() -> None:
    pair = runs("x", "a", cpu=3), runs("y", "a", cpu=3)
    snapshot = snapshot_of(owned("own", node("a")), *pair, job(1, cpu=0.1))
    snapshot.apply([SiteChanged(owned("own", node("a", cpu=4)))])
    validate(snapshot)
    assert cycle(snapshot, NOW).placements == ()
    snapshot.apply([RoomFreed("x")])
    validate(snapshot)
    assert nodes_of(cycle(snapshot, NOW)) == {1: [["a"]]}


def test_a_closed_node_takes_nothing_new_and_what_runs_there_is_counted_when_it_opens_again() -> None:
    snapshot = snapshot_of(owned("own", node("a"), node("b")), runs("x", "a", cpu=3), job(1, cpu=6), job(2, cpu=5))
    snapshot.apply([SiteChanged(owned("own", replace(node("a"), open=False), node("b")))])
    validate(snapshot)
    assert nodes_of(cycle(snapshot, NOW)) == {1: [["b"]]}
    snapshot.apply([RoomFreed("x")])
    validate(snapshot)
    assert nodes_of(cycle(snapshot, NOW)) == {1: [["b"]]}, "that somebody left does not open it"
    snapshot.apply([RoomTaken(runs("y", "a", cpu=3)), SiteChanged(owned("own", node("a"), node("b")))])
    validate(snapshot)
    assert nodes_of(cycle(snapshot, NOW)) == {1: [["b"]], 2: [["a"]]}


def test_what_others_hold_of_a_nodes_gpus_is_never_what_ours_have() -> None:
    """Others are told as fewer GPUs, not as which: those that are left are ours whatever their numbers."""
    pair = [runs(str(number), "a", gpus=((number, 1000),)) for number in (2, 3)]
    snapshot = snapshot_of(owned("own", node("a", gpu=4)), *pair, job(1, gpu=1), job(2, gpu=1))
    snapshot.apply([SiteChanged(owned("own", node("a", gpu=3)))])
    validate(snapshot)
    assert nodes_of(cycle(snapshot, NOW)) == {1: [["a"]]}
    snapshot.apply([RoomFreed("2"), RoomFreed("3")])
    validate(snapshot)
    assert snapshot.owned.free(0).gpu == 3000


def test_an_attempt_whose_node_nobody_knows_is_counted_with_the_pool() -> None:
    unknown = replace(runs("x", "a", cpu=12), spots=())
    snapshot = snapshot_of(owned("own", node("a"), node("b")), unknown, job(1, cpu=4), job(2, cpu=4))
    assert len(cycle(snapshot, NOW).placements) == 1


# ---- making room


def test_an_eviction_frees_one_node_and_not_pieces_of_several() -> None:
    small = [runs(f"{at}{n}", at, cpu=4, rank=3) for at in "abc" for n in range(2)]
    keeps = runs("k", "b", cpu=0.5, rank=0)
    there = owned("own", node("a"), node("b", cpu=9), node("c"))
    snapshot = snapshot_of(there, *small, keeps, job(1, cpu=8))
    decisions = cycle(snapshot, NOW)
    assert evicted(decisions) in ({"a0", "a1"}, {"c0", "c1"})
    ((job_id, promise),) = decisions.promises
    assert (job_id, promise.site, promise.count) == (1, "own", 1)


def test_what_is_evicted_is_kept_for_the_job_until_it_starts_there() -> None:
    snapshot = snapshot_of(owned("own", node("a")), *(runs(f"x{n}", "a", cpu=4, rank=3) for n in range(2)))
    snapshot.apply([JobWaits(job(1, cpu=8))])
    decisions = cycle(snapshot, NOW)
    assert evicted(decisions) == {"x0", "x1"}
    snapshot.apply(carried_out(snapshot, decisions, NOW))
    snapshot.apply([RoomFreed("x0"), JobWaits(job(2, cpu=2, rank=0))])
    decisions = cycle(snapshot, NOW + SECOND)
    assert (decisions.placements, decisions.evictions) == ((), ())
    snapshot.apply([RoomFreed("x1")])
    assert nodes_of(cycle(snapshot, NOW + 2 * SECOND)) == {1: [["a"]]}


def test_whole_gpus_are_freed_on_one_node_and_only_as_many_as_are_needed() -> None:
    shares = [runs(f"{at}{n}", at, gpus=((n, 500),), rank=3) for at in "ab" for n in range(2)]
    snapshot = snapshot_of(owned("own", node("a", gpu=2), node("b", gpu=3)), *shares, job(1, gpu=2))
    decisions = cycle(snapshot, NOW)
    assert len(evicted(decisions)) == 1
    assert evicted(decisions) <= {"b0", "b1"}


def test_tasks_of_an_array_share_what_one_eviction_frees() -> None:
    snapshot = snapshot_of(owned("own", node("a")), runs("x", "a", cpu=8, rank=3), job(1, cpu=2, tasks=tasks(4)))
    decisions = cycle(snapshot, NOW)
    assert evicted(decisions) == {"x"}
    assert decisions.promises[0][1].count == 4


def test_a_job_on_several_nodes_evicts_on_the_nodes_that_cost_least() -> None:
    there = owned("own", *(node(name) for name in "abc"), abilities=SEVERAL)
    full = runs("a", "a", cpu=8, rank=3), runs("b0", "b", cpu=4, rank=3), runs("b1", "b", cpu=4, rank=3)
    snapshot = snapshot_of(there, *full, job(1, cpu=8, nodes=2))
    decisions = cycle(snapshot, NOW)
    assert evicted(decisions) == {"a"}
    snapshot.apply(carried_out(snapshot, decisions, NOW))
    snapshot.apply([JobWaits(job(2, cpu=1, rank=0))])
    assert cycle(snapshot, NOW).placements == ()  # the free node is kept too
    snapshot.apply([RoomFreed("a")])
    assert [sorted(found) for found in nodes_of(cycle(snapshot, NOW))[1]] == [["a", "c"]]


def test_idle_work_leaves_where_the_job_would_go_if_there_were_none_of_it() -> None:
    """The job for one GPU leaves the large node to the job that needs all of it, though there less work is lost."""
    there = owned("own", node("large", gpu=8), node("small", gpu=1))
    young = [
        runs(f"l{number}", "large", gpus=((number, 1000),), rank=3, placed=NOW - SECOND, started=NOW - SECOND)
        for number in range(8)
    ]
    old = runs("s", "small", gpus=((0, 1000),), rank=3)
    snapshot = snapshot_of(there, *young, old, job(1, gpu=1, rank=0), job(2, gpu=8))
    decisions = cycle(snapshot, NOW)
    assert {each.attempt_id for each in decisions.evictions if each.for_job == 1} == {"s"}
    assert {each.attempt_id for each in decisions.evictions if each.for_job == 2} == {f"l{n}" for n in range(8)}


def test_what_an_eviction_leaves_over_on_a_node_is_promised_to_the_next_job_and_nobody_else_leaves() -> None:
    there = owned("own", node("a"), node("b"))
    big = [runs(name, name, cpu=8, rank=3) for name in "ab"]
    snapshot = snapshot_of(there, *big, job(1, cpu=5), job(2, cpu=3))
    decisions = cycle(snapshot, NOW)
    assert len(evicted(decisions)) == 1
    assert [job_id for job_id, _ in decisions.promises] == [1]
    snapshot.apply(carried_out(snapshot, decisions, NOW))
    assert cycle(snapshot, NOW + SECOND).evictions == ()
    snapshot.apply([RoomFreed(name) for name in evicted(decisions)])
    assert len({found[0][0] for found in nodes_of(cycle(snapshot, NOW + 2 * SECOND)).values()}) == 1


def test_what_has_waited_too_long_has_others_leave_for_it_only_once() -> None:
    full = [runs(name, name, cpu=8, rank=3) for name in "abc"]
    snapshot = snapshot_of(owned("own", *(node(name) for name in "abc")), *full, job(1, cpu=8))
    assert len(evicted(cycle(snapshot, 10 * NOW))) == 1


def test_nobody_leaves_for_more_tasks_than_an_array_has() -> None:
    """Though it is looked at again and again in turn with another one."""
    full = [runs(f"{name}{n}", name, cpu=4, rank=3) for name in "abcd" for n in range(2)]
    there = owned("own", *(node(name) for name in "abcd"))
    arrays = [job(number, cpu=4, tasks=tasks(2), project=f"p{number}") for number in (1, 2)]
    decisions = cycle(snapshot_of(there, *full, *arrays), NOW)
    assert len(evicted(decisions)) == 4
    assert sorted(promise.count for _, promise in decisions.promises) == [2, 2]


# ---- starting later


def test_a_booking_keeps_room_on_whatever_nodes() -> None:
    hour = 3600 * SECOND
    booking = Booking(1, "cpu", None, Resources(8000, GIB), NOW + hour, NOW + 2 * hour)
    snapshot = snapshot_of(owned("own", node("a"), node("b")), waits(1, 8, 5), waits(2, 8, 5), waits(3, 8, 0.5))
    snapshot.apply([Booked((booking,))])
    assert nodes_of(cycle(snapshot, NOW)).keys() == {1, 3}


def test_idle_work_leaves_held_nodes_in_time_for_the_reserved_start_and_other_nodes_not_at_all() -> None:
    there = owned("own", node("a"), node("b"))
    held = runs("x", "a", cpu=4, walltime=2 * 3600), runs("y", "b", cpu=8, walltime=20 * 3600)
    idle = runs("i", "a", cpu=4, rank=3)
    snapshot = snapshot_of(there, held[0], held[1], job(1, cpu=8, rank=2))
    decisions = cycle(snapshot, NOW)
    (reservation,) = decisions.reservations
    snapshot.apply(carried_out(snapshot, decisions, NOW))
    snapshot.apply([RoomTaken(replace(idle, started=NOW, placed=NOW))])
    assert cycle(snapshot, reservation.start - 60 * SECOND).evictions == ()
    last = cycle(snapshot, reservation.start - 30 * SECOND)
    assert [(each.attempt_id, each.for_job) for each in last.evictions] == [("i", 1)]


def waits(job_id: int, cpu: float, hours: float, **rest: Any) -> Waiting:
    return job(job_id, cpu=cpu, placement=Placement(walltime=round(3600 * hours)), **rest)


def test_a_reservation_keeps_its_node_from_long_jobs_and_no_other_node() -> None:
    """The large job gets node a in two hours. Meanwhile what is free there is for what ends in time."""
    there = owned("own", node("a"), node("b"))
    held = runs("x", "a", cpu=4, walltime=3 * 3600), runs("y", "b", cpu=5, walltime=20 * 3600)
    snapshot = snapshot_of(there, *held, waits(1, 8, 10), waits(2, 3, 10), waits(3, 3, 10), waits(4, 1, 1))
    decisions = cycle(snapshot, NOW)
    (reservation,) = decisions.reservations
    assert (reservation.job_id, reservation.start) == (1, NOW + (2 * 3600 + 30) * SECOND)
    assert nodes_of(decisions) == {2: [["b"]], 4: [["a"]]}
    assert dict(decisions.reasons)[3].code is ReasonCode.PRIORITY
    snapshot.apply(carried_out(snapshot, decisions, NOW))
    assert cycle(snapshot, NOW).reservations == decisions.reservations


def test_a_reservation_for_whole_gpus_waits_until_a_share_has_left_its_device() -> None:
    held = runs("x", "a", gpus=((0, 300),), walltime=2 * 3600), runs("y", "a", gpus=((1, 1000),), walltime=3 * 3600)
    snapshot = snapshot_of(owned("own", node("a", gpu=2)), *held, job(1, gpu=2))
    (reservation,) = cycle(snapshot, NOW).reservations
    assert reservation.start == NOW + (2 * 3600 + 30) * SECOND


def test_a_job_on_several_nodes_has_those_that_are_free_first() -> None:
    there = owned("own", *(node(name) for name in "abc"), abilities=SEVERAL)
    held = [runs(name, name, cpu=8, walltime=hours * 3600) for name, hours in (("a", 9), ("b", 2), ("c", 3))]
    snapshot = snapshot_of(there, *held, job(1, cpu=8, nodes=2))
    (reservation,) = cycle(snapshot, NOW).reservations
    assert reservation.start == NOW + (2 * 3600 + 30) * SECOND
    snapshot.apply([RoomFreed("a"), JobWaits(waits(2, 8, 10))])
    decisions = cycle(snapshot, NOW)
    assert decisions.reservations[0].start == NOW + (3600 + 30) * SECOND
    assert decisions.placements == ()


# ---- whatever happens

NODES = st.lists(
    st.builds(node, st.sampled_from("abcd"), cpu=st.integers(1, 4), memory=st.just(8), gpu=st.integers(0, 2),
              kind=st.sampled_from(["cpu", "gpu"])),
    min_size=1, max_size=4, unique_by=lambda made: made.name,
)  # fmt: skip
SITES = st.builds(lambda nodes: owned("own", *nodes, abilities=SEVERAL), NODES)
JOBS = st.builds(
    job, st.integers(1, 9), cpu=st.integers(1, 4), gpu=st.sampled_from([0, 0, 0.3, 0.5, 1, 2]),
    nodes=st.sampled_from([1, 1, 1, 2]), rank=st.integers(0, 3), priority=st.integers(0, 1),
    submitted=st.integers(0, 3), tasks=st.sampled_from([None, None, tasks(3)]),
    placement=st.sampled_from([Placement(), Placement(walltime=100)]), flavors=st.sampled_from([(), ("gpu", "cpu")]),
    ordered=st.booleans(),
)  # fmt: skip
HISTORIES = st.lists(
    st.tuples(st.lists(st.builds(JobWaits, JOBS), max_size=5), st.integers(0, 5), st.none() | SITES),
    min_size=1, max_size=6,
)  # fmt: skip


def apply_step(snapshot: Snapshot, step: tuple[list[JobWaits], int, Any], now: int) -> None:
    """Let jobs come, some attempts end, and the nodes be others."""
    arrivals, ended, there = step
    held = sorted(contents(snapshot)[1])
    changes: list[Change] = [*arrivals, *map(RoomFreed, held[:ended])]
    snapshot.apply(changes if there is None else [*changes, SiteChanged(there)])


def check_capacity(snapshot: Snapshot, decisions: Decisions) -> None:
    """Nobody is put where there is not enough, with all who were there before."""
    waiting, held, states = contents(snapshot)
    left = {found.name: found.resources for found in states["own"].site.report.nodes}  # type: ignore[union-attr]
    devices: dict[tuple[str, int], int] = defaultdict(lambda: 1000)
    for running in held.values():
        for spot in running.spots:
            if spot.node in left:
                left[spot.node] -= replace(running.request, gpu=0)
                for device, milli in spot.gpus:
                    devices[spot.node, device] -= milli
    for place in decisions.placements:
        request, count = waiting[place.job_id].request, waiting[place.job_id].nodes
        assert len(place.spots) == (1 if place.tasks is None else len(place.tasks))
        for spots in place.spots:
            assert len({spot.node for spot in spots}) == len(spots) == count
            for spot in spots:
                left[spot.node] -= replace(request, gpu=0)
                assert min(left[spot.node].cpu, left[spot.node].memory) >= 0
                assert sum(milli for _, milli in spot.gpus) == request.gpu
                for device, milli in spot.gpus:
                    assert device < left[spot.node].gpu // 1000
                    devices[spot.node, device] -= milli
                    assert devices[spot.node, device] >= 0


@given(SITES, HISTORIES)
@settings(max_examples=80, deadline=None)
def test_no_node_and_no_device_is_given_more_than_it_has(there: Any, history: Any) -> None:
    snapshot = snapshot_of(there)
    for number, step in enumerate(history):
        now = NOW + number * 50 * SECOND
        apply_step(snapshot, step, now)
        decisions = cycle(snapshot, now)
        check_capacity(snapshot, decisions)
        snapshot.apply(carried_out(snapshot, decisions, now))
        validate(snapshot)
        check_capacity(snapshot, cycle(snapshot, now))


@given(SITES, HISTORIES)
@settings(max_examples=60, deadline=None)
def test_nodes_kept_by_changes_equal_nodes_from_scratch_and_the_same_is_decided(there: Any, history: Any) -> None:
    kept, now = snapshot_of(there), NOW
    for number, step in enumerate(history):
        now = NOW + number * 50 * SECOND
        apply_step(kept, step, now)
        kept.apply(carried_out(kept, cycle(kept, now), now))
        validate(kept)
    waiting, held, states = contents(kept)
    scratch = snapshot_of(*states.values(), *held.values(), *waiting.values())
    scratch.reservations = dict(kept.reservations)
    validate(scratch)
    kept.retell()
    for snapshot in (kept, scratch):
        snapshot.learn()
    scratch.shares, kept.shares = kept.shares, kept.shares  # what is over is not in what runs
    assert cycle(kept, now + SECOND) == cycle(scratch, now + SECOND)


def test_a_job_that_left_is_forgotten() -> None:
    snapshot = snapshot_of(owned("own", node("a")), job(1))
    snapshot.apply([JobGone(1)])
    assert cycle(snapshot, NOW).placements == ()
