"""What all formats of traces are read into, and how their rows are gathered, broken ones told apart."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

from atoll.core.resources import Resources
from atoll.core.spec import JobClass

Row = TypeVar("Row")

SECOND = 1_000_000
"""Microseconds."""
MOST_SECONDS = 100 * 366 * 86400
"""No time and no duration of a trace is longer than a hundred years."""
MOST_MEMORY = 2**50
"""Bytes. A job that asks for more than a pebibyte is a slip of whoever wrote the trace."""
MOST_AMOUNT = 10_000_000
"""CPUs, GPUs or nodes of one job."""
LISTED = 20
"""So many broken rows are named; the others are only counted."""


class BrokenRow(ValueError):
    """A row that says what cannot be; the message is the clause that names it."""


@dataclass(frozen=True, slots=True)
class TraceJob:
    """A job as a trace tells of it: what it asked for, and how long it really ran."""

    name: str
    """As the trace names it."""
    submitted: int
    """Microseconds since the first submission of the trace."""
    runtime: int
    """Microseconds that its work takes; nobody who schedules it may look."""
    request: Resources
    """On each node."""
    nodes: int = 1
    walltime: int | None = None
    """Seconds after which it is ended; None where the trace does not say."""
    job_class: JobClass = JobClass.BATCH
    project: str = ""
    person: str = ""
    flavors: tuple[str, ...] = ()
    """The kinds of hardware that will do; none: any."""
    grace: int | None = None
    """Seconds between being asked to stop and being killed; None where the trace does not say."""
    checkpoint: int | None = None
    """Seconds between checkpoints; None for a job that begins again from the start."""
    spreads: bool = False
    """Whether its CPUs may lie on several nodes, as those of MPI programs: the trace counts processors only."""
    ordered: bool = True
    """Whether the first of its flavors is liked best."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A broken row."""

    line: int
    """Its number in the file; 1 is the first."""
    clause: str

    def __str__(self) -> str:
        return f"{self.line}: {self.clause}"


@dataclass(frozen=True, slots=True)
class Trace:
    """A trace that was read: its jobs by time of submission, and what is wrong with it."""

    format: str
    jobs: tuple[TraceJob, ...]
    broken: int = 0
    """How many rows were passed over because they say what cannot be."""
    problems: tuple[Problem, ...] = ()
    """The first of these."""
    notes: tuple[str, ...] = ()
    """Sentences on what else a reader has to know."""


def gather(
    kind: str, rows: Iterable[tuple[int, Row]], job_of: Callable[[Row], TraceJob | None], *, passed_over: str
) -> Trace:
    """The trace of the rows, which come with the numbers of their lines.

    `job_of` makes a job of a row, with any origin of its times. It raises BrokenRow, or gives None for a row that is
    sound and yet no job that can be run; `passed_over` says of those what they are, as in "that never ran".
    """
    jobs: list[TraceJob] = []
    problems: list[Problem] = []
    broken = left_out = jumps = 0
    for line, row in rows:
        try:
            job = job_of(row)
        except BrokenRow as error:
            broken += 1
            if len(problems) < LISTED:
                problems.append(Problem(line, str(error)))
            continue
        if job is None:
            left_out += 1
            continue
        jumps += bool(jobs) and job.submitted < jobs[-1].submitted
        jobs.append(job)
    notes = []
    if left_out:
        notes.append(f"Left out are rows {passed_over}: {left_out}.")
    if jumps:
        notes.append(f"The clock of the trace jumps back ({jumps} times); its jobs are sorted by their submission.")
    jobs.sort(key=lambda job: job.submitted)
    begin = jobs[0].submitted if jobs else 0
    jobs = [replace(job, submitted=job.submitted - begin) for job in jobs]
    return Trace(kind, tuple(jobs), broken, tuple(problems), tuple(notes))


def number(text: str, field: str, *, most: float) -> float:
    """The number that a field says, from 0 to `most`. Raises BrokenRow."""
    try:
        value = float(text)
    except ValueError:
        raise BrokenRow(f"{field} is {_shown(text)}, which is no number") from None
    if not math.isfinite(value):
        raise BrokenRow(f"{field} is {_shown(text)}, which is no number")
    if value < 0:
        raise BrokenRow(f"{field} is negative ({_shown(text)})")
    if value > most:
        raise BrokenRow(f"{field} is beyond sense ({_shown(text)})")
    return value


def micros(text: str, field: str) -> int:
    """The microseconds of a time or a duration that is written in seconds. Raises BrokenRow."""
    return round(number(text, field, most=MOST_SECONDS) * SECOND)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
