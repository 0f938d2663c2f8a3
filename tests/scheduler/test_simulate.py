"""The simulator runs every job of a trace once, on nodes that have room, and counts what came of it."""

from __future__ import annotations

import json
import random
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid, NotFound
from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.model import Decisions, Eviction
from atoll.scheduler.simulate import metrics, policies, study
from atoll.scheduler.simulate.cluster import Cluster, Node, read_cluster
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.machines import fullest_node
from atoll.scheduler.simulate.policies import POLICIES, Policy
from atoll.scheduler.simulate.shape import shape
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.traces import Trace, TraceJob, read_trace

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulate"
SECOND = 1_000_000
ATOLL = POLICIES["atoll"]


def job(name: str = "a", *, at: float = 0, runs: float = 100, cpu: float = 1, gpu: float = 0, **rest: Any) -> TraceJob:
    return TraceJob(
        name, round(at * SECOND), round(runs * SECOND), Resources(round(cpu * 1000), 0, round(gpu * 1000)), **rest
    )


def cluster(*cpus: int, gpu: int = 0, **rest: Any) -> Cluster:
    """A node for each number of CPUs."""
    return Cluster(
        tuple(Node(f"n{number}", "here", "cpu", Resources(cpu * 1000, 2**30, gpu * 1000))
              for number, cpu in enumerate(cpus)), **rest,
    )  # fmt: skip


def simulated(jobs: list[TraceJob], there: Cluster, policy: Policy = ATOLL, **rest: Any) -> Simulation:
    shaped = shape(jobs, there)
    assert not shaped.impossible
    simulation = Simulation(shaped.jobs, there, policy, **rest)
    simulation.run()
    return simulation


def times(simulation: Simulation) -> dict[str, tuple[float | None, float | None]]:
    """When each job began and ended, in seconds."""
    return {
        run.job.name: (
            None if run.begun is None else round(run.begun / SECOND, 3),
            None if run.ended is None else round(run.ended / SECOND, 3),
        )
        for run in simulation.runs
    }


def read(name: str) -> Trace:
    return read_trace((EXAMPLES / name).read_text(), name)


def example_cluster(name: str = "cluster.yaml") -> Cluster:
    return read_cluster((EXAMPLES / name).read_text(), name)


# ---- what happens


def test_a_job_begins_when_another_leaves_it_room() -> None:
    jobs = [job("a", cpu=2), job("b", at=10, cpu=2, runs=50), job("c", at=20, cpu=2, runs=5)]
    assert times(simulated(jobs, cluster(2))) == {"a": (0, 100), "b": (100, 150), "c": (150, 155)}


def test_a_class_goes_before_another_and_under_first_fit_age_does() -> None:
    jobs = [
        job("first", cpu=2),
        job("batch", at=10, cpu=2),
        job("interactive", at=20, cpu=2, job_class=JobClass.INTERACTIVE),
    ]
    assert times(simulated(jobs, cluster(2)))["interactive"] == (90, 190)  # the first has its minute and its grace
    assert times(simulated(jobs, cluster(2), POLICIES["first-fit"]))["batch"] == (100, 200)


def test_a_job_is_ended_at_its_walltime_or_at_that_of_its_class() -> None:
    there = read_cluster(
        "sites: [{name: a, flavors: [{name: cpu, cpu: 4, memory: 1G}]}]\ndefaults: {batch: {walltime: 50s}}", "c"
    )
    simulation = simulated([job("own", walltime=30), job("of class"), job("short", runs=20)], there)
    assert times(simulation) == {"own": (0, 30), "of class": (0, 50), "short": (0, 20)}
    assert [run.timed_out for run in simulation.runs] == [True, True, False]


def test_room_in_pieces_holds_no_job_that_needs_a_whole_node() -> None:
    """Two nodes with half of their CPUs free are four CPUs, and yet no node has them."""
    jobs = [job("a", cpu=3), job("b", cpu=3, runs=60), job("wide", at=5, cpu=2), job("c", at=6, cpu=1)]
    assert times(simulated(jobs, cluster(4, 4)))["wide"] == (60, 160)


def test_a_job_of_several_nodes_has_each_of_them_to_itself() -> None:
    jobs = [job("a", cpu=2, nodes=2), job("b", at=1, cpu=2, nodes=2), job("c", at=2, cpu=3, nodes=1)]
    assert times(simulated(jobs, cluster(4, 4))) == {"a": (0, 100), "b": (1, 101), "c": (101, 201)}


def test_processors_are_spread_over_as_few_nodes_as_hold_them() -> None:
    shaped = shape([job("a", cpu=10, spreads=True), job("b", cpu=4, spreads=True)], cluster(4, 4, 4))
    assert [(found.nodes, found.request.cpu) for found in shaped.jobs] == [(3, 4000), (1, 4000)]


def test_jobs_that_no_node_can_run_are_counted_with_the_reason() -> None:
    jobs = [job("a"), job("b", flavors=("gpu-h100",)), job("c", flavors=("gpu-h100",)), job("d", cpu=9)]
    shaped = shape(jobs, cluster(4))
    assert [found.name for found in shaped.jobs] == ["a"]
    assert [(why.field, why.jobs) for why in shaped.impossible] == [("flavor", 2), ("cpu", 1)]
    assert "gpu-h100" in shaped.impossible[0].sentence


def test_a_job_larger_than_each_node_of_a_mixed_flavor_is_impossible() -> None:
    there = Cluster((
        Node("a", "here", "cpu", Resources(8000, 10)), Node("b", "here", "cpu", Resources(1000, 1000)),
    ))  # fmt: skip
    shaped = shape([TraceJob("a", 0, 1, Resources(8000, 1000))], there)
    assert "together" in shaped.impossible[0].sentence


def test_events_of_one_moment_are_decided_together_and_cycles_keep_their_distance() -> None:
    jobs = [job(str(number), at=number / 10) for number in range(100)]
    simulation = simulated(jobs, cluster(200))
    assert simulation.cycles <= 11
    assert simulated([job(str(number)) for number in range(100)], cluster(200)).cycles == 1


def test_a_job_of_no_length_begins_and_ends() -> None:
    simulation = simulated([job(runs=0)], cluster(1))
    assert times(simulation) == {"a": (0, 0)}
    assert metrics.document(simulation)["makespan"] == 0.0


def test_a_policy_that_only_wants_to_be_woken_does_not_go_on_for_ever() -> None:
    def waits(snapshot: Snapshot, now: int) -> Decisions:
        return Decisions(next_wakeup=now + SECOND)

    simulation = simulated([job()], cluster(1), Policy("waits", "", waits, fullest_node))
    assert simulation.runs[0].ended is None
    assert metrics.document(simulation)["jobs"] == {
        "finished": 0, "timed_out": 0, "unfinished": 1, "never_started": 1,
    }  # fmt: skip


@given(
    st.lists(st.builds(
        job, st.just("a"), at=st.integers(0, 60), runs=st.integers(0, 50), cpu=st.integers(0, 4),
        gpu=st.sampled_from([0, 0, 0.25, 0.7, 1, 2]), nodes=st.integers(1, 2), job_class=st.sampled_from(JobClass),
        walltime=st.none() | st.integers(1, 40), project=st.sampled_from(["", "p", "q"]),
    ), max_size=25),
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.sampled_from(sorted(POLICIES)),
)  # fmt: skip
def test_no_job_is_lost_and_no_room_is_given_twice(jobs: list[TraceJob], cpus: list[int], policy: str) -> None:
    there = cluster(*cpus, gpu=2)
    shaped = shape(sorted(jobs, key=lambda found: found.submitted), there)
    simulation = Simulation(shaped.jobs, there, POLICIES[policy])
    simulation.run()
    assert len(shaped.jobs) + sum(why.jobs for why in shaped.impossible) == len(jobs)
    for run in simulation.runs:
        assert run.begun is not None
        assert run.ended is not None
        assert run.begun >= run.job.submitted
        assert run.timed_out == (run.job.walltime is not None and run.job.walltime * SECOND < run.job.runtime)
    capacity = there.capacity
    assert all(step.held.fits(capacity) and step.waiting >= 0 for step in simulation.meter.steps)
    assert simulation.meter.held == Resources()
    assert simulation.machines.cpu.sum() == capacity.cpu
    assert simulation.machines.devices.sum() == capacity.gpu
    validate(simulation.snapshot)
    assert not len(simulation.snapshot)
    json.dumps(metrics.document(simulation), allow_nan=False)


# ---- evictions and recalls, as a cycle may decide them


def evicting(at: float) -> Policy:
    """Decides as Atoll does, and at a time evicts the first attempt of job 0 for job 1."""
    told: list[str] = []

    def decide(snapshot: Snapshot, now: int) -> Decisions:
        decisions = ATOLL.decide(snapshot, now)
        if now < at * SECOND or told:
            return decisions
        attempt = next(name for name in contents(snapshot)[1] if name.startswith("0-"))
        told.append(attempt)
        return replace(decisions, evictions=(Eviction(attempt, 1),))

    return replace(ATOLL, decide=decide)


def test_an_evicted_attempt_has_its_grace_and_its_job_waits_again_with_its_age() -> None:
    jobs = [
        job("old", cpu=2, grace=10),
        job("new", at=50, cpu=2, job_class=JobClass.INTERACTIVE),
        job("later", at=55, cpu=2),
    ]
    simulation = simulated(jobs, cluster(2), evicting(50))
    assert times(simulation) == {"old": (0, 260), "new": (60, 160), "later": (260, 360)}
    old = simulation.runs[0]
    assert (old.evictions, old.lost) == (1, 60 * SECOND)
    told = metrics.document(simulation)
    assert told["evictions"] == {
        "count": 1, "jobs": 1, "lost_seconds": 60.0, "lost_gpu_seconds": 0.0, "lost_cpu_seconds": 120.0,
    }  # fmt: skip
    assert told["allocation"]["cpu"] == 1.0
    assert told["utilisation"]["cpu"] == pytest.approx(300 / 360, abs=1e-4)


def test_an_evicted_attempt_loses_only_what_it_did_since_its_last_checkpoint() -> None:
    jobs = [job("old", cpu=2, grace=5, checkpoint=20), job("new", at=50, cpu=2, job_class=JobClass.INTERACTIVE)]
    simulation = simulated(jobs, cluster(2), evicting(50))
    assert simulation.runs[0].lost == 15 * SECOND
    assert times(simulation) == {"old": (0, 215), "new": (55, 155)}


def test_an_interactive_job_evicts_a_batch_job_of_its_project_that_has_run_long_enough() -> None:
    jobs = [job("old", cpu=2, grace=5), job("new", at=50, cpu=2, job_class=JobClass.INTERACTIVE)]
    simulation = simulated(jobs, cluster(2), ATOLL)
    assert times(simulation) == {"old": (0, 265), "new": (65, 165)}
    assert simulation.runs[0].evictions == 1


def test_an_attempt_that_waits_for_a_node_is_pulled_back_and_placed_again() -> None:
    jobs = [job("a", cpu=3), job("b", cpu=3, runs=60), job("wide", at=5, cpu=2, runs=10), job("last", at=50, runs=1)]
    recalled: list[str] = []

    def decide(snapshot: Snapshot, now: int) -> Decisions:
        decisions = ATOLL.decide(snapshot, now)
        if now == 50 * SECOND:
            recalled.extend(name for name, running in contents(snapshot)[1].items() if running.waits)
            return replace(decisions, recalls=tuple(recalled))
        return decisions

    simulation = simulated(jobs, cluster(4, 4), replace(ATOLL, decide=decide, owned=False))
    assert len(recalled) == 1
    assert times(simulation)["wide"] == (60, 70)
    assert simulation.meter.held == Resources()


def test_where_nothing_ends_the_evicted_wait_again_and_what_they_did_is_lost() -> None:
    jobs = [job("old", cpu=2, grace=5, runs=1), job("new", at=50, cpu=2, job_class=JobClass.INTERACTIVE)]
    simulation = simulated(jobs, cluster(2), evicting(50), departures=False)
    assert times(simulation) == {"old": (0, None), "new": (55, None)}
    assert simulation.runs[0].lost == 55 * SECOND
    assert simulation.meter.held == Resources(2000)


# ---- what is told


def test_waiting_and_bounded_slowdown_are_counted_as_they_are_defined() -> None:
    jobs = [job("a", cpu=2), job("b", cpu=2, runs=5), job("c", cpu=2, runs=45, at=5)]
    told = metrics.document(simulated(jobs, cluster(2)))
    assert told["waiting"]["all"] == {
        "jobs": 3, "mean": round(200 / 3, 6), "median": 100.0, "p90": 100.0, "p99": 100.0, "max": 100.0,
    }  # fmt: skip
    # b took 105 s for 5 s of work, which count as 10; c took 145 s for 45 s
    assert told["slowdown"]["all"]["mean"] == pytest.approx((1 + 10.5 + 145 / 45) / 3, abs=1e-5)
    assert told["makespan"] == 150.0


def test_allocation_over_time_sums_up_to_its_mean() -> None:
    told = metrics.document(simulated([job("a"), job("b", at=50)], cluster(2)))
    assert told["allocation"]["cpu"] == pytest.approx(200 / 300)
    line = told["timeline"]["allocation"]["cpu"]
    assert sum(line) / len(line) == pytest.approx(200 / 300, abs=1e-5)
    assert line[0] == 0.5
    assert told["allocation"]["gpu"] is None
    assert "gpu" not in told["timeline"]["allocation"]


def test_fairness_is_judged_while_something_waits_and_by_weight() -> None:
    def jobs(first: str, second: str) -> list[TraceJob]:
        return [job("a", cpu=3, project=first), job("b", cpu=1, project=second), job("c", cpu=4, at=0, project=first)]

    def jain(*projects: str, weights: str = "{}") -> float:
        there = read_cluster(
            f"sites: [{{name: a, flavors: [{{name: cpu, cpu: 4, memory: 1G}}]}}]\nprojects: {weights}", "c"
        )
        found = metrics.document(simulated(jobs(*projects), there))["fairness"]["jain"]
        return float(found)

    assert jain("p", "q") == pytest.approx(16 / 20)  # 3 and 1 of 4
    assert jain("p", "q", weights="{all: {}, p: {parent: all, weight: 3}, q: {parent: all}}") == pytest.approx(1.0)
    assert metrics.document(simulated(jobs("p", "p"), cluster(4)))["fairness"]["jain"] is None


@pytest.mark.parametrize(
    ("trace", "there"),
    [("department.swf", "cluster.yaml"), ("history.jsonl", "cluster.yaml"), ("openb_pods.csv", "openb_nodes.csv")],
)
def test_the_same_trace_gives_the_same_study_whatever_ran_before(trace: str, there: str) -> None:
    def told() -> str:
        return json.dumps(
            study.replay(read(trace), example_cluster(there), policies.named("all")).document, allow_nan=False
        )

    assert told() == told()


def test_a_study_accounts_for_every_job_of_the_trace() -> None:
    document = study.replay(read("openb_pods.csv"), example_cluster(), policies.named("all")).document
    assert document["impossible"]["jobs"] == 28
    assert {why["field"] for why in document["impossible"]["reasons"]} == {"flavor"}
    for found in document["policies"]:
        assert sum(found["jobs"][end] for end in ("finished", "timed_out", "unfinished")) == 50 - 28


def test_a_cluster_that_can_run_nothing_is_refused() -> None:
    with pytest.raises(Invalid, match="can run no job of the trace"):
        study.replay(Trace("swf", (job(cpu=9),)), cluster(1), [ATOLL])


# ---- filling


def test_filling_asks_for_the_share_that_was_wanted_and_allocates_no_more_than_there_is() -> None:
    filled = study.fill(read("openb_pods.csv"), example_cluster("openb_nodes.csv"), policies.named("all"), 1.3, 5)
    document = filled.document
    assert document["fill"]["gpus"] == 16.0
    assert 1.3 <= document["fill"]["gpus_asked"] / 16 < 1.6
    for found in document["policies"]:
        assert 0.5 < found["gpu_allocation"] <= 1
        assert found["jobs"]["running"] + found["jobs"]["waiting"] == document["fill"]["jobs"]
        asked = [point[0] for point in found["points"]]
        allocated = [point[1] for point in found["points"]]
        assert asked == sorted(asked)
        assert allocated == sorted(allocated)
        assert allocated[-1] == found["gpu_allocation"]
        assert all(held <= wanted + 1e-6 for wanted, held in found["points"])


def test_a_seed_draws_the_same_jobs_and_another_seed_others() -> None:
    jobs = read("openb_pods.csv").jobs

    def drawn(seed: int) -> list[str]:
        return [found.name for found in study.sample(jobs, 16_000, seed)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize(
    ("there", "jobs"), [(cluster(4), (job(),)), (cluster(4, gpu=1), (job(),))], ids=["no GPUs", "nobody asks for one"]
)
def test_filling_needs_gpus_and_jobs_that_ask_for_them(there: Cluster, jobs: tuple[TraceJob, ...]) -> None:
    with pytest.raises(Invalid, match="GPU"):
        study.fill(Trace("swf", jobs), there, [ATOLL], 1.3, 0)


def test_a_policy_that_is_not_there_is_answered_with_one_that_is() -> None:
    assert [policy.name for policy in policies.named("all")] == list(POLICIES)
    with pytest.raises(NotFound, match="Did you mean 'first-fit'"):
        policies.named("firstfit")
    with pytest.raises(NotFound, match="There are atoll, first-fit, all"):
        policies.named("x")


# ---- size


def test_a_trace_of_8000_jobs_on_1500_nodes_takes_seconds() -> None:
    draw = random.Random(3)
    at = 0.0
    jobs = []
    for number in range(8000):
        at += draw.expovariate(1 / 10)
        jobs.append(
            job(str(number), at=at, runs=draw.expovariate(1 / 7200), cpu=draw.choice([2, 8, 12]),
                gpu=draw.choice([0, 0.5, 1, 1, 8]))
        )  # fmt: skip
    began = time.perf_counter()
    simulation = simulated(jobs, cluster(*[96] * 1523, gpu=8))
    assert time.perf_counter() - began < 60  # 4 s where nothing else runs
    assert all(run.ended is not None for run in simulation.runs)


# ---- quotas

TREE = (
    TreeNode("all"),
    TreeNode("p", "all", quotas={("cpu", "cpu"): Limit(2000, borrowing=0)}),
    TreeNode("q", "all", quotas={("cpu", "cpu"): Limit(2000)}),
)


def tried(*jobs: TraceJob, trees: dict[str, tuple[TreeNode, ...]] | None = None) -> list[dict[str, Any]]:
    """What is told of each tree; without one of the cluster's own."""
    there = replace(cluster(4), tree=TREE)
    quotas = [study.Quotas(name, nodes) for name, nodes in (trees or {}).items()]
    found: list[dict[str, Any]] = study.replay(Trace("swf", jobs), there, [ATOLL], quotas).document["policies"]
    return found


def test_quotas_of_a_project_hold_its_jobs_back_though_there_is_room() -> None:
    line = [job(name, cpu=2, project="p") for name in ("a", "b")]
    [found] = tried(*line)
    assert found["projects"]["p"]["waiting"]["max"] > 0
    free = (TREE[0], replace(TREE[1], quotas={("cpu", "cpu"): Limit(4000)}), TREE[2])
    [before, after] = tried(*line, trees={"before": TREE, "after": free})
    assert (before["quotas"], after["quotas"]) == ("before", "after")
    assert before["projects"] == found["projects"]
    assert after["projects"]["p"]["waiting"]["max"] == 0


def test_jobs_that_the_tree_does_not_take_are_counted_and_named() -> None:
    many = job("opportunistic", cpu=4, project="p", job_class=JobClass.OPPORTUNISTIC)
    jobs = [job("a", project="p"), job("b", project="r"), job("c", project="r"), job("d", project="all"), job("e")]
    [found] = tried(*jobs, job("large", cpu=3, project="p"), many)
    assert found["denied"]["jobs"] == 5
    assert [(reason["project"], reason["sentence"], reason["jobs"]) for reason in found["denied"]["reasons"]] == [
        ("r", "There is no project r in the tree.", 2),
        ("all", "Project all has others below it: it takes no jobs.", 1),
        ("", "They name no project.", 1),
        ("p", "They ask for more than project p could ever have.", 1),
    ]
    assert found["jobs"]["finished"] == 2
    with pytest.raises(Invalid, match="takes no job of the trace"):
        tried(job("b", project="r"))


def test_jobs_without_a_project_count_to_the_only_one() -> None:
    [found] = tried(job("a"), trees={"one": (TreeNode("all"), TreeNode("p", "all"))})
    assert list(found["projects"]) == ["p"]
