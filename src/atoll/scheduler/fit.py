"""Whether and where a demand fits: what can never be (`obstacle`, `impossible`), what has room now (`Room`).

A *pool* is one flavor at one site; its nodes' room is counted together, as the engine does the placing on
them.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from atoll.core.reasons import Reason, ReasonCode
from atoll.core.resources import Resources, format_bytes, format_milli, format_seconds
from atoll.core.site import Ability, Flavor, Health, Site
from atoll.core.spec import ConstraintTerm, suggestion
from atoll.scheduler.line import Line, right_of
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
RESOURCES = ("cpu", "memory", "gpu")
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
    nearest = largest(willing, demand.flavors)
    if not nearest:
        known = sorted({flavor.name for site in sites if site.report for flavor in site.report.flavors})
        hint = suggestion(demand.flavors[0], known) if demand.flavors else ""
        wanted = " or ".join(demand.flavors)
        return "flavor", f"No site has the flavor {wanted}; there is {', '.join(known)}.{hint}"
    for resource in RESOURCES:
        asked, (most, where) = getattr(demand.request, resource), nearest[resource]
        if asked > most:
            sentence = f"{bare(resource, asked)} is more than any site has; "
            return resource, sentence + f"the largest node has {bare(resource, most)} ({where})."
    if demand.nodes > nearest["nodes"][0]:
        most, where = nearest["nodes"]
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


def preference(demand: Demand, pools: Sequence[Pool], possible: Iterable[bool]) -> tuple[int, ...]:
    """Numbers of the possible pools, the preferred first.

    The job's own order of flavors; local sites before remote ones; no GPU nodes for jobs without; names.
    """

    def key(number: int) -> tuple[int, bool, bool, str, int]:
        pool = pools[number]
        wish = demand.flavors.index(pool.flavor.name) if demand.flavors else 0
        wasteful = demand.request.gpu == 0 and pool.flavor.node.gpu > 0
        return wish, pool.remote, wasteful, pool.site, pool.rank

    return tuple(sorted((number for number, can in enumerate(possible) if can), key=key))


class Room:
    """What is free in each pool, counted down while a cycle places jobs. Closed pools take nothing."""

    def __init__(
        self, pools: Sequence[Pool], states: Mapping[str, SiteState], used: Mapping[tuple[str, str], Used]
    ) -> None:
        self.pools = pools
        self.states = states
        self.open = [is_open(states[pool.site]) for pool in pools]
        unused = Used()
        # from the sites themselves: the pools are not made anew each time that others' load changes
        others = {
            (name, flavor.name): flavor.others
            for name, state in states.items()
            for flavor in (state.site.report.flavors if state.site.report else ())
        }
        self.free = [
            pool.flavor.total
            - others.get((pool.site, pool.flavor.name), _NOTHING)
            - used.get((pool.site, pool.flavor.name), unused).resources
            for pool in pools
        ]
        taken = dict.fromkeys(states, 0)
        self.backlog = {name: [state.backlog(rank) for rank in range(len(CLASSES))] for name, state in states.items()}
        """How many more attempts of each rank may wait in each site's own queue."""
        for (site, _), use in used.items():
            if site in taken:
                taken[site] += use.attempts
                self.backlog[site] = [
                    left - waiting for left, waiting in zip(self.backlog[site], use.waiting, strict=True)
                ]
        self.slots = {name: _limit(state) - taken[name] for name, state in states.items()}
        """How many more attempts each site takes."""
        self.recalling = frozenset(number for number, pool in enumerate(pools) if _recalls(states[pool.site]))
        """The pools of whose queues attempts can be pulled back."""
        self._used = used
        self._free_at_first = list(self.free)
        self._lines: dict[int, Line] = {}
        self._closed: set[int] = set()

    def fitting(
        self, totals: NDArray[np.void], possible: NDArray[np.bool_], rank: int, priority: int
    ) -> NDArray[np.bool_]:
        """Which of many demands of a rank are taken somewhere now; both arrays have a row for each, see `Demands`.

        `priority` is the highest of the jobs that have them.
        """
        fits = np.zeros(len(totals), np.bool_)
        for number, free in self._with_room():
            if self.count_queued(number, 1, rank, priority):
                fits |= possible[:, number]
                continue
            fits |= (
                possible[:, number]
                & (totals["cpu"] <= free.cpu)
                & (totals["memory"] <= free.memory)
                & (totals["gpu"] <= free.gpu)
            )
        return fits

    def _with_room(self) -> Iterator[tuple[int, Resources]]:
        for number, pool in enumerate(self.pools):
            if self.open[number] and self.slots[pool.site] > 0:
                yield number, self.free[number]

    def count(self, number: int, total: Resources, most: int) -> int:
        """How many times, at most `most`, `total` fits into a pool now."""
        if not self.open[number]:
            return 0
        free = self.free[number]
        most = min(most, self.slots[self.pools[number].site])
        if total.cpu:
            most = min(most, free.cpu // total.cpu)
        if total.memory:
            most = min(most, free.memory // total.memory)
        if total.gpu:
            most = min(most, free.gpu // total.gpu)
        return max(0, most)

    def count_queued(self, number: int, most: int, rank: int, priority: int | None = None) -> int:
        """How many attempts of a rank, at most `most`, may be given to the queue of a pool's site.

        With a `priority` those places count too that others of the rank give up for it.
        """
        if not self.open[number] or number in self._closed:
            return 0
        site = self.pools[number].site
        places = self.backlog[site][rank]
        if priority is not None and (line := self._line(number)) is not None:
            right = right_of(rank, priority)
            if line.keeps_out(right):
                return 0
            places += line.places_for(right) if places < most else 0
        return max(0, min(most, self.slots[site], places))

    def take(self, number: int, total: Resources, times: int) -> None:
        """Count `total` down from a pool, `times` times."""
        self.free[number] -= total * times
        self.slots[self.pools[number].site] -= times

    def take_queued(self, number: int, total: Resources, times: int, rank: int, priority: int) -> None:
        """Count `total` down from a pool for attempts of a rank that go into its queue, where others make way."""
        self.take(number, total, times)
        self.backlog[self.pools[number].site][rank] -= times
        if (line := self._line(number)) is not None:
            line.make_way(right_of(rank, priority))

    def close(self, wanted: NDArray[np.bool_]) -> None:
        """Let nothing more into the queues of those pools (a column for each) for which others with more right wait.

        Only where it would be pulled back again as soon as one of the others comes into the queue.
        """
        self._closed |= self.recalling.intersection(np.flatnonzero(wanted).tolist())

    def recalls(self) -> tuple[str, ...]:
        """The attempts that are to be pulled back out of sites' queues."""
        lines = [self._line(number) for number in sorted(self.recalling) if self.open[number]]
        return tuple(sorted(attempt_id for line in lines if line is not None for attempt_id in line.recalled))

    def _line(self, number: int) -> Line | None:
        """What waits in the queue of a pool; None where nothing does, or nothing of it can be pulled back."""
        if (known := self._lines.get(number)) is not None:
            return known
        pool = self.pools[number]
        used = self._used.get((pool.site, pool.flavor.name))
        if used is None or not used.line or number not in self.recalling:
            return None
        line = self._lines[number] = Line(used.line.values(), self._free_at_first[number])
        return line


def is_open(state: SiteState) -> bool:
    """Whether a site takes new attempts: it answers, and is not drained."""
    return state.site.health is Health.OK and not state.drained and state.site.report is not None


def _recalls(state: SiteState) -> bool:
    return state.site.report is not None and state.site.report.recalls


def _limit(state: SiteState) -> int:
    limit = state.site.report.max_jobs if state.site.report else None
    return 2**62 if limit is None else limit
