"""A snapshot whose caches are wrong is found out."""

from collections.abc import Callable

import pytest

from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import Running
from atoll.scheduler.snapshot import Snapshot
from tests.scheduler.builders import job, node, owned, site, snapshot_of, tasks

FAULTS: dict[str, Callable[[Snapshot], object]] = {
    "not in order": lambda snapshot: snapshot._queue.sort(),
    "the fair shares": lambda snapshot: snapshot.shares.charge("", "ada", "cpu", Resources(1), 0, False),
    "tasks without a job": lambda snapshot: snapshot._tasks.update({60: tasks(1)}),
    "hold room are miscounted": lambda snapshot: snapshot._holders.update({1: 5}),
    "limits are miscounted": lambda snapshot: snapshot._limits.rows.fill(0),
    "what the pools hold": lambda snapshot: snapshot._held._used.clear(),
    "rows that are alike": lambda snapshot: snapshot._kinds.rows.fill(3),
    "the pools are stale": lambda snapshot: setattr(snapshot, "pools", ()),
}


def some() -> Snapshot:
    held = Running("u", 1, "a", "cpu", Resources(1000))
    return snapshot_of(site("a"), held, job(3), job(1), job(4, rank=0), job(2, tasks=tasks(3), width=2))


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_is_named(words: str) -> None:
    snapshot = some()
    validate(snapshot)
    FAULTS[words](snapshot)
    with pytest.raises(AssertionError, match=words):
        validate(snapshot)


@pytest.mark.parametrize("words", ["when nodes have room", "who leaves the nodes"])
def test_a_stale_answer_about_nodes_is_named(words: str) -> None:
    held = Running("u", 1, "own", "cpu", Resources(8000), spots=(NodeSpot("n"),), started=1, placed=1, walltime=60)
    snapshot = snapshot_of(owned("own", node("n")), held, job(2, cpu=8))
    assert len(cycle(snapshot, 2).reservations) == 1
    validate(snapshot)
    number = 0
    _, leaving, times = snapshot.owned._known_times[number]
    for each in times.values() if words == "when nodes have room" else [leaving.order]:
        each += 1
    with pytest.raises(AssertionError, match=words):
        validate(snapshot)


def test_the_contents_are_what_the_changes_said() -> None:
    waiting, running, sites = contents(some())
    assert (list(waiting), list(running), list(sites)) == ([1, 2, 3, 4], ["u"], ["a"])
    assert waiting[4] == job(4, rank=0)
