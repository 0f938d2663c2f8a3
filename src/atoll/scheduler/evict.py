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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, Self

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
    """An attempt that may be evicted, in the order in which they are tried."""

    kind: int
    """0: opportunistic; 1: a borrower's batch job; 2: of the same project; 3: a borrower's, that is told first."""
    lost: int
    """Work lost in microseconds of its largest share of the pool; see `_cost`."""
    row: int
    project: str
    total: Resources
    here: bool
    """Whether it is in the pool where the job would start; if not, only its quota helps."""
    begun: bool
    """Whether it runs; one that waits in a site's own queue loses nothing."""


@dataclass(frozen=True, slots=True)
class Evictable:
    """Attempts of one pool that may be evicted, as columns: rows of `holding`, `Victim.kind`, work lost in time."""

    rows: NDArray[np.intp]
    kinds: NDArray[np.int8]
    lost: NDArray[np.int64]
    """Microseconds."""
    begun: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.rows)

    def only(self, which: NDArray[np.bool_]) -> "Evictable":
        """Those of them that a mask names."""
        return Evictable(self.rows[which], self.kinds[which], self.lost[which], self.begun[which])


class Space(Protocol):
    """Where a claim would start: what is free there, and what more if victims leave."""

    def after(self, victim: Victim) -> Self:
        """The same when one more has left."""

    def enough(self) -> bool:
        """Whether the claim has room."""

    def helps(self, victim: Victim) -> bool:
        """Whether a victim has something that is still lacking."""


@dataclass(frozen=True, slots=True)
class PoolSpace:
    """What is free in a pool, and what a claim wants of it."""

    free: Resources
    wanted: Resources

    def after(self, victim: Victim) -> "PoolSpace":
        """The same when one more has left."""
        return PoolSpace(self.free + victim.total, self.wanted) if victim.here else self

    def enough(self) -> bool:
        """Whether the claim has room."""
        return self.wanted.fits(self.free)

    def helps(self, victim: Victim) -> bool:
        """Whether a victim has something that is still lacking."""
        lacking = [name for name in RESOURCES if getattr(self.wanted, name) > getattr(self.free, name)]
        return victim.here and any(getattr(victim.total, name) for name in lacking)


class Evictions:
    """Chooses victims in one cycle; each attempt at most once."""

    def __init__(self, snapshot: Snapshot, quotas: Quotas | None, now: int) -> None:
        """`quotas` are the cycle's own; they are changed only while a choice is tried."""
        self.snapshot = snapshot
        self.chosen: list[Eviction] = []
        self.next_ready = ENDLESS
        """When, in microseconds, the next that is spared because it began of late may be evicted."""
        self._quotas = quotas
        self._now = now
        self._gone: set[int] = set()
        self._known: dict[_Key, list[Victim]] = {}
        self._columns: dict[_Key, Evictable] = {}

    def free_for(self, claim: Claim, free: Resources) -> list[Victim] | None:
        """The victims for which a claim could start where `free` is left now; None where they are not enough."""
        candidates = self.candidates(claim)
        most = free
        for victim in candidates:
            if victim.here:
                most += victim.total
        if not candidates or not claim.total.fits(most):
            return None
        return self.choose(claim, PoolSpace(free, claim.total), candidates)

    def choose(self, claim: Claim, space: Space, candidates: list[Victim]) -> list[Victim] | None:
        """Of candidates, the first to go first, those that are enough and needed; None where all are not enough."""
        chosen = self._enough(claim, space, candidates)
        return None if chosen is None else self._needed(claim, space, chosen)

    def evict(self, claim: Claim, victims: list[Victim]) -> None:
        """Write down that they are to leave."""
        rows = self.snapshot.holding
        for victim in victims:
            self._gone.add(victim.row)
            told = self._now + self.snapshot.policy.notice * _SECOND if victim.kind == 3 and victim.begun else 0
            if told and rows["notice"][victim.row]:
                told = int(rows["notice"][victim.row])
            self.chosen.append(Eviction(self.snapshot.attempt(victim.row), claim.job_id, told))

    # ---- who may be evicted

    def lacks_quota(self, claim: Claim) -> bool:
        """Whether a claim would start only if others used less of the quotas."""
        return self._quotas is not None and not self._quotas.fits(claim.project, claim.flavor, claim.total)

    def candidates(self, claim: Claim) -> list[Victim]:
        """All who may be evicted for a claim where it would start, the first to go first."""
        borrowers = self._borrowers(claim)
        key = self._key(claim, borrowers)
        if key not in self._known:
            self._known[key] = self._find(claim, borrowers)
        return [victim for victim in self._known[key] if victim.row not in self._gone]

    def _find(self, claim: Claim, borrowers: frozenset[str]) -> list[Victim]:
        found: list[Victim] = []
        for number, pool in enumerate(self.snapshot.pools):
            if number == claim.pool or (borrowers and pool.flavor.name == claim.flavor):
                found += self._find_in(number, claim, borrowers)
        found.sort(key=first_to_go)
        return found

    def _find_in(self, pool: int, claim: Claim, borrowers: frozenset[str]) -> list[Victim]:
        return self.victims(claim, pool, self._evictable(pool, claim, borrowers))

    def evictable(self, claim: Claim) -> Evictable:
        """All who might be evicted for a claim in the pool where it would start, in any order; see `still_there`."""
        borrowers = self._borrowers(claim)
        key = self._key(claim, borrowers)
        if key not in self._columns:
            self._columns[key] = self._evictable(claim.pool, claim, borrowers)
        return self._columns[key]

    def still_there(self, evictable: Evictable) -> Evictable:
        """Those who are not to leave already."""
        return evictable.only(~np.isin(evictable.rows, list(self._gone))) if self._gone else evictable

    def _key(self, claim: Claim, borrowers: frozenset[str]) -> _Key:
        return claim.pool, claim.rank, claim.project, claim.priority, borrowers

    def _evictable(self, pool: int, claim: Claim, borrowers: frozenset[str]) -> Evictable:
        snapshot, policy = self.snapshot, self.snapshot.policy
        here = snapshot.holders_of(pool)
        rows = snapshot.holding[here]
        waits = rows["waits"]
        begun = np.where(rows["started"] > 0, rows["started"], np.where(rows["placed"] > 0, rows["placed"], self._now))
        least = np.array(policy.minimum_run, np.int64)[rows["rank"]] * _SECOND
        spared = (rows["evictions"] >= policy.most_evictions) & (rows["rank"] != OPPORTUNISTIC)
        young = self._now - begun < least
        spared |= young
        kinds = self._kinds(claim, rows, borrowers)
        if (soon := young & ~waits & ~rows["leaving"] & (kinds >= 0)).any():
            self.next_ready = min(self.next_ready, int((begun + least)[soon].min()))
        lost = np.where(waits, 0, self._now - np.maximum(begun, rows["saved"]))
        chosen = np.flatnonzero(~rows["leaving"] & (waits | ~spared) & (kinds >= 0))
        return Evictable(here[chosen], kinds[chosen], lost[chosen], ~waits[chosen])

    def victims(self, claim: Claim, pool: int, evictable: Evictable) -> list[Victim]:
        """The same one by one, of a pool."""
        rows, here = self.snapshot.holding[evictable.rows], pool == claim.pool
        sizes = zip(*(rows[name].tolist() for name in (*RESOURCES, "nodes")), strict=True)
        columns = (evictable.rows, evictable.kinds, evictable.lost, evictable.begun)
        found = []
        for row, kind, lost, begun, (*amounts, nodes) in zip(*(each.tolist() for each in columns), sizes, strict=True):
            total = Resources(*amounts) * nodes
            cost, project = self._cost(pool, total, lost), self.snapshot.owner_of(row)[0]
            found.append(Victim(kind, cost, row, project, total, here, begun))
        return found

    def _cost(self, pool: int, total: Resources, lost: int) -> int:
        whole = self.snapshot.pools[pool].flavor.total
        return max(
            (lost * getattr(total, name) // size for name in RESOURCES if (size := getattr(whole, name))), default=lost
        )

    def _kinds(self, claim: Claim, rows: NDArray[np.void], borrowers: frozenset[str]) -> NDArray[np.int8]:
        """As what each attempt may be evicted, see `Victim.kind`; -1: not at all."""
        owners = self.snapshot.owners
        borrows = np.array([project in borrowers for project, _ in owners], np.bool_)[rows["owner"]]
        own = np.array([project == claim.project for project, _ in owners], np.bool_)[rows["owner"]]
        ranks, priorities = rows["rank"], rows["priority"]
        below = (ranks > claim.rank) | ((ranks == claim.rank) & (priorities < claim.priority))
        kinds = np.full(len(rows), -1, np.int8)
        kinds[borrows] = np.where(ranks[borrows] >= _BATCH, 1, 3)
        kinds[own] = np.where(below[own], 2, -1)
        kinds[ranks == OPPORTUNISTIC] = 0
        return kinds

    def _borrowers(self, claim: Claim) -> frozenset[str]:
        """The projects that have borrowed what is the claim's by nominal quota."""
        quotas = self._quotas
        if quotas is None or claim.project not in quotas.tree:
            return frozenset()
        columns = [column for name, column in quotas.tree.governed.get(claim.flavor, ()) if getattr(claim.total, name)]
        over: NDArray[np.bool_] = np.any(quotas.usage[:, columns] > quotas.subtree[:, columns], axis=1)
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

    # ---- how many of them

    def _enough(self, claim: Claim, space: Space, candidates: list[Victim]) -> list[Victim] | None:
        """The first of the candidates that are enough; a single one where one is, of the kinds that would go anyway."""
        trial = _Trial(self._quotas, claim, space)
        chosen: list[Victim] = []
        try:
            for victim in candidates:
                if trial.enough():
                    break
                if trial.helps(victim):
                    trial.leave(victim)
                    chosen.append(victim)
            if not trial.enough():
                return None
        finally:
            trial.undo()
        kind = max((victim.kind for victim in chosen), default=0)
        if len(chosen) > 1:
            for victim in candidates:
                if victim.kind <= kind and self._is_enough(claim, space, [victim]):
                    return [victim]
        return chosen

    def _needed(self, claim: Claim, space: Space, chosen: list[Victim]) -> list[Victim]:
        """What is left of the victims when those are spared, the dearest first, without whom it is enough too."""
        for victim in sorted(chosen, key=lambda each: (each.kind, each.lost), reverse=True):
            rest = [other for other in chosen if other is not victim]
            if self._is_enough(claim, space, rest):
                chosen = rest
        return chosen

    def _is_enough(self, claim: Claim, space: Space, victims: list[Victim]) -> bool:
        trial = _Trial(self._quotas, claim, space)
        try:
            for victim in victims:
                if not trial.helps(victim):
                    return False
                trial.leave(victim)
            return trial.enough()
        finally:
            trial.undo()


def first_to_go(victim: Victim) -> tuple[bool, int, bool, int, int]:
    """By what victims are sorted: who has not begun, then the kind, then the work lost, then the younger."""
    return victim.begun, victim.kind, not victim.here, victim.lost, -victim.row


class _Trial:
    """What would be if some left. The quotas are changed meanwhile, until `undo`."""

    def __init__(self, quotas: Quotas | None, claim: Claim, space: Space) -> None:
        self._quotas = quotas
        self._claim = claim
        self._space = space
        self._left: list[Victim] = []

    def leave(self, victim: Victim) -> None:
        self._space = self._space.after(victim)
        self._left.append(victim)
        self._count(victim, -1)

    def undo(self) -> None:
        for victim in self._left:
            self._count(victim, 1)
        self._left = []

    def _count(self, victim: Victim, sign: int) -> None:
        if self._quotas is not None and victim.kind != 0:
            self._quotas.add(victim.project, self._claim.flavor, victim.total, sign)

    def enough(self) -> bool:
        claim = self._claim
        if not self._space.enough():
            return False
        return self._quotas is None or self._quotas.fits(claim.project, claim.flavor, claim.total)

    def helps(self, victim: Victim) -> bool:
        """Whether a victim has what is still lacking, and a borrower still borrows."""
        claim, quotas = self._claim, self._quotas
        room = self._space.helps(victim)
        quota = victim.kind != 0 and quotas is not None and not quotas.fits(claim.project, claim.flavor, claim.total)
        if not room and not quota:
            return False
        return quotas is None or victim.kind in (0, 2) or _borrows(quotas, victim.project, claim)


def _borrows(quotas: Quotas, project: str, claim: Claim) -> bool:
    """Whether all on a project's side of where it meets the claim's are beyond their quota in what the claim needs."""
    tree = quotas.tree
    columns = [column for name, column in tree.governed.get(claim.flavor, ()) if getattr(claim.total, name)]
    mine = set(tree.path(claim.project))
    for name in tree.path(project):
        if name in mine:
            return True
        number = tree.index[name]
        if not any(quotas.usage.item(number, column) > quotas.subtree.item(number, column) for column in columns):
            return False
    return True


def _leaves_over(quotas: Quotas, above: int, without: int, over: NDArray[np.bool_]) -> Iterator[int]:
    """The leaves below a node, but not below one of its children, to which everything on the way is over."""
    tree = quotas.tree
    stack = [child for child in tree.children(above) if child != without and over[child]]
    while stack:
        number = stack.pop()
        if tree.leaves[number]:
            yield number
        stack += [child for child in tree.children(number) if over[child]]
