"""The scheduler's vocabulary: what waits, what holds room, the sites; changes of these, and what is decided.

`control` translates between the store's rows and these types. Times are microseconds since 1970 UTC.
"""

from dataclasses import dataclass

from atoll.core.ranges import Ranges
from atoll.core.reasons import Reason
from atoll.core.resources import Resources
from atoll.core.site import Ability, NodeSpot, Site
from atoll.core.spec import ConstraintTerm, JobClass, JobSpec
from atoll.scheduler.quota import Tree

RANKS: dict[JobClass, int] = {
    JobClass.INTERACTIVE: 0,
    JobClass.SERVICE: 1,
    JobClass.BATCH: 2,
    JobClass.OPPORTUNISTIC: 3,
}
"""Which class goes first: the smaller number."""
CLASSES: tuple[JobClass, ...] = tuple(RANKS)
"""The classes by their rank."""
OPPORTUNISTIC = RANKS[JobClass.OPPORTUNISTIC]
BACKLOG = (4, 4, 16, 0)
"""By rank: how many attempts of a class wait at most in an engine's queue, where the site file does not say.

Enough that an engine which frees room between two observations finds work; few enough that the order stays ours. Batch
jobs get more where a site's pace shows that it takes more.
"""


@dataclass(frozen=True, slots=True)
class Weights:
    """How much speaks against a place: in seconds that one would rather wait than have it."""

    wait: float = 1
    """For each second that attempts usually wait at the site."""
    remote: float = 3600
    """For a remote site."""
    waste: float = 600
    """For nodes with GPUs, where a job needs none."""
    data: float = 86400
    """For any site but the one where the job's checkpoints are."""
    price: float = 60
    """For each unit of money that the job costs in an hour."""
    energy: float = 1
    """For each gram of CO2e in a kWh."""
    spread: float = 60
    """For a site that is full; for one that is half full half of it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What an operator may set of how the queue works. Times in seconds; tuples are by rank."""

    half_life: int = 7 * 86400
    """After so long, use counts half in the fair share."""
    max_wait: int = 24 * 3600
    """A job within its nominal quota that has waited so long gets the next reservation, and nothing passes it."""
    notice: int = 15 * 60
    """How long before its end a borrower's interactive job or service is told of its eviction."""
    minimum_run: tuple[int, ...] = (0, 0, 60, 0)
    """How long an attempt has run at least before it is evicted."""
    most_evictions: int = 3
    """A job that was evicted so often is evicted no more; opportunistic ones always may be."""
    walltimes: tuple[int | None, ...] = (8 * 3600, None, 24 * 3600, 24 * 3600)
    """How long jobs that do not say it are taken to run at most; None: endless."""
    reservations: int | None = None
    """How many jobs get a reservation; None: one for each disjoint set of pools."""
    weights: Weights = Weights()
    """What counts how much where a job could go to several places."""


@dataclass(frozen=True, slots=True)
class Promise:
    """Room that others were asked to leave for a waiting job: `count` times its size, at one flavor of a site."""

    site: str
    flavor: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Reservation:
    """The start, in microseconds, that a waiting job has for certain, and where."""

    job_id: int
    site: str
    flavor: str
    start: int


@dataclass(frozen=True, slots=True)
class Booking:
    """Room of a flavor that is kept for some people from one time to another, or for nobody: maintenance."""

    number: int
    """Above 0."""
    flavor: str
    site: str | None
    """None: wherever the flavor is."""
    amount: Resources
    start: int
    """Microseconds, as `end`."""
    end: int
    project: str | None = None
    people: frozenset[str] = frozenset()

    def admits(self, project: str, person: str) -> bool:
        """Whether jobs of a person in a project may run in it."""
        return person in self.people or (self.project is not None and project == self.project)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a job may run, apart from its size. Jobs that agree in it are judged together."""

    person: str = ""
    constraints: tuple[ConstraintTerm, ...] = ()
    offload: str = "allowed"
    abilities: frozenset[Ability] = frozenset()
    walltime: int | None = None
    """Seconds."""
    grace: int = 30
    """Seconds that it may take to end once it was asked to, as at the end of its walltime."""
    clearance: frozenset[str] = frozenset()
    """The words that a site must have for the data of its project."""
    volumes: frozenset[str] = frozenset()
    """Names of the volumes that it mounts."""
    kept_at: str = ""
    """The site where its checkpoints are, as far as is known."""
    class_: JobClass | None = None
    """What decides for how long it usually waits in a site's own queue; None: as all do."""


@dataclass(frozen=True, slots=True)
class Demand:
    """All that decides where a job fits: `request` on each of `nodes`, flavors (none: any), placement."""

    request: Resources
    nodes: int = 1
    flavors: tuple[str, ...] = ()
    placement: Placement = Placement()
    ordered: bool = True
    """Whether the first of the flavors is liked best; if not, all of them are as good."""

    @property
    def total(self) -> Resources:
        """The request of all nodes together."""
        return self.request if self.nodes == 1 else self.request * self.nodes

    @classmethod
    def of(cls, spec: JobSpec, person: str, memory: int, clearance: frozenset[str] = frozenset()) -> "Demand":
        """What a specification demands; `memory` (bytes on each node) counts where it names none.

        `clearance`: the words that its project needs.
        """
        environment = spec.environment
        wanted = {
            Ability.IMAGE: environment is not None and environment.image is not None,
            Ability.CONDA: environment is not None and environment.conda is not None,
            Ability.VENV: environment is not None and environment.venv is not None,
            Ability.MULTINODE: spec.nodes > 1,
            Ability.SCRATCH: spec.scratch > 0,
            Ability.VOLUMES: bool(spec.volumes),
            Ability.SECRETS: bool(spec.secrets),
            Ability.CONNECT: bool(spec.ports),
            Ability.SIGNAL: spec.signal is not None,
            Ability.FILES: bool(spec.files_in or spec.files_out),
        }
        return cls(
            Resources(spec.cpu, memory if spec.memory is None else spec.memory, spec.gpu),
            spec.nodes,
            tuple(spec.flavor),
            Placement(
                person,
                tuple(ConstraintTerm.parse(text) for text in spec.constraints),
                spec.offload,
                frozenset(ability for ability, needed in wanted.items() if needed),
                spec.walltime,
                spec.grace,
                clearance,
                frozenset(volume.name for volume in spec.volumes),
                class_=spec.class_,
            ),
        )


@dataclass(frozen=True, slots=True)
class Waiting:
    """A queued job, or all waiting tasks of an array as one.

    Order: rank, the fair shares of project and person, priority (high first), age, id.
    """

    job_id: int
    rank: int
    """From `RANKS`."""
    priority: int
    submitted: int
    """Microseconds."""
    request: Resources
    """On each node."""
    nodes: int = 1
    flavors: tuple[str, ...] = ()
    placement: Placement = Placement()
    not_before: int = 0
    """Microseconds: its begin time, or the end of its back-off."""
    backing_off: bool = False
    """Whether `not_before` is a back-off, and not a begin time that the person gave."""
    tasks: Ranges | None = None
    """The waiting tasks of an array; None for a single job."""
    width: int | None = None
    """Most tasks of the array that may hold room at once; the same for the array and for tasks of their own."""
    group: int | None = None
    """The array whose tasks count together to the width; None: the job's own id."""
    project: str = ""
    """The leaf of the project tree that it counts to; empty where there is no tree."""
    expected: int = 0
    """How many seconds it is expected to run, from runs before it; 0: nobody knows, its walltime counts."""
    promise: Promise | None = None
    """Room that others leave for it."""
    ordered: bool = True
    """Whether the first of its flavors is liked best."""
    like: int = 0
    """What all jobs have in common that are expected to run for as long, see `Expects`; 0: nothing."""

    @property
    def demand(self) -> Demand:
        """What decides where it fits."""
        return Demand(self.request, self.nodes, self.flavors, self.placement, self.ordered)


@dataclass(frozen=True, slots=True)
class Running:
    """An attempt that holds room at a site: `request` on each of `nodes` nodes of a flavor."""

    attempt_id: str
    job_id: int
    """The job's id; of an array task, the array's."""
    site: str
    flavor: str
    request: Resources
    nodes: int = 1
    rank: int = RANKS[JobClass.BATCH]
    waits: bool = False
    """Whether it has not begun, as far as is known."""
    priority: int = 0
    leaving: bool = False
    """Whether its site was asked to stop it, or to give it back if it has not begun."""
    project: str = ""
    person: str = ""
    placed: int = 0
    """Microseconds: since when it holds room."""
    started: int = 0
    """Microseconds; 0: it has not begun, as far as is known."""
    saved: int = 0
    """Microseconds: when it last saved its work, 0 for never."""
    walltime: int | None = None
    """Seconds that it may run at most; None: what its class has."""
    expected: int = 0
    """Seconds that it was expected to run; 0: nobody knew."""
    grace: int = 30
    """Seconds that it may take to end once it was asked to."""
    evictions: int = 0
    """How often its job was evicted before."""
    leaves_for: int | None = None
    """The waiting job that it was asked to leave for."""
    notice: int = 0
    """Microseconds: when it will be asked to leave for that job, of which it was told; 0: it was told nothing."""
    spots: tuple[NodeSpot, ...] = ()
    """What it holds of each of its nodes, where Atoll chose them."""


@dataclass(frozen=True, slots=True)
class SiteState:
    """A site, and what its operator says of it."""

    site: Site
    drained: bool = False
    """Whether it gets nothing new."""
    pace: int = 0
    """How many attempts ended there of late between two looks at it."""

    def backlog(self, rank: int) -> int:
        """How many attempts of a class (its rank) may wait in the site's own queue; 0 where it has none."""
        site, name = self.site, CLASSES[rank]
        if site.report is None or not site.report.queues:
            return 0
        learnt = self.pace if name is JobClass.BATCH else 0
        return site.backlog.get(name, max(BACKLOG[rank], learnt))


@dataclass(frozen=True, slots=True)
class JobWaits:
    """A job waits, or what is known of a waiting one has changed."""

    waiting: Waiting


@dataclass(frozen=True, slots=True)
class JobGone:
    """A job waits no longer: placed, held, cancelled."""

    job_id: int


@dataclass(frozen=True, slots=True)
class RoomTaken:
    """An attempt holds room from its placing on."""

    running: Running


@dataclass(frozen=True, slots=True)
class RoomFreed:
    """An attempt holds room no longer; `at`, in microseconds, is when it ended."""

    attempt_id: str
    at: int = 0


@dataclass(frozen=True, slots=True)
class SiteChanged:
    """A site is new, or something about it has changed."""

    state: SiteState


@dataclass(frozen=True, slots=True)
class SiteGone:
    """A site is no longer configured."""

    name: str


@dataclass(frozen=True, slots=True)
class TreeChanged:
    """The project tree with its quotas is new; None: there is none."""

    tree: Tree | None


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """How the queue works was set anew."""

    policy: Policy


@dataclass(frozen=True, slots=True)
class Spent:
    """What ended attempts of a person used of a flavor for a project: resources times seconds, as of a time."""

    project: str
    person: str
    flavor: str
    used: Resources
    at: int
    opportunistic: bool = False


@dataclass(frozen=True, slots=True)
class Expects:
    """Waiting jobs that are alike are expected to run for so many seconds, but no longer than they may."""

    like: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Reserved:
    """All reservations that hold, from the store; a cycle's own are known to the snapshot already."""

    reservations: tuple[Reservation, ...]


@dataclass(frozen=True, slots=True)
class Booked:
    """All bookings that are not over."""

    bookings: tuple[Booking, ...]


Change = (
    JobWaits | JobGone | RoomTaken | RoomFreed | SiteChanged | SiteGone | TreeChanged | PolicyChanged | Spent | Reserved
    | Booked | Expects
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Place:
    """Start this job, or these tasks of an array, at a site on a flavor."""

    job_id: int
    tasks: Ranges | None
    site: str
    flavor: str
    spots: tuple[tuple[NodeSpot, ...], ...] = ()
    """For each task (one for a single job) in their order its nodes, where Atoll chooses them; else empty."""


@dataclass(frozen=True, slots=True)
class Eviction:
    """Ask an attempt to leave, for a waiting job; at `at` (microseconds) where it is told first, else at once."""

    attempt_id: str
    for_job: int
    at: int = 0


@dataclass(frozen=True, slots=True)
class Decisions:
    """What a cycle says shall happen."""

    placements: tuple[Place, ...] = ()
    reasons: tuple[tuple[int, Reason], ...] = ()
    """Why jobs wait, by id: only what changed since it was last told, and only near the head of the queue."""
    next_wakeup: int | None = None
    """The earliest time, in microseconds, at which time alone changes something."""
    recalls: tuple[str, ...] = ()
    """Attempts that wait in a site's own queue before others with more right: they are to be pulled back."""
    evictions: tuple[Eviction, ...] = ()
    """Attempts that have to make room."""
    promises: tuple[tuple[int, Promise], ...] = ()
    """Where the jobs for which they do are to start, by id; a count of 0 takes back what was promised before."""
    reprieved: tuple[str, ...] = ()
    """Attempts that were told that they would have to leave, and may stay."""
    reservations: tuple[Reservation, ...] = ()
    """All reservations as they are now."""
    cut_short: bool = False
    """Whether as many start as may at once: the next cycle is to follow without a pause."""
