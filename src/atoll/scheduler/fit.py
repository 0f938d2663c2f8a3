"""Whether and where a demand fits: what can never be (`obstacle`, `impossible`), what has room now (`Room`).

A *pool* is one flavor at one site; its nodes' room is counted together, as the engine does the placing on
them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from atoll.core.project import RESOURCES
from atoll.core.reasons import Reason, ReasonCode
from atoll.core.resources import Resources, format_bytes, format_milli, format_seconds
from atoll.core.site import Ability, Flavor, Health, Site
from atoll.core.spec import ConstraintTerm, nearest, suggestion
from atoll.scheduler.model import CLASSES, Demand, Placement, Running, SiteState, Waiting

FIELDS: dict[Ability, str] = {
    Ability.IMAGE: "environment.image",
    Ability.CONDA: "environment.conda",
    Ability.VENV: "environment.venv",
    Ability.MULTINODE: "nodes",
    Ability.SCRATCH: "scratch",
    Ability.VOLUMES: "volumes",
    Ability.SECRETS: "secrets",
    Ability.CONNECT: "ports",
    Ability.SIGNAL: "signal",
    Ability.FILES: "files_in",
    Ability.OTHER_PERSONS: "person",
}
"""The field of the specification that asks for an ability."""
_NOTHING = Resources()


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a site can never run a job as both are: the field that asks too much, a clause for a sentence."""

    field: str
    clause: str

    @property
    def sentence(self) -> str:
        """The clause as a sentence of its own."""
        return f"{self.clause[:1].upper()}{self.clause[1:]}."


@dataclass(frozen=True, slots=True)
class Pool:
    """One flavor at one site."""

    site: str
    flavor: Flavor
    remote: bool
    rank: int
    """Place of the flavor in its site's own order."""


@dataclass(slots=True)
class Used:
    """What attempts of ours hold of a pool."""

    resources: Resources = _NOTHING
    attempts: int = 0
    waiting: list[int] = field(default_factory=lambda: [0] * len(CLASSES))
    """Of them those that have not begun, by rank."""
    line: dict[str, Running] = field(default_factory=dict)
    """The same, by attempt."""

    def add(self, running: Running) -> None:
        """Count an attempt."""
        self._count(running, 1)
        if running.waits:
            self.line[running.attempt_id] = running

    def remove(self, running: Running) -> None:
        """Count an attempt no more."""
        self._count(running, -1)
        self.line.pop(running.attempt_id, None)

    def _count(self, running: Running, times: int) -> None:
        self.resources += running.request * running.nodes * times
        self.attempts += times
        if running.waits:
            self.waiting[running.rank] += times


def lasting(flavor: Flavor) -> Flavor:
    """What of a flavor does not change with every job of ours or others."""
    return replace(flavor, free=None, others=_NOTHING, openings=())


def is_remote(site: Site) -> bool:
    """Whether going to the site is an offload: its label `remote` is `true`."""
    return site.all_labels.get("remote") == "true"


def amount(resource: str, value: int) -> str:
    """An amount as sentences write it: `4 CPU`, `8 GiB of memory`, `1 GPU`."""
    return f"{bare(resource, value)} {'of memory' if resource == 'memory' else resource.upper()}"


def bare(resource: str, value: int) -> str:
    """An amount without the resource's name: `4`, `8 GiB`."""
    return format_bytes(value) if resource == "memory" else format_milli(value)


# ---- what can never be


def placement_obstacle(placement: Placement, nodes: int, site: Site) -> Obstacle | None:
    """Why the site refuses a job whatever its size, None where it does not. The site must have reported."""
    report, name = site.report, site.name
    assert report is not None
    wanted = placement.abilities | ({Ability.MULTINODE} if nodes > 1 else frozenset())
    for ability in sorted(wanted - report.abilities):
        return Obstacle(FIELDS[ability], f"{name} has no ability {ability} ({FIELDS[ability]})")
    if report.volumes is not None and (unknown := sorted(placement.volumes - report.volumes)):
        near = nearest(unknown[0], sorted(report.volumes))
        hint = "" if near is None else f", but {near!r}"
        return Obstacle("volumes", f"{name} has no volume {unknown[0]!r}{hint} (volumes)")
    if site.identity is not None:
        if not site.identity.serves(placement.person):
            return Obstacle("person", f"{name} has no account for {placement.person}")
    elif report.owner not in (None, placement.person) and Ability.OTHER_PERSONS not in report.abilities:
        return Obstacle("person", f"{name} runs only jobs of {report.owner}")
    labels = site.all_labels
    for term in placement.constraints:
        if not term.allows(labels):
            return Obstacle("constraints", f"{name} is not {_written(term)} (constraints)")
    if placement.offload == "never" and is_remote(site):
        return Obstacle("offload", f"{name} is remote (offload: never)")
    if placement.offload == "only" and not is_remote(site):
        return Obstacle("offload", f"{name} is not remote (offload: only)")
    if missing := sorted(placement.clearance - site.clearance):
        words = ", ".join(missing)
        return Obstacle("project", f"{name} is not cleared for {words}, which the job's project needs (project)")
    limit = report.max_walltime
    if limit is not None and placement.walltime is not None and placement.walltime > limit:
        return Obstacle("walltime", f"{name} allows at most {format_seconds(limit)} (walltime)")
    return None


def flavor_obstacle(demand: Demand, flavor: Flavor, site: str) -> Obstacle | None:
    """Why a flavor can never hold the demand, even when it is empty; None where it can."""
    if demand.flavors and flavor.name not in demand.flavors:
        return Obstacle("flavor", f"{site} has no flavor {' or '.join(demand.flavors)}")
    for resource in RESOURCES:
        largest = getattr(flavor.node, resource)
        if getattr(demand.request, resource) > largest:
            clause = f"the largest node of {site} has {amount(resource, largest)} ({resource})"
            return Obstacle(resource, clause)
    if demand.nodes > flavor.nodes:
        return Obstacle("nodes", f"{site} has {flavor.nodes} nodes of flavor {flavor.name} (nodes)")
    for resource in RESOURCES:
        whole = getattr(flavor.total, resource)
        if getattr(demand.total, resource) > whole:
            return Obstacle(resource, f"{site} has {amount(resource, whole)} in all ({resource})")
    return None


def obstacle(demand: Demand, site: Site) -> Obstacle | None:
    """Why the site can never run this, None where it can or where it has not reported yet."""
    if site.report is None:
        return None
    found = placement_obstacle(demand.placement, demand.nodes, site)
    if found is not None:
        return found
    obstacles = [flavor_obstacle(demand, flavor, site.name) for flavor in site.report.flavors]
    if None in obstacles:
        return None
    # The flavor that came nearest says most: one of the wanted kind, if there is one.
    return next(
        (found for found in obstacles if found is not None and found.field != "flavor"),
        obstacles[0] if obstacles else Obstacle("flavor", f"{site.name} has no resources"),
    )


def eligible(waiting: Waiting | Demand, site: Site) -> Reason | None:
    """Why the site can never run this job as the two are; None where it can, however full it is now."""
    found = obstacle(waiting.demand if isinstance(waiting, Waiting) else waiting, site)
    return None if found is None else Reason.of(ReasonCode.NO_SITE, found.sentence)


def largest(sites: Iterable[Site], flavors: Sequence[str] = ()) -> dict[str, tuple[int, str]]:
    """The largest `cpu`, `memory`, `gpu` of any node and `nodes` of any flavor, each with its site's name."""
    best: dict[str, tuple[int, str]] = {}
    for site in sites:
        for flavor in site.report.flavors if site.report else ():
            if flavors and flavor.name not in flavors:
                continue
            sizes = [(resource, getattr(flavor.node, resource)) for resource in RESOURCES]
            for name, size in [*sizes, ("nodes", flavor.nodes)]:
                if name not in best or size > best[name][0]:
                    best[name] = (size, site.name)
    return best


def impossible(demand: Demand, sites: Sequence[Site]) -> tuple[str, str] | None:
    """What no site can ever give: the field and a sentence with the nearest that is possible.

    None where some site can run it, and where a site has not reported yet (or there is none).
    """
    if not sites or any(site.report is None for site in sites):
        return None
    obstacles = [found for site in sites if (found := obstacle(demand, site)) is not None]
    if len(obstacles) < len(sites):
        return None
    willing = [site for site in sites if placement_obstacle(demand.placement, demand.nodes, site) is None]
    if not willing:
        return obstacles[0].field, f"No site can run it: {clauses(found.clause for found in obstacles)}."
    most_of = largest(willing, demand.flavors)
    if not most_of:
        known = sorted({flavor.name for site in sites if site.report for flavor in site.report.flavors})
        hint = suggestion(demand.flavors[0], known) if demand.flavors else ""
        wanted = " or ".join(demand.flavors)
        return "flavor", f"No site has the flavor {wanted}; there is {', '.join(known)}.{hint}"
    for resource in RESOURCES:
        asked, (most, where) = getattr(demand.request, resource), most_of[resource]
        if asked > most:
            sentence = f"{bare(resource, asked)} is more than any site has; "
            return resource, sentence + f"the largest node has {bare(resource, most)} ({where})."
    if demand.nodes > most_of["nodes"][0]:
        most, where = most_of["nodes"]
        return "nodes", f"{demand.nodes} nodes are more than any site has; the most are {most} ({where})."
    sizes = [found for found in obstacles if found.field in (*RESOURCES, "nodes")]
    sentence = f"No site has all of it together: {clauses(found.clause for found in obstacles)}."
    return (sizes or obstacles)[0].field, sentence


def clauses(parts: Iterable[str], most: int = 3) -> str:
    """Clauses joined for a sentence; after the first `most` only their number."""
    listed = list(dict.fromkeys(parts))
    rest = len(listed) - most
    return "; ".join(listed[:most]) + (f"; and {rest} more" if rest > 0 else "")


def _written(term: ConstraintTerm) -> str:
    if not term.values:
        return f"labelled {term.label}"
    return f"{term.label}{'!=' if term.negated else '='}{','.join(sorted(term.values))}"


# ---- what has room now


def pools_of(states: Iterable[SiteState]) -> tuple[Pool, ...]:
    """All pools of the sites that have reported, in a stable order."""
    return tuple(
        Pool(state.site.name, flavor, is_remote(state.site), rank)
        for state in sorted(states, key=lambda state: state.site.name)
        for rank, flavor in enumerate(state.site.report.flavors if state.site.report else ())
    )


def is_open(state: SiteState) -> bool:
    """Whether a site takes new attempts: it answers, and is not drained."""
    return state.site.health is Health.OK and not state.drained and state.site.report is not None
