"""A workload of any length and load, drawn with a seed from the pods of a trace; with the project tree for it.

What runs in a real cluster is heavy tailed: of openb's latency-sensitive pods one in a hundred has nine tenths of all
GPU time, and runs for months. A cluster that begins empty would need as long until it is as full as was asked for. So
the workload begins in the middle: at time 0 come those jobs that would be running if it had gone on for ever, each with
the rest of its work. That is the stationary state of a queue with Poisson arrivals and enough servers (M/G/infinity; D.
R. Cox, "Renewal Theory", 1962): a job is found running in proportion to its duration, at a moment uniform in it. From
then on others come, and the load stays what it is in expectation.

With mean g x s the GPU time of a pod (GPUs times duration) over the pods that have a claim, they come at the rate

    rate = load x capacity / mean(g x s),     so that     offered = rate x mean(g x s) = load x capacity.
"""

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import accumulate

from atoll.core.errors import Invalid
from atoll.core.project import Limit, TreeNode
from atoll.core.spec import JobClass
from atoll.scheduler.traces.model import SECOND, TraceJob

GRACE = 30
"""Seconds between being asked to stop and being killed, of every job."""
LONGEST_WALLTIME = 4.0
"""A walltime is the runtime times a number between 1 and this."""
BACKLOG = 1.5
"""What is opportunistic asks for so many times the GPU time that the others leave: it never runs dry."""
ROOT = "institute"
"""The root of the tree."""


def generate(
    pods: Sequence[TraceJob],
    capacity_milli_gpu: int,
    *,
    load: float = 0.6,
    hours: float,
    seed: int,
    projects: int = 12,
    people: int = 40,
) -> list[TraceJob]:
    """Jobs that come within so many hours and offer `load` of the capacity, and an opportunistic backlog at time 0.

    The backlog is what is opportunistic, all the rest has a claim; the latter is the same with the former and without.
    Pods are drawn with replacement. Projects (`project-1`...) and people (`person-1`...) are drawn by Zipf's law. The
    jobs are sorted by submission. Raises Invalid where no pod with a claim uses a GPU.
    """
    backlog = [pod for pod in pods if pod.job_class is JobClass.OPPORTUNISTIC]
    claims = [pod for pod in pods if pod.job_class is not JobClass.OPPORTUNISTIC]
    draw = _Draw(seed, projects, people)
    jobs = _running(claims, load * capacity_milli_gpu, draw)
    jobs += _arriving(claims, load * capacity_milli_gpu, hours * 3600 * SECOND, draw)
    # another sequence of numbers: what has a claim does not depend on what is opportunistic
    idle = (1 - load) * capacity_milli_gpu * hours * 3600 * SECOND
    jobs += _endless(backlog, BACKLOG * idle, hours * 3600 * SECOND, _Draw(seed + 1_000_000, projects, people))
    return [
        replace(job, name=f"{number}-{job.name}")
        for number, job in enumerate(sorted(jobs, key=lambda job: job.submitted))
    ]


def tree(projects: int, capacity_milli_gpu: Mapping[str, int]) -> list[TreeNode]:
    """The projects of `generate` below a root, with equal quotas of GPUs that add up to the capacity by flavor."""
    nodes = [TreeNode(ROOT, None)]
    for number in range(projects):
        quotas = {
            (flavor, "gpu"): Limit(whole * (number + 1) // projects - whole * number // projects)
            for flavor, whole in capacity_milli_gpu.items()
            if whole
        }
        nodes.append(TreeNode(_project(number), ROOT, quotas=quotas))
    return nodes


def offered(jobs: Iterable[TraceJob], capacity_milli_gpu: int, begin: int, end: int) -> float:
    """The part of the GPUs that jobs would use between two times (microseconds) if each began as it came."""
    asked = sum(
        job.request.gpu * job.nodes * max(0, min(end, job.submitted + job.runtime) - max(begin, job.submitted))
        for job in jobs
    )
    return asked / (capacity_milli_gpu * (end - begin))


class _Draw:
    """All that chance decides: the same numbers on every machine and in every version of Python."""

    def __init__(self, seed: int, projects: int, people: int) -> None:
        self.uniform: Callable[[], float] = random.Random(seed).random
        self._projects, self._people = _zipf(projects), _zipf(people)

    def of(self, cumulated: Sequence[float]) -> int:
        """A place, in proportion to weights that are given added up."""
        return bisect_right(cumulated, self.uniform() * cumulated[-1], hi=len(cumulated) - 1)

    def job(self, pod: TraceJob, submitted: float, begun: float = 0.0) -> TraceJob:
        """A job like a pod, of which this part is done already, of somebody, with a walltime and a grace."""
        walltime = pod.runtime * (1 + (LONGEST_WALLTIME - 1) * self.uniform())
        done = round(begun * pod.runtime)
        return replace(
            pod,
            submitted=round(submitted),
            runtime=pod.runtime - done,
            walltime=max(1, math.ceil((walltime - done) / SECOND)),
            grace=GRACE,
            project=_project(self.of(self._projects)),
            person=f"person-{1 + self.of(self._people)}",
        )


def _running(pods: Sequence[TraceJob], asked: float, draw: _Draw) -> list[TraceJob]:
    """Jobs in the middle of their work, that use about so many milli-GPU together.

    How many run is not drawn but taken at its mean; so the load is met from the first moment on.
    """
    if not any(pod.request.gpu and pod.runtime for pod in pods):
        raise Invalid("no_gpus", "No job of the trace that has a claim uses a GPU.", field="trace")
    durations = list(accumulate(float(pod.runtime) for pod in pods))
    jobs: list[TraceJob] = []
    while asked > 0:
        pod = pods[draw.of(durations)]
        jobs.append(draw.job(pod, 0, draw.uniform()))
        asked -= pod.request.gpu * pod.nodes
    return jobs


def _arriving(pods: Sequence[TraceJob], asked: float, end: float, draw: _Draw) -> list[TraceJob]:
    """Jobs that come after time 0, as a Poisson process that keeps so many milli-GPU busy."""
    mean = sum(pod.request.gpu * pod.nodes * pod.runtime for pod in pods) / len(pods)
    rate = asked / mean
    jobs: list[TraceJob] = []
    now = 0.0
    while (now := now - math.log(1 - draw.uniform()) / rate) < end:
        jobs.append(draw.job(pods[int(draw.uniform() * len(pods))], now))
    return jobs


def _endless(pods: Sequence[TraceJob], asked: float, end: float, draw: _Draw) -> list[TraceJob]:
    """Jobs of time 0 that ask for so much GPU time together (milli-GPU x microseconds) until `end`; none without."""
    if not any(pod.request.gpu and pod.runtime for pod in pods):
        return []
    jobs: list[TraceJob] = []
    while asked > 0:
        pod = pods[int(draw.uniform() * len(pods))]
        jobs.append(draw.job(pod, 0))
        asked -= pod.request.gpu * pod.nodes * min(pod.runtime, end)
    return jobs


def _zipf(count: int) -> list[float]:
    """Weights by Zipf's law, 1/1, 1/2, 1/3..., added up."""
    return list(accumulate(1 / rank for rank in range(1, count + 1)))


def _project(number: int) -> str:
    return f"project-{1 + number}"
