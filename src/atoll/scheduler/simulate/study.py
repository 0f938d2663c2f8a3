"""One trace on one cluster under several policies and quotas: replayed as it was, or filling the cluster endlessly."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from atoll.core.errors import Invalid
from atoll.core.project import TreeNode
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.quota import Tree
from atoll.scheduler.simulate import metrics
from atoll.scheduler.simulate.admission import Denied, admit
from atoll.scheduler.simulate.cluster import Cluster
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.policies import Policy
from atoll.scheduler.simulate.shape import Shaped, shape
from atoll.scheduler.traces.model import SECOND, Trace, TraceJob

MOST_SAMPLED = 1_000_000
"""Jobs that are sampled at most to fill a cluster."""


@dataclass(frozen=True, slots=True)
class Result:
    """What came of one policy: plain data, and the waiting times by class for a picture."""

    document: dict[str, Any]
    waits: dict[str, list[float]]
    """Seconds, sorted."""


@dataclass(frozen=True, slots=True)
class Study:
    """Results of all policies, and what they rest on."""

    document: dict[str, Any]
    results: tuple[Result, ...]


@dataclass(frozen=True, slots=True)
class Quotas:
    """A project tree to be tried, and the name under which it is told."""

    name: str | None
    nodes: tuple[TreeNode, ...]


def replay(trace: Trace, cluster: Cluster, policies: Sequence[Policy], quotas: Sequence[Quotas] = ()) -> Study:
    """Run the jobs of a trace as they came, with each of the project trees; with none, with the cluster's own.

    Raises Invalid where the cluster can run none of them, or a tree takes none of them.
    """
    shaped = _shaped(trace, cluster)
    results = []
    for tried in quotas or [Quotas(None, cluster.tree)]:
        there = replace(cluster, tree=tried.nodes)
        jobs, denied = _admitted(shaped.jobs, there)
        for policy in policies:
            simulation = Simulation(jobs, there, policy)
            simulation.run()
            classes = [found for found in JobClass if any(run.job.job_class is found for run in simulation.runs)]
            waits = {found.value: metrics.waits(simulation.runs, found).tolist() for found in classes}
            document = metrics.document(simulation)
            told = {"policy": document.pop("policy"), "quotas": tried.name, "denied": _denials(denied)}
            results.append(Result(told | document, waits))
    return _study(trace, cluster, shaped, results)


def fill(trace: Trace, cluster: Cluster, policies: Sequence[Policy], share: float, seed: int) -> Study:
    """Let jobs that never end come one a second until the GPUs asked for are `share` of those there are.

    The jobs are drawn from the trace with replacement, the same for every policy: so the experiments of Weng et al.,
    USENIX ATC 2023. Raises Invalid where the cluster has no GPU, or no job that it can run asks for one.
    """
    shaped = _shaped(trace, cluster)
    capacity = cluster.capacity.gpu
    if not capacity:
        raise Invalid("no_gpus", "The cluster has no GPUs that could be filled.", field="fill")
    if not any(job.request.gpu for job in shaped.jobs):
        raise Invalid("no_gpus", "No job of the trace that the cluster can run asks for a GPU.", field="fill")
    jobs = sample(_admitted(shaped.jobs, cluster)[0], share * capacity, seed)
    asked = sum(job.request.gpu * job.nodes for job in jobs)
    results = []
    for policy in policies:
        simulation = Simulation(jobs, cluster, policy, departures=False)
        simulation.run()
        results.append(Result(_filled(simulation), {}))
    told = {"share": share, "seed": seed, "jobs": len(jobs), "gpus_asked": asked / 1000, "gpus": capacity / 1000}
    return _study(trace, cluster, shaped, results, told)


def sample(jobs: Sequence[TraceJob], milli: float, seed: int) -> list[TraceJob]:
    """Jobs drawn with replacement until they ask for so many milli-GPU, one a second. Raises Invalid for too many."""
    # the same numbers on every machine and in every version of Python: what a seed promises
    draw = random.Random(seed)
    drawn: list[TraceJob] = []
    asked = 0
    while asked < milli:
        if len(drawn) == MOST_SAMPLED:
            raise Invalid("too_many_jobs", f"Not even {MOST_SAMPLED} jobs of the trace ask for so many GPUs.")
        job = jobs[int(draw.random() * len(jobs))]
        drawn.append(replace(job, submitted=len(drawn) * SECOND))
        asked += job.request.gpu * job.nodes
    return drawn


def _shaped(trace: Trace, cluster: Cluster) -> Shaped:
    shaped = shape(trace.jobs, cluster)
    if not shaped.jobs:
        sentence = f"The cluster can run no job of the trace: {shaped.impossible[0].sentence}"
        raise Invalid("nothing_possible", sentence, field="cluster")
    return shaped


def _admitted(jobs: Sequence[TraceJob], cluster: Cluster) -> tuple[Sequence[TraceJob], Sequence[Denied]]:
    """The jobs that the cluster's project tree takes, if there is one, and why not the others."""
    if not cluster.tree:
        return jobs, ()
    taken, denied = admit(jobs, Tree(cluster.tree), cluster.flavors)
    if not taken:
        sentence = f"The project tree takes no job of the trace: {denied[0].sentence}"
        raise Invalid("nothing_admitted", sentence, field="quotas")
    return taken, denied


def _denials(denied: Sequence[Denied]) -> dict[str, Any]:
    return {
        "jobs": sum(found.jobs for found in denied),
        "reasons": [{"project": found.project, "sentence": found.sentence, "jobs": found.jobs} for found in denied],
    }


def _filled(simulation: Simulation) -> dict[str, Any]:
    """The GPUs that were allocated in the end, and on the way, for each hundredth of the capacity asked for."""
    capacity = simulation.cluster.capacity.gpu
    steps = simulation.meter.steps
    points: list[list[float]] = []
    asked = place = 0
    for number, job in enumerate(simulation.jobs):
        asked += job.request.gpu * job.nodes
        while place + 1 < len(steps) and steps[place + 1].begin <= job.submitted:
            place += 1
        last = number + 1 == len(simulation.jobs)
        if last or asked * 100 // capacity > len(points):
            held = simulation.meter.held if last else steps[place].held
            points.append([round(asked / capacity, 6), round(held.gpu / capacity, 6)])
    held = simulation.meter.held
    placed = sum(run.begun is not None for run in simulation.runs)
    return {
        "policy": simulation.policy.name,
        "gpus_allocated": held.gpu / 1000,
        "gpu_allocation": round(held.gpu / capacity, 6),
        "cpu_allocation": round(held.cpu / max(1, simulation.cluster.capacity.cpu), 6),
        "jobs": {"running": placed, "waiting": len(simulation.runs) - placed},
        "evictions": sum(run.evictions for run in simulation.runs),
        "points": points,
    }


def _study(
    trace: Trace, cluster: Cluster, shaped: Shaped, results: Sequence[Result], filled: dict[str, Any] | None = None
) -> Study:
    capacity = cluster.capacity
    document: dict[str, Any] = {
        "trace": {
            "format": trace.format,
            "jobs": len(trace.jobs),
            "broken": trace.broken,
            "problems": [{"line": problem.line, "problem": problem.clause} for problem in trace.problems],
            "notes": list(trace.notes),
        },
        "cluster": {
            "sites": len(cluster.sites()),
            "nodes": len(cluster.nodes),
            "flavors": list(cluster.flavors),
            **_amounts(capacity),
            "notes": list(cluster.notes),
            "quotas": bool(cluster.tree) or any(result.document.get("quotas") for result in results),
        },
        "impossible": {
            "jobs": sum(why.jobs for why in shaped.impossible),
            "reasons": [{"field": why.field, "sentence": why.sentence, "jobs": why.jobs} for why in shaped.impossible],
        },
    }
    if filled is not None:
        document["fill"] = filled
    document["policies"] = [result.document for result in results]
    return Study(document, tuple(results))


def _amounts(amount: Resources) -> dict[str, float]:
    return {"gpu": amount.gpu / 1000, "cpu": amount.cpu / 1000, "memory": amount.memory}
