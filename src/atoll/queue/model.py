"""What the API says of projects, quotas, flavors, reservations and the queue.

Amounts of quotas are integers in base units: milli-CPU, bytes of memory, milli-GPU; what is available may be negative.
Those of flavors and reservations are as everywhere: memory in bytes, the others as specifications write them.
"""

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from atoll.core.project_file import MOST_PROJECTS, ProjectEntry
from atoll.core.resources import Bytes, Milli
from atoll.core.spec import JobClass, Name, Text

Resource = Literal["cpu", "memory", "gpu"]


class Quota(BaseModel):
    """What a project has of one flavor and resource, with those below it, and what is used of it."""

    flavor: str
    resource: Resource
    nominal: Annotated[int, Field(description="What the project was given itself.")]
    borrowing: Annotated[int | None, Field(description="Most that it may use beyond its quota; null: no limit.")]
    lending: Annotated[int | None, Field(description="Most of its quota that others may use; null: no limit.")]
    quota: Annotated[int, Field(description="What it was given, with all that those below it were.")]
    usage: Annotated[int, Field(description="What it uses, with all that those below it do.")]
    available: Annotated[int, Field(description="What it may use more, now.")]
    borrowed: Annotated[int, Field(description="What it uses beyond its quota.")]
    lent: Annotated[int, Field(description="What of its quota those beside it use.")]


class Project(BaseModel):
    """A node of the project tree."""

    name: str
    parent: str | None
    weight: float
    takes_jobs: Annotated[bool, Field(description="Whether jobs may be submitted to it: none is below it.")]
    member: Annotated[bool, Field(description="Whether whoever asks may submit to it.")]
    people: Annotated[list[str] | None, Field(description="null: for its people and managers only.")]
    managers: list[str] | None
    clearance: list[str]
    description: str
    ends: str | None
    quotas: list[Quota]


class Projects(BaseModel):
    """The tree, from the root down; no items: quotas are not used."""

    revision: int
    items: list[Project]


class TreeRequest(BaseModel):
    """A whole tree to become the platform's."""

    model_config = ConfigDict(extra="forbid")
    projects: Annotated[dict[Name, ProjectEntry], Field(max_length=MOST_PROJECTS)]
    revision: Annotated[
        int | None, Field(ge=0, strict=True, description="The tree that it shall replace; null: whatever there is.")
    ] = None


class Tree(BaseModel):
    """The tree as it is configured: the content of a project file."""

    revision: int
    projects: dict[str, Any]


class Difference(BaseModel):
    """Something that becomes different."""

    kind: Literal["add", "remove", "change"]
    project: str
    sentence: str


class Plan(BaseModel):
    """What a tree changes, or would change."""

    revision: Annotated[int, Field(description="Of the tree as it is after this.")]
    applied: bool
    changes: list[Difference]
    warnings: list[str]
    over: Annotated[list[str], Field(description="Who uses more than their quota by this; nothing is evicted.")]


class PeopleChange(BaseModel):
    """People to let submit to a project, and those who shall no longer."""

    model_config = ConfigDict(extra="forbid")
    add: Annotated[list[Text], Field(default_factory=list, max_length=1000)]
    remove: Annotated[list[Text], Field(default_factory=list, max_length=1000)]


class FlavorAmount(BaseModel):
    """An amount of each resource, as specifications write them."""

    cpu: str
    memory: int
    gpu: str


class FlavorQuota(BaseModel):
    """What the project tree gives out of a flavor; null: it does not govern that resource."""

    cpu: str | None
    memory: int | None
    gpu: str | None


class FlavorSite(BaseModel):
    """A site that has a flavor."""

    site: str
    nodes: int
    total: FlavorAmount


class FlavorSummary(BaseModel):
    """A kind of hardware at all sites together."""

    name: str
    nodes: int
    total: FlavorAmount
    used: FlavorAmount
    quota: FlavorQuota
    sites: list[FlavorSite]


class FlavorList(BaseModel):
    """All flavors that sites have, and that quotas name."""

    items: list[FlavorSummary]


class ReservationRequest(BaseModel):
    """Room to keep: whole nodes of a flavor, or amounts."""

    model_config = ConfigDict(extra="forbid")
    name: Name
    purpose: Literal["event", "maintenance"] = "event"
    flavor: Name
    site: Annotated[Name | None, Field(description="null: wherever the flavor is.")] = None
    nodes: Annotated[int, Field(ge=0, le=100_000, strict=True)] = 0
    cpu: Milli = 0
    memory: Bytes = 0
    gpu: Milli = 0
    project: Annotated[Name | None, Field(description="Whom an event is for; or people.")] = None
    people: Annotated[list[Text], Field(default_factory=list, max_length=1000)]
    starts_at: AwareDatetime
    ends_at: AwareDatetime

    @model_validator(mode="after")
    def _either(self) -> "ReservationRequest":
        amounts = bool(self.cpu or self.memory or self.gpu)
        if amounts == bool(self.nodes):
            raise ValueError("give either nodes, or some of cpu, memory and gpu")
        if self.purpose == "maintenance" and (self.project is not None or self.people):
            raise ValueError("maintenance is for nobody; leave project and people out")
        if self.purpose == "event" and self.project is None and not self.people:
            raise ValueError("say for whom: project, or people")
        return self


class Reservation(BaseModel):
    """Room that is kept."""

    id: int
    name: str
    purpose: str
    flavor: str
    site: str | None
    nodes: int
    cpu: str
    memory: int
    gpu: str
    project: str | None
    people: Annotated[list[str] | None, Field(description="null: for them, and for those in the project, only.")]
    starts_at: str
    ends_at: str
    created_by: str
    created_at: str


class Reservations(BaseModel):
    """Those that are not over, by begin."""

    items: list[Reservation]


class QueueFigures(BaseModel):
    """How many jobs and tasks of a class and project are where."""

    class_: Annotated[JobClass, Field(alias="class")]
    project: str | None
    held: int
    waiting: int
    running: Annotated[int, Field(description="Those that have a place at a site, whether they have begun or not.")]


class Share(BaseModel):
    """What one project borrows or lends."""

    project: str
    amount: int


class Borrowing(BaseModel):
    """Who, of the projects below one, borrows from whom. The project itself lends what it was given for all."""

    below: str
    flavor: str
    resource: Resource
    borrowers: list[Share]
    lenders: list[Share]


class Queue(BaseModel):
    """How the queue stands."""

    held: int
    waiting: int
    running: int
    items: list[QueueFigures]
    borrowing: list[Borrowing]
