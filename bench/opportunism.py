"""What an endless opportunistic backlog makes of idle GPUs, and what it costs those who have a claim.

The same jobs (`atoll.scheduler.traces.workload`, drawn from openb) run twice through the simulator on 150 nodes of
openb: as they are, and beside the backlog. `python -m bench opportunism`.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.core.spec import JobClass
from atoll.scheduler.simulate.cluster import Cluster, Node
from atoll.scheduler.simulate.engine import Simulation
from atoll.scheduler.simulate.meter import Step
from atoll.scheduler.simulate.policies import POLICIES
from atoll.scheduler.simulate.runs import JobRun
from atoll.scheduler.simulate.shape import shape
from atoll.scheduler.traces.model import SECOND, TraceJob
from atoll.scheduler.traces.openb import read_nodes, read_pods
from atoll.scheduler.traces.workload import GRACE, generate, tree
from bench import openb
from bench.figures import Row, Target

HOUR = 3600 * SECOND
PROJECTS = 12
WARM_UP = 0.25
"""The part of the time that is not measured: what comes at time 0 finds its place then."""
_NOTE = (
    "Nodes of openb, 60 % of their GPUs asked for by interactive and batch jobs, 12 projects with equal quotas; a "
    "value for each seed."
)
_DELAY_NOTE = (
    "The largest of all interactive jobs of all seeds: begin beside the backlog, less begin without it, less the grace "
    "of those who were asked to leave for it. Nothing is left out because batch jobs went elsewhere meanwhile. One "
    "that has not begun in the end counts as beginning then."
)


@dataclass(frozen=True)
class Case:
    """Nodes with a project tree, and the jobs of a seed, from time 0 to `end` (microseconds)."""

    cluster: Cluster
    jobs: Sequence[TraceJob]
    end: int

    @classmethod
    def of(cls, seed: int, nodes: int, hours: float) -> Case:
        """So many nodes of openb, and the workload for them."""
        place = openb.folder()
        found, _, _ = read_nodes((place / openb.NODES).read_text())
        chosen = random.Random(seed).sample(found, nodes)
        gpus = Counter[str]()
        for node in chosen:
            gpus[node.flavor] += node.amount.gpu
        cluster = Cluster(
            tuple(Node(node.name, "openb", node.flavor, node.amount) for node in chosen),
            tree=tuple(tree(PROJECTS, gpus)),
        )
        pods = shape(read_pods((place / openb.PODS).read_text()).jobs, cluster).jobs
        jobs = generate(pods, cluster.capacity.gpu, hours=hours, seed=seed, projects=PROJECTS)
        return cls(cluster, jobs, round(hours * HOUR))

    def run(self, *, backlog: bool) -> Played:
        """Let the jobs run, with what is opportunistic or without."""
        jobs = [job for job in self.jobs if backlog or job.job_class is not JobClass.OPPORTUNISTIC]
        simulation = Simulation(jobs, self.cluster, POLICIES["atoll"])
        begun = time.process_time()
        simulation.run(self.end)
        return Played(simulation, self.end, time.process_time() - begun)


@dataclass(frozen=True)
class Played:
    """A simulation that was run, and the seconds of CPU time that it took."""

    simulation: Simulation
    end: int
    seconds: float

    def of(self, job_class: JobClass) -> list[JobRun]:
        """What became of the jobs of a class, in the order in which they came."""
        return [run for run in self.simulation.runs if run.job.job_class is job_class]

    def begin(self, run: JobRun) -> int:
        """When a job began; the end where it did not."""
        return self.end if run.begun is None else run.begun

    @property
    def use(self) -> float:
        """The part of the GPUs that was held, in percent, after the warm-up."""
        held = _mean_gpu(self.simulation.meter.steps, round(WARM_UP * self.end), self.end)
        return 100 * held / self.simulation.cluster.capacity.gpu

    @property
    def lost(self) -> float:
        """GPU time whose work evictions made vain, in percent of the GPU time that there is."""
        lost = sum(loss.held.gpu * (loss.end - loss.begin) for loss in self.simulation.meter.losses)
        return 100 * lost / (self.simulation.cluster.capacity.gpu * self.end)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """GPU use, delays of interactive jobs, and evictions, with an opportunistic backlog and without."""
    del folder
    nodes, hours, seeds = (40, 0.25, (1,)) if small else (150, 8, (1, 2, 3))
    cases = [Case.of(seed, nodes, hours) for seed in seeds]
    without, beside = ([case.run(backlog=backlog) for case in cases] for backlog in (False, True))
    pairs = list(zip(without, beside, strict=True))
    yield Row(
        "GPU use with an opportunistic backlog", "%", [each.use for each in beside], Target("at least", 1.25, True),
        peer="without it", peer_values=[each.use for each in without], note=_NOTE,
    )  # fmt: skip
    delays = [_delays(*pair) for pair in pairs]
    yield Row(
        "largest delay beyond the victims' grace", "s", [max(beyond for each in delays for _, beyond in each)],
        Target("at most", 2), note=_DELAY_NOTE,
    )  # fmt: skip
    plain = [max(whole for whole, _ in each) for each in delays]
    yield Row("largest delay of an interactive job", "s", plain, note=f"With its victims' grace, which is {GRACE} s.")
    late = [100 * sum(whole > 2 for whole, _ in each) / len(each) for each in delays]
    yield Row("interactive jobs that were delayed", "%", late, note="By more than 2 s.")
    evicted = [sum(run.evictions for run in each.simulation.runs) for each in beside]
    yield Row("evictions", "attempts", evicted, note=f"In {hours:g} h on {nodes} nodes.")
    claims = [sum(run.evictions for run in each.of(JobClass.INTERACTIVE) + each.of(JobClass.BATCH)) for each in beside]
    yield Row("evictions of what is not opportunistic", "attempts", claims)
    yield Row("GPU time lost by evictions", "%", [each.lost for each in beside], note="Of all GPU time.")
    cycles = [1000 * each.seconds / each.simulation.cycles for each in beside]
    yield Row("simulating a cycle", "ms", cycles, note="CPU time, with all that happens between two of them.")


def _delays(without: Played, beside: Played) -> list[tuple[float, float]]:
    """By how many seconds each interactive job began later beside the backlog: all, and beyond its victims' grace."""
    found = []
    for alone, run in zip(without.of(JobClass.INTERACTIVE), beside.of(JobClass.INTERACTIVE), strict=True):
        later = (beside.begin(run) - without.begin(alone)) / SECOND
        found.append((later, later - run.made_room))
    return found


def _mean_gpu(steps: Sequence[Step], begin: int, end: int) -> float:
    """The milli-GPU that were held from one time to another, mean."""
    ends = [*(step.begin for step in steps[1:]), end]
    held = sum(
        step.held.gpu * max(0, min(until, end) - max(step.begin, begin))
        for step, until in zip(steps, ends, strict=True)
    )
    return held / (end - begin)
