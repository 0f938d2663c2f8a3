"""The attempts of ours that wait in an engine's own queue, and which of them give way to one with more right.

An engine serves its queue in the order in which it was filled. So what comes to have more right than what stands before
it is put in its place by pulling the others back: they go behind, by way of our own queue.
"""

from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from atoll.core.resources import Resources
from atoll.scheduler.model import Running


class Right(NamedTuple):
    """By what one may be put before another: its class, and its priority within its project.

    Neither age nor a fair share gives a right to pull somebody back: they change with every start.
    """

    rank: int
    project: str
    priority: int

    def beats(self, other: "Right") -> bool:
        """Whether one with this right goes before one with the other."""
        if self.rank != other.rank:
            return self.rank < other.rank
        return self.project == other.project and self.priority > other.priority

    @classmethod
    def of(cls, attempt: Running) -> "Right":
        """The right of an attempt."""
        return cls(attempt.rank, attempt.project, attempt.priority)


class Line:
    """What waits in one pool of an engine, the last first, and what leaves it.

    Those that begin in any case, because all before them and they themselves have room, are no part of it.
    """

    def __init__(self, attempts: Iterable[Running], free: Resources) -> None:
        """`attempts` are those that have not begun; `free` is what would be left if all of ours had their room."""
        self.recalled: list[str] = []
        """Those that are to be pulled back now."""
        self._leaving: list[Right] = []
        self._late: list[tuple[Right, str]] = []
        standing = []
        for attempt in attempts:
            if attempt.leaving:
                self._leaving.append(Right.of(attempt))
                free += attempt.request * attempt.nodes
            else:
                standing.append(attempt)
        # their names rise in the order in which they were placed
        standing.sort(key=attrgetter("attempt_id"), reverse=True)
        behind: set[Right] = set()
        for attempt in standing:
            if not _lacks(free):
                break
            total, right = attempt.request * attempt.nodes, Right.of(attempt)
            if not _lacks(free, total):
                pass  # it has all that it needs; others have not
            elif any(other.beats(right) for other in behind):
                self._recall(right, attempt.attempt_id)
            else:
                behind.add(right)
                self._late.append((right, attempt.attempt_id))
            free += total

    def _recall(self, right: Right, attempt_id: str) -> None:
        self._leaving.append(right)
        self.recalled.append(attempt_id)

    def keeps_out(self, right: Right) -> bool:
        """Whether others with more than this `right` are on their way back: their turn is first."""
        return any(other.beats(right) for other in self._leaving)

    def places_for(self, right: Right) -> int:
        """How many places of its own class in the queue there are for one with `right` because others give way."""
        late = sum(other.rank == right.rank and right.beats(other) for other, _ in self._late)
        return late + sum(other.rank == right.rank and right.beats(other) for other in self._leaving)

    def make_way(self, right: Right) -> None:
        """Pull back what would stand before one with `right` that now comes into the queue."""
        for other, attempt_id in self._late:
            if right.beats(other):
                self._recall(other, attempt_id)
        self._late = [(other, attempt_id) for other, attempt_id in self._late if not right.beats(other)]


def _lacks(free: Resources, of: Resources | None = None) -> bool:
    """Whether more was given than there is of something: of anything, or of what `of` needs."""
    return any(getattr(free, name) < 0 and (of is None or getattr(of, name) > 0) for name in ("cpu", "memory", "gpu"))
