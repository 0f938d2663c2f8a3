"""Who has to leave so that a waiting job with a claim can start: the fewest and cheapest, and no more than needed.

The rules (docs/queue.md has them as a table):

- Nobody within the nominal quota is evicted by another project.
- Whoever has a claim (a quota that allows it to start) evicts opportunistic attempts, at once.
- Whoever has a claim within the nominal quota evicts what others have borrowed of it: batch jobs at once, interactive
  jobs and services after a notice.
- Inside a project a better class evicts, and in the same class a strictly higher priority.

What is within the nominal quota is seen where the two projects' ways to the root meet: the side of the job that wants
to start must stay within its quota, and each node on the other's side must be beyond its own, as in Kueue's
hierarchical preemption. So two projects cannot evict each other in a loop: who evicts stays within, and who is within
is not evicted.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.model import OPPORTUNISTIC, RANKS, Demand, Eviction
from atoll.scheduler.quota import Quotas
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

_BATCH = RANKS[JobClass.BATCH]
_SECOND = 1_000_000
_SINGLES = 64
"""So many that could each be enough alone are tried at most."""
IDLE, _BORROWED, _OWN, _TOLD = range(4)
"""As what an attempt is evicted: opportunistic; a borrower's batch; of the same project; a borrower's, told first."""

_COLUMNS = (
    "started", "placed", "saved", "rank", "priority", "evictions", "leaving", "leaves_for", "waits", "owner", "grace",
    "cpu", "memory", "gpu", "nodes",
)  # fmt: skip

Places = NDArray[np.intp]
_Key = tuple[int, int, str, int, frozenset[str]]


@dataclass(frozen=True, slots=True)
class Claim:
    """A waiting job that may evict others, and where it would start."""

    job_id: int
    rank: int
    project: str
    priority: int
    pool: int
    flavor: str
    total: Resources
    demand: Demand


@dataclass(frozen=True, slots=True)
class Victim:
    """An attempt that is to be evicted."""

    kind: int
    lost: int
    """Work lost, in microseconds of the whole pool."""
    row: int
    project: str
    total: Resources
    here: bool
    """Whether it is in the pool where the job would start; if not, only its quota helps."""
    begun: bool
    """Whether it runs; one that waits in a site's own queue loses nothing."""
    late: int
    """Microseconds until it is gone at the latest."""


@dataclass(frozen=True, slots=True)
class Evictable:
    """Attempts of one pool that may be evicted, as columns."""

    places: Places
    """Among all that may be evicted there."""
    rows: NDArray[np.intp]
    """Of the snapshot's `holding`."""
    kinds: NDArray[np.int8]
    lost: NDArray[np.int64]
    """As in `Victim`."""
    begun: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, which: NDArray[np.bool_]) -> "Evictable":
        """Those of them that a mask names."""
        return Evictable(
            self.places[which], self.rows[which], self.kinds[which], self.lost[which], self.begun[which]
        )  # fmt: skip


class Space(Protocol):
    """Where a claim would start: what is free there, and what more if victims leave."""

    def change(self, victim: Victim, sign: int) -> None:
        """Count one as gone, or with sign -1 as there again."""

    def enough(self) -> bool:
        """Whether the claim has room."""

    def useful(self, victim: Victim) -> list[str]:
        """The resources that are lacking and that a victim has of them, where they are."""


class PoolSpace:
    """What is free in a pool, and what a claim wants of it."""

    def __init__(self, free: Resources, wanted: Resources) -> None:
        self._free: list[int] = [getattr(free, name) for name in RESOURCES]
        self._wanted: list[int] = [getattr(wanted, name) for name in RESOURCES]

    def change(self, victim: Victim, sign: int) -> None:
        """Count one as gone, or with sign -1 as there again."""
        if victim.here:
            for column, name in enumerate(RESOURCES):
                self._free[column] += sign * getattr(victim.total, name)

    def lack(self, column: int) -> int:
        """How much of a resource is lacking."""
        return self._wanted[column] - self._free[column]

    def lacking(self) -> list[int]:
        """The columns of RESOURCES of which there is not enough room."""
        return [column for column in range(len(RESOURCES)) if self._wanted[column] and self.lack(column) > 0]

    def enough(self) -> bool:
        """Whether the claim has room."""
        return not self.lacking()

    def useful(self, victim: Victim) -> list[str]:
        """The resources that are lacking and that a victim has here."""
        lacking = [RESOURCES[column] for column in self.lacking()] if victim.here else []
        return [name for name in lacking if getattr(victim.total, name)]


class Evictions:
    """Chooses victims in one cycle; each attempt at most once."""

    def __init__(self, snapshot: Snapshot, quotas: Quotas | None, now: int) -> None:
        """`quotas` are the cycle's own; they are changed only while a choice is tried."""
        self.snapshot = snapshot
        self.chosen: list[Eviction] = []
        self.next_ready = ENDLESS
        """When, in microseconds, the next that is spared because it began of late may be evicted."""
        self._quotas = quotas
        self._standing = _standing(snapshot)
        """What those use who hold room and stay: by that it is judged who has borrowed."""
        self._now = now
        self._pools: dict[int, _Attempts] = {}
        self._known_names: _Names | None = None
        self._evictable: dict[_Key, Evictable] = {}

    def free_for(self, claim: Claim, free: Resources) -> list[Victim] | None:
        """The victims for which a claim could start where `free` is left now; None where they are not enough."""
        space = PoolSpace(free, claim.total)
        trial = _Trial(self._quotas, self._standing, claim, space)
        try:
            kinds = self._choose(trial, space, claim)
            if not trial.enough():
                return None
            lack = np.array([getattr(claim.total, name) - getattr(free, name) for name in RESOURCES], np.int64)
            return trial.best(self._singles(claim, lack, kinds))
        finally:
            trial.undo()

    def free_near(self, claim: Claim, space: Space, near: Sequence[Victim]) -> list[Victim] | None:
        """The same where only those who are `near` give room, the first to go first; of others only the quota helps."""
        trial = _Trial(self._quotas, self._standing, claim, space)
        try:
            for victim in self._near_and_far(claim, near):
                if trial.enough():
                    break
                if trial.helps(victim):
                    trial.leave(victim)
            if not trial.enough():
                return None
            most = max((victim.kind for victim in trial.left), default=IDLE)
            return trial.best(victim for victim in near if victim.kind <= most)
        finally:
            trial.undo()

    def idle_for(self, claim: Claim, free: Resources) -> list[Victim] | None:
        """As `free_for` among opportunistic attempts only, for a job that has its quota for certain."""
        space = PoolSpace(free, claim.total)
        trial = _Trial(None, None, claim, space)
        for begun in (False, True):
            self._take_idle(trial, space, claim.pool, begun)
        return trial.needed() if trial.enough() else None

    def idle_near(self, claim: Claim, space: Space, near: Sequence[Victim]) -> list[Victim] | None:
        """As `free_near`, likewise."""
        trial = _Trial(None, None, claim, space)
        for victim in near:
            if victim.kind == IDLE and not trial.enough() and trial.helps(victim):
                trial.leave(victim)
        return trial.needed() if trial.enough() else None

    def evict(self, claim: Claim, victims: Sequence[Victim]) -> None:
        """Write down that they are to leave."""
        for victim in victims:
            for attempts in self._pools.values():
                attempts.forget(victim.row)
            if self._standing is not None and victim.kind != IDLE:
                self._standing.add(victim.project, claim.flavor, victim.total, -1)
            told = self._now + self.snapshot.policy.notice * _SECOND if victim.kind == _TOLD and victim.begun else 0
            self.chosen.append(Eviction(self.snapshot.attempt(victim.row), claim.job_id, told))

    # ---- how many

    def lacks_quota(self, claim: Claim) -> bool:
        """Whether a claim could start only if others used less of the quotas."""
        return self._quotas is not None and not self._quotas.fits(claim.project, claim.flavor, claim.total)

    def _choose(self, trial: "_Trial", space: PoolSpace, claim: Claim) -> int:
        """Have as many leave as are needed, those that lose least first; up to which kind that went."""
        pools = self._pools_of(claim)
        borrowers = self._borrowers(claim)
        kind = IDLE
        for begun in (False, True):
            for kind in (IDLE, _BORROWED, _OWN, _TOLD):
                if trial.enough():
                    return kind
                if kind == IDLE:
                    self._take_idle(trial, space, claim.pool, begun)
                    continue
                for victim in self._victims(pools, claim, borrowers, kind, begun=begun):
                    if trial.enough():
                        return kind
                    if trial.helps(victim):
                        trial.leave(victim)
        return kind

    def _take_idle(self, trial: "_Trial", space: PoolSpace, pool: int, begun: bool) -> None:
        """Have opportunistic attempts leave until there is room, as far as they help."""
        lacking = space.lacking()
        if not lacking:
            return
        attempts = self._attempts(pool)
        places = attempts.idle(begun)
        amounts = attempts.totals[places][:, lacking]
        helps = (amounts > 0).any(axis=1)
        places, amounts = places[helps], amounts[helps]
        sums = np.cumsum(amounts, axis=0)
        wanted = np.array([space.lack(column) for column in lacking], np.int64)
        last = max(int(np.searchsorted(sums[:, column], amount)) for column, amount in enumerate(wanted.tolist()))
        for place in places[: last + 1].tolist():
            trial.leave(attempts.victim(place, IDLE, here=True))

    def _singles(self, claim: Claim, lack: NDArray[np.int64], most: int) -> Iterator[Victim]:
        """Those who have as much as lacks alone, of the kinds up to `most`, the first to go first."""
        attempts, borrowers = self._attempts(claim.pool), self._borrowers(claim)
        for begun in (False, True):
            for kind in range(most + 1):
                places = self._places(attempts, claim, borrowers, kind, begun)
                for place in places[(attempts.totals[places] >= lack).all(axis=1)][:_SINGLES].tolist():
                    yield attempts.victim(place, kind, here=True)

    def _near_and_far(self, claim: Claim, near: Sequence[Victim]) -> Iterator[Victim]:
        """Those who are near, and after them others of the same kind, where quota lacks."""
        rows = {victim.row for victim in near}
        lacks, borrowers = self.lacks_quota(claim), self._borrowers(claim)
        for begun in (False, True):
            for kind in (IDLE, _BORROWED, _OWN, _TOLD):
                yield from (victim for victim in near if victim.begun == begun and victim.kind == kind)
                if lacks and kind != IDLE:
                    others = self._victims(self._pools_of(claim), claim, borrowers, kind, begun=begun)
                    yield from (victim for victim in others if victim.row not in rows)

    # ---- who

    def _pools_of(self, claim: Claim) -> list[int]:
        """Where claims may find victims: where the job would start, and then where its flavor is too."""
        if self._quotas is None:
            return [claim.pool]
        same = [number for number, pool in enumerate(self.snapshot.pools) if pool.flavor.name == claim.flavor]
        return [claim.pool, *(number for number in same if number != claim.pool)]

    @property
    def _names(self) -> "_Names":
        if self._known_names is None:
            self._known_names = _Names.of(self.snapshot.owners)
        return self._known_names

    def _attempts(self, pool: int) -> "_Attempts":
        if pool not in self._pools:
            self._pools[pool] = made = _Attempts(self.snapshot, self._names, pool, self._now)
            self.next_ready = min(self.next_ready, made.next_ready)
        return self._pools[pool]

    def _victims(
        self, pools: Sequence[int], claim: Claim, borrowers: frozenset[str], kind: int, *, begun: bool
    ) -> Iterator[Victim]:
        for pool in pools:
            attempts = self._attempts(pool)
            for place in self._places(attempts, claim, borrowers, kind, begun).tolist():
                yield attempts.victim(place, kind, here=pool == claim.pool)

    def _places(
        self,
        attempts: "_Attempts",
        claim: Claim,
        borrowers: frozenset[str],
        kind: int,
        begun: bool,
        *,
        alive: bool = True,
    ) -> Places:
        """The attempts of a kind that may go, the cheapest first; without `alive` those too who were chosen."""
        if kind == IDLE:
            return attempts.idle(begun, alive=alive)
        if kind == _OWN:
            mine = attempts.of_project(claim.project)
            ranks, priorities = attempts.ranks[mine], attempts.priorities[mine]
            below = (ranks > claim.rank) | ((ranks == claim.rank) & (priorities < claim.priority))
            return attempts.in_order(mine[below], begun, alive=alive)
        found = [attempts.of_project(project) for project in sorted(borrowers)]
        others = np.concatenate(found) if found else np.zeros(0, np.intp)
        return attempts.in_order(others[(attempts.ranks[others] >= _BATCH) == (kind == _BORROWED)], begun, alive=alive)

    def evictable(self, claim: Claim) -> Evictable:
        """All who might be evicted for a claim in the pool where it would start; see `still_there`."""
        borrowers = self._borrowers(claim)
        key = (claim.pool, claim.rank, claim.project, claim.priority, borrowers)
        if key not in self._evictable:
            attempts = self._attempts(claim.pool)
            found = [
                (kind, self._places(attempts, claim, borrowers, kind, begun, alive=False))
                for kind in (IDLE, _BORROWED, _OWN, _TOLD)
                for begun in (False, True)
            ]
            self._evictable[key] = attempts.evictable(found)
        return self._evictable[key]

    def still_there(self, claim: Claim, evictable: Evictable) -> Evictable:
        """Those who were not chosen yet."""
        return evictable.only(self._attempts(claim.pool).are_left(evictable.places))

    def victims(self, claim: Claim, evictable: Evictable) -> list[Victim]:
        """The same one by one, the first to go first."""
        attempts = self._attempts(claim.pool)
        each = zip(evictable.places.tolist(), evictable.kinds.tolist(), strict=True)
        found = [attempts.victim(place, kind, here=True) for place, kind in each]
        found.sort(key=lambda victim: self.snapshot.attempt(victim.row), reverse=True)  # of equal ones the younger
        return sorted(found, key=lambda victim: (victim.begun, victim.kind, victim.lost))

    def _borrowers(self, claim: Claim) -> frozenset[str]:
        """The projects that may have borrowed what is the claim's by nominal quota, see `_Trial.helps`."""
        quotas, standing = self._quotas, self._standing
        if quotas is None or standing is None or claim.project not in quotas.tree:
            return frozenset()
        columns = [column for name, column in quotas.tree.governed.get(claim.flavor, ()) if getattr(claim.total, name)]
        over: NDArray[np.bool_] = np.any(standing.usage[:, columns] > quotas.subtree[:, columns], axis=1)
        quotas.add(claim.project, claim.flavor, claim.total)
        within: NDArray[np.bool_] = np.all(quotas.usage[:, columns] <= quotas.subtree[:, columns], axis=1)
        quotas.add(claim.project, claim.flavor, claim.total, -1)
        tree = quotas.tree
        found: set[str] = set()
        own = tree.index[claim.project]
        while own:
            if within[own]:
                found |= {tree.nodes[leaf].name for leaf in _leaves_over(quotas, tree.parents[own], own, over)}
            own = tree.parents[own]
        return frozenset(found)


@dataclass(frozen=True, slots=True)
class _Names:
    """Numbers for the projects of those who hold room."""

    names: list[str]
    number: dict[str, int]
    of_owner: NDArray[np.intp]
    """The project's number for each of the snapshot's `owners`."""

    @classmethod
    def of(cls, owners: Sequence[tuple[str, str]]) -> "_Names":
        """From the projects and persons that the snapshot knows."""
        number: dict[str, int] = {}
        of_owner = [number.setdefault(project, len(number)) for project, _ in owners]
        return cls(list(number), number, np.array(of_owner, np.intp))


class _Attempts:
    """What may be evicted from one pool, in columns, the cheapest first."""

    def __init__(self, snapshot: Snapshot, names: "_Names", pool: int, now: int) -> None:
        policy = snapshot.policy
        here = snapshot.holders_of(pool)
        rows = {name: snapshot.holding[name][here] for name in _COLUMNS}  # quicker than whole rows
        begun = np.where(rows["started"] > 0, rows["started"], np.where(rows["placed"] > 0, rows["placed"], now))
        ready = begun + np.array(policy.minimum_run, np.int64)[rows["rank"]] * _SECOND
        often = (rows["evictions"] >= policy.most_evictions) & (rows["rank"] != OPPORTUNISTIC)
        stays = ~rows["leaving"] & (rows["leaves_for"] < 0)
        young = stays & ~often & ~rows["waits"] & (ready > now)
        self.next_ready = int(ready[young].min(initial=ENDLESS))
        may = np.flatnonzero(stays & (rows["waits"] | ~(often | (ready > now))))
        here, begun = here[may], begun[may]
        rows = {name: column[may] for name, column in rows.items()}
        totals = np.stack([rows[name] * rows["nodes"] for name in RESOURCES], axis=1).astype(np.int64)
        lost = np.where(rows["waits"], 0, now - np.maximum(begun, rows["saved"]))
        cost = _costs(snapshot.pools[pool].flavor.total, totals, lost)
        order = np.lexsort((-here, cost))
        self.rows, self.totals, self.cost = here[order], totals[order], cost[order]
        self.ranks, self.priorities = rows["rank"][order], rows["priority"][order]
        self.begun: NDArray[np.bool_] = ~rows["waits"][order]
        self._notice, self._graces = policy.notice, rows["grace"][order]
        self._alive = np.ones(len(order), np.bool_)
        self._names = names
        self._projects = names.of_owner[rows["owner"][order]]

    @cached_property
    def _by_project(self) -> tuple[Places, NDArray[np.intp]]:
        """The places sorted by project, and the number of each one's project."""
        order = np.argsort(self._projects, kind="stable")
        return order, self._projects[order]

    def forget(self, row: int) -> None:
        """An attempt is chosen, if it is here."""
        self._alive[self.rows == row] = False

    def are_left(self, places: Places) -> NDArray[np.bool_]:
        """Which of some attempts were not chosen yet."""
        return self._alive[places]

    def idle(self, begun: bool, *, alive: bool = True) -> Places:
        """The opportunistic ones."""
        found = np.flatnonzero(self.ranks == OPPORTUNISTIC)
        return self.in_order(found, begun, alive=alive)

    def of_project(self, project: str) -> Places:
        """Those of a project with a claim of their own, the cheapest first."""
        number = self._names.number.get(project)
        if number is None:
            return np.zeros(0, np.intp)
        by_project, projects = self._by_project
        begin, end = np.searchsorted(projects, (number, number + 1)).tolist()
        places = by_project[begin:end]
        found: Places = places[self.ranks[places] != OPPORTUNISTIC]
        return found

    def in_order(self, places: Places, begun: bool, *, alive: bool = True) -> Places:
        """Of some attempts those that are left (without `alive` the others too), the cheapest first."""
        which = self.begun[places] == begun
        return np.sort(places[which & self._alive[places]] if alive else places[which])

    def evictable(self, found: Sequence[tuple[int, Places]]) -> Evictable:
        """The attempts at some places, each with their kind."""
        places = np.concatenate([places for _, places in found])
        kinds = np.repeat(np.array([kind for kind, _ in found], np.int8), [len(places) for _, places in found])
        return Evictable(places, self.rows[places], kinds, self.cost[places], self.begun[places])

    def victim(self, place: int, kind: int, *, here: bool) -> Victim:
        """One of them."""
        begun = bool(self.begun[place])
        late = int(self._graces[place]) + (self._notice if kind == _TOLD and begun else 0)
        return Victim(
            kind, int(self.cost[place]), int(self.rows[place]), self._names.names[self._projects[place]],
            Resources(*self.totals[place].tolist()), here, begun, late * _SECOND,
        )  # fmt: skip


def _standing(snapshot: Snapshot) -> Quotas | None:
    """What is used without those who leave, or were told to."""
    if snapshot.quotas is None:
        return None
    quotas, holding = snapshot.quotas.copy(), snapshot.holding
    leaves = holding["leaving"] | (holding["leaves_for"] >= 0)
    for row in np.flatnonzero(leaves & (holding["rank"] != OPPORTUNISTIC) & (holding["nodes"] > 0)).tolist():
        running = snapshot.running(snapshot.attempt(row))
        quotas.add(running.project, running.flavor, running.request * running.nodes, -1)
    return quotas


def _costs(whole: Resources, totals: NDArray[np.int64], lost: NDArray[np.int64]) -> NDArray[np.int64]:
    """The work that is lost with each, in microseconds of the whole pool: by the largest share that it has of it."""
    sizes = np.array([getattr(whole, name) for name in RESOURCES], np.float64)
    shares = np.max(totals / np.where(sizes > 0, sizes, np.inf), axis=1, initial=0.0)
    costs: NDArray[np.int64] = (lost * shares).astype(np.int64)
    return costs


class _Trial:
    """What would be if some left. The quotas, and what stays, are changed meanwhile, until `undo`."""

    def __init__(self, quotas: Quotas | None, standing: Quotas | None, claim: Claim, space: Space) -> None:
        self.left: list[Victim] = []
        """Who left."""
        self._quotas = quotas
        self._standing = standing
        self._claim = claim
        self._space = space

    def leave(self, victim: Victim) -> None:
        self._change(victim, 1)
        self.left.append(victim)

    def undo(self) -> None:
        for victim in self.left:
            self._change(victim, -1)
        self.left = []

    def _change(self, victim: Victim, sign: int) -> None:
        self._space.change(victim, sign)
        if self._quotas is not None and victim.kind != IDLE:
            self._quotas.add(victim.project, self._claim.flavor, victim.total, -sign)
        if self._standing is not None and victim.kind != IDLE:
            self._standing.add(victim.project, self._claim.flavor, victim.total, -sign)

    def _lacks_quota(self) -> list[str]:
        """The resources of which there is not enough quota."""
        quotas, claim = self._quotas, self._claim
        if quotas is None:
            return []
        number = quotas.tree.index.get(claim.project)
        return [
            name
            for name, column in quotas.tree.governed.get(claim.flavor, ())
            if (wanted := getattr(claim.total, name))
            and (number is None or wanted > quotas.available_at(number, column))
        ]

    def enough(self) -> bool:
        """Whether the claim can start."""
        return self._space.enough() and not self._lacks_quota()

    def helps(self, victim: Victim) -> bool:
        """Whether a victim has what is still lacking, and, of another project, has borrowed it."""
        quota = self._lacks_quota() if victim.kind != IDLE else []
        needed = [*self._space.useful(victim), *(name for name in quota if getattr(victim.total, name))]
        if not needed:
            return False
        return victim.kind in (IDLE, _OWN) or self._has_borrowed(victim, needed)

    def _has_borrowed(self, victim: Victim, needed: Sequence[str]) -> bool:
        """Whether all on a victim's side of where it meets the claim's are beyond their quota in what is needed.

        Where no quota governs what is needed, in anything that both use.
        """
        quotas, claim = self._standing, self._claim
        assert quotas is not None
        tree = quotas.tree
        governed = [
            (name, column)
            for name, column in tree.governed.get(claim.flavor, ())
            if getattr(claim.total, name) and getattr(victim.total, name)
        ]
        columns = [column for name, column in governed if name in needed] or [column for _, column in governed]
        mine = set(tree.path(claim.project))
        for name in tree.path(victim.project):
            if name in mine:
                return True
            number = tree.index[name]
            if not any(quotas.usage.item(number, column) > quotas.subtree.item(number, column) for column in columns):
                return False
        return True

    def best(self, singles: Iterable[Victim]) -> list[Victim]:
        """Who has to leave of those who left; the first of some others of whom one alone is enough, for several."""
        several = self.left
        if len(several) > 1:
            self.undo()
            for single in singles:
                if self._is_enough(single):
                    return [single]
            for victim in several:
                self.leave(victim)
        return self.needed()

    def _is_enough(self, victim: Victim) -> bool:
        if not self.helps(victim):
            return False
        self.leave(victim)
        found = self.enough()
        self.undo()
        return found

    def needed(self) -> list[Victim]:
        """Who has to leave when those are spared, the dearest first, without whom it is enough too."""
        for victim in sorted(self.left, key=lambda each: (each.kind, each.lost), reverse=True):
            self._change(victim, -1)
            if self.enough():
                self.left.remove(victim)
            else:
                self._change(victim, 1)
        return list(self.left)


def _leaves_over(quotas: Quotas, above: int, without: int, over: NDArray[np.bool_]) -> Iterator[int]:
    """The leaves below a node, but not below one of its children, to which everything on the way is over."""
    tree = quotas.tree
    stack = [child for child in tree.children(above) if child != without and over[child]]
    while stack:
        number = stack.pop()
        if tree.leaves[number]:
            yield number
        stack += [child for child in tree.children(number) if over[child]]
