"""Room that a site's engine says will come shapes estimates, and nothing else."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from atoll.core.clock import from_micros
from atoll.core.resources import Resources
from atoll.core.site import Flavor, Opening
from atoll.scheduler.calibration import Calibration
from atoll.scheduler.consistency import validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.forecast import likely_start
from atoll.scheduler.model import SiteChanged, SiteState
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import GIB, flavor, site, snapshot_of
from tests.scheduler.test_forecast import HOUR, NOW, SECOND, runs, seconds, waits


def opening(cpu: float, after: float, *, asked: float = 0, memory: int = 4) -> Opening:
    """Room for so many CPUs in so many seconds from now, as it was said `asked` seconds ago."""
    at, asked_at = (from_micros(NOW + round(time * SECOND)) for time in (after, -asked))
    return Opening(Resources(round(cpu * 1000), memory * GIB), at, asked_at)


def full(*openings: Opening, cpu: int = 4, others: float = 4, **rest: Any) -> SiteState:
    """A site with a queue of its own, of whose CPUs others hold so many."""
    kind: Flavor = flavor(cpu=cpu, memory=64)
    used = Resources(round(others * 1000))
    return site("local", replace(kind, others=used, openings=openings), queues=True, **rest)


def test_room_that_the_engine_expects_is_waited_for() -> None:
    assert seconds(snapshot_of(full(), waits(1))) == {1: None}
    assert seconds(snapshot_of(full(opening(4, 600)), waits(1, cpu=3), waits(2))) == {1: 600, 2: 600}


def test_it_is_one_room_and_not_several() -> None:
    found = seconds(snapshot_of(full(opening(4, 600)), waits(1, cpu=4), waits(2, cpu=4)))
    assert found == {1: 600, 2: 600 + HOUR}


def test_a_small_room_may_come_before_a_node() -> None:
    found = seconds(snapshot_of(full(opening(4, 900), opening(1, 300)), waits(1), waits(2), waits(3, cpu=2)))
    assert found == {1: 300, 2: 900, 3: 900}, "the node's room has the small one in it"
    assert seconds(snapshot_of(full(opening(1, 300)), waits(1, cpu=2))) == {1: None}


def test_what_is_free_is_part_of_it() -> None:
    found = seconds(snapshot_of(full(opening(4, 600), others=2), waits(1, cpu=4), waits(2, cpu=2, runs=5)))
    assert found == {1: 600, 2: 0}
    assert seconds(snapshot_of(full(opening(1, 600), others=2), waits(1, cpu=3))) == {1: None}


def test_what_ours_leave_by_then_is_part_of_it() -> None:
    held = runs("1", left=300, cpu=2)
    snapshot = snapshot_of(full(opening(2, 600), others=2), held, waits(1, cpu=2), waits(2, cpu=2))
    assert seconds(snapshot) == {1: 300, 2: 300 + HOUR}
    later = runs("1", left=1000, cpu=2)
    snapshot = snapshot_of(full(opening(2, 600), others=2), later, waits(1, cpu=2), waits(2, cpu=2))
    assert seconds(snapshot) == {1: 600, 2: 1000}


def test_what_waits_in_the_engine_s_queue_was_planned_before_it() -> None:
    queued = replace(runs("1", left=300, cpu=4), waits=True, started=0)
    assert seconds(snapshot_of(full(opening(4, 900)), queued, waits(1, cpu=4))) == {1: 900}


def test_an_old_word_counts_for_nothing_and_a_late_one_means_now() -> None:
    assert seconds(snapshot_of(full(opening(4, 600, asked=299)), waits(1))) == {1: 600}
    assert seconds(snapshot_of(full(opening(4, 600, asked=301)), waits(1))) == {1: None}
    assert seconds(snapshot_of(full(opening(4, -20, asked=100)), waits(1))) == {1: 0}


def test_a_site_that_is_drained_opens_nothing() -> None:
    assert seconds(snapshot_of(full(opening(4, 600), drained=True), waits(1))) == {1: None}


def test_the_engine_s_new_word_is_taken_in_and_pools_stay_as_they_are() -> None:
    snapshot = snapshot_of(full(opening(4, 600)), waits(1))
    pools = snapshot.pools
    snapshot.apply([SiteChanged(full(opening(4, 1200)))])
    assert snapshot.pools is pools
    validate(snapshot)
    assert seconds(snapshot) == {1: 1200}
    assert likely_start(snapshot, NOW, 1, Calibration(), Runtimes()) == NOW + 1200 * SECOND


def test_decisions_are_the_same_without_it() -> None:
    def decided(state: SiteState) -> Any:
        snapshot: Snapshot = snapshot_of(state, *(waits(number) for number in range(1, 30)))
        return cycle(snapshot, NOW)

    assert decided(full(opening(4, 60))) == decided(full())
