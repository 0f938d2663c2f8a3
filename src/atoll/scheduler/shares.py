"""Fair share: what each project and person used of late, decayed, and who is next.

Use is resources times seconds, and counts half after each half-life. A start counts at once with the time that it is
expected to run; the end sets that right. So that time alone changes nothing, amounts are kept as of a fixed moment: use
at a later one weighs more, instead of all that is older weighing less (as in Slurm's multifactor plugin the decay, and
in dominant resource fairness, Ghodsi et al., NSDI 2011, the largest share).

Opportunistic use is kept apart: nobody loses standing by using what is idle.
"""

from collections.abc import Mapping
from typing import Self

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.quota import Tree

Account = tuple[str, ...]
"""Whose use it is: (node) of the tree, or (project, person)."""
Used = list[int]
"""Of each of RESOURCES: base units times seconds, times the weight of their moment."""
_Book = dict[Account, dict[str, Used]]
_BITS = 20
_STRETCH = 256
"""The fixed moment moves on after so many half-lives."""


class Shares:
    """The use of all, in one of two ledgers: `opportunistic`, or with a claim."""

    def __init__(self, half_life: int) -> None:
        """`half_life` in seconds."""
        self.tree: Tree | None = None
        self.version = 0
        """Rises with each change."""
        self._half_life = half_life * 1_000_000
        self._stretch = 0
        self._capacity: dict[str, Resources] = {}
        self._spent: tuple[_Book, _Book] = ({}, {})
        self._used: tuple[_Book, _Book] = ({}, {})
        self._known: tuple[dict[Account, float], ...] = ({}, {})
        self._paths: dict[str, tuple[Account, ...]] = {}

    def with_half_life(self, half_life: int) -> Self:
        """The same with another half-life, and nothing counted yet: what is over must be told again."""
        made = type(self)(half_life)
        made.set_capacity(self._capacity)
        return made

    def fork(self) -> Self:
        """Another to try things on, at the cost of what is changed in it."""
        made = type(self)(1)
        made.tree, made._half_life, made._stretch = self.tree, self._half_life, self._stretch
        made._capacity, made._paths = self._capacity, self._paths
        made._used = (_Overlay(self._used[0]), _Overlay(self._used[1]))
        made._known = (dict(self._known[0]), dict(self._known[1]))
        return made

    def set_capacity(self, capacity: Mapping[str, Resources]) -> None:
        """Set what there is of each flavor at all sites together."""
        if capacity != self._capacity:
            self._capacity = dict(capacity)
            self._forget()

    # ---- counting

    def charge(
        self, project: str, person: str, flavor: str, amounts: Resources, at: int, opportunistic: bool, times: int = 1
    ) -> None:
        """Count use (resources times seconds) that began or was known at `at`; `times` -1 takes it back."""
        weight = self._weight(at) * times
        self._count(project, person, flavor, [getattr(amounts, name) * weight for name in RESOURCES], opportunistic)

    def spend(self, project: str, person: str, flavor: str, amounts: Resources, at: int, opportunistic: bool) -> None:
        """Count use that is over: it stays when the tree is another."""
        weight = self._weight(at)
        added = [getattr(amounts, name) * weight for name in RESOURCES]
        _add(self._spent[opportunistic].setdefault((project, person), {}), flavor, added)
        self._count(project, person, flavor, added, opportunistic)

    def rebuild(self, tree: Tree | None) -> None:
        """Forget all but what is over, and count that in another tree."""
        self.tree, self._paths = tree, {}
        self._used = ({}, {})
        self._forget()
        for opportunistic, spent in enumerate(self._spent):
            for (project, person), flavors in spent.items():
                for flavor, amounts in flavors.items():
                    self._count(project, person, flavor, amounts, bool(opportunistic))

    def _count(self, project: str, person: str, flavor: str, added: Used, opportunistic: bool) -> None:
        used, known, grows = self._used[opportunistic], self._known[opportunistic], min(added) >= 0
        for account in ((project, person), *self.path(project)):
            flavors = used.setdefault(account, {})
            _add(flavors, flavor, added)
            if (before := known.pop(account, None)) is not None and grows:  # no other flavor can have become larger
                known[account] = max(before, self._largest(account, {flavor: flavors[flavor]}))
        self.version += 1

    def path(self, project: str) -> tuple[Account, ...]:
        """The accounts of a project and of all above it but the root, which has no siblings."""
        if self.tree is None:
            return ()
        if project not in self.tree:
            return ((project,),)
        if (known := self._paths.get(project)) is None:
            known = self._paths[project] = tuple((name,) for name in self.tree.path(project)[:-1])
        return known

    def _weight(self, at: int) -> int:
        stretch, rest = divmod(at, self._half_life * _STRETCH)
        if stretch > self._stretch:
            self._move((stretch - self._stretch) * _STRETCH)
            self._stretch = stretch
        weight = int(2.0 ** (rest / self._half_life + _BITS))
        return weight >> (self._stretch - stretch) * _STRETCH

    def _move(self, bits: int) -> None:
        """Let the fixed moment be later, so that all amounts become smaller."""
        for books in (*self._used, *self._spent):
            for flavors in books.values():
                for amounts in flavors.values():
                    amounts[:] = [amount >> bits for amount in amounts]
        self._forget()

    def _forget(self) -> None:
        self._known = ({}, {})
        self.version += 1

    # ---- reading

    def share(self, account: Account, opportunistic: bool = False) -> float:
        """The largest decayed share of any resource of any flavor, by weight; to be compared, it has no unit."""
        known = self._known[opportunistic]
        if (share := known.get(account)) is None:
            share = known[account] = self._share(account, opportunistic)
        return share

    def _share(self, account: Account, opportunistic: bool) -> float:
        return self._largest(account, self._used[opportunistic].get(account, {}))

    def _largest(self, account: Account, used: Mapping[str, Used]) -> float:
        largest = 0.0
        for flavor, amounts in used.items():
            capacity = self._capacity.get(flavor)
            for name, amount in zip(RESOURCES, amounts, strict=True):
                if capacity is not None and amount and (whole := getattr(capacity, name)):
                    largest = max(largest, amount / (whole << _BITS))
        if len(account) == 1 and self.tree is not None and account[0] in self.tree:
            largest /= float(self.tree.weights[self.tree.index[account[0]]])
        return largest

    def seconds(self, account: Account, now: int, opportunistic: bool = False) -> float:
        """The share as seconds of the whole capacity, decayed to `now` (microseconds): what people are shown."""
        elapsed = now / self._half_life - self._stretch * _STRETCH
        return float(self.share(account, opportunistic) * 2.0**-elapsed)

    def amounts(self) -> dict[tuple[bool, Account, str], list[int]]:
        """What is counted, by ledger, account and flavor, for comparisons."""
        return {
            (bool(opportunistic), account, flavor): list(amounts)
            for opportunistic, book in enumerate(self._used)
            for account, flavors in book.items()
            for flavor, amounts in flavors.items()
            if any(amounts)
        }


class _Overlay(_Book):
    """Accounts that are copied from others when they are first changed."""

    def __init__(self, below: Mapping[Account, dict[str, Used]]) -> None:
        super().__init__()
        self._below = below

    def setdefault(self, account: Account, default: dict[str, Used]) -> dict[str, Used]:
        """The account's own copy, for a change."""
        if (mine := super().get(account)) is None:
            flavors = self._below.get(account, default)
            mine = self[account] = {flavor: list(amounts) for flavor, amounts in flavors.items()}
        return mine

    def get(self, account: Account, default: dict[str, Used]) -> dict[str, Used]:  # type: ignore[override]
        """The account's own copy, or what there was before."""
        mine = super().get(account)
        return self._below.get(account, default) if mine is None else mine


def _add(flavors: dict[str, Used], flavor: str, added: Used) -> None:
    amounts = flavors.get(flavor)
    if amounts is None:
        flavors[flavor] = list(added)
    else:
        for place, amount in enumerate(added):
            amounts[place] += amount
