"""Estimates on small queues whose starts can be worked out by hand, and against what the simulator then does."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.site import NodeSpot, UsualWait
from atoll.scheduler.calibration import PROMISED, Calibration
from atoll.scheduler.forecast import Expected, Forecast, forecast
from atoll.scheduler.model import (
    OPPORTUNISTIC,
    RANKS,
    Booked,
    Booking,
    JobWaits,
    Placement,
    Promise,
    Reservation,
    Reserved,
    Running,
    TreeChanged,
    Waiting,
)
from atoll.scheduler.quota import Tree
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.simulate.cluster import Cluster, Node
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.machines import fullest_node
from atoll.scheduler.simulate.policies import POLICIES
from atoll.scheduler.simulate.shape import shape
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.traces import TraceJob
from tests.scheduler.builders import GIB, flavor, job, node, owned, silent, site, snapshot_of, tasks

SECOND = 1_000_000
HOUR = 3600
NOW = 10**9 * SECOND


def waits(job_id: int, *, runs: int = HOUR, expected: int = 0, person: str = "", **rest: Any) -> Waiting:
    placement = Placement(person, walltime=runs, grace=0)
    return job(job_id, memory=0, placement=placement, expected=expected, **rest)


def runs(
    name: str, *, left: int = HOUR, ran: int = 0, cpu: float = 1, gpu: float = 0, at: str = "local", kind: str = "cpu",
    **rest: Any,
) -> Running:  # fmt: skip
    """An attempt that has `left` seconds of its walltime."""
    rest = {"grace": 0, "rank": RANKS["batch"], "walltime": ran + left} | rest  # type: ignore[index]
    return Running(
        name, 10**6 + int(name), at, kind, Resources(round(cpu * 1000), 0, round(gpu * 1000)),
        placed=NOW - ran * SECOND, started=NOW - ran * SECOND, **rest,
    )  # fmt: skip


def seconds(snapshot: Snapshot, **rest: Any) -> dict[int, float | None]:
    """In how many seconds each job is predicted to start, before anything is learnt."""
    made = forecast(snapshot, NOW, Calibration(), **rest)
    return {
        int(job_id): None if start < 0 else round((start - NOW) / SECOND, 1)
        for job_id, start in zip(made.jobs.tolist(), made.starts.tolist(), strict=True)
    }


def test_a_job_that_stays_local_is_expected_to_start_there() -> None:
    far = site("far", flavor(cpu=9), labels={"remote": "true"}, queues=True)
    far = replace(far, site=replace(far.site, wait=UsualWait(720)))
    same: dict[str, Any] = {"runs": 2 * HOUR, "person": "ana"}
    snapshot = snapshot_of(
        site("here", flavor(cpu=1)), far, runs("1", at="here"),
        waits(1, expected=300, **same), waits(2, expected=900, **same), waits(3, cpu=2, expected=300, **same),
    )  # fmt: skip
    assert seconds(snapshot) == {1: HOUR, 2: 0, 3: 0}


def test_jobs_start_one_after_the_other_as_what_runs_ends() -> None:
    here = site("local", flavor(cpu=2))
    snapshot = snapshot_of(here, runs("1", left=100), runs("2", left=300), *(waits(number) for number in (1, 2, 3)))
    assert seconds(snapshot) == {1: 100, 2: 300, 3: 3700}


def test_what_fits_now_starts_now() -> None:
    assert seconds(snapshot_of(site(), waits(1), waits(2), waits(3, runs=60))) == {1: 0, 2: 0, 3: 3600}


def test_an_expected_runtime_counts_before_the_walltime() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=1)), runs("1", ran=50, left=5000, expected=200), waits(1, expected=60)
    )
    snapshot.apply([JobWaits(waits(2))])
    assert seconds(snapshot) == {1: 150, 2: 210}


def test_what_runs_longer_than_expected_is_given_more_and_more_up_to_its_walltime() -> None:
    for ran, left in ((200, 60), (261, 299), (600, 860), (9000, 1000)):
        held = runs("1", ran=ran, left=10_000 - ran, expected=200)
        found = seconds(snapshot_of(site("local", flavor(cpu=1)), held, waits(1)))[1]
        assert found == {200: 60, 261: 299, 600: 860, 9000: 1000}[ran], (ran, left)


def test_a_short_job_passes_only_where_it_is_gone_before_the_reserved_start() -> None:
    here = site("local", flavor(cpu=2))
    snapshot = snapshot_of(here, runs("1", left=1000), waits(1, cpu=2), waits(2, runs=2000), waits(3, runs=500))
    assert seconds(snapshot) == {1: 1000, 2: 4600, 3: 0}


def test_a_reservation_rests_on_walltimes_and_the_start_on_what_is_expected() -> None:
    here = site("local", flavor(cpu=2))
    held = runs("1", ran=10, left=1000, expected=110)
    snapshot = snapshot_of(here, held, waits(1, cpu=2, expected=60), waits(2, runs=900, expected=30))
    assert seconds(snapshot) == {1: 100, 2: 0}


def test_classes_and_the_queue_s_order_are_kept() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=1)), runs("1", left=100), waits(1), waits(2, rank=0), waits(3, priority=5)
    )
    assert seconds(snapshot) == {2: 100, 3: 3700, 1: 7300}


def test_opportunistic_jobs_get_no_estimate_and_their_room_counts_as_free_after_its_grace() -> None:
    idle = runs("1", left=10**6, rank=OPPORTUNISTIC, grace=30)
    snapshot = snapshot_of(site("local", flavor(cpu=1)), idle, waits(1), waits(2, rank=OPPORTUNISTIC))
    assert seconds(snapshot) == {1: 30, 2: None}


def test_nobody_can_say_when_a_closed_site_or_a_service_is_waited_for() -> None:
    assert seconds(snapshot_of(silent(), waits(1))) == {1: None}
    assert seconds(snapshot_of(site(drained=True), waits(1))) == {1: None}
    service = runs("1", rank=RANKS["service"], walltime=None)  # type: ignore[index]
    assert seconds(snapshot_of(site("local", flavor(cpu=1)), service, waits(1))) == {1: None}


def test_a_begin_time_is_waited_for_and_so_is_the_range() -> None:
    snapshot = snapshot_of(site(), waits(1, not_before=NOW + 500 * SECOND))
    assert seconds(snapshot) == {1: 500}
    told = forecast(snapshot, NOW, Calibration()).of(1)
    assert told is not None
    assert told.earliest == NOW + 500 * SECOND


def tree(**quotas: int) -> TreeChanged:
    nodes = [TreeNode("root", None)]
    for name, cpu in quotas.items():
        limit = Limit(cpu * 1000, 0)
        nodes.append(TreeNode(name, "root", quotas={("cpu", "cpu"): limit}))
    return TreeChanged(Tree(nodes))


def test_quota_comes_back_as_the_project_s_own_jobs_end() -> None:
    snapshot = snapshot_of(
        site("local", flavor(cpu=8)), runs("1", left=100, project="a"), runs("2", left=50, project="b")
    )
    snapshot.apply([tree(a=1, b=2), JobWaits(waits(1, project="a")), JobWaits(waits(2, project="b"))])
    assert seconds(snapshot) == {1: 100, 2: 0}


def test_nobody_can_say_when_there_is_no_quota_that_could_come_back() -> None:
    snapshot = snapshot_of(site("local", flavor(cpu=8)), waits(1, project="a"), waits(2, project="elsewhere"))
    snapshot.apply([tree(a=0, b=2)])
    assert seconds(snapshot) == {1: None, 2: None}


def test_what_others_leave_for_starts_when_they_have_left_and_nobody_takes_it() -> None:
    leaves = runs("1", left=10**6, rank=OPPORTUNISTIC, grace=40, leaving=True, leaves_for=1)
    promised = waits(1, promise=Promise("local", "cpu"))
    snapshot = snapshot_of(site("local", flavor(cpu=1)), leaves, promised, waits(2, rank=0))
    assert seconds(snapshot) == {2: 3640, 1: 40}
    assert forecast(snapshot, NOW, Calibration()).kinds.tolist() == [0, RANKS["batch"] + PROMISED]  # type: ignore[index]


def test_those_who_were_told_leave_after_their_notice() -> None:
    told = runs("1", left=10**6, grace=30, leaves_for=1, notice=NOW + 900 * SECOND)
    snapshot = snapshot_of(site("local", flavor(cpu=1)), told, waits(1, promise=Promise("local", "cpu")))
    assert seconds(snapshot) == {1: 930}


def test_an_array_is_told_its_first_start_and_its_width_holds_the_others_up() -> None:
    here = site("local", flavor(cpu=4))
    array = waits(1, runs=100, tasks=tasks(6), width=2)
    assert seconds(snapshot_of(here, array, waits(2, cpu=4))) == {1: 0, 2: 300}
    one = replace(array, group=1)
    held = [replace(runs(str(number), left=left), job_id=1) for number, left in ((1, 50), (2, 70))]
    assert seconds(snapshot_of(here, *held, one))[1] == 50


def test_a_reservation_is_not_later_than_it_was_promised() -> None:
    snapshot = snapshot_of(site("local", flavor(cpu=1)), runs("1", left=1000), waits(1))
    snapshot.apply([Reserved((Reservation(1, "local", "cpu", NOW + 900 * SECOND),))])
    told = forecast(snapshot, NOW, Calibration()).of(1)
    assert told is not None
    assert told.latest == told.start == NOW + 900 * SECOND


def test_bookings_keep_others_out_and_let_their_own_in() -> None:
    booking = Booking(
        1, "cpu", "local", Resources(2000), NOW + 600 * SECOND, NOW + 1600 * SECOND, people=frozenset({"ana"})
    )
    snapshot = snapshot_of(site("local", flavor(cpu=2)), waits(1, person="ben"), waits(2, person="ben", runs=500))
    snapshot.apply([Booked((booking,))])
    assert seconds(snapshot) == {1: 1600, 2: 0}
    held = runs("1", left=700)
    snapshot = snapshot_of(site("local", flavor(cpu=2)), held, waits(1, person="ana", cpu=2), waits(2, person="ben"))
    snapshot.apply([Booked((booking,))])
    assert seconds(snapshot)[1] == 700


def test_room_in_pieces_too_small_is_no_room() -> None:
    nodes = [node(f"n{number}", cpu=8, gpu=2, kind="gpu") for number in range(2)]
    held = [
        runs(str(number + 1), left=left, gpu=1, at="own", kind="gpu", spots=(NodeSpot(f"n{number}", ((0, 1000),)),))
        for number, left in enumerate((300, 200))
    ]
    snapshot = snapshot_of(owned("own", *nodes), *held, waits(1, gpu=2), waits(2, gpu=1, runs=100))
    assert seconds(snapshot) == {1: 200, 2: 0}


def test_one_of_many_uncertain_ends_comes_sooner_than_the_first_that_is_expected() -> None:
    runtimes = Runtimes()  # nothing is learnt: runs may end at any part of their walltime
    nodes = [node(f"n{number}", cpu=1) for number in range(100)]
    held = [
        runs(str(number + 1), ran=1000, left=1000, at="own", spots=(NodeSpot(f"n{number}"),)) for number in range(100)
    ]
    snapshot = snapshot_of(owned("own", *nodes), *held, waits(1), waits(2), waits(3, cpu=2))
    assert seconds(snapshot, runtimes=runtimes)[1] == pytest.approx(0.69 * 1000 / 100, rel=0.2)
    assert seconds(snapshot, runtimes=runtimes)[2] == pytest.approx(1.69 * 1000 / 100, rel=0.2)
    assert seconds(snapshot) == {1: 1000, 2: 1000, 3: None}


def test_what_is_behind_goes_by_the_pace_of_the_first() -> None:
    snapshot = snapshot_of(site("local", flavor(cpu=1)), *(waits(number, runs=100) for number in range(1, 41)))
    told = seconds(snapshot, simulated=20)
    assert [told[number] for number in range(1, 21)] == [100 * (number - 1) for number in range(1, 21)]
    assert told[40] == pytest.approx(3900, rel=0.1)


def test_a_forecast_survives_being_written_down() -> None:
    snapshot = snapshot_of(site(), *(waits(number, runs=100) for number in range(1, 41)), waits(50, rank=OPPORTUNISTIC))
    made = forecast(snapshot, NOW, Calibration())
    read = Forecast.from_bytes(made.to_bytes())
    assert read.at == made.at
    for name in ("jobs", "starts", "earliest", "latest", "waits", "kinds"):
        assert np.array_equal(getattr(read, name), getattr(made, name))
    assert read.of(50) == Expected(41, 41, None, None, None)
    assert read.of(51) is None
    for broken in (b"", b"no", made.to_bytes()[:-9]):
        with pytest.raises(ValueError, match="no forecast"):
            Forecast.from_bytes(broken)


def test_an_empty_queue_has_an_empty_forecast() -> None:
    made = forecast(Snapshot(), NOW, Calibration())
    assert made.of(1) is None
    assert len(Forecast.from_bytes(made.to_bytes()).jobs) == 0


class Looked(Simulation):
    """A simulation that writes down what was forecast for each job when it first waited after a cycle."""

    def decided(self, now: int) -> None:
        if not hasattr(self, "told"):
            self.told: dict[int, int] = {}
        if all(job_id in self.told for job_id in self.snapshot.rows["job"][self.snapshot.queue()].tolist()):
            return
        made = forecast(self.snapshot, now, Calibration())
        for job_id, start in zip(made.jobs.tolist(), made.starts.tolist(), strict=True):
            self.told.setdefault(job_id, start)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_with_exact_walltimes_and_nobody_coming_after_the_forecast_is_what_happens(seed: int) -> None:
    chance = random.Random(seed)
    jobs = [
        TraceJob(
            str(number), SECOND, (limit := chance.randrange(10, 500)) * SECOND,
            Resources(1000 * chance.randrange(1, 5)), walltime=limit, person="ana", grace=0,
        )
        for number in range(chance.randrange(1, 25))
    ]  # fmt: skip
    there = Cluster((Node("n", "here", "cpu", Resources(4000, GIB)),))
    engine = replace(POLICIES["atoll"], owned=False, choose_node=fullest_node)
    simulation = Looked(shape(jobs, there).jobs, there, engine)
    simulation.run()
    assert [run.begun for run in simulation.runs if run.number in simulation.told] == [
        simulation.told[run.number] for run in simulation.runs if run.number in simulation.told
    ]
