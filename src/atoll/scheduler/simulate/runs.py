"""What becomes of each job of a simulation, and what the scheduler is told of it while it waits and while it runs.

A field more of `Waiting` or `Running` is filled in here.
"""

from dataclasses import dataclass

from atoll.scheduler.model import Place, Placement, Promise, Running, Waiting
from atoll.scheduler.simulate.policies import Policy
from atoll.scheduler.traces.model import TraceJob


@dataclass(slots=True)
class JobRun:
    """What becomes of a job. Times are microseconds."""

    number: int
    job: TraceJob
    left: int
    """How much of its work is still to be done."""
    begun: int | None = None
    """When it first began."""
    ended: int | None = None
    """When it was over for good."""
    timed_out: bool = False
    evictions: int = 0
    lost: int = 0
    """How much of its work was done in vain."""
    promise: Promise | None = None
    """Room that others leave for it."""
    expected: int = 0
    """How many seconds it is expected to run, as far as runs before it tell; 0: nobody knows."""
    made_room: int = 0
    """The longest grace, in seconds, of those who were asked to leave for it."""


def waiting_of(run: JobRun, policy: Policy) -> Waiting:
    """The job as the scheduler sees it wait: with its age, and nothing of what only the future knows."""
    job = run.job
    rank = policy.rank(job.job_class)
    placement = Placement(person=policy.person(job), walltime=job.walltime, grace=job.grace or 0)
    return Waiting(
        run.number, rank, 0, job.submitted, job.request, job.nodes, job.flavors, placement,
        project=policy.project(job), promise=run.promise, ordered=job.ordered, expected=run.expected,
    )  # fmt: skip


def running_of(run: JobRun, policy: Policy, place: Place, attempt_id: str, now: int) -> Running:
    """An attempt at the job, as the scheduler sees it from its placing on, at `now` (microseconds)."""
    job = run.job
    return Running(
        attempt_id, run.number, place.site, place.flavor, job.request, job.nodes, policy.rank(job.job_class),
        waits=True, project=policy.project(job), person=policy.person(job), placed=max(1, now), walltime=job.walltime,
        expected=run.expected, grace=job.grace or 0, evictions=run.evictions,
        spots=place.spots[0] if place.spots else (),
    )  # fmt: skip
