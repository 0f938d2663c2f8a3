"""What a cluster's nodes have, by kind of hardware, and what of it is free."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation

import msgspec

from atoll.core import site
from atoll.core.resources import Resources
from atoll.core.site import Flavor
from atoll.drivers.kubernetes.config import KubernetesConfig, Toleration
from atoll.drivers.kubernetes.manifests import Kind, kind_of
from atoll.drivers.kubernetes.names import dns_label
from atoll.drivers.kubernetes.objects import INSTANCE, Condition, ListMeta, Meta, PodSpec

_SUFFIXES = {
    "n": Decimal("1e-9"), "u": Decimal("1e-6"), "m": Decimal("1e-3"), "": Decimal(1), "k": Decimal(10**3),
    "M": Decimal(10**6), "G": Decimal(10**9), "T": Decimal(10**12), "P": Decimal(10**15), "E": Decimal(10**18),
    "Ki": Decimal(2**10), "Mi": Decimal(2**20), "Gi": Decimal(2**30), "Ti": Decimal(2**40), "Pi": Decimal(2**50),
    "Ei": Decimal(2**60),
}  # fmt: skip


class Taint(msgspec.Struct):
    """What keeps pods from a node."""

    key: str = ""
    value: str = ""
    effect: str = ""


class NodeSpec(msgspec.Struct):
    """Whether a node takes pods."""

    unschedulable: bool = False
    taints: list[Taint] | None = None


class NodeStatus(msgspec.Struct):
    """What a node has, and how it is."""

    allocatable: dict[str, str] = {}
    conditions: list[Condition] | None = None


class Node(msgspec.Struct):
    """A node of the cluster."""

    metadata: Meta
    spec: NodeSpec = msgspec.field(default_factory=NodeSpec)
    status: NodeStatus = msgspec.field(default_factory=NodeStatus)


class NodeList(msgspec.Struct):
    """A page of nodes."""

    items: list[Node] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


class Load(msgspec.Struct):
    """A pod, as far as the room it takes, and whose it is."""

    metadata: Meta = msgspec.field(default_factory=Meta)
    spec: PodSpec = msgspec.field(default_factory=PodSpec)


class LoadList(msgspec.Struct):
    """A page of pods, as far as the room that they take."""

    items: list[Load] | None = None
    metadata: ListMeta = msgspec.field(default_factory=ListMeta)


def quantity(text: str) -> Decimal:
    """A number as Kubernetes writes it: 500m, 2, 64Gi, 1e3. What is none counts as nothing."""
    digits = text.strip()
    for length in (2, 1):
        suffix = digits[-length:]
        if suffix in _SUFFIXES and suffix:
            digits, factor = digits[:-length], _SUFFIXES[suffix]
            break
    else:
        factor = Decimal(1)
    try:
        amount = Decimal(digits) * factor
    except InvalidOperation:
        return Decimal(0)
    return amount if amount.is_finite() and amount >= 0 else Decimal(0)


def amount_of(values: Mapping[str, str] | None, resource: str) -> Resources:
    """CPU, memory and GPUs in a table of quantities."""
    table = values or {}
    return Resources(
        int(quantity(table.get("cpu", "0")) * 1000),
        int(quantity(table.get("memory", "0"))),
        int(quantity(table.get(resource, "0"))) * 1000,
    )


def tolerated(taint: Taint, tolerations: Iterable[Toleration]) -> bool:
    """Whether jobs may run on a node with this taint, as Kubernetes matches them."""
    if taint.effect == "PreferNoSchedule":
        return True
    return any(
        (each.effect is None or each.effect == taint.effect)
        and ((each.key is None and each.operator == "Exists") or each.key == taint.key)
        and (each.operator == "Exists" or (each.value or "") == taint.value)
        for each in tolerations
    )


@dataclass
class Stock:
    """The nodes of one kind."""

    kind: Kind
    total: Resources = field(default_factory=Resources)
    largest: Resources = field(default_factory=Resources)
    free: Resources = field(default_factory=Resources)
    nodes: int = 0

    def add(self, room: Resources, free: Resources) -> None:
        """Count one more node."""
        self.total += room
        self.free += free
        self.nodes += 1
        # the largest that one job can ask for, resource by resource, as nodes of a kind are alike
        self.largest = Resources(
            max(self.largest.cpu, room.cpu), max(self.largest.memory, room.memory), max(self.largest.gpu, room.gpu)
        )


class Stocktaking:
    """Sorts nodes into kinds of hardware."""

    def __init__(self, config: KubernetesConfig) -> None:
        self._config = config

    def usable(self, node: Node) -> bool:
        """Whether jobs of ours may run there."""
        ready = any(each.type == "Ready" and each.status == "True" for each in node.status.conditions or ())
        welcome = all(tolerated(taint, self._config.tolerations) for taint in node.spec.taints or ())
        return ready and self._selected(node) and welcome and not node.spec.unschedulable

    def _selected(self, node: Node) -> bool:
        labels = node.metadata.labels or {}
        return all(labels.get(key) == value for key, value in self._config.node_selector.items())

    def kind(self, node: Node) -> tuple[str, Kind]:
        """The name of a node's flavor, and what it is."""
        labels, config = node.metadata.labels or {}, self._config
        for name, rule in config.flavors.items():
            found = kind_of(rule, config)
            has = rule.resource is None or quantity(node.status.allocatable.get(rule.resource, "0")) > 0
            if has and all(labels.get(key) == value for key, value in rule.labels.items()):
                return name, found
        key = config.flavor_label
        if key is not None and key in labels:
            return dns_label(f"gpu-{labels[key]}"), Kind({key: labels[key]}, config.gpu_resource)
        gpus = quantity(node.status.allocatable.get(config.gpu_resource, "0"))
        return ("gpu" if gpus else "cpu"), Kind({}, config.gpu_resource)

    def _room(self, node: Node, kind: Kind) -> Resources:
        """What jobs may ask for of an empty node.

        Without what the container beside each job takes, which is within the job's own request where Atoll chooses.
        """
        room = amount_of(node.status.allocatable, kind.resource)
        keeper = Resources(self._config.keeper.cpu, self._config.keeper.memory)
        return room if self._config.owns_nodes else _less(room, keeper)

    def owned(self, nodes: Sequence[Node], loads: Sequence[Load], instance: str) -> tuple[site.Node, ...]:
        """The nodes among which Atoll chooses, each without what pods ask for that are not this platform's."""
        used = _used(load for load in loads if (load.metadata.labels or {}).get(INSTANCE) != instance)
        found = []
        for node in nodes:
            if self._selected(node):
                name, kind = self.kind(node)
                taken = [amount_of(each, kind.resource) for each in used.get(node.metadata.name, ())]
                left = _less(self._room(node, kind), sum(taken, Resources()))
                found.append(site.Node(node.metadata.name, name, left, self.usable(node)))
        return tuple(found)

    def count(self, nodes: Sequence[Node], loads: Sequence[Load] | None) -> dict[str, Stock]:
        """The stock of each flavor."""
        used = _used(loads or ())
        stocks: dict[str, Stock] = {}
        for node in nodes:
            if not self.usable(node):
                continue
            name, kind = self.kind(node)
            room = self._room(node, kind)
            if room.cpu <= 0 or room.memory <= 0:
                continue
            taken = [amount_of(each, kind.resource) for each in used.get(node.metadata.name, ())]
            free = _less(room, sum(taken, Resources()))
            stocks.setdefault(name, Stock(kind)).add(room, free)
        return stocks


def _less(room: Resources, taken: Resources) -> Resources:
    return Resources(max(0, room.cpu - taken.cpu), max(0, room.memory - taken.memory), max(0, room.gpu - taken.gpu))


def _used(loads: Iterable[Load]) -> dict[str, list[Mapping[str, str]]]:
    """What the containers on each node ask for."""
    used: dict[str, list[Mapping[str, str]]] = {}
    for load in loads:
        if load.spec.node_name:
            requests = [each.resources.requests for each in load.spec.containers if each.resources.requests]
            used.setdefault(load.spec.node_name, []).extend(requests)
    return used


def flavors_of(stocks: Mapping[str, Stock], *, free_known: bool) -> tuple[Flavor, ...]:
    """The stock as the rest of Atoll sees it."""
    return tuple(
        Flavor(name, stock.total, stock.largest, stock.nodes, stock.free if free_known else None)
        for name, stock in sorted(stocks.items())
    )
