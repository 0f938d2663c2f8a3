"""What the queue promises, tried on random worlds that go their course on a virtual clock."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings

from atoll.core.resources import Resources
from atoll.scheduler.consistency import contents
from atoll.scheduler.model import OPPORTUNISTIC, Decisions, Running
from atoll.scheduler.quota import Quotas
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.worlds import CPU, Course, World, worlds

quick = settings(max_examples=40, deadline=None)
GOVERNED = CPU[0]


def told_anew(snapshot: Snapshot, decisions: Decisions) -> Iterator[tuple[Running, int]]:
    """Who is chosen to leave now, each with the job for which."""
    for eviction in decisions.evictions:
        victim = snapshot.running(eviction.attempt_id)
        if victim.leaves_for is None:
            yield victim, eviction.for_job


def total(request: Resources, nodes: int) -> Resources:
    return request * nodes


def without_leaving(snapshot: Snapshot) -> Quotas:
    """The quotas as if all were gone already that were told to leave."""
    assert snapshot.quotas is not None
    quotas = snapshot.quotas.copy()
    for running in contents(snapshot)[1].values():
        if running.leaves_for is not None and running.rank != OPPORTUNISTIC:
            quotas.add(running.project, running.flavor, running.request * running.nodes, -1)
    return quotas


@given(worlds())
@quick
def test_a_start_never_breaks_a_quota(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        assert snapshot.quotas is not None
        quotas = snapshot.quotas.copy()
        for place in decisions.placements:
            waiting = snapshot.waiting(place.job_id)
            if waiting.rank != OPPORTUNISTIC:
                assert quotas.fits(waiting.project, place.flavor, waiting.demand.total)
                quotas.add(waiting.project, place.flavor, waiting.demand.total)

    Course(world, look).run()


@given(worlds())
@quick
def test_no_pool_ever_holds_more_than_it_has(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        for pool in snapshot.pools:
            used = held_in(snapshot, pool.site)
            for place in decisions.placements:
                if place.site == pool.site:
                    used += snapshot.waiting(place.job_id).demand.total
            assert used.fits(pool.flavor.total)

    Course(world, look).run()


def held_in(snapshot: Snapshot, site: str, *, apart_from: int | None = None) -> Resources:
    """What attempts hold at a site, apart from those that leave for a job."""
    held = Resources()
    for running in contents(snapshot)[1].values():
        if running.site == site and (apart_from is None or running.leaves_for != apart_from):
            held += running.request * running.nodes
    return held


@given(worlds())
@quick
def test_nobody_within_the_nominal_quota_is_evicted_by_another_project(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        quotas = without_leaving(snapshot)
        for victim, job_id in told_anew(snapshot, decisions):
            waiting = snapshot.waiting(job_id)
            if victim.rank != OPPORTUNISTIC:
                if victim.project != waiting.project:
                    assert quotas.is_over(victim.project)
                quotas.add(victim.project, victim.flavor, victim.request * victim.nodes, -1)

    Course(world, look).run()


@given(worlds())
@quick
def test_who_was_told_is_only_asked_to_leave_while_it_still_borrows(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        assert snapshot.quotas is not None
        for eviction in decisions.evictions:
            victim = snapshot.running(eviction.attempt_id)
            if victim.leaves_for is not None and snapshot.waiting(eviction.for_job).project != victim.project:
                assert snapshot.quotas.is_over(victim.project)

    Course(world, look).run()


@given(worlds())
@quick
def test_inside_a_project_only_a_better_class_or_priority_evicts(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        for victim, job_id in told_anew(snapshot, decisions):
            waiting = snapshot.waiting(job_id)
            if victim.rank != OPPORTUNISTIC and victim.project == waiting.project:
                assert (waiting.rank, -waiting.priority) < (victim.rank, -victim.priority)

    Course(world, look).run()


@given(worlds())
@quick
def test_nothing_opportunistic_makes_anybody_leave(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        assert all(snapshot.waiting(job_id).rank != OPPORTUNISTIC for _, job_id in told_anew(snapshot, decisions))

    Course(world, look).run()


@given(worlds())
@quick
def test_without_any_one_of_its_victims_a_claim_would_not_fit(world: World) -> None:
    """Where nothing else is decided at the same time, so that room and quotas are known."""

    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        chosen = list(told_anew(snapshot, decisions))
        if len({job_id for _, job_id in chosen}) != 1 or decisions.placements or list(snapshot.promised()):
            return
        if not decisions.promises:
            return  # idle work that leaves for a reserved start
        ((job_id, promise),) = decisions.promises
        waiting, victims = snapshot.waiting(job_id), [victim for victim, _ in chosen]
        whole = next(pool.flavor.total for pool in snapshot.pools if pool.site == promise.site)
        for spared in victims:
            quotas, free = without_leaving(snapshot), whole - held_in(snapshot, promise.site)
            for victim in victims:
                if victim is not spared:
                    free += victim.request * victim.nodes if victim.site == promise.site else Resources()
                    if victim.rank != OPPORTUNISTIC:
                        quotas.add(victim.project, victim.flavor, victim.request * victim.nodes, -1)
            fits = waiting.demand.total.fits(free)
            assert not (fits and quotas.fits(waiting.project, promise.flavor, waiting.demand.total))

    Course(world, look).run()


@given(worlds())
@quick
def test_promised_room_is_left_to_those_who_have_it(world: World) -> None:
    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        left = {place.job_id for place in decisions.placements}
        for pool in snapshot.pools:
            used, promised, victims = Resources(), Resources(), set()
            for job_id in snapshot.promised():
                promise = snapshot.promise(job_id)
                leaving = [each for each in contents(snapshot)[1].values() if each.leaves_for == job_id]
                if promise is not None and promise.site == pool.site and leaving and job_id not in left:
                    promised += snapshot.waiting(job_id).demand.total
                    victims |= {each.attempt_id for each in leaving}
            for running in contents(snapshot)[1].values():
                if running.site == pool.site and running.attempt_id not in victims:
                    used += running.request * running.nodes
            for place in decisions.placements:
                if place.site == pool.site:
                    used += snapshot.waiting(place.job_id).demand.total
            if promised != Resources():
                assert (used + promised).fits(pool.flavor.total)

    Course(world, look).run()


@given(worlds())
@quick
def test_no_reserved_start_moves_later(world: World) -> None:
    known: dict[int, int] = {}

    def look(snapshot: Snapshot, decisions: Decisions, now: int) -> None:
        for place in decisions.placements:
            assert known.pop(place.job_id, now) >= now, "it started after its reserved start"
        for reserved in decisions.reservations:
            assert reserved.start <= known.get(reserved.job_id, reserved.start), "the reserved start moved"
            known[reserved.job_id] = reserved.start
        for job_id, start in known.items():
            assert start > now, f"job {job_id} should have started"

    Course(world, look).run()


@given(worlds(still=True))
@quick
def test_when_all_else_stands_still_evictions_come_to_rest(world: World) -> None:
    course = Course(world, lambda *_: None)
    course.run()
    assert course.evictions <= len(world.jobs)
