"""When a node has room for a request if one attempt after the other leaves it: for reservations and for evictions.

All nodes are looked at together: what leaves is sorted by node and order, and summed up along each node.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import WHOLE, Column, Nodes, Spot, devices_of

Rows = NDArray[np.intp]
NEVER = 2**62
"""The time, in microseconds, of what does not come."""


@dataclass(frozen=True)
class Leaving:
    """What goes from nodes, an entry for each attempt and node; sorted by node, there by `order` (small first).

    It does not change, and keeps its sums: a cycle asks again and again, and the next one mostly of the same.
    """

    node: Rows
    order: Column
    cpu: Column
    memory: Column
    gpus: Column
    """Milli-GPU, a column for each device."""

    @classmethod
    def of(cls, claims: NDArray[Any], order: Column, devices: int) -> "Leaving":
        """From rows of `OwnedNodes.claims`, each with its place in the order."""
        return cls(
            claims["node"].astype(np.intp), order, claims["cpu"], claims["memory"],
            claims["gpus"][:, :devices].astype(np.int64),
        )._sorted()  # fmt: skip

    def with_more(self, more: Sequence[tuple[int, Spot, Resources]]) -> "Leaving":
        """These and more, each with its place in the order."""
        if not more:
            return self
        gpus = np.zeros((len(more), self.gpus.shape[1]), np.int64)
        for place, (_, spot, _) in enumerate(more):
            for device, milli in spot.gpus:
                gpus[place, device] = milli
        return Leaving(
            np.concatenate([self.node, np.array([spot.node for _, spot, _ in more], np.intp)]),
            np.concatenate([self.order, np.array([order for order, _, _ in more], np.int64)]),
            np.concatenate([self.cpu, np.array([request.cpu for _, _, request in more], np.int64)]),
            np.concatenate([self.memory, np.array([request.memory for _, _, request in more], np.int64)]),
            np.concatenate([self.gpus, gpus]),
        )._sorted()

    def _sorted(self) -> "Leaving":
        by = np.lexsort((self.order, self.node))
        return Leaving(self.node[by], self.order[by], self.cpu[by], self.memory[by], self.gpus[by])

    def __len__(self) -> int:
        return len(self.node)

    def begins(self) -> Rows:
        """Where each node's entries begin."""
        if not len(self.node):
            return np.zeros(0, np.intp)
        return np.flatnonzero(np.concatenate([[True], self.node[1:] != self.node[:-1]]))

    @cached_property
    def sums(self) -> tuple[Column, Column, Column]:
        """What is gone of its node with each entry and those before it: milli-CPU, bytes, milli-GPU by device."""
        return self.along(self.cpu), self.along(self.memory), self.along(self.gpus)

    def equals(self, other: "Leaving") -> bool:
        """Whether both are of the same entries."""
        columns = ("node", "order", "cpu", "memory", "gpus")
        return all(np.array_equal(getattr(self, name), getattr(other, name)) for name in columns)

    def along(self, values: Column) -> Column:
        """The sums of values of the entries from each node's first on; `values` may have several columns."""
        begins = self.begins()
        sums: Column = np.cumsum(values, axis=0)
        before = sums[begins] - values[begins]
        sums -= np.repeat(before, np.diff(np.append(begins, len(self.node))), axis=0)
        return sums


def room_from(nodes: Nodes, stretch: slice, request: Resources, leaving: Leaving) -> Column:
    """When each node of a stretch, as it is, has room for a request: 0 for now, `NEVER`, or as `leaving` orders it."""
    times = np.where(nodes.holds(request, stretch), 0, NEVER)
    last = first_enough(nodes, request, leaving)
    at = leaving.node[last] - stretch.start
    times[at] = np.minimum(times[at], leaving.order[last])
    return times


def first_enough(nodes: Nodes, request: Resources, leaving: Leaving) -> Rows:
    """For each node that has room for a request once enough have left: the entry of the last that is needed.

    Nodes that have room before anybody leaves have their first entry.
    """
    at = leaving.node
    cpu, memory, gpus = leaving.sums
    enough: NDArray[np.bool_] = nodes.cpu[at] + cpu >= request.cpu
    enough &= nodes.memory[at] + memory >= request.memory
    whole, share = devices_of(request)
    if whole or share:
        free = nodes.gpu[at] + gpus
        enough &= (free == WHOLE).sum(axis=1) >= whole if whole else free.max(axis=1, initial=0) >= share
    found = np.flatnonzero(enough)
    _, first = np.unique(at[found], return_index=True)
    return found[first]
