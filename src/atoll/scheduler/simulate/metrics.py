"""What a simulation came to, as plain data: shares from 0 to 1, seconds, GPUs and CPUs.

*Allocation* is what attempts held of the capacity; *utilisation* leaves out of it the work that evictions made vain.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.meter import RESOURCES, Loss, Step
from atoll.scheduler.simulate.runs import JobRun
from atoll.scheduler.traces.model import SECOND

BINS = 120
"""Points of what is told over time."""
BOUND = 10.0
"""Seconds: a job that runs for less counts as one of this length, see `slowdowns`."""

Numbers = NDArray[np.float64]


def waits(runs: Iterable[JobRun], job_class: JobClass | None = None) -> Numbers:
    """Seconds from submission to the first begin, of the jobs (of a class) that began, sorted."""
    found = [
        (run.begun - run.job.submitted) / SECOND
        for run in runs
        if run.begun is not None and (job_class is None or run.job.job_class is job_class)
    ]
    return np.sort(np.array(found, np.float64))


def slowdowns(runs: Iterable[JobRun], job_class: JobClass | None = None) -> Numbers:
    """Bounded slowdown of the jobs (of a class) that ended: the time to their end over the time that they need.

    D. Feitelson, L. Rudolph et al., "Theory and Practice in Parallel Job Scheduling", JSSPP 1997.
    """
    found = []
    for run in runs:
        if run.ended is not None and (job_class is None or run.job.job_class is job_class):
            needed = run.job.runtime / SECOND
            if run.job.walltime is not None:
                needed = min(needed, run.job.walltime)
            found.append(max(1.0, (run.ended - run.job.submitted) / SECOND / max(needed, BOUND)))
    return np.sort(np.array(found, np.float64))


def summary(values: Numbers) -> dict[str, Any]:
    """How many they are, mean, median, 90th and 99th percentile, and the largest."""
    if not len(values):
        return {"jobs": 0, "mean": None, "median": None, "p90": None, "p99": None, "max": None}
    median, p90, p99 = np.percentile(values, (50, 90, 99)).tolist()
    return {
        "jobs": len(values), "mean": _rounded(values.mean()), "median": _rounded(median), "p90": _rounded(p90),
        "p99": _rounded(p99), "max": _rounded(values[-1]),
    }  # fmt: skip


def document(simulation: Simulation) -> dict[str, Any]:
    """All that is told of a run."""
    runs, meter = simulation.runs, simulation.meter
    end = max([run.ended for run in runs if run.ended is not None], default=meter.now)
    arrived = max((run.job.submitted for run in runs), default=0)
    edges = np.linspace(0, max(end, 1), BINS + 1)
    held = _averages(meter.steps, edges, meter.now)
    vain = np.array([_vain(meter.losses, edges, resource) for resource in RESOURCES])
    capacity = _row(simulation.cluster.capacity)
    return {
        "policy": simulation.policy.name,
        "jobs": {
            "finished": sum(run.ended is not None and not run.timed_out for run in runs),
            "timed_out": sum(run.timed_out for run in runs),
            "unfinished": sum(run.ended is None for run in runs),
            "never_started": sum(run.begun is None for run in runs),
        },
        "makespan": _rounded(end / SECOND),
        "allocation": _shares(_averages(meter.steps, edges[[0, -1]], meter.now)[:3, 0], capacity),
        "allocation_while_arriving": _shares(
            _averages(meter.steps, np.array([0.0, max(arrived, 1)]), meter.now)[:3, 0], capacity
        ),
        "utilisation": _shares((held[:3] - vain).mean(1), capacity),
        "waiting": _by_class(simulation, waits),
        "slowdown": _by_class(simulation, slowdowns),
        "fairness": _fairness(simulation),
        "projects": _by_project(simulation),
        "evictions": _evictions(simulation),
        "timeline": {
            "seconds": [_rounded(value) for value in (edges[:-1] / SECOND).tolist()],
            "allocation": _lines(held[:3], capacity),
            "utilisation": _lines(held[:3] - vain, capacity),
            "waiting": [_rounded(value) for value in held[3].tolist()],
        },
    }


def _by_class(simulation: Simulation, measure: Any) -> dict[str, Any]:
    classes = [found for found in JobClass if any(run.job.job_class is found for run in simulation.runs)]
    told = {"all": summary(measure(simulation.runs))}
    return told | {found.value: summary(measure(simulation.runs, found)) for found in classes}


def _by_project(simulation: Simulation) -> dict[str, Any]:
    """How the jobs of each project waited and were evicted."""
    runs_of: dict[str, list[JobRun]] = {}
    for run in simulation.runs:
        runs_of.setdefault(run.job.project, []).append(run)
    return {
        project: {"waiting": summary(waits(runs)), "evictions": sum(run.evictions for run in runs)}
        for project, runs in runs_of.items()
    }


def _averages(steps: Sequence[Step], edges: Numbers, now: int) -> Numbers:
    """The mean of each resource held (rows 0 to 2) and of what waited (row 3) between each two edges."""
    times = np.array([step.begin for step in steps] + [now], np.float64)
    levels = np.array([[*_row(step.held), step.waiting] for step in steps], np.float64).reshape(-1, 4)
    sums = np.vstack([np.zeros(4), np.cumsum(levels * np.diff(times)[:, None], axis=0)])
    at_edges = np.array([np.interp(edges, times, column) for column in sums.T])
    means: Numbers = np.diff(at_edges) / np.diff(edges)
    return means


def _vain(losses: Sequence[Loss], edges: Numbers, resource: str) -> Numbers:
    """The mean of a resource that was held in vain between each two edges."""
    lost = np.zeros(len(edges))
    for loss in losses:
        lost += getattr(loss.held, resource) * (np.clip(edges, loss.begin, loss.end) - loss.begin)
    means: Numbers = np.diff(lost) / np.diff(edges)
    return means


def _fairness(simulation: Simulation) -> dict[str, Any]:
    meter = simulation.meter
    used = meter.used.tolist()
    return {
        "measure": "gpu" if meter.by_gpu else "dominant_share",
        "jain": None if meter.fairness is None else _rounded(meter.fairness),
        "projects": {
            project: {
                "weight": simulation.cluster.weight(project),
                "gpu_seconds": _rounded(used[number][0] / 1000),
                "cpu_seconds": _rounded(used[number][1] / 1000),
            }
            for number, project in enumerate(meter.projects)
        },
    }


def _evictions(simulation: Simulation) -> dict[str, Any]:
    losses = simulation.meter.losses
    return {
        "count": sum(run.evictions for run in simulation.runs),
        "jobs": sum(run.evictions > 0 for run in simulation.runs),
        "lost_seconds": _rounded(sum(run.lost for run in simulation.runs) / SECOND),
        "lost_gpu_seconds": _rounded(sum(loss.held.gpu / 1000 * (loss.end - loss.begin) / SECOND for loss in losses)),
        "lost_cpu_seconds": _rounded(sum(loss.held.cpu / 1000 * (loss.end - loss.begin) / SECOND for loss in losses)),
    }


def _row(amount: Resources) -> list[int]:
    return [getattr(amount, resource) for resource in RESOURCES]


def _shares(held: Numbers, capacity: Sequence[int]) -> dict[str, float | None]:
    """What is held of each resource as a part of what there is; None of a resource that the cluster lacks."""
    return {
        resource: _rounded(value / whole) if whole else None
        for resource, value, whole in zip(RESOURCES, held.tolist(), capacity, strict=True)
    }


def _lines(held: Numbers, capacity: Sequence[int]) -> dict[str, list[float]]:
    return {
        resource: [_rounded(value / whole) for value in values]
        for resource, values, whole in zip(RESOURCES, held.tolist(), capacity, strict=True)
        if whole
    }


def _rounded(value: float) -> float:
    """With six digits behind the point, and never a negative nought."""
    return round(float(value), 6) + 0.0
