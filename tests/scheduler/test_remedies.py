"""What would help a waiting job, in small worlds where it can be worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.calibration import Calibration
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.forecast import forecast, likely_start
from atoll.scheduler.model import OPPORTUNISTIC, RANKS, JobGone, Placement, Promise, Running, TreeChanged, Waiting
from atoll.scheduler.quota import Tree
from atoll.scheduler.remedies import Help, Remedy, best_first, remedies
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import flavor, job, site, snapshot_of, tasks

SECOND = 1_000_000
HOUR = 3600
NOW = 10**9 * SECOND
BATCH = RANKS[JobClass.BATCH]


def waits(job_id: int = 1, *, walltime: int | None = HOUR, offload: str = "allowed", **rest: Any) -> Waiting:
    placement = Placement("ada", walltime=walltime, grace=0, offload=offload)
    return job(job_id, memory=0, placement=placement, **rest)


def runs(name: str, hours: float, *, cpu: int = 4, at: str = "local", kind: str = "cpu", project: str = "") -> Running:
    """An attempt that has so many hours left."""
    return Running(
        name, 99, at, kind, Resources(cpu * 1000), rank=BATCH, started=NOW, placed=NOW, walltime=round(hours * HOUR),
        grace=0, project=project,
    )  # fmt: skip


def likely(snapshot: Snapshot, job_id: int, tree: Tree | None) -> int | None:
    return likely_start(snapshot, NOW, job_id, Calibration(), Runtimes(), tree=tree)


def helping(*things: Any, job_id: int = 1, tree: Tree | None = None) -> list[Remedy]:
    """What helps, the best first; the snapshot is afterwards as it was."""
    snapshot = snapshot_of(*things)
    snapshot.apply([TreeChanged(tree)])
    before = contents(snapshot)
    found = [remedy for remedy in remedies(snapshot, job_id, NOW, likely) if remedy is not None]
    assert contents(snapshot) == before
    validate(snapshot)
    return best_first(found)


def hours(remedy: Remedy) -> float:
    """In how many hours it would start, roughly: what is told of estimates is not exact."""
    return round((remedy.start - NOW) / HOUR / SECOND, 1)


def test_another_flavor_helps_that_is_free() -> None:
    there = site("local", flavor("cpu", cpu=4), flavor("big", cpu=8), flavor("tiny", cpu=1))
    [found] = helping(there, runs("x", 4), waits(cpu=4, flavors=("cpu",)))
    assert (found.kind, found.sentence, hours(found)) == (Help.FLAVOR, "Allow the flavor big too.", 0)


def test_remote_sites_help_where_the_job_may_not_go_there() -> None:
    far = site("far", flavor(cpu=4), labels={"remote": "true"})
    [found] = helping(site("local", flavor(cpu=4)), far, runs("x", 4), waits(cpu=4, offload="never"))
    assert (found.kind, found.sentence) == (Help.OFFLOAD, "Let it go to remote sites, with offload: allowed.")
    assert helping(site("local", flavor(cpu=4)), far, runs("x", 4), waits(cpu=4)) == []


def test_of_shorter_walltimes_the_longest_that_passes() -> None:
    """Four of eight CPUs are free for five hours, until the first in line has all of them."""
    there = site("local", flavor(cpu=8))
    first, second = waits(1, cpu=8, walltime=HOUR), waits(2, cpu=4, walltime=24 * HOUR, expected=HOUR)
    [found] = helping(there, runs("x", 5), first, second, job_id=2)
    assert found.kind is Help.WALLTIME
    assert found.sentence == "Give it a walltime of 4h instead of the 1d, if that is enough."
    assert hours(found) == 0


def test_no_walltime_helps_that_does_not_cover_what_the_job_is_expected_to_run() -> None:
    first, second = waits(1, cpu=8, walltime=HOUR), waits(2, cpu=4, walltime=24 * HOUR, expected=6 * HOUR)
    assert helping(site("local", flavor(cpu=8)), runs("x", 5), first, second, job_id=2) == []


def owning(vision: int, speech: int = 8) -> Tree:
    nodes = [TreeNode("all")] + [
        TreeNode(name, "all", quotas={("cpu", "cpu"): Limit(1000 * own, borrowing=0)})
        for name, own in (("vision", vision), ("speech", speech))
    ]
    return Tree(nodes)


def test_more_quota_helps_and_is_told_of_which_flavor_and_how_much() -> None:
    there = site("local", flavor(cpu=16))
    [found] = helping(there, runs("x", 4, cpu=2, project="vision"), waits(cpu=4, project="vision"), tree=owning(4))
    assert (found.kind, hours(found)) == (Help.QUOTA, 0)
    assert found.sentence == "Ask an administrator for more quota: 2 CPU of flavor cpu more for project vision."


def test_more_quota_is_for_those_before_it_in_its_project_too() -> None:
    there, running = site("local", flavor(cpu=16)), runs("x", 4, project="vision")
    line = [waits(number, cpu=4, project="vision") for number in (1, 2, 3)]
    [found] = helping(there, running, *line, job_id=3, tree=owning(4))
    assert (hours(found), "12 CPU of flavor cpu more" in found.sentence) == (0, True)


def test_quota_is_no_help_where_it_is_room_that_lacks() -> None:
    there = site("local", flavor(cpu=4))
    assert helping(there, runs("x", 4, project="speech"), waits(cpu=4, project="vision"), tree=owning(4)) == []


def test_a_smaller_size_helps_where_no_site_has_it() -> None:
    there = site("local", flavor(cpu=4, nodes=2))
    [found] = helping(there, runs("x", 4), waits(cpu=6))
    assert (found.kind, hours(found)) == (Help.SIZE, 0)
    assert found.sentence == "Ask for 4 CPU on each node instead of 6: no site has larger ones."


def test_a_smaller_size_is_not_advised_where_some_site_has_it() -> None:
    assert helping(site("local", flavor(cpu=4)), runs("x", 4), waits(cpu=4)) == []


def test_the_best_comes_first() -> None:
    there = site("local", flavor("cpu", cpu=4), flavor("big", cpu=8))
    far = site("far", flavor("cpu", cpu=4), labels={"remote": "true"})
    busy = [runs("x", 9), runs("y", 2, cpu=8, kind="big"), runs("z", 1, at="far")]
    found = helping(there, far, *busy, waits(cpu=4, flavors=("cpu",), offload="never"))
    assert [remedy.kind for remedy in found] == [Help.OFFLOAD, Help.FLAVOR]
    assert [hours(remedy) for remedy in found] == sorted(hours(remedy) for remedy in found)


@pytest.mark.parametrize(("then", "told"), [(9.5, []), (8.9, [Help.FLAVOR])])
def test_what_gains_less_than_a_tenth_of_the_wait_is_not_told(then: float, told: list[Help]) -> None:
    there = site("local", flavor("cpu", cpu=4), flavor("big", cpu=4))
    snapshot = snapshot_of(there, runs("x", 10), waits(cpu=4, flavors=("cpu",), walltime=300))

    def known(snapshot: Snapshot, job_id: int, tree: Tree | None) -> int:
        return NOW + round(SECOND * HOUR * (then if "big" in snapshot.waiting(job_id).flavors else 10))

    found = remedies(snapshot, 1, NOW, known)
    assert [remedy.kind for remedy in found if remedy is not None] == told


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(waits(cpu=4, flavors=("cpu",), rank=OPPORTUNISTIC), id="opportunistic"),
        pytest.param(waits(cpu=2, flavors=("cpu",)), id="starts at once"),
        pytest.param(waits(cpu=4, flavors=("cpu",), promise=Promise("local", "cpu")), id="others make room"),
    ],
)
def test_nothing_is_told_to_whom_nothing_need_be_told(entry: Waiting) -> None:
    there, leaves = site("local", flavor("cpu", cpu=6), flavor("big", cpu=8)), runs("x", 4)
    leaving = Running("y", 98, "local", "cpu", Resources(), leaves_for=1, leaving=True)
    snapshot = snapshot_of(there, leaves, *([leaving] if entry.promise else []), entry)
    assert [remedy for remedy in remedies(snapshot, 1, NOW, likely) if remedy is not None] == []


def test_an_array_is_told_of_its_next_task() -> None:
    there = site("local", flavor("cpu", cpu=4), flavor("big", cpu=8))
    [found] = helping(there, runs("x", 4), waits(cpu=4, flavors=("cpu",), tasks=tasks(50)))
    assert found.kind is Help.FLAVOR


def test_the_start_of_one_is_what_a_forecast_says_of_it() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=8)), runs("x", 5), *(waits(number, cpu=number % 4 + 1) for number in range(1, 30))
    )
    whole = forecast(snapshot, NOW, Calibration(), runtimes=Runtimes())
    for number in range(1, 30):
        expected = whole.of(number)
        assert expected is not None
        # those behind may still hasten it: a little sooner at most
        start = likely(snapshot, number, None)
        assert start is not None
        assert expected.start is not None
        assert abs(start - expected.start) <= max(SECOND, (expected.start - NOW) // 20)


def test_who_has_gone_meanwhile_gets_no_more() -> None:
    there = site("local", flavor("cpu", cpu=4), flavor("big", cpu=8))
    snapshot = snapshot_of(there, runs("x", 4), waits(cpu=4, flavors=("cpu",)))
    search = remedies(snapshot, 1, NOW, likely)
    next(search)
    snapshot.apply([JobGone(1)])
    assert list(search) == []
    assert list(remedies(snapshot, 7, NOW, likely)) == []
