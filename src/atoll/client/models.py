"""What the platform answers, as typed objects.

Fields that this version does not know are passed over, and states and codes that it does not know stay plain text, so
that an older client works with a newer platform.
"""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, PlainSerializer

from atoll.core.resources import Milli
from atoll.core.states import ENDED, JobState, Outcome

T = TypeVar("T")


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


Moment = Annotated[AwareDatetime, PlainSerializer(_rfc3339, str, when_used="json")]
"""An aware time; in JSON in UTC with microseconds."""


class Answer(BaseModel):
    """Base of everything that the platform answers."""

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, protected_namespaces=())

    def document(self) -> dict[str, Any]:
        """The answer as plain data, the same that the HTTP API gives."""
        return self.model_dump(mode="json", by_alias=True)


class Reason(Answer):
    """Why a job is where it is: a code for programs and one sentence for people."""

    code: str
    sentence: str = ""


class TaskCounts(Answer):
    """How many tasks of an array are where."""

    total: int
    waiting: int = 0
    active: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0

    @property
    def open(self) -> int:
        """Tasks that have not ended."""
        return max(0, self.total - self.succeeded - self.failed - self.cancelled)


class Estimate(Answer):
    """When a waiting job is expected to start; no times where nobody can say."""

    position: int | None = None
    """Its place in Atoll's queue; None where it waits in a site's own."""
    waiting: int | None = None
    start: Moment | None = None
    earliest: Moment | None = None
    latest: Moment | None = None
    at: Moment | None = None
    by: str = "queue"
    """`queue`, `site` or `usual_wait`: from where it comes."""
    site: str | None = None
    """In whose own queue it waits."""


class JobSummary(Answer):
    """A job, or one task of an array, in a list."""

    id: str
    job: int
    task: int | None = None
    name: str = ""
    owner: str = ""
    project: str | None = None
    class_: Annotated[str, Field(alias="class")] = "batch"
    state: Annotated[JobState | str, Field(union_mode="left_to_right")]
    reason: Reason | None = None
    cpu: Milli = 0
    memory: int | None = None
    gpu: Milli = 0
    nodes: int = 1
    priority: int = 0
    submitted_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    exit_code: int | None = None
    outcome: Annotated[Outcome | str | None, Field(union_mode="left_to_right")] = None
    site: str | None = None
    attempts: int = 0
    tasks: TaskCounts | None = None
    estimate: Estimate | None = None

    @property
    def ended(self) -> bool:
        """Whether the job will not go on by itself."""
        return self.state in ENDED


class Attempt(Answer):
    """One placing of a job at one site."""

    id: str
    number: int
    site: str | None = None
    flavor: str | None = None
    state: str
    placed_at: Moment | None = None
    submitted_at: Moment | None = None
    started_at: Moment | None = None
    ended_at: Moment | None = None
    outcome: Annotated[Outcome | str | None, Field(union_mode="left_to_right")] = None
    exit_code: int | None = None
    signal: int | None = None
    message: str | None = None
    native_id: str | None = None
    native_state: str | None = None
    max_memory: int | None = None
    cpu_seconds: float | None = None
    on_nodes: tuple[str, ...] = ()
    """Names of its nodes, by rank, where Atoll chose them."""


class MetDependency(Answer):
    """A job that another waits for, and whether it ended as it should."""

    job: str | int
    on: str
    met: bool | None = None


class Job(JobSummary):
    """All that is known of a job or of one task."""

    spec: dict[str, Any] = {}
    attempt_list: tuple[Attempt, ...] = ()
    dependencies: tuple[MetDependency, ...] = ()
    begin: Moment | None = None
    outputs: int = 0

    @property
    def last_attempt(self) -> Attempt | None:
        """The attempt that is running or ran last."""
        return max(self.attempt_list, key=lambda attempt: attempt.number, default=None)


class Remedy(Answer):
    """One thing that would let a waiting job start sooner."""

    kind: str
    sentence: str
    start: datetime


class Why(Answer):
    """Why a job waits or ended, with what that rests on."""

    job: str
    state: str
    code: str
    sentence: str
    estimate: Estimate | None = None
    facts: tuple[str, ...] = ()
    remedies: tuple[Remedy, ...] | None = None
    """What would help, the best first; None where it was not asked for, or nobody could say."""


class Explained(Answer):
    """What would become of a job that is not submitted."""

    project: str | None = None
    code: str
    sentence: str
    estimate: Estimate | None = None
    facts: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class Submitted(Answer):
    """A job that was just taken in."""

    id: int
    name: str = ""
    state: str = JobState.QUEUED
    tasks: int = 1
    warnings: tuple[str, ...] = ()


class SubmittedMany(Answer):
    """Jobs that were taken in together, in the order they were sent."""

    ids: tuple[int, ...]


class Changed(Answer):
    """What an action did: how many jobs or tasks it changed."""

    changed: int
    job: JobSummary


class Amount(Answer):
    """An amount of each resource: memory in bytes, the others as written."""

    cpu: Milli = 0
    memory: int = 0
    gpu: Milli = 0


class Opening(Answer):
    """When a site's engine expects to have room on one node for a job of a size, as it said at `asked_at`."""

    room: Amount = Amount()
    at: Moment
    asked_at: Moment


class SiteFlavor(Answer):
    """A kind of hardware at a site: all there is, what Atoll's jobs use, and the largest node."""

    name: str
    nodes: int = 1
    total: Amount = Amount()
    used: Amount = Amount()
    others: Amount = Amount()
    node: Amount = Amount()
    openings: tuple[Opening, ...] = ()
    """When there will be room again, where the engine tells that."""


class SiteNode(Answer):
    """A node that Atoll chooses: what its jobs may have of it together, and whether it takes new ones."""

    name: str
    flavor: str = ""
    open: bool = True
    resources: Amount = Amount()


class UsualWait(Answer):
    """For how long jobs usually wait in a site's own queue, in seconds: of all classes, and of those that are known."""

    all: int = 0
    of_class: dict[str, int] = {}


class HourlyPrice(Answer):
    """What an hour of one CPU, and of one GPU, costs."""

    cpu: float = 0
    gpu: float = 0


class Site(Answer):
    """A place that runs jobs. In a list of sites the nodes are left out."""

    name: str
    driver: str
    labels: dict[str, str] = {}
    health: str = "unknown"
    drained: bool = False
    identity: str = "owner"
    message: str | None = ""
    seen_at: Moment | None = None
    clearance: tuple[str, ...] = ()
    price: HourlyPrice | None = None
    energy: float | None = None
    """Grams of CO2e in a kWh of the electricity there."""
    usual_wait: UsualWait = UsualWait()
    flavors: tuple[SiteFlavor, ...] = ()
    abilities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    nodes: tuple[SiteNode, ...] = ()


class Described(Answer):
    """What a site said of itself just now, and how long it took, in seconds; `message` is why it said nothing."""

    answers: bool = True
    message: str = ""
    seconds: float = 0.0
    flavors: tuple[SiteFlavor, ...] = ()
    abilities: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


class Quota(Answer):
    """What a project has of one flavor and resource, in base units, and what is used of it."""

    flavor: str
    resource: str
    nominal: int = 0
    borrowing: int | None = None
    lending: int | None = None
    quota: int = 0
    usage: int = 0
    available: int = 0
    borrowed: int = 0
    lent: int = 0


class Project(Answer):
    """A node of the project tree; `people` and `managers` are None for whoever is neither."""

    name: str
    parent: str | None = None
    weight: float = 1.0
    takes_jobs: bool = True
    member: bool = False
    people: tuple[str, ...] | None = None
    managers: tuple[str, ...] | None = None
    clearance: tuple[str, ...] = ()
    description: str = ""
    ends: str | None = None
    quotas: tuple[Quota, ...] = ()


class Projects(Answer):
    """The project tree from the root down; empty where quotas are not used."""

    revision: int
    items: tuple[Project, ...] = ()


class Tree(Answer):
    """The project tree as a project file has it."""

    revision: int
    projects: dict[str, Any] = {}


class Difference(Answer):
    """Something that a new tree makes different: `kind` is add, remove or change."""

    kind: str
    project: str
    sentence: str


class Plan(Answer):
    """What a tree changes, or would change."""

    revision: int
    applied: bool = False
    changes: tuple[Difference, ...] = ()
    warnings: tuple[str, ...] = ()
    over: tuple[str, ...] = ()


class FlavorSite(Answer):
    """A site that has a flavor."""

    site: str
    nodes: int = 1
    total: Amount = Amount()


class FlavorQuota(Answer):
    """What the project tree gives out of a flavor; None: it does not govern that resource."""

    cpu: Milli | None = None
    memory: int | None = None
    gpu: Milli | None = None


class Flavor(Answer):
    """A kind of hardware, over all sites."""

    name: str
    nodes: int = 0
    total: Amount = Amount()
    used: Amount = Amount()
    quota: FlavorQuota = FlavorQuota()
    sites: tuple[FlavorSite, ...] = ()


class Reservation(Answer):
    """Room that is kept: whole nodes, or amounts."""

    id: int
    name: str
    purpose: str = "event"
    flavor: str
    site: str | None = None
    nodes: int = 0
    cpu: Milli = 0
    memory: int = 0
    gpu: Milli = 0
    project: str | None = None
    people: tuple[str, ...] | None = ()
    """None: for them, and for those in the project, only."""
    starts_at: Moment
    ends_at: Moment
    created_by: str = ""
    created_at: Moment | None = None


class QueueFigures(Answer):
    """How many jobs and tasks of a class and project are where."""

    class_: Annotated[str, Field(alias="class")]
    project: str | None = None
    held: int = 0
    waiting: int = 0
    running: int = 0


class Share(Answer):
    """What one project borrows or lends, in base units."""

    project: str
    amount: int


class Borrowing(Answer):
    """Who, of the projects below one, borrows from whom."""

    below: str
    flavor: str
    resource: str
    borrowers: tuple[Share, ...] = ()
    lenders: tuple[Share, ...] = ()


class Queue(Answer):
    """How the queue stands."""

    held: int = 0
    waiting: int = 0
    running: int = 0
    items: tuple[QueueFigures, ...] = ()
    borrowing: tuple[Borrowing, ...] = ()


class Token(Answer):
    """A token of a person; `token` itself is there only in the answer to its creation."""

    id: str | int
    person: str
    name: str | None = None
    created_at: Moment | None = None
    expires_at: Moment | None = None
    token: str | None = Field(default=None, repr=False)


class Output(Answer):
    """A file that a job brought out."""

    path: str
    sha256: str
    size: int


class StoredFile(Answer):
    """A file that the platform has."""

    sha256: str
    size: int


class Me(Answer):
    """Who the token belongs to."""

    person: str
    administrator: bool = False
    token_id: str | None = None


class Person(Answer):
    """An account."""

    person: str
    role: str
    has_password: bool
    disabled: bool
    created_at: Moment | None = None


class Link(Answer):
    """A link, good once, by which a person chooses a password and is logged in."""

    person: str
    link: str = Field(repr=False)
    expires_at: Moment | None = None


class DeviceCode(Answer):
    """What a command line shows that wants to be let in, and with what it asks on (RFC 8628); times in seconds."""

    device_code: str = Field(repr=False)
    user_code: str
    verification_uri: str
    verification_uri_complete: str
    expires_in: int
    interval: int


class Version(Answer):
    """The version of the platform and of its HTTP API."""

    version: str
    api: str


class Page(Answer, Generic[T]):
    """Some of many: `next_cursor` asks for those that follow, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class LogPart(Answer):
    """Bytes of an output stream: where they begin, how many there are by now, and whether more may come."""

    data: bytes
    offset: int
    size: int
    complete: bool
    omitted: int = 0

    @property
    def end(self) -> int:
        """The offset that the next part begins at."""
        return self.offset + len(self.data)
