"""What there is to run on: a cluster file, YAML, or the list of nodes of an openb trace."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field, ValidationError, field_validator

from atoll.core import site as sites
from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.project import TreeNode
from atoll.core.project_file import read_projects
from atoll.core.resources import Bytes, Milli, Resources, Seconds
from atoll.core.site import Ability, Flavor, Health, Site, SiteReport
from atoll.core.site_file import Identity
from atoll.core.spec import Document, JobClass, Name, explain_validation
from atoll.scheduler.model import Change, SiteChanged, SiteState, TreeChanged
from atoll.scheduler.quota import Tree
from atoll.scheduler.traces.openb import is_node_list, read_nodes

GRACE = 30
"""Seconds between being asked to stop and being killed, where neither the trace nor the cluster says."""


class FlavorFile(Document):
    """Equal nodes of one kind of hardware: how many, and what each has."""

    name: Name
    nodes: Annotated[int, Field(ge=1, le=100_000)] = 1
    cpu: Milli
    memory: Bytes
    gpu: Milli = 0

    @field_validator("gpu")
    @classmethod
    def _whole_gpus(cls, value: int) -> int:
        if value % 1000:
            raise ValueError("write whole GPUs")
        return value

    @property
    def node(self) -> Resources:
        """What each node has."""
        return Resources(self.cpu, self.memory, self.gpu)


class ClusterSite(Document):
    """A site: its name, its labels, its hardware."""

    name: Name
    labels: Annotated[dict[Name, Name], Field(default_factory=dict)]
    flavors: Annotated[list[FlavorFile], Field(min_length=1)]


class ClassDefaults(Document):
    """What holds for jobs of a class of which the trace does not say it."""

    walltime: Seconds | None = None
    grace: Seconds | None = None


class ClusterFile(Document):
    """All that a cluster file says."""

    sites: Annotated[list[ClusterSite], Field(min_length=1)]
    defaults: Annotated[dict[JobClass, ClassDefaults], Field(default_factory=dict)]
    projects: Annotated[dict[str, Any], Field(default_factory=dict)]
    """As in a project file."""


_KNOWN = {
    "": list(ClusterFile.model_fields),
    "sites": list(ClusterSite.model_fields),
    "flavors": list(FlavorFile.model_fields),
    "defaults": list(ClassDefaults.model_fields),
}


@dataclass(frozen=True, slots=True)
class Node:
    """One machine."""

    name: str
    site: str
    flavor: str
    amount: Resources


@dataclass(frozen=True)
class Cluster:
    """Machines in their order, what an operator says of classes, and the project tree."""

    nodes: tuple[Node, ...]
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By site."""
    defaults: Mapping[JobClass, ClassDefaults] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    """Sentences on what else a reader has to know."""
    tree: tuple[TreeNode, ...] = ()
    """The project tree with its quotas; empty where nothing is governed."""

    @property
    def capacity(self) -> Resources:
        """What all nodes have together."""
        return sum((node.amount for node in self.nodes), Resources())

    @property
    def flavors(self) -> tuple[str, ...]:
        """The kinds of hardware, in their order."""
        return tuple(dict.fromkeys(node.flavor for node in self.nodes))

    def weight(self, project: str) -> float:
        """What a project's use is measured against; 1 where the tree does not name it."""
        return next((node.weight for node in self.tree if node.name == project), 1.0)

    def walltime(self, job_class: JobClass) -> int | None:
        """Seconds after which a job of a class is ended that has no walltime of its own; None: never."""
        defaults = self.defaults.get(job_class)
        return None if defaults is None else defaults.walltime

    def grace(self, job_class: JobClass) -> int:
        """Seconds between asking a job of a class to stop and killing it, where it says none itself."""
        defaults = self.defaults.get(job_class)
        return GRACE if defaults is None or defaults.grace is None else defaults.grace

    def changes(self, *, owned: bool = False, quotas: bool = True) -> list[Change]:
        """What a snapshot is told before the first job comes; with `quotas` also the project tree, if there is one."""
        told: list[Change] = [SiteChanged(state) for state in self.sites(owned=owned)]
        if quotas and self.tree:
            told.append(TreeChanged(Tree(self.tree)))
        return told

    def sites(self, *, owned: bool = False) -> list[SiteState]:
        """The sites as they would report, each healthy, empty, and everybody's.

        `owned`: they list their nodes and leave it to the scheduler which of them takes an attempt.
        """
        by_site: dict[str, list[Node]] = {}
        for node in self.nodes:
            by_site.setdefault(node.site, []).append(node)
        return [
            SiteState(
                Site(
                    name, "simulated", dict(self.labels.get(name, {})),
                    SiteReport(tuple(_flavors(nodes)), frozenset(Ability), nodes=_listed(nodes) if owned else ()),
                    Health.OK, identity=Identity(shared=True),
                )
            )
            for name, nodes in by_site.items()
        ]  # fmt: skip


def _listed(nodes: list[Node]) -> tuple[sites.Node, ...]:
    return tuple(sites.Node(node.name, node.flavor, node.amount) for node in nodes)


def _flavors(nodes: list[Node]) -> list[Flavor]:
    by_flavor: dict[str, list[Resources]] = {}
    for node in nodes:
        by_flavor.setdefault(node.flavor, []).append(node.amount)
    return [
        Flavor(name, sum(amounts, Resources()), _largest(amounts), len(amounts)) for name, amounts in by_flavor.items()
    ]


def _largest(amounts: list[Resources]) -> Resources:
    return Resources(
        max(amount.cpu for amount in amounts),
        max(amount.memory for amount in amounts),
        max(amount.gpu for amount in amounts),
    )


def read_cluster(text: str, where: str) -> Cluster:
    """The cluster that a file says; `where` names it in errors. Raises Invalid, naming the field."""
    if not text.strip():
        raise Invalid("empty_cluster", f"The cluster file {where} is empty.", field="cluster")
    if is_node_list(text.split("\n", 1)[0].strip()):
        return _of_node_list(text, where)
    document = read_yaml(text, f"cluster file {where}")
    if not isinstance(document, dict):
        sentence = f"The cluster file {where} must be keys and values: sites, defaults, projects."
        raise Invalid("bad_cluster", sentence, field="cluster")
    try:
        file = ClusterFile.model_validate(document)
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "cluster") from None
    _check_names(file)
    tree = tuple(read_projects({"projects": file.projects}))
    nodes = tuple(
        Node(f"{site.name}-{flavor.name}-{number}", site.name, flavor.name, flavor.node)
        for site in file.sites
        for flavor in site.flavors
        for number in range(flavor.nodes)
    )
    labels = {site.name: site.labels for site in file.sites}
    return Cluster(nodes, labels, file.defaults, tree=tree)


def _check_names(file: ClusterFile) -> None:
    """Raises Invalid where two things have one name."""
    for twice in _repeated([site.name for site in file.sites]):
        raise Invalid("invalid_cluster", f"sites: There are two sites {twice}.", field="sites")
    for site in file.sites:
        for twice in _repeated([flavor.name for flavor in site.flavors]):
            raise Invalid("invalid_cluster", f"sites: {site.name} has two flavors {twice}.", field="sites")


def _repeated(names: list[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]


def _of_node_list(text: str, where: str) -> Cluster:
    """One site with a flavor for each model of GPU."""
    found, broken, problems = read_nodes(text)
    if not found:
        raise Invalid("empty_cluster", f"The list of nodes {where} has no node.", field="cluster")
    notes = tuple(f"{where} line {problem}" for problem in problems)
    if broken:
        notes = (f"Broken rows of {where}, which are left out: {broken}.", *notes)
    return Cluster(tuple(Node(node.name, "openb", node.flavor, node.amount) for node in found), notes=notes)
