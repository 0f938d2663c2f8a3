"""Room that is kept for some people for a time, and for nobody during maintenance."""

from typing import Any

from atoll.core.resources import Resources
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import Booked, Booking, Placement, Running, Waiting
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import GIB, flavor, job, sentences, site, snapshot_of, started

HOUR = 3600 * 1_000_000


def booked(number: int = 1, cpu: int = 4, *, start: int = 2 * HOUR, end: int = 3 * HOUR, **rest: Any) -> Booked:
    return Booked((Booking(number, "cpu", None, Resources(cpu * 1000, cpu * GIB), start, end, **rest),))


def wants(job_id: int = 1, *, hours: int = 1, person: str = "", **rest: Any) -> Waiting:
    return job(job_id, placement=Placement(person=person, walltime=hours * 3600), **rest)


def world(*things: Any, change: Booked) -> Snapshot:
    snapshot = snapshot_of(site("a", flavor(cpu=4, memory=64)), *things)
    snapshot.apply([change])
    return snapshot


def test_what_would_still_run_when_a_booking_begins_does_not_start() -> None:
    snapshot = world(wants(1, hours=1), wants(2, hours=5), change=booked())
    decisions = cycle(snapshot, 0)
    assert started(decisions) == [(1, "a")]
    assert sentences(decisions)[2] == "Waits for its turn: what is free is kept for jobs before it."
    assert decisions.next_wakeup == 2 * HOUR


def test_what_is_not_booked_is_free_for_all() -> None:
    snapshot = world(wants(1, hours=5), wants(2, hours=5), change=booked(cpu=3))
    assert started(cycle(snapshot, 0)) == [(1, "a")]


def test_those_for_whom_it_is_run_in_it_and_others_do_not() -> None:
    snapshot = world(wants(1, person="ben"), wants(2, person="ana"), change=booked(people=frozenset({"ana"})))
    assert started(cycle(snapshot, 2 * HOUR)) == [(2, "a")]


def test_a_project_has_what_is_booked_for_it_and_no_more_is_kept_once_it_is_used() -> None:
    running = Running("x", 9, "a", "cpu", Resources(2000, GIB), project="course", started=1)
    change = booked(cpu=2, project="course")
    snapshot = world(running, wants(1, project="other", cpu=2), change=change)
    assert started(cycle(snapshot, 2 * HOUR)) == [(1, "a")]


def test_nobody_starts_during_maintenance_and_all_go_on_after_it() -> None:
    snapshot = world(wants(1, rank=3), wants(2, rank=0), change=booked())
    assert started(cycle(snapshot, 2 * HOUR)) == []
    assert cycle(snapshot, 2 * HOUR).next_wakeup == 3 * HOUR
    assert sorted(started(cycle(snapshot, 3 * HOUR))) == [(1, "a"), (2, "a")]


def test_opportunistic_work_keeps_out_of_the_way_of_a_booking_too() -> None:
    snapshot = world(wants(1, rank=3, hours=5), wants(2, rank=3, hours=1), change=booked())
    assert started(cycle(snapshot, 0)) == [(2, "a")]


def test_a_reservation_of_a_job_begins_after_a_booking_that_is_not_for_it() -> None:
    running = Running("x", 9, "a", "cpu", Resources(4000, GIB), started=1, walltime=3600, grace=0)
    snapshot = world(running, wants(1, hours=2, cpu=4), change=booked())
    assert [each.start for each in cycle(snapshot, 1).reservations] == [3 * HOUR]
