"""A workload that is drawn with a seed: the load that was asked for, from the first moment on, and Zipf's people."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.quota import Tree
from atoll.scheduler.traces.model import SECOND, TraceJob
from atoll.scheduler.traces.workload import BACKLOG, generate, offered, tree

HOUR = 3600 * SECOND
CAPACITY = 400_000


def pod(name: str, seconds: int, gpu: int, job_class: JobClass = JobClass.BATCH) -> TraceJob:
    return TraceJob(name, 7, seconds * SECOND, Resources(1000, 2**30, gpu), job_class=job_class)


# most are short, and a few that take weeks have nine tenths of the GPU time
PODS = [
    *(pod(f"short-{number}", 60 * (number + 1), 500 + 500 * (number % 2)) for number in range(90)),
    *(pod(f"long-{number}", 86400 * 10 * (number + 1), 1000, JobClass.INTERACTIVE) for number in range(3)),
    *(pod(f"idle-{number}", 100 * (number + 1), 700, JobClass.OPPORTUNISTIC) for number in range(20)),
]


def workload(seed: int = 1, hours: float = 2, load: float = 0.6) -> list[TraceJob]:
    return generate(PODS, CAPACITY, load=load, hours=hours, seed=seed)


def without_backlog(seed: int = 1, hours: float = 100, load: float = 0.6) -> list[TraceJob]:
    return generate(claims(PODS), CAPACITY, load=load, hours=hours, seed=seed)


def claims(jobs: list[TraceJob]) -> list[TraceJob]:
    return [job for job in jobs if job.job_class is not JobClass.OPPORTUNISTIC]


def test_a_seed_promises_the_same_jobs_and_another_draws_others() -> None:
    assert workload(5) == workload(5)
    assert workload(5) != workload(6)


def test_what_has_a_claim_does_not_depend_on_what_is_opportunistic() -> None:
    def told(jobs: list[TraceJob]) -> list[TraceJob]:
        return [replace(job, name="") for job in claims(jobs)]

    assert told(without_backlog(hours=2)) == told(workload(hours=2))


@pytest.mark.parametrize("load", [0.3, 0.6])
@pytest.mark.parametrize("begin", [0, 6])
def test_the_load_is_met_from_the_first_moment_on(load: float, begin: int) -> None:
    loads = [offered(without_backlog(seed, 12, load), CAPACITY, begin * HOUR, 12 * HOUR) for seed in range(8)]
    assert sum(loads) / len(loads) == pytest.approx(load, rel=0.03)
    assert all(found == pytest.approx(load, rel=0.1) for found in loads)


def test_others_come_one_by_one_as_a_poisson_process() -> None:
    times = [job.submitted for job in without_backlog(hours=200) if job.submitted]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    pods = claims(PODS)
    gpu_time = sum(found.request.gpu * found.runtime for found in pods) / len(pods)
    assert mean == pytest.approx(gpu_time / (0.6 * CAPACITY), rel=0.1)
    assert sum(gap > mean for gap in gaps) / len(gaps) == pytest.approx(0.368, abs=0.03)  # 1/e


def test_the_backlog_is_there_from_the_beginning_and_asks_for_more_than_the_others_leave() -> None:
    jobs = [job for job in workload() if job.job_class is JobClass.OPPORTUNISTIC]
    assert {job.submitted for job in jobs} == {0}
    assert sum(job.request.gpu * job.runtime for job in jobs) >= BACKLOG * 0.4 * CAPACITY * 2 * HOUR


def test_a_walltime_is_up_to_four_times_the_runtime_and_jobs_have_their_grace() -> None:
    new = [job for job in without_backlog() if job.submitted]
    times = [(job.walltime or 0) * SECOND / job.runtime for job in new]
    assert min(times) >= 1
    assert max(times) <= 4.02
    assert sum(times) / len(times) == pytest.approx(2.5, rel=0.05)
    assert all(job.grace == 30 and (job.walltime or 0) * SECOND >= job.runtime for job in workload())


def test_projects_and_people_are_drawn_by_zipfs_law() -> None:
    jobs = without_backlog(hours=2000)
    for names, count in ((Counter(job.project for job in jobs), 12), (Counter(job.person for job in jobs), 40)):
        assert len(names) == count
        ordered = [names[f"{next(iter(names)).split('-')[0]}-{rank}"] for rank in (1, 2, 4)]
        assert ordered[0] / ordered[1] == pytest.approx(2, rel=0.15)
        assert ordered[0] / ordered[2] == pytest.approx(4, rel=0.25)


def test_equal_quotas_add_up_to_the_capacity_of_every_flavor() -> None:
    capacity = {"a100": 40_000, "t4": 8_000, "cpu": 0}
    nodes = tree(12, capacity)
    made = Tree(nodes)
    assert {made.is_project(job.project) for job in workload()} == {True}
    for flavor in ("a100", "t4"):
        limits = [node.quotas[flavor, "gpu"].nominal for node in nodes[1:]]
        assert sum(limits) == capacity[flavor]
        assert max(limits) - min(limits) <= 1
    assert "cpu" not in made.governed


def test_a_trace_without_a_gpu_offers_none() -> None:
    with pytest.raises(Invalid, match="uses a GPU"):
        generate([pod("a", 60, 0)], CAPACITY, hours=1, seed=1)
