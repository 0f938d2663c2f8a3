"""How deep a site's own queue is filled follows how fast it comes free."""

from __future__ import annotations

from atoll.control.pace import Pace
from atoll.core.spec import JobClass
from atoll.scheduler.model import BACKLOG, RANKS, SiteState
from tests.scheduler.builders import flavor, site

SECOND = 1_000_000
BATCH, INTERACTIVE = RANKS[JobClass.BATCH], RANKS[JobClass.INTERACTIVE]


def test_pace_is_what_ended_within_a_window() -> None:
    pace = Pace()
    pace.count({"a": 30}, 100 * SECOND)
    pace.count({"a": 34, "b": 2}, 101 * SECOND)
    assert (pace.of("a", 101 * SECOND), pace.of("b", 101 * SECOND), pace.of("c", 101 * SECOND)) == (64, 2, 0)


def test_pace_of_waves_is_that_of_the_wave_and_not_of_the_pause() -> None:
    pace = Pace()
    for wave in range(10):
        pace.count({"a": 64}, (100 + 10 * wave) * SECOND)
        assert 50 <= pace.of("a", (109 + 10 * wave) * SECOND) <= 64


def test_pace_fades_when_nothing_ends_any_more() -> None:
    pace = Pace()
    pace.count({"a": 400}, 0)
    seen = [pace.of("a", second * SECOND) for second in range(0, 600, 7)]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == 400
    assert seen[-1] == 0
    assert 150 < pace_after(400, 35) < 250


def pace_after(ended: int, seconds: int) -> int:
    pace = Pace()
    pace.count({"a": ended}, 0)
    return pace.of("a", seconds * SECOND)


def test_pace_has_a_limit() -> None:
    assert pace_after(100_000, 0) == 500


def test_backlog_of_batch_jobs_follows_the_pace_where_the_site_file_does_not_say() -> None:
    learnt = site("a", flavor(cpu=8), queues=True)
    deep = SiteState(learnt.site, pace=64)
    assert (deep.backlog(BATCH), deep.backlog(INTERACTIVE)) == (64, BACKLOG[INTERACTIVE])
    assert SiteState(learnt.site, pace=3).backlog(BATCH) == BACKLOG[BATCH]
    told = site("a", flavor(cpu=8), queues=True, backlog={JobClass.BATCH: 5})
    assert SiteState(told.site, pace=64).backlog(BATCH) == 5
    none = site("a", flavor(cpu=8), queues=False)
    assert SiteState(none.site, pace=64).backlog(BATCH) == 0
