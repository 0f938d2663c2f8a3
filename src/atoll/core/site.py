"""A site as the rest of Atoll sees it: what it has, what it can do, how it does. Drivers report it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from atoll.core.resources import Resources
from atoll.core.site_file import Identity, Price
from atoll.core.spec import JobClass


class Health(StrEnum):
    """Whether a site can be worked with."""

    OK = "ok"
    UNREACHABLE = "unreachable"
    UNKNOWN = "unknown"
    """Nobody has asked it yet."""


class Ability(StrEnum):
    """What a site can do beyond running a plain command; a job that needs more than a site has is not placed there."""

    IMAGE = "image"
    CONDA = "conda"
    VENV = "venv"
    MULTINODE = "multinode"
    SCRATCH = "scratch"
    VOLUMES = "volumes"
    SECRETS = "secrets"
    CONNECT = "connect"
    SIGNAL = "signal"
    FILES = "files"
    OTHER_PERSONS = "other_persons"
    """Runs jobs of other persons than the one the platform belongs to."""


@dataclass(frozen=True)
class Opening:
    """When the engine itself expects to have room on one node for a job of a size that it has no room for now."""

    room: Resources
    at: datetime
    asked_at: datetime
    """When the engine said so."""


@dataclass(frozen=True)
class Flavor:
    """A kind of hardware at a site. `total` is what all its nodes have together, `node` the largest single node."""

    name: str
    total: Resources
    node: Resources
    nodes: int = 1
    free: Resources | None = None
    """What nobody uses now, others than Atoll included; None where the engine does not tell."""
    others: Resources = field(default_factory=Resources)
    """What others than Atoll hold, as far as `free` tells; drivers leave this to control."""
    openings: tuple[Opening, ...] = ()
    """When there will be room again, where the engine tells that."""


@dataclass(frozen=True, slots=True)
class Node:
    """One node at a site that places nothing by itself: which flavor it counts to, and what it has for us."""

    name: str
    flavor: str
    resources: Resources
    """What attempts of ours may have of it together, without what others hold now."""
    open: bool = True
    """Whether it takes new attempts."""


@dataclass(frozen=True, slots=True)
class NodeSpot:
    """What an attempt holds of a node that Atoll chose: its name, and milli-GPU of which of its devices."""

    node: str
    gpus: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class SiteReport:
    """What a driver says of its site."""

    flavors: tuple[Flavor, ...]
    """Where there are `nodes`, the totals are what the open ones have together when they are empty."""
    abilities: frozenset[Ability] = frozenset()
    labels: dict[str, str] = field(default_factory=dict)
    max_walltime: int | None = None
    """Seconds; None for no limit."""
    max_jobs: int | None = None
    """Most attempts of ours that the engine takes at once."""
    owner: str | None = None
    """The person whose jobs alone may run here, where the site lacks OTHER_PERSONS."""
    queues: bool = False
    """Whether the engine has a queue of its own, so that attempts may wait there for room."""
    recalls: bool = False
    """Whether what waits in that queue can be pulled back: the driver knows `StopReason.RECALLED`."""
    nodes: tuple[Node, ...] = ()
    """Where Atoll itself chooses the nodes: all that there are. Empty: the engine chooses."""
    volumes: frozenset[str] | None = None
    """Names of the volumes that jobs may ask for; None: not known before a job is handed over."""
    notes: tuple[str, ...] = ()
    """Sentences for the operator: what works less well here, and why."""


@dataclass(frozen=True)
class UsualWait:
    """For how long attempts usually wait in an engine's own queue, as they did of late, in seconds."""

    all: int = 0
    """Those of all classes together."""
    of_class: Mapping[JobClass, int] = field(default_factory=dict)
    """Those of the classes of which something is known."""

    def of(self, class_: JobClass | None) -> int:
        """Those of a class; of all, where nothing is known of it."""
        return self.all if class_ is None else self.of_class.get(class_, self.all)


@dataclass(frozen=True)
class Site:
    """A site as configured, with the latest report about it."""

    name: str
    driver: str
    labels: dict[str, str] = field(default_factory=dict)
    report: SiteReport | None = None
    health: Health = Health.UNKNOWN
    seen_at: datetime | None = None
    """When it last answered."""
    message: str = ""
    """Why it is not well, in the engine's words."""
    identity: Identity | None = None
    """Accounts of persons; None: what the driver knows of them."""
    backlog: Mapping[JobClass, int] = field(default_factory=dict)
    """How many attempts of a class may wait in the engine's own queue, where that is not the default."""
    clearance: frozenset[str] = frozenset()
    """The words of projects whose data may be here."""
    price: Price | None = None
    """What an hour costs; None: nothing."""
    energy: float | None = None
    """Grams of CO2e in a kWh of its electricity; None: nobody said."""
    wait: UsualWait = field(default_factory=UsualWait)

    @property
    def all_labels(self) -> dict[str, str]:
        """The labels that constraints are held against: reported, configured, and the site's name and driver."""
        reported = self.report.labels if self.report else {}
        return {**reported, **self.labels, "site": self.name, "driver": self.driver}
