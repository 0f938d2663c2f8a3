"""What the page of the queue shows, as plain values made of what the API tells. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.core.resources import Resources

Document = dict[str, Any]
CLASSES = ("interactive", "service", "batch", "opportunistic")
_HOUR = 3600
_GIB = 2**30


@dataclass(frozen=True)
class Counts:
    """Jobs and tasks of a project and class."""

    waiting: int = 0
    running: int = 0
    held: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.waiting + other.waiting, self.running + other.running, self.held + other.held)


@dataclass
class Branch:
    """A node of the project tree for one flavor and resource; amounts in base units, sums with all that is below."""

    name: str
    weight: float
    description: str
    quota: int
    usage: int
    borrowed: int
    lent: int
    available: int
    borrowing: int | None
    lending: int | None
    hours: float
    """Use with a claim of late: CPU hours, GPU hours, GiB hours."""
    counts: Counts
    below: list["Branch"] = field(default_factory=list)

    @property
    def own(self) -> int:
        """What it uses of its own quota."""
        return self.usage - self.borrowed

    @property
    def kept(self) -> int:
        """What of its quota nobody uses."""
        return max(0, self.quota - self.own - self.lent)

    @property
    def is_idle(self) -> bool:
        """Whether it has nothing of this, and uses nothing."""
        return not self.quota and not self.usage

    @property
    def standing(self) -> float:
        """Hours by weight: of siblings, whoever has the least is next, other things being equal."""
        return self.hours / self.weight


@dataclass(frozen=True)
class Line:
    """The jobs of one project, by class."""

    project: str | None
    by_class: Mapping[str, Counts]
    total: Counts


def columns(items: Iterable[Document]) -> list[tuple[str, str]]:
    """The flavors and resources that anybody has a quota of, or uses."""
    found = {
        (quota["flavor"], quota["resource"])
        for item in items for quota in item["quotas"] if quota["quota"] or quota["usage"]
    }  # fmt: skip
    # what people are short of comes first
    rank = {"gpu": 0, "cpu": 1, "memory": 2}
    return sorted(found, key=lambda column: (rank[column[1]], column[0]))


def lines(figures: Iterable[Document]) -> list[Line]:
    """Who waits and runs, by project; those with the most that waits first."""
    found: dict[str | None, dict[str, Counts]] = {}
    for item in figures:
        counts = Counts(item["waiting"], item["running"], item["held"])
        found.setdefault(item["project"], {})[item["class"]] = counts
    made = [Line(project, by_class, sum(by_class.values(), Counts())) for project, by_class in found.items()]
    return sorted(made, key=lambda line: (-line.total.waiting, line.project or ""))


def tree(
    items: Sequence[Document], flavor: str, resource: str, spent: Mapping[tuple[str, str], Resources],
    waiting: Iterable[Line],
) -> Branch | None:  # fmt: skip
    """The tree from its root down; None where there is none. `items` name parents before those below them."""
    counts = {line.project: line.total for line in waiting}
    branches: dict[str, Branch] = {}
    root = None
    for item in items:
        branch = branch_of(item, flavor, resource)
        used = spent.get((branch.name, flavor), Resources())
        unit = _GIB if resource == "memory" else 1000
        branch.hours = getattr(used, resource) / unit / _HOUR
        branch.counts = counts.get(branch.name, Counts())
        branches[branch.name] = branch
        if item["parent"] is None:
            root = branch
        else:
            branches[item["parent"]].below.append(branch)
    for item in reversed(items):
        if item["parent"] is not None:
            above, branch = branches[item["parent"]], branches[item["name"]]
            above.hours += branch.hours
            above.counts += branch.counts
    return root


def branch_of(item: Document, flavor: str, resource: str) -> Branch:
    """One node by itself, without hours and counts."""
    none = dict.fromkeys(("quota", "usage", "borrowed", "lent", "available"), 0)
    quota: Document = next(
        (each for each in item["quotas"] if each["flavor"] == flavor and each["resource"] == resource),
        {**none, "borrowing": None, "lending": None},
    )
    return Branch(
        item["name"], item["weight"], item["description"], quota["quota"], quota["usage"], quota["borrowed"],
        quota["lent"], quota["available"], quota["borrowing"], quota["lending"], 0.0, Counts(),
    )  # fmt: skip


def flat(branch: Branch, depth: int = 0) -> list[tuple[int, Branch]]:
    """The branches from the root down, with their depth, as a table has them."""
    return [(depth, branch), *(each for below in branch.below for each in flat(below, depth + 1))]
