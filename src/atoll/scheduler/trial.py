"""What would be if some attempts left: whether a claim could start then, and who of them need not leave after all."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.quota import Quotas
from atoll.scheduler.victims import IDLE, OWN, Claim, Victim


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


class Trial:
    """What would be if some left. The quotas, and what stays, are changed meanwhile, until `undo`."""

    def __init__(self, quotas: Quotas | None, standing: Quotas | None, claim: Claim, space: Space) -> None:
        self.left: list[Victim] = []
        """Who left."""
        self._quotas = quotas
        self._standing = standing
        self._claim = claim
        self._space = space

    def leave(self, victim: Victim) -> None:
        """Count a victim as gone."""
        self._change(victim, 1)
        self.left.append(victim)

    def undo(self) -> None:
        """Count all who left as there again."""
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
        return victim.kind in (IDLE, OWN) or self._has_borrowed(victim, needed)

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
