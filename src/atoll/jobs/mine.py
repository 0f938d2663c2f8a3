"""What one person has: what runs, what waits, what has ended of late. For first pages."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from atoll.core.states import ACTIVE, WAITING
from atoll.jobs import view
from atoll.jobs.estimates import Estimates
from atoll.store import jobs
from atoll.store.jobs import ListFilter

Document = dict[str, Any]


@dataclass(frozen=True)
class Mine:
    """Jobs of a person, arrays as one, the latest first; in short, as `view.summary`."""

    running: list[Document]
    """Those that have a place, whether they have begun or not."""
    waiting: list[Document]
    ended: list[Document]
    counts: dict[str, int]
    """How many there are in each state that is not an end."""
    any: bool
    """Whether there was ever one that is still known."""

    @property
    def running_count(self) -> int:
        """All that have a place."""
        return sum(number for state, number in self.counts.items() if state in ACTIVE)

    @property
    def waiting_count(self) -> int:
        """All that wait or are held."""
        return sum(number for state, number in self.counts.items() if state in WAITING)


def look(connection: Connection, person: str, since: int, most: int, estimates: Estimates) -> Mine:
    """At most so many of each; those that have ended since `since` (microseconds)."""
    running = jobs.list_page(connection, ListFilter(owner=person, states=ACTIVE), None, most)
    waiting = jobs.list_page(connection, ListFilter(owner=person, states=WAITING), None, most)
    ended = jobs.list_ended(connection, person, since, most)
    found = Mine(
        [view.summary(row) for row in running], [view.summary(row) for row in waiting],
        [view.summary(row) for row in ended], jobs.count_by_state(connection, person),
        bool(running or waiting or ended or jobs.list_page(connection, ListFilter(owner=person), None, 1)),
    )  # fmt: skip
    estimates.add(connection, [*found.running, *found.waiting])
    return found
