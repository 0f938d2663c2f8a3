"""The order of the queue: class by class, siblings of the project tree by their fair shares, level by level.

Those within their nominal quota come first, then those with the smaller share; persons within a project likewise. Each
start counts at once, so that the next place may be another's.
"""

import heapq
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.shares import Account, Shares

Key = tuple[Any, ...]


class Standing:
    """Who is before whom now, among projects and persons."""

    def __init__(self, shares: Shares, over: Callable[[str], bool]) -> None:
        """`over` says whether a node of the tree uses more than its own quota."""
        self.shares = shares
        self._over = over

    def key(self, account: Account, opportunistic: bool) -> Key:
        """What siblings are compared by; the smaller goes first."""
        beyond = len(account) == 1 and not opportunistic and self._over(account[0])
        return beyond, self.shares.share(account, opportunistic), account[-1]

    def path(self, project: str, person: str) -> tuple[Account, ...]:
        """The accounts that are compared, from the highest below the root down to the person's."""
        return (*reversed(self.shares.path(project)), (project, person))

    def sort_keys(self, buckets: Iterable[tuple[int, str, str]]) -> list[Key]:
        """By what all of one person in one project stand in the queue of a class, for each (class, project, person)."""
        known: dict[tuple[bool, str], Key] = {}
        keys = []
        for rank, project, person in buckets:
            opportunistic = rank == OPPORTUNISTIC
            if (above := known.get((opportunistic, project))) is None:
                *accounts, _ = self.path(project, person)
                above = tuple(self.key(account, opportunistic) for account in accounts)
                known[opportunistic, project] = above
            keys.append((rank, *above, self.key((project, person), opportunistic)))
        return keys


class Walk:
    """Goes through the rows of one class in their order, which changes with each start.

    A tree of heaps: only what lies on the way to a row that started can have another key.
    """

    def __init__(
        self, standing: Standing, buckets: Iterable[tuple[str, str, list[int]]], opportunistic: bool, dead: bytearray
    ) -> None:
        """`buckets` are (project, person, rows in order).

        As it goes on, `standing` changes with what starts, and `dead` says by row what need not be looked at any more.
        """
        self._standing = standing
        self._dead = dead
        self._opportunistic = opportunistic
        self._root = _Branch(())
        self._way: list[_Branch] = []
        self._leaf: list[int] = []
        self._charged = False
        branches: dict[Account, _Branch] = {}
        for project, person, rows in buckets:
            branch = self._root
            *above, own = standing.path(project, person)
            for account in above:
                if account not in branches:
                    branches[account] = _Branch(account)
                    self._push(branch, account, branches[account])
                branch = branches[account]
            self._push(branch, own, rows[::-1])

    def _push(self, branch: "_Branch", account: Account, child: "_Branch | list[int]") -> None:
        heapq.heappush(branch.heap, (*self._standing.key(account, self._opportunistic), account, child))

    def __iter__(self) -> Iterator[int]:
        while self._root.heap:
            self._way = [self._root]
            while isinstance(child := self._way[-1].heap[0][-1], _Branch):
                self._way.append(child)
            self._leaf, self._charged = child, False
            while child and self._dead[child[-1]]:
                child.pop()
            if child:
                yield child.pop()
            self._settle()

    @property
    def alone(self) -> bool:
        """Whether all that is left is of one person in one project."""
        return all(len(branch.heap) == 1 for branch in self._way)

    def charged(self, again: int | None = None) -> None:
        """The row given last has started, at least in part; `again`: the row, where it wants to start more."""
        self._charged = True
        if again is not None:
            self._leaf.append(again)

    def _settle(self) -> None:
        """Give what lies on the way its new keys, from below, and leave out what is empty."""
        for branch in reversed(self._way):
            *_, account, child = branch.heap[0]
            if not child:
                heapq.heappop(branch.heap)
            elif self._charged:
                key = self._standing.key(account, self._opportunistic)
                heapq.heapreplace(branch.heap, (*key, account, child))
            else:
                return


class _Branch:
    """A node of the tree with the heap of its children that have rows."""

    __slots__ = ("account", "heap")

    def __init__(self, account: Account) -> None:
        self.account = account
        self.heap: list[Any] = []

    def __len__(self) -> int:
        return len(self.heap)
