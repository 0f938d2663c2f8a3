"""Short ways to write down sites and jobs, and to carry decisions out as control does."""

import itertools
from dataclasses import replace
from typing import Any

from atoll.core.ranges import Ranges
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, Health, Node, Site, SiteReport
from atoll.core.site_file import Identity
from atoll.core.spec import JobClass
from atoll.scheduler.model import (
    Change,
    Decisions,
    JobGone,
    JobWaits,
    Promise,
    Reserved,
    RoomTaken,
    Running,
    SiteChanged,
    SiteState,
    Waiting,
)
from atoll.scheduler.snapshot import Snapshot

GIB = 2**30
_numbers = itertools.count()


def flavor(name: str = "cpu", cpu: int = 2, memory: int = 4, gpu: int = 0, nodes: int = 1) -> Flavor:
    """`nodes` equal nodes of `cpu` CPUs, `memory` GiB and `gpu` GPUs each."""
    node = Resources(cpu * 1000, memory * GIB, gpu * 1000)
    return Flavor(name, node * nodes, node, nodes)


def site(
    name: str = "local",
    *flavors: Flavor,
    abilities: frozenset[Ability] = frozenset(),
    health: Health = Health.OK,
    drained: bool = False,
    backlog: dict[JobClass, int] | None = None,
    identity: Identity | None = None,
    labels: dict[str, str] | None = None,
    message: str = "",
    **report: Any,
) -> SiteState:
    """A site that has reported."""
    reported = SiteReport(flavors or (flavor(),), abilities, **report)
    made = Site(name, "fake", labels or {}, reported, health, message=message, identity=identity, backlog=backlog or {})
    return SiteState(made, drained=drained)


def owned(name: str = "own", *nodes: Node, **rest: Any) -> SiteState:
    """A site whose nodes Atoll chooses."""
    flavors = []
    for kind in dict.fromkeys(node.flavor for node in nodes):
        sizes = [node.resources for node in nodes if node.flavor == kind]
        columns = [[getattr(size, resource) for size in sizes] for resource in ("cpu", "memory", "gpu")]
        flavors.append(Flavor(kind, Resources(*map(sum, columns)), Resources(*map(max, columns)), len(sizes)))
    return site(name, *flavors, nodes=nodes, **rest)


def node(name: str, cpu: int = 8, memory: int = 64, gpu: int = 0, kind: str = "cpu") -> Node:
    """A node of `cpu` CPUs, `memory` GiB and `gpu` GPUs."""
    return Node(name, kind, Resources(cpu * 1000, memory * GIB, gpu * 1000))


def silent(name: str = "new") -> SiteState:
    """A site that nobody has heard of yet."""
    return SiteState(Site(name, "fake"))


def job(job_id: int = 1, *, cpu: float = 1, memory: float = 1, gpu: float = 0, **rest: Any) -> Waiting:
    """A batch job that asks for so many CPUs, GiB and GPUs; the id is its age."""
    request = Resources(round(cpu * 1000), round(memory * GIB), round(gpu * 1000))
    rest = {"rank": 2, "priority": 0, "submitted": job_id} | rest
    return Waiting(job_id, request=request, **rest)


def tasks(count: int) -> Ranges:
    """The tasks 0 to count - 1."""
    return Ranges((range(count),)) if count else Ranges()


def snapshot_of(*things: Waiting | SiteState | Running) -> Snapshot:
    """A snapshot that holds these."""
    changes: list[Change] = []
    for thing in things:
        match thing:
            case Waiting():
                changes.append(JobWaits(thing))
            case SiteState():
                changes.append(SiteChanged(thing))
            case Running():
                changes.append(RoomTaken(thing))
    return Snapshot.from_changes(changes)


def carried_out(snapshot: Snapshot, decisions: Decisions, now: int = 0) -> list[Change]:
    """The changes that follow when control carries decisions out; with a time, what is placed begins at once."""
    changes: list[Change] = []
    left: dict[int, Waiting] = {}
    for place in decisions.placements:
        waiting = left.get(place.job_id) or snapshot.waiting(place.job_id)
        started: list[int | None] = [None] if place.tasks is None else list(place.tasks)
        for number, task in enumerate(started):
            attempt = f"~{next(_numbers):09}-{place.job_id}[{task}]"  # behind all that were placed before
            holder = place.job_id if waiting.group is None else waiting.group
            running = Running(
                attempt, holder, place.site, place.flavor, waiting.request, waiting.nodes, waiting.rank,
                waits=not now, priority=waiting.priority, project=waiting.project, person=waiting.placement.person,
                placed=now, started=now, walltime=waiting.placement.walltime, expected=waiting.expected,
                grace=waiting.placement.grace, spots=place.spots[number] if place.spots else (),
            )  # fmt: skip
            changes.append(RoomTaken(running))
        rest = waiting.tasks.without(place.tasks) if waiting.tasks and place.tasks else Ranges()
        if rest.parts:
            left[place.job_id] = replaced(waiting, tasks=rest, promise=_less(waiting.promise, len(started)))
            changes.append(JobWaits(left[place.job_id]))
        else:
            left.pop(place.job_id, None)
            changes.append(JobGone(place.job_id))
    changes += [RoomTaken(replace(snapshot.running(attempt), leaving=True)) for attempt in decisions.recalls]
    for eviction in decisions.evictions:
        victim = snapshot.running(eviction.attempt_id)
        leaving = replace(victim, leaving=not eviction.at, leaves_for=eviction.for_job, notice=eviction.at)
        changes.append(RoomTaken(leaving))
    for attempt in decisions.reprieved:
        changes.append(RoomTaken(replace(snapshot.running(attempt), leaves_for=None, notice=0)))
    for job_id, promise in decisions.promises:
        waiting = left.get(job_id) or snapshot.waiting(job_id)
        changes.append(JobWaits(replaced(waiting, promise=promise)))
    changes.append(Reserved(decisions.reservations))
    return changes


def _less(promise: Promise | None, count: int) -> Promise | None:
    """What is left of a promise when some tasks have started."""
    if promise is None or promise.count <= count:
        return None
    return replace(promise, count=promise.count - count)


def replaced(waiting: Waiting, **changes: Any) -> Waiting:
    """A copy of a waiting job with something changed."""
    return replace(waiting, **changes)


def started(decisions: Decisions) -> list[tuple[int, str]]:
    """The (job, site) of each placement."""
    return [(place.job_id, place.site) for place in decisions.placements]


def sentences(decisions: Decisions) -> dict[int, str]:
    """What was told, by job."""
    return {job_id: reason.sentence for job_id, reason in decisions.reasons}
