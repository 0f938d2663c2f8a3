"""Whom a waiting job may have evicted: the attempts of a pool in columns, those first with whom least work is lost."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.model import OPPORTUNISTIC, Demand
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

_SECOND = 1_000_000
IDLE, BORROWED, OWN, TOLD = range(4)
"""As what an attempt is evicted: opportunistic; a borrower's batch; of the same project; a borrower's, told first."""

_COLUMNS = (
    "started", "placed", "saved", "rank", "priority", "evictions", "leaving", "leaves_for", "waits", "owner", "grace",
    "cpu", "memory", "gpu", "nodes",
)  # fmt: skip

Places = NDArray[np.intp]


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


@dataclass(frozen=True, slots=True)
class Names:
    """Numbers for the projects of those who hold room."""

    names: list[str]
    number: dict[str, int]
    of_owner: NDArray[np.intp]
    """The project's number for each of the snapshot's `owners`."""

    @classmethod
    def of(cls, owners: Sequence[tuple[str, str]]) -> "Names":
        """From the projects and persons that the snapshot knows."""
        number: dict[str, int] = {}
        of_owner = [number.setdefault(project, len(number)) for project, _ in owners]
        return cls(list(number), number, np.array(of_owner, np.intp))


class Attempts:
    """What may be evicted from one pool, in columns, the cheapest first."""

    def __init__(self, snapshot: Snapshot, names: "Names", pool: int, now: int) -> None:
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
        late = int(self._graces[place]) + (self._notice if kind == TOLD and begun else 0)
        return Victim(
            kind, int(self.cost[place]), int(self.rows[place]), self._names.names[self._projects[place]],
            Resources(*self.totals[place].tolist()), here, begun, late * _SECOND,
        )  # fmt: skip


def _costs(whole: Resources, totals: NDArray[np.int64], lost: NDArray[np.int64]) -> NDArray[np.int64]:
    """The work that is lost with each, in microseconds of the whole pool: by the largest share that it has of it."""
    sizes = np.array([getattr(whole, name) for name in RESOURCES], np.float64)
    shares = np.max(totals / np.where(sizes > 0, sizes, np.inf), axis=1, initial=0.0)
    costs: NDArray[np.int64] = (lost * shares).astype(np.int64)
    return costs
