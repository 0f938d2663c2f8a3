"""What pages show of sites, as plain values: who uses how much of them, GPU by GPU where that is known. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.core.resources import Resources
from atoll.core.site import Flavor, Health, Node, Site
from atoll.store.holdings import Held, Spots

CLASSES = ("interactive", "service", "batch", "opportunistic")
OTHERS, FREE, CLOSED = "others", "free", "closed"
USES = (*CLASSES, OTHERS, FREE, CLOSED)
"""What a GPU or a CPU may be used for, in the order in which pages show it."""
MOST_CELLS = 512
"""A site with more GPUs or nodes is shown by flavor only."""
_GPU = 1000


@dataclass(frozen=True)
class Bar:
    """How much of something is used for what; amounts in base units."""

    total: int
    parts: Mapping[str, int]
    """By use, without what is free."""

    @property
    def used(self) -> int:
        """By us and by others."""
        return sum(self.parts.values())


@dataclass(frozen=True)
class Cell:
    """One GPU, or one node where there are none."""

    use: str
    share: int
    """How much of it is used, in percent."""


@dataclass(frozen=True)
class NodePicture:
    """A node, or (without a name) some GPUs of which nobody says where they are."""

    name: str
    flavor: str
    open: bool
    cells: tuple[Cell, ...]
    cpu: Bar
    memory: Bar


@dataclass(frozen=True)
class SitePicture:
    """All that a tile shows of a site beside its own words."""

    site: Site
    drained: bool
    cpu: Bar
    memory: Bar
    gpu: Bar
    running: int
    """Attempts that have begun."""
    waiting: int
    """Attempts that were placed there and have not begun."""
    classes: Mapping[str, int]
    """Attempts by class."""
    nodes: tuple[NodePicture, ...] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    """Cells by use."""

    @property
    def health(self) -> str:
        """In one word: a drained site that answers is drained."""
        return "drained" if self.drained and self.site.health is Health.OK else self.site.health.value

    @property
    def flavors(self) -> Sequence[Flavor]:
        """As it reported them."""
        return self.site.report.flavors if self.site.report else ()

    @property
    def node_count(self) -> int:
        """How many nodes it has."""
        return sum(flavor.nodes for flavor in self.flavors)


def pictures(
    sites: Iterable[Site], drained: Iterable[str], held: Iterable[Held], spots: Iterable[Spots]
) -> list[SitePicture]:
    """One for each site, in their order."""
    out = set(drained)
    by_site: dict[str, list[Held]] = {}
    for each in held:
        by_site.setdefault(each.site, []).append(each)
    placed: dict[str, list[Spots]] = {}
    for spot in spots:
        placed.setdefault(spot.site, []).append(spot)
    return [_picture(site, site.name in out, by_site.get(site.name, ()), placed.get(site.name, ())) for site in sites]


def chooses_nodes(site: Site) -> bool:
    """Whether a picture of each node is drawn: Atoll chooses them, and they are not too many."""
    return site.report is not None and 0 < cells_of(site) <= MOST_CELLS and bool(site.report.nodes)


def cells_of(site: Site) -> int:
    """How many cells the picture of a site would have."""
    if site.report is None:
        return 0
    gpus = sum(flavor.total.gpu for flavor in site.report.flavors) // _GPU
    return gpus or len(site.report.nodes)


def bar(flavors: Iterable[Flavor], held: Iterable[Held], resource: str) -> Bar:
    """How much of some flavors' resource is used for what. What only waits at the site holds nothing yet."""
    found, total, parts = list(flavors), 0, dict[str, int]()
    for flavor in found:
        total += getattr(flavor.total, resource)
        parts[OTHERS] = parts.get(OTHERS, 0) + getattr(flavor.others, resource)
    names = {flavor.name for flavor in found}
    for each in held:
        if each.flavor in names:
            parts[each.class_] = parts.get(each.class_, 0) + getattr(each.resources, resource)
    return Bar(total, {use: parts[use] for use in USES if parts.get(use)})


def _picture(site: Site, drained: bool, held: Sequence[Held], spots: Sequence[Spots]) -> SitePicture:
    flavors = site.report.flavors if site.report else ()
    holds = holding(site, held)
    classes: dict[str, int] = {}
    for each in held:
        classes[each.class_] = classes.get(each.class_, 0) + each.attempts
    if chooses_nodes(site):
        assert site.report is not None
        nodes = _nodes(site.report.nodes, spots)
    else:
        nodes = tuple(_anywhere(flavor, holds) for flavor in flavors if 0 < flavor.total.gpu <= MOST_CELLS * _GPU)
    counts: dict[str, int] = {}
    for cell in (cell for node in nodes for cell in node.cells):
        counts[cell.use] = counts.get(cell.use, 0) + 1
    return SitePicture(
        site, drained, bar(flavors, holds, "cpu"), bar(flavors, holds, "memory"), bar(flavors, holds, "gpu"),
        sum(each.attempts for each in held if each.running),
        sum(each.attempts for each in held if not each.running), classes, nodes,
        {use: counts[use] for use in USES if use in counts},
    )  # fmt: skip


def holding(site: Site, held: Iterable[Held]) -> list[Held]:
    """Those that hold room: where an engine has a queue of its own, what has not begun waits there for it."""
    queues = site.report is not None and site.report.queues
    return [each for each in held if each.running or not queues]


def _anywhere(flavor: Flavor, held: Sequence[Held]) -> NodePicture:
    """The GPUs of a flavor of which only sums are known: those in use first."""
    cpu, memory, gpu = (bar([flavor], held, resource) for resource in ("cpu", "memory", "gpu"))
    cells: list[Cell] = []
    left = flavor.total.gpu // _GPU
    for use, amount in gpu.parts.items():
        whole, part = divmod(amount, _GPU)
        cells += [Cell(use, 100)] * min(whole, left - len(cells))
        if part and len(cells) < left:
            cells.append(Cell(use, part * 100 // _GPU))
    cells += [Cell(FREE, 0)] * (left - len(cells))
    return NodePicture("", flavor.name, True, tuple(cells), cpu, memory)


def _nodes(nodes: Sequence[Node], spots: Iterable[Spots]) -> tuple[NodePicture, ...]:
    """Each node with what it is used for."""
    gpus: dict[str, dict[int, dict[str, int]]] = {}
    sums: dict[str, dict[str, Resources]] = {}
    for spot in spots:
        for place in spot.nodes:
            by_class = sums.setdefault(place.node, {})
            by_class[spot.class_] = by_class.get(spot.class_, Resources()) + spot.resources
            for device, milli in place.gpus:
                shares = gpus.setdefault(place.node, {}).setdefault(device, {})
                shares[spot.class_] = shares.get(spot.class_, 0) + milli
    return tuple(_node(node, sums.get(node.name, {}), gpus.get(node.name, {})) for node in nodes)


def _node(node: Node, used: Mapping[str, Resources], gpus: Mapping[int, Mapping[str, int]]) -> NodePicture:
    cpu, memory = (
        Bar(getattr(node.resources, resource),
            {use: getattr(used[use], resource) for use in USES if use in used})
        for resource in ("cpu", "memory")
    )  # fmt: skip
    if not node.open:
        cells = [Cell(CLOSED, 0)] * max(1, node.resources.gpu // _GPU)
    elif node.resources.gpu:
        cells = [_device(gpus.get(device, {})) for device in range(node.resources.gpu // _GPU)]
    else:
        most = max(cpu.parts, key=lambda use: cpu.parts[use], default=FREE)
        cells = [Cell(most, cpu.used * 100 // cpu.total if cpu.total else 0)]
    return NodePicture(node.name, node.flavor, node.open, tuple(cells), cpu, memory)


def _device(shares: Mapping[str, int]) -> Cell:
    """A GPU: it counts to the class that has most of it."""
    if not shares:
        return Cell(FREE, 0)
    return Cell(max(shares, key=lambda use: shares[use]), min(100, sum(shares.values()) * 100 // _GPU))
