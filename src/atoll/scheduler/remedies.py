"""What would help a waiting job: which one thing, if it were otherwise, would let it start sooner, and when.

The simulation that makes estimates is asked again with one thing changed: a shorter walltime, remote sites or another
flavor allowed, more quota; fewer GPUs or nodes only where no site could ever run the job as it is. `control` asks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

import numpy as np

from atoll.core.project import Limit
from atoll.core.resources import Resources, format_seconds
from atoll.scheduler.fit import amount, bare, flavor_obstacle, impossible, is_open, largest, placement_obstacle
from atoll.scheduler.model import OPPORTUNISTIC, JobWaits, Waiting
from atoll.scheduler.quota import Tree
from atoll.scheduler.snapshot import Snapshot

_LEAST = 60 * 1_000_000
"""Microseconds by which a job would have to start sooner for a remedy to be worth telling."""
_PART = 10
"""And a part of its wait, one in so many."""
_MOST_FLAVORS = 2
"""So many further flavors are tried, and quotas of so many."""
_SHORTEST = 8
"""Where nobody knows how long a job runs, walltimes are tried down to one part in so many."""
_WALLTIMES = (300, 600, 900, 1800, 3600, 7200, 14_400, 28_800, 43_200, 86_400, 172_800, 259_200)
"""Round walltimes, in seconds, that people would say."""


class Help(StrEnum):
    """What a remedy changes."""

    WALLTIME = "walltime"
    OFFLOAD = "offload"
    FLAVOR = "flavor"
    QUOTA = "quota"
    SIZE = "size"


@dataclass(frozen=True, slots=True)
class Remedy:
    """One thing that would let a job start sooner."""

    kind: Help
    sentence: str
    """What to do, for people."""
    start: int
    """When the job would then probably start, in microseconds."""


@dataclass(frozen=True, slots=True)
class Trial:
    """One thing changed: what the job asks for, or the quotas."""

    kind: Help
    sentence: str
    waiting: Waiting | None = None
    tree: Tree | None = None


Likely = Callable[[Snapshot, int, Tree | None], int | None]
"""When a job (its id) will probably start in a snapshot, under its tree or another; None where nobody can say."""


def remedies(snapshot: Snapshot, job_id: int, now: int, likely: Likely) -> Iterator[Remedy | None]:
    """What would help a job that waits, in no order, with one simulation at most between two steps.

    A None says only that: between two steps the snapshot may change, and others may have their turn. There is nothing
    for what is opportunistic, as it has no promise, for what others make room for already, and for what starts within a
    minute.
    """
    row = snapshot.row_of(job_id)
    if row is None or snapshot.rows["rank"][row] == OPPORTUNISTIC or snapshot.promise(job_id) is not None:
        return
    before = likely(snapshot, job_id, None)
    yield None
    if before is not None and before - now < _LEAST:
        return
    for find in (_offloads, _flavors, _walltimes, _quotas, _sizes):
        if (row := snapshot.row_of(job_id)) is None:
            return
        for trials in list(find(snapshot, row)):
            yield from _gentlest(snapshot, job_id, trials, before, now, likely)


def best_first(found: Sequence[Remedy]) -> list[Remedy]:
    """The earliest start first; of equal ones what the person can do alone."""
    return sorted(found, key=lambda remedy: (remedy.start, remedy.kind is Help.QUOTA))


def _gentlest(
    snapshot: Snapshot, job_id: int, trials: Sequence[Trial], before: int | None, now: int, likely: Likely
) -> Iterator[Remedy | None]:
    """If the last of trials, which ask for ever more, helps: the first that helps as much, by bisection."""
    best = _tried(snapshot, job_id, trials[-1], likely) if trials else None
    yield None
    if best is None or (before is not None and before - best < max(_LEAST, (before - now) // _PART)):
        return
    enough = best + max(_LEAST, (before - best) // _PART if before is not None else 0)
    low, high, start = 0, len(trials) - 1, best
    while low < high:
        middle = (low + high) // 2
        found = _tried(snapshot, job_id, trials[middle], likely)
        yield None
        if found is not None and found <= enough:
            high, start = middle, found
        else:
            low = middle + 1
    yield Remedy(trials[high].kind, trials[high].sentence, start)


def _tried(snapshot: Snapshot, job_id: int, trial: Trial, likely: Likely) -> int | None:
    """The start that is expected with a trial; the snapshot is afterwards as before."""
    if snapshot.row_of(job_id) is None:
        return None
    if trial.waiting is None:
        return likely(snapshot, job_id, trial.tree)
    before = snapshot.waiting(job_id)
    snapshot.apply([JobWaits(trial.waiting)])
    try:
        return likely(snapshot, job_id, None)
    finally:
        snapshot.apply([JobWaits(before)])


# ---- what the person can change


def _offloads(snapshot: Snapshot, row: int) -> Iterator[list[Trial]]:
    waiting = _waiting(snapshot, row)
    if waiting.placement.offload != "never" or not any(pool.remote for pool in snapshot.pools):
        return
    changed = replace(waiting, placement=replace(waiting.placement, offload="allowed"))
    yield [Trial(Help.OFFLOAD, "Let it go to remote sites, with offload: allowed.", changed)]


def _flavors(snapshot: Snapshot, row: int) -> Iterator[list[Trial]]:
    """Flavors that it does not allow, and that could run it; those of which there is most first."""
    waiting = _waiting(snapshot, row)
    if not waiting.flavors:
        return
    anywhere = replace(waiting.demand, flavors=())
    able: dict[str, int] = {}
    for pool in snapshot.pools:
        state, name = snapshot.sites[pool.site], pool.flavor.name
        if name in waiting.flavors or not is_open(state):
            continue
        if flavor_obstacle(anywhere, pool.flavor, pool.site) is None and (
            placement_obstacle(waiting.placement, waiting.nodes, state.site) is None
        ):
            able[name] = able.get(name, 0) + pool.flavor.nodes
    for name in sorted(able, key=lambda name: (-able[name], name))[:_MOST_FLAVORS]:
        changed = replace(waiting, flavors=(*waiting.flavors, name))
        yield [Trial(Help.FLAVOR, f"Allow the flavor {name} too.", changed)]


def _walltimes(snapshot: Snapshot, row: int) -> Iterator[list[Trial]]:
    """Shorter walltimes that cover what it is expected to run, the longest first; a few where nobody knows."""
    waiting = _waiting(snapshot, row)
    limit = snapshot.walltime(waiting.rank, waiting.placement.walltime)
    if limit is None:
        return
    usual = "" if waiting.placement.walltime is not None else "usual "
    least = waiting.expected or limit // _SHORTEST
    trials = []
    for seconds in reversed(_WALLTIMES):
        if least <= seconds < limit:
            sentence = (
                f"Give it a walltime of {_written(seconds)} instead of the {usual}{_written(limit)}, if that is enough."
            )
            changed = replace(waiting, placement=replace(waiting.placement, walltime=seconds))
            trials.append(Trial(Help.WALLTIME, sentence, changed))
    yield trials


def _sizes(snapshot: Snapshot, row: int) -> Iterator[list[Trial]]:
    """The most that some site has, where none could ever run it as it is."""
    waiting, sites = _waiting(snapshot, row), [state.site for state in snapshot.sites.values()]
    found = impossible(waiting.demand, sites)
    if found is None:
        return
    willing = [site for site in sites if placement_obstacle(waiting.placement, waiting.nodes, site) is None]
    name, most = found[0], largest(willing, waiting.flavors)
    if name not in most:
        return
    size = most[name][0]
    if name == "nodes":
        sentence = f"Ask for {size} nodes instead of {waiting.nodes}: no site has more of one flavor."
        yield [Trial(Help.SIZE, sentence, replace(waiting, nodes=size))]
    elif size < (asked := getattr(waiting.request, name)):
        sentence = f"Ask for {amount(name, size)} on each node instead of {bare(name, asked)}: no site has larger ones."
        yield [Trial(Help.SIZE, sentence, replace(waiting, request=replace(waiting.request, **{name: size})))]


# ---- what administrators can change


def _quotas(snapshot: Snapshot, row: int) -> Iterator[list[Trial]]:
    """More quota: so much as it lacks itself, then so much that those before it in the project have theirs too."""
    tree, quotas, project = snapshot.tree, snapshot.quotas, snapshot.bucket(row)[1]
    if tree is None or quotas is None or project not in tree:
        return
    openings = [
        pool for number in snapshot.preference(row) if is_open(snapshot.sites[(pool := snapshot.pools[number]).site])
    ]
    for flavor in list(dict.fromkeys(pool.flavor.name for pool in openings))[:_MOST_FLAVORS]:
        own, all_before = _total(snapshot, row), _before(snapshot, row, flavor)
        trials: dict[tuple[tuple[str, int], ...], Trial] = {}
        for wanted in (own, own + all_before):
            lacks = []
            for resource, column in tree.governed.get(flavor, ()):
                most = sum(getattr(pool.flavor.total, resource) for pool in openings if pool.flavor.name == flavor)
                left = quotas.available_at(tree.index[project], column)
                lacks.append((resource, min(getattr(wanted, resource), most) - max(0, left)))
            if short := tuple((resource, lack) for resource, lack in lacks if lack > 0):
                trials.setdefault(short, _more_quota(tree, project, flavor, short))
        yield list(trials.values())


def _more_quota(tree: Tree, project: str, flavor: str, lacks: Sequence[tuple[str, int]]) -> Trial:
    """The tree with so much more nominal quota of a project."""
    number = tree.index[project]
    limits = dict(tree.nodes[number].quotas)
    for resource, lack in lacks:
        known = limits.get((flavor, resource), Limit())
        limits[flavor, resource] = replace(known, nominal=known.nominal + lack)
    nodes = [*tree.nodes]
    nodes[number] = replace(nodes[number], quotas=limits)
    wanted = " and ".join(amount(resource, lack) for resource, lack in lacks)
    sentence = f"Ask an administrator for more quota: {wanted} of flavor {flavor} more for project {project}."
    return Trial(Help.QUOTA, sentence, tree=Tree(nodes))


def _before(snapshot: Snapshot, row: int, flavor: str) -> Resources:
    """What those before a row in its project, which could use a flavor, want in all."""
    project, queue = snapshot.bucket(row)[1], snapshot.queue()
    here = [number for number, pool in enumerate(snapshot.pools) if pool.flavor.name == flavor]
    ahead = queue[: int(np.flatnonzero(queue == row)[0])]
    able = np.asarray(snapshot.demands.possible[:, here].any(axis=1))[snapshot.rows["demand"][ahead]]
    wanted = Resources()
    for other in ahead[able].tolist():
        rank, owner, _ = snapshot.bucket(other)
        if owner == project and rank != OPPORTUNISTIC:
            wanted += _total(snapshot, other)
    return wanted


def _total(snapshot: Snapshot, row: int) -> Resources:
    """What a job wants, or one task of an array."""
    return snapshot.demands[int(snapshot.rows["demand"][row])].total


def _waiting(snapshot: Snapshot, row: int) -> Waiting:
    return snapshot.waiting(int(snapshot.rows["job"][row]))


def _written(seconds: int) -> str:
    """A walltime as people write it: `4h`."""
    words = format_seconds(seconds).split()
    return " ".join(word for word in words if word[:-1] != "0")
