"""What holds room, as a table of numbers: the snapshot's attempts, and what each pool holds of them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.scheduler.fit import Used
from atoll.scheduler.model import OPPORTUNISTIC, Running
from atoll.scheduler.room import ENDLESS, Releases
from atoll.scheduler.table import Columns, Table

_COLUMNS: Columns = [
    ("job", "i8"), ("cpu", "i8"), ("memory", "i8"), ("gpu", "i8"), ("priority", "i8"), ("placed", "i8"),
    ("started", "i8"), ("saved", "i8"), ("leaves_for", "i8"), ("notice", "i8"), ("walltime", "i8"), ("expected", "i8"),
    ("nodes", "i4"), ("place", "i4"), ("owner", "i4"), ("grace", "i4"), ("evictions", "i4"), ("rank", "i1"),
    ("waits", "?"), ("leaving", "?"),
]  # fmt: skip
_UNSET = -1  # what is None
Rows = NDArray[np.intp]
Place = tuple[str, str]
"""A site and a flavor."""


class Holding:
    """The attempts that hold room, a row each."""

    def __init__(self) -> None:
        self._table: Table[str] = Table(_COLUMNS)
        self._attempts: dict[int, str] = {}  # by row
        self._spots: dict[int, tuple[NodeSpot, ...]] = {}  # by row
        self._places: list[Place] = []  # of each number in `place`
        self._place_numbers: dict[Place, int] = {}
        self._owners: list[tuple[str, str]] = []  # of each number in `owner`
        self._owner_numbers: dict[tuple[str, str], int] = {}
        self._used: dict[Place, Used] = {}
        self._rows_at: dict[Place, Rows] = {}  # see `rows_at`

    # ---- keeping it current

    def take(self, running: Running) -> int:
        """The row of an attempt that is new."""
        request, place = running.request, (running.site, running.flavor)
        row = self._table.add(running.attempt_id)
        self._attempts[row] = running.attempt_id
        self._table.rows[row] = (
            running.job_id, request.cpu, request.memory, request.gpu, running.priority, running.placed,
            running.started, running.saved, _UNSET if running.leaves_for is None else running.leaves_for,
            running.notice, _UNSET if running.walltime is None else running.walltime, running.expected,
            running.nodes, _number(place, self._places, self._place_numbers),
            _number((running.project, running.person), self._owners, self._owner_numbers), running.grace,
            running.evictions, running.rank, running.waits, running.leaving,
        )  # fmt: skip
        if running.spots:
            self._spots[row] = running.spots
        self._used.setdefault(place, Used()).add(running)
        self._rows_at.pop(place, None)
        return row

    def give(self, attempt_id: str) -> Running | None:
        """Forget an attempt; what it was, None for one that is not known."""
        row = self._table.pop(attempt_id)
        if row is None:
            return None
        running = self._at(attempt_id, row)
        place = running.site, running.flavor
        self._spots.pop(row, None)
        self._used[place].remove(running)
        self._rows_at.pop(place, None)
        if not self._used[place].attempts:
            del self._used[place]
        self._table.release((row,))
        del self._attempts[row]
        self._table.rows[row] = np.zeros((), self._table.rows.dtype)  # no nodes: nothing is held
        return running

    # ---- reading it

    @property
    def rows(self) -> NDArray[Any]:
        """The columns; unused rows have no nodes. Valid until the next change."""
        return self._table.rows

    @property
    def attempts(self) -> Sequence[str]:
        """All attempts, in the order of their names."""
        return sorted(self._table.index)

    @property
    def used(self) -> Mapping[Place, Used]:
        """What is held of each pool."""
        return self._used

    @property
    def owners(self) -> Sequence[tuple[str, str]]:
        """The (project, person) of each number in the column `owner`."""
        return self._owners

    def __contains__(self, attempt_id: object) -> bool:
        return attempt_id in self._table.index

    def running(self, attempt_id: str) -> Running:
        """What is known of an attempt. Raises KeyError."""
        return self._at(attempt_id, self._table.index[attempt_id])

    def each(self) -> Iterator[tuple[int, Running]]:
        """All attempts with their rows."""
        return ((row, self._at(attempt_id, row)) for attempt_id, row in self._table.index.items())

    def requests(self) -> Iterator[tuple[Resources, int]]:
        """What each attempt holds of a node, and of how many nodes, in the order of the rows."""
        rows = self._table.rows[sorted(self._table.index.values())]
        columns = (rows[name].tolist() for name in (*RESOURCES, "nodes"))
        return ((Resources(*amounts), nodes) for *amounts, nodes in zip(*columns, strict=True))

    def _at(self, attempt_id: str, row: int) -> Running:
        (
            job, cpu, memory, gpu, priority, placed, started, saved, leaves_for, notice, walltime, expected, nodes,
            place, owner, grace, evictions, rank, waits, leaving,
        ) = self._table.rows[row].item()  # fmt: skip
        project, person = self._owners[owner]
        site, flavor = self._places[place]
        return Running(
            attempt_id, job, site, flavor, Resources(cpu, memory, gpu), nodes, rank, waits, priority, leaving,
            project, person, placed, started, saved, None if walltime == _UNSET else walltime, expected, grace,
            evictions, None if leaves_for == _UNSET else leaves_for, notice, self._spots.get(row, ()),
        )  # fmt: skip

    def attempt(self, row: int) -> str:
        """The attempt of a row."""
        return self._attempts[row]

    def rows_at(self, place: Place) -> Rows:
        """The rows of the attempts in a pool; not to be changed."""
        if (known := self._rows_at.get(place)) is None:
            number, rows = self._place_numbers.get(place, -2), self._table.rows
            known = self._rows_at[place] = np.flatnonzero((rows["place"] == number) & (rows["nodes"] > 0))
        return known

    def flavor_of(self, row: int) -> str:
        """The flavor of a row."""
        return self._places[int(self._table.rows["place"][row])][1]

    def owner_of(self, row: int) -> tuple[str, str]:
        """The project and person of a row."""
        return self._owners[int(self._table.rows["owner"][row])]

    def ends(self, rows: Rows, now: int, walltimes: Sequence[int | None]) -> NDArray[np.int64]:
        """When each of the attempts in some rows has left at the latest, in microseconds.

        `walltimes` are the seconds that each class may run where nothing is said; None: for ever.
        """
        columns = ("leaving", "rank", "walltime", "started", "grace")
        here = {name: self._table.rows[name][rows] for name in columns}  # quicker than whole rows
        leaves = here["leaving"] | (here["rank"] == OPPORTUNISTIC)
        usual = np.array([ENDLESS if limit is None else limit for limit in walltimes], np.int64)
        walltime = np.where(here["walltime"] == _UNSET, usual[here["rank"]], here["walltime"])
        endless = ~leaves & (walltime >= ENDLESS)
        begun = np.where(here["started"] > 0, here["started"], now)
        seconds = np.where(leaves, here["grace"], np.where(endless, 0, walltime) + here["grace"])
        ends = np.where(endless, ENDLESS, np.maximum(now, np.where(leaves, now, begun) + seconds * 1_000_000))
        return ends.astype(np.int64)

    def releases(self, place: Place, now: int, walltimes: Sequence[int | None]) -> Releases:
        """When what the attempts in a pool hold becomes free: at their walltime, or where they are evicted for it."""
        rows = self.rows_at(place)
        here = self._table.rows[rows]
        amounts = np.stack([here[name] * here["nodes"] for name in RESOURCES], axis=1)
        return Releases.of(self.ends(rows, now, walltimes), amounts.astype(np.int64))

    # ---- checking it

    def validate(self) -> None:
        """Hold what is counted by pool against the attempts. Raises AssertionError."""
        used: dict[Place, Used] = {}
        for _, running in self.each():
            used.setdefault((running.site, running.flavor), Used()).add(running)
        assert self._used == used, "what the pools hold is not the sum of what runs"
        known = dict(self._rows_at)
        self._rows_at.clear()
        assert all(np.array_equal(rows, self.rows_at(place)) for place, rows in known.items()), (
            "the rows of a pool are stale"
        )


def _number(key: tuple[str, str], keys: list[tuple[str, str]], numbers: dict[tuple[str, str], int]) -> int:
    """The number of a key, which is new or known."""
    number = numbers.setdefault(key, len(keys))
    if number == len(keys):
        keys.append(key)
    return number
