"""What is pulled back out of a site's own queue, and what is not."""

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.core.site import Health
from atoll.core.spec import JobClass
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.line import Line
from atoll.scheduler.model import Change, JobWaits, RoomFreed, RoomTaken, Running, SiteChanged, SiteState, Waiting
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import GIB, carried_out, flavor, job, site, snapshot_of, started, tasks
from tests.scheduler.test_properties import histories

BATCH = JobClass.BATCH


def queueing(name: str = "a", *, cpu: int = 2, **rest: Any) -> SiteState:
    """A site with a queue out of which attempts can be pulled back."""
    return site(name, flavor(cpu=cpu, memory=64), queues=True, recalls=True, **rest)


def held(name: str, job_id: int, *, cpu: float = 1, waits: bool = True, **rest: Any) -> Running:
    """An attempt of a batch job at site `a`; names rise in the order of the engine's queue."""
    return Running(name, job_id, "a", "cpu", Resources(round(cpu * 1000), GIB), waits=waits, **rest)


def full(count: int, **rest: Any) -> list[Running]:
    """Two that run and fill the site and may not be evicted, and `count` that wait."""
    return [
        held("run-1", 901, waits=False, evictions=9, **rest), held("run-2", 902, waits=False, evictions=9, **rest),
        *(held(f"wait-{number}", 10 + number, **rest) for number in range(count)),
    ]  # fmt: skip


def test_what_waits_before_a_job_of_higher_priority_is_pulled_back_and_the_job_goes_in() -> None:
    snapshot = snapshot_of(queueing(), *full(4), job(99, priority=1))
    decisions = cycle(snapshot, 0)
    assert started(decisions) == [(99, "a")]
    assert decisions.recalls == ("wait-0", "wait-1", "wait-2", "wait-3")


def test_a_better_class_goes_first_too() -> None:
    decisions = cycle(snapshot_of(queueing(), *full(2, priority=9), job(99, rank=0)), 0)
    assert (started(decisions), decisions.recalls) == ([(99, "a")], ("wait-0", "wait-1"))


def test_age_pulls_nobody_back() -> None:
    decisions = cycle(snapshot_of(queueing(), *full(2), job(1)), 0)
    assert (started(decisions), decisions.recalls) == ([(1, "a")], ())


def test_a_worse_job_pulls_nobody_back() -> None:
    decisions = cycle(snapshot_of(queueing(), *full(2, rank=1), job(99, priority=5)), 0)
    assert (started(decisions), decisions.recalls) == ([(99, "a")], ())


def test_a_full_depth_of_worse_ones_makes_a_place() -> None:
    snapshot = snapshot_of(queueing(backlog={BATCH: 2}), *full(2), job(99, priority=1), job(3))
    decisions = cycle(snapshot, 0)
    assert (started(decisions), decisions.recalls) == ([(99, "a")], ("wait-0", "wait-1"))
    snapshot.apply(carried_out(snapshot, decisions))
    # the places of those that are on their way back are theirs, and not a younger job's
    assert started(cycle(snapshot, 0)) == []
    snapshot.apply([RoomFreed("wait-0"), JobWaits(job(1)), RoomFreed("wait-1"), JobWaits(job(2))])
    decisions = cycle(snapshot, 0)
    assert (started(decisions), decisions.recalls) == ([(1, "a")], ())


def test_what_has_room_and_is_about_to_begin_is_left_alone() -> None:
    starting = [held("new-1", 1), held("new-2", 2), held("wait", 3)]
    decisions = cycle(snapshot_of(queueing(), *starting, job(99, rank=3)), 0)
    assert decisions.recalls == ()
    assert decisions.evictions == ()


def test_nothing_is_pulled_back_where_there_is_room() -> None:
    decisions = cycle(snapshot_of(queueing(cpu=8), *full(2), job(99, priority=1)), 0)
    assert (started(decisions), decisions.recalls) == ([(99, "a")], ())


def test_who_lacks_nothing_is_not_in_the_way() -> None:
    """A job without GPUs begins before others that wait for one."""
    kind = flavor("gpu", cpu=8, memory=64, gpu=1)
    where = site("a", kind, queues=True, recalls=True)
    one = Resources(1000, GIB, 1000)
    snapshot = snapshot_of(
        where, Running("run", 901, "a", "gpu", one), Running("plain", 1, "a", "gpu", Resources(1000), waits=True),
        Running("wait", 2, "a", "gpu", one, waits=True), job(99, gpu=1, priority=1),
    )  # fmt: skip
    assert cycle(snapshot, 0).recalls == ("wait",)


def test_one_that_came_to_have_more_right_while_it_waits_is_let_through() -> None:
    first, second = held("wait-0", 1), held("wait-1", 2)
    snapshot = snapshot_of(queueing(), *full(0), first, second)
    assert cycle(snapshot, 0).recalls == ()
    snapshot.apply([RoomTaken(replace(second, priority=3))])
    assert cycle(snapshot, 0).recalls == ("wait-0",)


def test_what_stands_behind_is_not_pulled_back() -> None:
    snapshot = snapshot_of(queueing(), *full(0), held("wait-0", 1, priority=3), held("wait-1", 2))
    assert cycle(snapshot, 0).recalls == ()


def test_what_leaves_already_is_not_asked_for_again() -> None:
    leaving = [replace(attempt, leaving=attempt.waits) for attempt in full(3)]
    assert cycle(snapshot_of(queueing(), *leaving, job(99, priority=1)), 0).recalls == ()


def test_a_site_that_gives_nothing_back_or_does_not_answer_is_not_asked() -> None:
    for state in (
        site("a", flavor(cpu=2, memory=64), queues=True),
        queueing(health=Health.UNREACHABLE),
        queueing(drained=True),
    ):
        assert cycle(snapshot_of(state, *full(3), job(99, priority=1)), 0).recalls == ()


def test_lower_classes_stay_out_of_a_queue_for_which_a_better_job_still_waits() -> None:
    """Else they would be pulled back again for each of the better ones."""
    better = job(1, rank=0, tasks=tasks(3))
    state = queueing(backlog={JobClass.INTERACTIVE: 2})
    snapshot = snapshot_of(state, *full(0), better, job(2))
    assert started(cycle(snapshot, 0)) == [(1, "a")]
    snapshot.apply([JobWaits(replace(better, tasks=tasks(2)))])
    assert started(cycle(snapshot, 0)) == [(1, "a"), (2, "a")]
    elsewhere = job(1, rank=0, tasks=tasks(3), flavors=("gpu",))
    assert started(cycle(snapshot_of(state, *full(0), elsewhere, job(2)), 0)) == [(2, "a")]


@given(histories)
@settings(max_examples=200, deadline=None)
def test_only_what_waits_before_one_with_more_right_is_pulled_back(history: list[list[Change]]) -> None:
    snapshot = Snapshot()
    for now, step in enumerate(history):
        snapshot.apply(step)
        _, before, states = contents(snapshot)
        decisions = cycle(snapshot, now)
        snapshot.apply(carried_out(snapshot, decisions))
        _, after, _ = contents(snapshot)
        for attempt_id in decisions.recalls:
            one = before[attempt_id]
            report = states[one.site].site.report
            assert one.waits, "it has begun"
            assert not one.leaving, "it was asked for before"
            assert report is not None
            assert report.recalls
            assert any(
                (other.rank, -other.priority) < (one.rank, -one.priority)
                for other in after.values()
                if (other.site, other.flavor) == (one.site, one.flavor)
                and other.waits
                and other.attempt_id > attempt_id
            ), "nobody behind it has more right"


fillings = st.lists(
    st.builds(job, st.integers(1, 40), cpu=st.integers(1, 2), rank=st.integers(0, 3), priority=st.integers(0, 2)),
    max_size=20,
    unique_by=lambda waiting: waiting.job_id,
)


depths = st.dictionaries(st.sampled_from(list(JobClass)), st.integers(0, 3))


def pulled_back(snapshot: Snapshot, first: list[Waiting], later: list[Waiting]) -> list[int]:
    """Fill the sites' queues with some jobs, have others come, and see which are pulled back until all is at rest."""
    waits = {waiting.job_id: waiting for waiting in first}
    settle(snapshot, waits)
    fresh = [replace(waiting, job_id=waiting.job_id + 100) for waiting in later]
    snapshot.apply(map(JobWaits, fresh))
    recalled = settle(snapshot, waits | {waiting.job_id: waiting for waiting in fresh})
    validate(snapshot)
    return recalled


@given(fillings, fillings, depths)
@settings(max_examples=200, deadline=None)
def test_pulling_back_comes_to_rest_in_the_right_order(
    first: list[Waiting], later: list[Waiting], backlog: dict[JobClass, int]
) -> None:
    """While nothing begins or ends: in the end nobody in the engine's queue is before one with more right."""
    snapshot = snapshot_of(queueing(cpu=4, backlog=backlog), *first)
    recalled = pulled_back(snapshot, first, later)
    assert len(recalled) <= 2 * (len(first) + len(later))
    _, running, _ = contents(snapshot)
    line = Line(
        running.values(), Resources(4000, 64 * GIB) - sum((one.request for one in running.values()), Resources())
    )
    assert line.recalled == []


@given(fillings, fillings, depths)
@settings(max_examples=200, deadline=None)
def test_several_sites_come_to_rest(first: list[Waiting], later: list[Waiting], backlog: dict[JobClass, int]) -> None:
    """One that is pulled back may go to another site, and pull others back there; that has an end."""
    sites = queueing(cpu=4, backlog=backlog), queueing("b", cpu=2, backlog=backlog), queueing("c", cpu=1)
    recalled = pulled_back(snapshot_of(*sites, *first), first, later)
    assert len(recalled) <= 2 * (len(first) + len(later))


def settle(snapshot: Snapshot, waits: dict[int, Waiting]) -> list[int]:
    """Cycles, and what follows from them, until there is nothing to do; the jobs that were pulled back."""
    recalled: list[int] = []
    for _ in range(50):
        decisions = cycle(snapshot, 0)
        if not decisions.placements and not decisions.recalls and not decisions.evictions:
            return recalled
        leaving = [*decisions.recalls, *(eviction.attempt_id for eviction in decisions.evictions)]
        gone = [snapshot.running(attempt_id) for attempt_id in leaving]
        snapshot.apply(carried_out(snapshot, decisions))
        snapshot.apply(change for one in gone for change in (RoomFreed(one.attempt_id), JobWaits(waits[one.job_id])))
        recalled += [one.job_id for one in gone]
    raise AssertionError("it never comes to rest")


def test_a_site_that_learns_to_give_back_is_asked_at_once() -> None:
    plain = site("a", flavor(cpu=2, memory=64), queues=True)
    snapshot = snapshot_of(plain, *full(1), job(99, priority=1))
    decisions = cycle(snapshot, 0)
    snapshot.apply(carried_out(snapshot, decisions))
    assert cycle(snapshot, 0).recalls == ()
    snapshot.apply([SiteChanged(queueing())])
    assert cycle(snapshot, 0).recalls == ("wait-0",)
