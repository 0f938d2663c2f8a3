"""The form of a golden scenario: a small world of the queue, what happens in it, and what is expected.

Durations are as in job specifications; all times are told from the moment of the step: `since: 2h` is two hours ago.
"""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from atoll.core.documents import read_yaml
from atoll.core.resources import Bytes, Milli, Resources, Seconds
from atoll.core.site import Ability, Flavor, Health, Site, SiteReport, UsualWait
from atoll.core.site_file import Price
from atoll.core.spec import ConstraintTerm, Document, JobClass
from atoll.scheduler.model import RANKS, Placement, Policy, SiteState, Weights

GOLDEN = Path(__file__).parent / "golden"


class Amounts(Document):
    """So much of each resource."""

    cpu: Milli = 0
    memory: Bytes = 0
    gpu: Milli = 0

    @property
    def resources(self) -> Resources:
        """The same, for the scheduler."""
        return Resources(self.cpu, self.memory, self.gpu)


class JobEntry(Amounts):
    """What is asked for, on each of `nodes`."""

    project: str = ""
    person: str = "ana"
    of_class: Annotated[JobClass, Field(alias="class")] = JobClass.BATCH
    nodes: int = 1
    flavors: list[str] = Field(default_factory=list)
    sites: list[str] = Field(default_factory=list)
    """Where it may run; none: anywhere."""
    walltime: Seconds | None = None
    expected: Seconds = 0
    priority: int = 0
    constraints: list[str] = Field(default_factory=list)
    offload: str = "allowed"
    image: bool = False
    volumes: list[str] = Field(default_factory=list)
    checkpoints_at: str = ""
    """The site where its checkpoints are."""
    waited: Seconds = 0
    """For how long, before now or before it began."""

    @property
    def rank(self) -> int:
        """From `RANKS`."""
        return RANKS[self.of_class]

    @property
    def placement(self) -> Placement:
        """Where it may run, apart from its size."""
        constraints = [*self.constraints, *([f"site={','.join(self.sites)}"] if self.sites else [])]
        abilities = {Ability.IMAGE} if self.image else set()
        return Placement(
            self.person, tuple(map(ConstraintTerm.parse, constraints)), self.offload,
            frozenset(abilities | ({Ability.VOLUMES} if self.volumes else set())), self.walltime,
            volumes=frozenset(self.volumes), kept_at=self.checkpoints_at, class_=self.of_class,
        )  # fmt: skip


class WaitingEntry(JobEntry):
    """A job, or the tasks of an array."""

    begins: Seconds = 0
    """In so long; with `backs_off` the end of its back-off."""
    backs_off: bool = False
    tasks: int | None = None
    width: int | None = None


class RunningEntry(JobEntry):
    """A job that holds room."""

    at: str = ""
    """SITE/FLAVOR; where there is but one pool it is left out."""
    since: Seconds = 3600
    saved: Seconds | None = None
    """How long ago it saved its work."""
    evictions: int = 0
    grace: Seconds = 30
    queued: bool = False
    """Whether it waits in its site's own queue."""


class FlavorEntry(Amounts):
    """What each of `nodes` has."""

    nodes: int = 1


class SiteEntry(Document):
    """A site; all of them run jobs of several nodes."""

    flavors: dict[str, FlavorEntry]
    drained: bool = False
    health: Health = Health.OK
    queues: bool = False
    recalls: bool = False
    backlog: dict[JobClass, int] = Field(default_factory=dict)
    max_jobs: int | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    clearance: list[str] = Field(default_factory=list)
    images: bool = False
    volumes: list[str] | None = None
    max_walltime: Seconds | None = None
    owner: str | None = None
    """Who alone may run jobs here."""
    wait: Seconds = 0
    """How long attempts usually wait here."""
    waits: dict[JobClass, Seconds] = Field(default_factory=dict)
    """How long those of a class do."""
    price: Price | None = None
    energy: float | None = None

    def state(self, name: str) -> SiteState:
        """The same, for the scheduler."""
        flavors = tuple(
            Flavor(flavor, entry.resources * entry.nodes, entry.resources, entry.nodes)
            for flavor, entry in self.flavors.items()
        )
        abilities = {Ability.MULTINODE} | ({Ability.IMAGE} if self.images else set())
        report = SiteReport(
            flavors, frozenset(abilities | ({Ability.VOLUMES} if self.volumes else set())), queues=self.queues,
            recalls=self.recalls, max_jobs=self.max_jobs, max_walltime=self.max_walltime, owner=self.owner,
            volumes=None if self.volumes is None else frozenset(self.volumes),
        )  # fmt: skip
        site = Site(
            name, "fake", self.labels, report, self.health, backlog=self.backlog, clearance=frozenset(self.clearance),
            wait=UsualWait(self.wait, self.waits), price=self.price, energy=self.energy,
        )  # fmt: skip
        return SiteState(site, drained=self.drained)


class WeightsEntry(Document):
    """What is otherwise than in `Weights`; in seconds, but for `wait`."""

    wait: float | None = None
    remote: Seconds | None = None
    waste: Seconds | None = None
    data: Seconds | None = None
    price: Seconds | None = None
    energy: Seconds | None = None
    spread: Seconds | None = None


class PolicyEntry(Document):
    """What is otherwise than in `Policy`."""

    half_life: Seconds | None = None
    max_wait: Seconds | None = None
    notice: Seconds | None = None
    minimum_run: dict[JobClass, Seconds] = Field(default_factory=dict)
    most_evictions: int | None = None
    walltimes: dict[JobClass, Seconds | None] = Field(default_factory=dict)
    reservations: int | None = None
    weights: WeightsEntry = WeightsEntry()

    def policy(self) -> Policy:
        """The same, for the scheduler."""
        usual = Policy()
        changed: dict[str, Any] = self.model_dump(exclude_unset=True, exclude={"minimum_run", "walltimes", "weights"})
        changed["weights"] = Weights(**self.weights.model_dump(exclude_unset=True))
        for name in ("minimum_run", "walltimes"):
            given = getattr(self, name)
            changed[name] = tuple(given.get(of_class, getattr(usual, name)[rank]) for of_class, rank in RANKS.items())
        return Policy(**changed)


class SpentEntry(Amounts):
    """What ended jobs used: so much, for so long, so long ago."""

    project: str
    person: str = "ana"
    flavor: str = "cpu"
    during: Seconds
    ago: Seconds = 0
    of_class: Annotated[JobClass, Field(alias="class")] = JobClass.BATCH


class Expected(Document):
    """What is decided, as `Play` writes it down. What is left out does not happen; of `waits` it does not matter."""

    starts: list[str] = Field(default_factory=list)
    evictions: list[str] = Field(default_factory=list)
    reprieved: list[str] = Field(default_factory=list)
    promises: list[str] = Field(default_factory=list)
    reservations: list[str] = Field(default_factory=list)
    recalls: list[str] = Field(default_factory=list)
    waits: dict[str, str | dict[str, str]] = Field(default_factory=dict)
    """By job the code of its reason, or the code and a part of the sentence."""
    facts: dict[str, str] = Field(default_factory=dict)
    """By job a part of what `why` says beside the reason."""
    wakeup: Seconds | None = None
    """In how long time alone changes something; left out: it does not matter."""


class Step(Document):
    """What happens, in the order of the fields, and what is decided then. Decisions of steps before are carried out."""

    after: Seconds = 0
    ends: list[str] = Field(default_factory=list)
    """What runs no more; what was asked to leave comes back to the queue, with its age."""
    cancelled: list[str] = Field(default_factory=list)
    tree: dict[str, Any] | None = None
    sites: dict[str, SiteEntry] = Field(default_factory=dict)
    arrives: dict[str, WaitingEntry] = Field(default_factory=dict)
    expect: Expected


class Scenario(Document):
    """One story."""

    why: str
    tree: dict[str, Any] | None = None
    """As in a project file, below `projects`."""
    policy: PolicyEntry = PolicyEntry()
    sites: dict[str, SiteEntry]
    runs: dict[str, RunningEntry] = Field(default_factory=dict)
    spent: list[SpentEntry] = Field(default_factory=list)
    waits: dict[str, WaitingEntry] = Field(default_factory=dict)
    expect: Expected
    then: list[Step] = Field(default_factory=list)

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [*self.runs, *self.waits, *(name for step in self.then for name in step.arrives)]
        if len(set(names)) < len(names):
            raise ValueError("a job's name is used twice")
        return self


def read_scenario(path: Path) -> Scenario:
    """The scenario that a file tells. Raises Invalid and pydantic's ValidationError for what is none."""
    return Scenario.model_validate(read_yaml(path.read_bytes(), path.name))
