"""Who may use how much: quotas in a project tree, with lending and borrowing. No I/O, and no clock.

The arithmetic is that of Kueue's hierarchical cohorts (https://kueue.sigs.k8s.io/docs/concepts/cohort/):

    subtree(n)   = nominal(n) + sum over children c of (subtree(c) - local(c))
    local(n)     = max(0, subtree(n) - lending limit(n)), and 0 without a lending limit
    usage(n)     = its own + sum over children c of max(0, usage(c) - local(c))
    available(n) = max(0, local - usage) + min(available(parent), subtree - local - max(0, usage - local) + borrowing)
    available(root) = subtree - usage

where the second term of the minimum counts only with a borrowing limit. What is available may be negative, after a
quota was cut. Columns are pairs of flavor and resource; one that no node names is not governed at all. Amounts are in
base units: milli-CPU, bytes of memory, milli-GPU.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from atoll.core.errors import Invalid
from atoll.core.project import RESOURCES, Column, Limit, TreeNode, check_nodes
from atoll.core.resources import Resources

Amounts = NDArray[np.int64]
"""Amounts: a row for each node and a column for each of the tree's columns, or one such row."""
_ENDLESS = -1  # a limit that is not set


class Tree:
    """A checked project tree. Nodes are numbered level by level from the root, 0; children of one node adjoin."""

    def __init__(self, nodes: Sequence[TreeNode]) -> None:
        """Raises Invalid, with all mistakes, for what is no tree, and for no nodes."""
        check_nodes(nodes)
        if not nodes:
            raise Invalid("no_projects", "A tree needs a root.", field="projects")
        self.nodes, self.levels = _by_level(nodes)
        """The nodes in order, and the stretch of each level."""
        self.index: Mapping[str, int] = {node.name: number for number, node in enumerate(self.nodes)}
        self.parents: tuple[int, ...] = tuple(
            0 if node.parent is None else self.index[node.parent] for node in self.nodes
        )
        """The number of each node's parent; the root's is its own."""
        self.columns: tuple[Column, ...] = tuple(sorted({column for node in nodes for column in node.quotas}))
        self.column: Mapping[Column, int] = {column: number for number, column in enumerate(self.columns)}
        self.governed: Mapping[str, tuple[tuple[str, int], ...]] = _by_flavor(self.columns)
        """By flavor: (resource, number of the column) of what quotas are given of."""
        self.weights: NDArray[np.float64] = np.array([node.weight for node in self.nodes])
        inner = set(self.parents[1:])
        self.leaves: NDArray[np.bool_] = np.array([number not in inner for number in range(len(self.nodes))])
        self.parent_numbers: NDArray[np.intp] = np.array(self.parents, np.intp)
        """The same, for numpy."""
        self.nominal, self.borrowing, self.lending = self._limits()
        self.subtree, self.local = self._quotas()

    def __len__(self) -> int:
        return len(self.nodes)

    def __contains__(self, name: object) -> bool:
        return name in self.index

    def is_project(self, name: str) -> bool:
        """Whether `name` is a node that takes jobs: one with none below it."""
        number = self.index.get(name)
        return number is not None and bool(self.leaves[number])

    def children(self, number: int) -> Sequence[int]:
        """The numbers of the nodes right below one."""
        return self._children.get(number, ())

    @cached_property
    def _children(self) -> dict[int, list[int]]:
        children: dict[int, list[int]] = {}
        for number, parent in enumerate(self.parents):
            if number:
                children.setdefault(parent, []).append(number)
        return children

    def path(self, name: str) -> tuple[str, ...]:
        """The names from a node up to the root. Raises KeyError."""
        number = self.index[name]
        names = [name]
        while number:
            number = self.parents[number]
            names.append(self.nodes[number].name)
        return tuple(names)

    @cached_property
    def most(self) -> Amounts:
        """What each node could have if nobody used anything."""
        return Quotas(self).available()

    def most_of(self, name: str, flavor: str) -> dict[str, int]:
        """The most that a node could ever have of what is governed of a flavor, by resource. Raises KeyError."""
        number = self.index[name]
        return {resource: int(self.most[number, column]) for resource, column in self.governed.get(flavor, ())}

    def _limits(self) -> tuple[Amounts, Amounts, Amounts]:
        shape = (len(self.nodes), len(self.columns))
        nominal = np.zeros(shape, np.int64)
        borrowing, lending = np.full(shape, _ENDLESS, np.int64), np.full(shape, _ENDLESS, np.int64)
        for number, node in enumerate(self.nodes):
            for column, limit in node.quotas.items():
                place = (number, self.column[column])
                nominal[place] = limit.nominal
                borrowing[place] = _ENDLESS if limit.borrowing is None else limit.borrowing
                lending[place] = _ENDLESS if limit.lending is None else limit.lending
        return nominal, borrowing, lending

    def _quotas(self) -> tuple[Amounts, Amounts]:
        """`subtree` and `local`, from the leaves up."""
        subtree, local = self.nominal.copy(), np.zeros_like(self.nominal)
        for level in reversed(self.levels):
            lent, limit = subtree[level], self.lending[level]
            local[level] = np.where(limit == _ENDLESS, 0, np.maximum(0, lent - limit))
            if level.start:
                np.add.at(subtree, self.parent_numbers[level], lent - local[level])
        return subtree, local

    def available(self, usage: Amounts) -> Amounts:
        """What is available to each node with this `usage`, from the root down."""
        room = np.empty_like(usage)
        room[0] = self.subtree[0] - usage[0]
        for level in self.levels[1:]:
            local, limit = self.local[level], self.borrowing[level]
            of_parent = room[self.parent_numbers[level]]
            limited = self.subtree[level] - local - np.maximum(0, usage[level] - local) + limit
            of_parent = np.where(limit == _ENDLESS, of_parent, np.minimum(of_parent, limited))
            room[level] = np.maximum(0, local - usage[level]) + of_parent
        return room


class Quotas:
    """A tree and what is used in it."""

    def __init__(self, tree: Tree) -> None:
        """Nothing is used yet."""
        self.tree = tree
        self.usage: Amounts = np.zeros_like(tree.nominal)
        """What counts at each node: what its projects use beyond what is theirs alone. To be read."""
        self._over: dict[int, bool] = {}  # by node: what `is_over` found, and has not changed since

    @property
    def subtree(self) -> Amounts:
        """What each node and those below it have together, without what is kept from being lent below."""
        return self.tree.subtree

    @property
    def local(self) -> Amounts:
        """What of `subtree` is kept for the node alone."""
        return self.tree.local

    def copy(self) -> Self:
        """Another to try things on; the tree is shared."""
        made = type(self)(self.tree)
        made.usage, made._over = self.usage.copy(), self._over.copy()
        return made

    def add(self, project: str, flavor: str, amounts: Resources, sign: int = 1) -> None:
        """Count what a project uses of a flavor, or (sign -1) no longer uses.

        What is not governed is not counted, and what belongs to no project of the tree counts nowhere.
        """
        number = self.tree.index.get(project)
        if number is None:
            return
        for resource, column in self.tree.governed.get(flavor, ()):
            self._add(number, column, sign * getattr(amounts, resource))

    def _add(self, number: int, column: int, change: int) -> None:
        usage, local = self.usage, self.tree.local
        while change:
            before, kept = usage.item(number, column), local.item(number, column)
            usage[number, column] = before + change
            self._over.pop(number, None)
            if not number:
                return
            change = max(0, before + change - kept) - max(0, before - kept)
            number = self.tree.parents[number]

    def fits(self, project: str, flavor: str, request: Resources) -> bool:
        """Whether a project may use so much more of a flavor now. One that the tree lacks has nothing of its own."""
        number = self.tree.index.get(project)
        for resource, column in self.tree.governed.get(flavor, ()):
            wanted: int = getattr(request, resource)
            if wanted and (number is None or wanted > self.available_at(number, column)):
                return False
        return True

    def within(self, project: str, flavor: str, amounts: Resources) -> bool:
        """Whether a node stays within its own quota, borrowing nothing, with so much more. Raises KeyError."""
        number, tree = self.tree.index[project], self.tree
        return all(
            self.usage.item(number, column) + wanted <= tree.subtree.item(number, column)
            for resource, column in tree.governed.get(flavor, ())
            if (wanted := getattr(amounts, resource))
        )

    def available(self) -> Amounts:
        """What is available to every node."""
        return self.tree.available(self.usage)

    def available_at(self, number: int, column: int) -> int:
        """What is available to one node of one column; the same as in `available`, without the rest."""
        tree, usage = self.tree, self.usage
        path = []
        while number:
            path.append(number)
            number = tree.parents[number]
        room = tree.subtree.item(0, column) - usage.item(0, column)
        for number in reversed(path):
            used, kept = usage.item(number, column), tree.local.item(number, column)
            limit = tree.borrowing.item(number, column)
            if limit != _ENDLESS:
                room = min(room, tree.subtree.item(number, column) - kept - max(0, used - kept) + limit)
            room += max(0, kept - used)
        return int(room)

    def over(self, project: str) -> Amounts:
        """What a node uses beyond its own quota, by column: what it has borrowed. Raises KeyError."""
        number = self.tree.index[project]
        over: Amounts = np.maximum(0, self.usage[number] - self.tree.subtree[number])
        return over

    def is_over(self, project: str) -> bool:
        """Whether a node has borrowed anything. Raises KeyError."""
        number = self.tree.index[project]
        if (known := self._over.get(number)) is None:
            known = self._over[number] = bool((self.usage[number] > self.tree.subtree[number]).any())
        return known

    def borrowed(self) -> Amounts:
        """What every node uses beyond its own quota."""
        borrowed: Amounts = np.maximum(0, self.usage - self.tree.subtree)
        return borrowed

    def lent(self) -> Amounts:
        """What of every node's own quota those beside it use.

        What a node's children borrow comes first from its own nominal quota, which is there for them, and then from
        what the other children do not use, in proportion.
        """
        tree, lent = self.tree, np.zeros_like(self.usage)
        borrowed, wanted, unused = self.borrowed(), np.zeros_like(self.usage), np.zeros_like(self.usage)
        idle = tree.subtree - tree.local - np.minimum(np.maximum(0, self.usage - tree.local), tree.subtree - tree.local)
        for level in tree.levels[1:]:
            np.add.at(wanted, tree.parent_numbers[level], borrowed[level])
            np.add.at(unused, tree.parent_numbers[level], idle[level])
        taken = np.clip(wanted - tree.nominal, 0, unused)  # of what all children do not use
        for parent, column in np.argwhere(taken > 0).tolist():
            children = tree.children(parent)
            lent[children, column] = _in_proportion(taken.item(parent, column), idle[children, column].tolist())
        return lent


def _in_proportion(whole: int, shares: Sequence[int]) -> list[int]:
    """Integers that add up to `whole`, in proportion to `shares`: by the largest remainders.

    `whole` is no more than all shares, and none is given more than its own. Python's integers: products are beyond
    64 bits.
    """
    total = sum(shares)
    given = [whole * share // total for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda place: -(whole * shares[place] % total))
    for place in by_remainder[: whole - sum(given)]:
        given[place] += 1
    return given


def _by_level(nodes: Sequence[TreeNode]) -> tuple[tuple[TreeNode, ...], tuple[slice, ...]]:
    """The nodes from the root down, and the stretch of each level; the nodes are checked."""
    children: dict[str | None, list[TreeNode]] = {}
    for node in nodes:
        children.setdefault(node.parent, []).append(node)
    ordered: list[TreeNode] = []
    levels: list[slice] = []
    level = children[None]
    while level:
        levels.append(slice(len(ordered), len(ordered) + len(level)))
        ordered += level
        level = [child for node in level for child in children.get(node.name, ())]
    return tuple(ordered), tuple(levels)


def _by_flavor(columns: Sequence[Column]) -> dict[str, tuple[tuple[str, int], ...]]:
    governed: dict[str, tuple[tuple[str, int], ...]] = {}
    for number, (flavor, resource) in enumerate(columns):
        governed[flavor] = (*governed.get(flavor, ()), (resource, number))
    return governed


__all__ = ["RESOURCES", "Amounts", "Column", "Limit", "Quotas", "Tree", "TreeNode"]
