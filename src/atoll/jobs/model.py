"""What the API says of jobs."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from atoll.core.reasons import ReasonCode
from atoll.core.spec import JobClass
from atoll.core.states import JobState, Outcome
from atoll.scheduler.remedies import Help

Moment = Annotated[str, Field(description="RFC 3339 in UTC.", examples=["2026-05-01T12:00:00.000000Z"])]


class ReasonDocument(BaseModel):
    """Why a job waits, or why it ended: a code for programs, a sentence for people."""

    code: ReasonCode
    sentence: str


class TaskCounts(BaseModel):
    """Where the tasks of an array are."""

    total: int
    waiting: int
    active: int
    succeeded: int
    failed: int
    cancelled: int


class Estimate(BaseModel):
    """When a waiting job, or an array's next task, is expected to start. Nobody can say of opportunistic ones."""

    position: Annotated[
        int | None, Field(description="Place among those that wait; 1 is next. None: it waits in a site's own queue.")
    ]
    waiting: Annotated[int | None, Field(description="How many entries wait in all; an array is one.")]
    start: Annotated[Moment | None, Field(description="None: nobody can say.")]
    earliest: Moment | None
    latest: Annotated[
        Moment | None,
        Field(description="It starts between these two in at least 8 cases of 10; by `site`, not later as things are."),
    ]
    at: Annotated[Moment, Field(description="When this was worked out.")]
    by: Annotated[
        Literal["queue", "site", "usual_wait"],
        Field(description="Atoll's queue played forward, the word of the site's engine, or the usual wait there."),
    ]
    site: Annotated[str | None, Field(description="In whose own queue it waits; None: in Atoll's.")]


class JobSummary(BaseModel):
    """A job, an array, or one task of an array."""

    model_config = ConfigDict(populate_by_name=True)
    id: Annotated[str, Field(description="12, or 12[3] for a task.")]
    job: int
    task: int | None
    name: str
    owner: str
    project: str | None
    class_: Annotated[JobClass, Field(alias="class")]
    state: JobState
    reason: ReasonDocument
    cpu: Annotated[str, Field(description="On each node: 2, 500m.")]
    memory: Annotated[int, Field(description="Bytes on each node.")]
    gpu: Annotated[str, Field(description="On each node: 1, 500m.")]
    nodes: int
    priority: int
    submitted_at: Moment
    started_at: Moment | None
    ended_at: Moment | None
    exit_code: int | None
    outcome: Outcome | None
    site: str | None
    attempts: int
    tasks: Annotated[TaskCounts | None, Field(description="Of an array.")]
    estimate: Annotated[
        Estimate | None,
        Field(description="None where it does not wait, came just now, or nobody knows the site's queue."),
    ]


class Attempt(BaseModel):
    """One placing of a job at a site."""

    id: str
    number: int
    site: str
    flavor: str
    state: str
    placed_at: Moment
    submitted_at: Moment | None
    started_at: Moment | None
    ended_at: Moment | None
    outcome: Outcome | None
    exit_code: int | None
    signal: int | None
    message: str | None
    native_id: str | None
    native_state: str | None
    max_memory: int | None
    cpu_seconds: float | None
    on_nodes: list[str]
    """Names of its nodes, by rank, where Atoll chose them."""


class DependencyDocument(BaseModel):
    """A job that this one waits, or waited, for."""

    job: str
    on: Literal["ok", "any", "not_ok"]
    met: bool


class Job(JobSummary):
    """A job in full."""

    spec: Annotated[dict[str, Any], Field(description="The specification, without what is left at its default.")]
    attempt_list: list[Attempt]
    dependencies: list[DependencyDocument]
    begin: Annotated[Moment | None, Field(description="It does not start before this time.")]
    outputs: Annotated[int, Field(description="How many files it brought out.")]


class JobPage(BaseModel):
    """A page of jobs, newest first; tasks of an array by number."""

    items: list[JobSummary]
    next_cursor: str | None


class Submitted(BaseModel):
    """A job that was accepted."""

    id: int
    name: str
    state: JobState
    tasks: Annotated[int, Field(description="How many tasks it has; 1 where it is no array.")]
    warnings: list[str]


class SubmittedMany(BaseModel):
    """Jobs that were accepted, in the order of the request."""

    ids: list[int]


class Changed(BaseModel):
    """What an action did."""

    changed: Annotated[int, Field(description="How many jobs and tasks it changed.")]
    job: JobSummary


class Remedy(BaseModel):
    """One thing that would let a waiting job start sooner, if it were otherwise."""

    kind: Help
    sentence: Annotated[str, Field(description="What to do.")]
    start: Annotated[Moment, Field(description="When it would then be expected to start.")]


class Why(BaseModel):
    """Why a job is where it is, and when it is expected to start."""

    job: str
    state: JobState
    code: ReasonCode
    sentence: str
    estimate: Estimate | None
    facts: list[str]
    remedies: Annotated[
        list[Remedy] | None,
        Field(description="What would help, the best first. None where it was not asked for, or nobody can say now."),
    ]


class Explained(BaseModel):
    """What would become of a job."""

    project: Annotated[str | None, Field(description="The one that it would count to.")]
    code: ReasonCode
    sentence: Annotated[str, Field(description="Why it would wait.")]
    estimate: Annotated[Estimate | None, Field(description="None where the queue is not looked at just now.")]
    facts: Annotated[list[str], Field(description="What else is to know, of each site for one.")]
    warnings: list[str]


class Output(BaseModel):
    """A file that a job brought out."""

    path: str
    sha256: str
    size: int


class Outputs(BaseModel):
    """The files that a job brought out."""

    items: list[Output]


class SignalRequest(BaseModel):
    """A signal to send."""

    model_config = ConfigDict(extra="forbid")
    signal: Annotated[
        Literal["HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "ALRM"],
        Field(description="Name without SIG."),
    ]
