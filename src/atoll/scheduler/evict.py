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

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.model import OPPORTUNISTIC, RANKS, Eviction
from atoll.scheduler.quota import Quotas
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.trial import PoolSpace, Space, Trial
from atoll.scheduler.victims import BORROWED, IDLE, OWN, TOLD, Attempts, Claim, Evictable, Names, Places, Victim

_BATCH = RANKS[JobClass.BATCH]
_SECOND = 1_000_000
_SINGLES = 64
"""So many that could each be enough alone are tried at most."""
_Key = tuple[int, int, str, int, frozenset[str]]


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
        self._pools: dict[int, Attempts] = {}
        self._known_names: Names | None = None
        self._evictable: dict[_Key, Evictable] = {}

    def free_for(self, claim: Claim, free: Resources) -> list[Victim] | None:
        """The victims for which a claim could start where `free` is left now; None where they are not enough."""
        space = PoolSpace(free, claim.total)
        trial = Trial(self._quotas, self._standing, claim, space)
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
        trial = Trial(self._quotas, self._standing, claim, space)
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
        trial = Trial(None, None, claim, space)
        for begun in (False, True):
            self._take_idle(trial, space, claim.pool, begun)
        return trial.needed() if trial.enough() else None

    def idle_near(self, claim: Claim, space: Space, near: Sequence[Victim]) -> list[Victim] | None:
        """As `free_near`, likewise."""
        trial = Trial(None, None, claim, space)
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
            told = self._now + self.snapshot.policy.notice * _SECOND if victim.kind == TOLD and victim.begun else 0
            self.chosen.append(Eviction(self.snapshot.attempt(victim.row), claim.job_id, told))

    # ---- how many

    def lacks_quota(self, claim: Claim) -> bool:
        """Whether a claim could start only if others used less of the quotas."""
        return self._quotas is not None and not self._quotas.fits(claim.project, claim.flavor, claim.total)

    def _choose(self, trial: Trial, space: PoolSpace, claim: Claim) -> int:
        """Have as many leave as are needed, those that lose least first; up to which kind that went."""
        pools = self._pools_of(claim)
        borrowers = self._borrowers(claim)
        kind = IDLE
        for begun in (False, True):
            for kind in (IDLE, BORROWED, OWN, TOLD):
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

    def _take_idle(self, trial: Trial, space: PoolSpace, pool: int, begun: bool) -> None:
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
            for kind in (IDLE, BORROWED, OWN, TOLD):
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
    def _names(self) -> Names:
        if self._known_names is None:
            self._known_names = Names.of(self.snapshot.owners)
        return self._known_names

    def _attempts(self, pool: int) -> Attempts:
        if pool not in self._pools:
            self._pools[pool] = made = Attempts(self.snapshot, self._names, pool, self._now)
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
        attempts: Attempts,
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
        if kind == OWN:
            mine = attempts.of_project(claim.project)
            ranks, priorities = attempts.ranks[mine], attempts.priorities[mine]
            below = (ranks > claim.rank) | ((ranks == claim.rank) & (priorities < claim.priority))
            return attempts.in_order(mine[below], begun, alive=alive)
        found = [attempts.of_project(project) for project in sorted(borrowers)]
        others = np.concatenate(found) if found else np.zeros(0, np.intp)
        return attempts.in_order(others[(attempts.ranks[others] >= _BATCH) == (kind == BORROWED)], begun, alive=alive)

    def evictable(self, claim: Claim) -> Evictable:
        """All who might be evicted for a claim in the pool where it would start; see `still_there`."""
        borrowers = self._borrowers(claim)
        key = (claim.pool, claim.rank, claim.project, claim.priority, borrowers)
        if key not in self._evictable:
            attempts = self._attempts(claim.pool)
            found = [
                (kind, self._places(attempts, claim, borrowers, kind, begun, alive=False))
                for kind in (IDLE, BORROWED, OWN, TOLD)
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
        """The projects that may have borrowed what is the claim's by nominal quota, see `Trial.helps`."""
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


def _leaves_over(quotas: Quotas, above: int, without: int, over: NDArray[np.bool_]) -> Iterator[int]:
    """The leaves below a node, but not below one of its children, to which everything on the way is over."""
    tree = quotas.tree
    stack = [child for child in tree.children(above) if child != without and over[child]]
    while stack:
        number = stack.pop()
        if tree.leaves[number]:
            yield number
        stack += [child for child in tree.children(number) if over[child]]
