"""The project tree's vocabulary, and what must hold in it: one root, no circle, limits that can be meant.

Amounts are in base units: milli-CPU, bytes of memory, milli-GPU.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date

from atoll.core.errors import Invalid
from atoll.core.spec import suggestion

RESOURCES = ("cpu", "memory", "gpu")
"""What quotas are given in; the attributes of `core.resources.Resources`."""
MAX_QUOTA = 2**60
"""No quota, and no sum of a whole tree's, may be larger: all arithmetic on them then stays inside 64 bits."""

Column = tuple[str, str]
"""What a quota is of: (flavor, resource)."""
Mistake = tuple[str, str]
"""A field and a sentence on it."""
_MOST_HINTS = 20


class Hints:
    """`suggestion` for the many mistakes of one document: of the first few words only, and once for each.

    Each word is held against all names; 20,000 wrong words and as many names would take hours.
    """

    def __init__(self, known: Iterable[str]) -> None:
        self._known = list(known)
        self._found: dict[str, str] = {}

    def of(self, word: str) -> str:
        """` Did you mean 'x'?`, or nothing."""
        if word not in self._found:
            self._found[word] = suggestion(word, self._known) if len(self._found) < _MOST_HINTS else ""
        return self._found[word]


@dataclass(frozen=True, slots=True)
class Limit:
    """What a node has of one flavor and resource.

    `borrowing`: at most so much is used beyond the node's own subtree quota; None: as much as there is.
    `lending`: at most so much of the subtree quota is lent to others; None: all of it.
    """

    nominal: int = 0
    borrowing: int | None = None
    lending: int | None = None


@dataclass(frozen=True, slots=True)
class TreeNode:
    """A node of the tree institution > department > project. Only leaves have people, and take jobs."""

    name: str
    parent: str | None = None
    """None for the root."""
    weight: float = 1.0
    """Its share beside its siblings; above 0."""
    quotas: Mapping[Column, Limit] = field(default_factory=dict)
    people: tuple[str, ...] = ()
    managers: tuple[str, ...] = ()
    """Who may change the people."""
    clearance: tuple[str, ...] = ()
    """Words that a site must have for jobs of this node and of those below it."""
    description: str = ""
    ends: date | None = None


def clearances(nodes: Sequence[TreeNode]) -> dict[str, frozenset[str]]:
    """By name the words that jobs of a node need: its own, and those of all above it. Who needs none is left out."""
    by_name = {node.name: node for node in nodes}
    found: dict[str, frozenset[str]] = {}
    for node in nodes:
        words: set[str] = set()
        at: TreeNode | None = node
        while at is not None:
            words.update(at.clearance)
            at = by_name[at.parent] if at.parent is not None else None
        if words:
            found[node.name] = frozenset(words)
    return found


def inner_names(nodes: Iterable[TreeNode]) -> set[str]:
    """The nodes that have others below them."""
    return {node.parent for node in nodes if node.parent is not None}


def mistakes_in(nodes: Sequence[TreeNode]) -> list[Mistake]:
    """Everything that is wrong with a tree by itself; no nodes are no tree, and nothing is wrong with that."""
    by_name = {node.name: node for node in nodes}
    inner = inner_names(nodes)
    parents, resources = Hints(by_name), Hints(RESOURCES)
    found: list[Mistake] = []
    seen: set[str] = set()
    for node in nodes:
        if node.name in seen:
            found.append((_place(node, ""), f"The name {node.name!r} is given twice."))
        seen.add(node.name)
        found += _mistakes_of(node, node.name in inner, resources)
        if node.parent is not None and node.parent not in by_name:
            hint = parents.of(node.parent)
            found.append((_place(node, "parent"), f"There is no project {node.parent!r} in this tree.{hint}"))
    return found + _shape(nodes, by_name) + _sums(nodes)


def check_nodes(nodes: Sequence[TreeNode]) -> None:
    """Raise Invalid, with all mistakes, where `nodes` are no tree."""
    refuse(mistakes_in(nodes))


def refuse(mistakes: Sequence[Mistake]) -> None:
    """Raise Invalid with these mistakes, if there are any."""
    if mistakes:
        place, sentence = mistakes[0]
        raise Invalid("invalid_projects", f"{place}: {sentence}", field=place, errors=tuple(mistakes))


def quota_place(node: TreeNode, column: Column, what: str = "") -> str:
    """The field of a node's quota, as in `projects.physics.quotas.gpu-a100.gpu.lending`."""
    return _place(node, ".".join(filter(None, ("quotas", *column, what))))


def _place(node: TreeNode, what: str) -> str:
    return f"projects.{node.name}.{what}".rstrip(".")


def _mistakes_of(node: TreeNode, inner: bool, resources: Hints) -> list[Mistake]:
    """What is wrong with one node, whatever the others say."""
    found: list[Mistake] = []
    if not 0 < node.weight < float("inf"):
        found.append((_place(node, "weight"), "A weight must be above 0."))
    if inner:
        for what in ("people", "managers"):
            if getattr(node, what):
                sentence = f"Only projects without others below them have {what}; {node.name!r} has some below it."
                found.append((_place(node, what), sentence))
    for column, limit in node.quotas.items():
        if column[1] not in RESOURCES:
            hint = resources.of(column[1])
            sentence = f"Quotas are given in cpu, memory and gpu, not in {column[1]!r}.{hint}"
            found.append((quota_place(node, column), sentence))
        for what in ("nominal", "borrowing", "lending"):
            amount = getattr(limit, what)
            if amount is not None and not 0 <= amount <= MAX_QUOTA:
                sentence = "An amount cannot be negative." if amount < 0 else "This is more than any tree may have."
                found.append((quota_place(node, column, what), sentence))
            if node.parent is None and what != "nominal" and amount is not None:
                sentence = f"The root has nobody beside it to borrow from or lend to; leave {what} out."
                found.append((quota_place(node, column, what), sentence))
        if not inner and limit.lending is not None and limit.lending > max(0, limit.nominal):
            found.append((quota_place(node, column, "lending"), "It cannot lend more than its nominal quota."))
    return found


def _shape(nodes: Sequence[TreeNode], by_name: Mapping[str, TreeNode]) -> list[Mistake]:
    """Several roots or none, and circles."""
    roots = [node for node in nodes if node.parent is None]
    if len(roots) > 1:
        names = ", ".join(node.name for node in roots[:5])
        sentence = f"There must be one root; {names} have no parent. Give all but one a parent."
        return [(_place(roots[1], "parent"), sentence)] + _circles(nodes, by_name)
    if nodes and not roots:
        return [("projects", "There is no root: one project must be without a parent."), *_circles(nodes, by_name)]
    return _circles(nodes, by_name)


def _circles(nodes: Sequence[TreeNode], by_name: Mapping[str, TreeNode]) -> list[Mistake]:
    """One mistake for each circle."""
    found: list[Mistake] = []
    done: set[str] = set()
    for node in nodes:
        path: dict[str, None] = {}
        at: TreeNode | None = node
        while at is not None and at.name not in done and at.name not in path:
            path[at.name] = None
            at = by_name.get(at.parent) if at.parent is not None else None
        if at is not None and at.name in path:
            names = list(path)
            circle = [*names[names.index(at.name) :], at.name]
            found.append((_place(at, "parent"), f"These are in a circle: {' > '.join(circle[:10])}."))
        done.update(path)
    return found


def _sums(nodes: Sequence[TreeNode]) -> list[Mistake]:
    sums: dict[Column, int] = {}
    for node in nodes:
        for column, limit in node.quotas.items():
            sums[column] = sums.get(column, 0) + max(0, limit.nominal)
    too_large = sorted(column for column, total in sums.items() if total > MAX_QUOTA)
    return [
        ("projects", f"All quotas of {flavor} {resource} together are too large.") for flavor, resource in too_large
    ]
