"""What becomes free, and when, as it is expected: the room and the quotas of a forecast, step by step.

Pools are counted as a whole, and their nodes only for the question when a node is first large enough.
"""

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.quota import Quotas, Tree
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

Rows = NDArray[np.intp]
Amounts = NDArray[np.int64]
"""A column for each of RESOURCES."""
Times = NDArray[np.int64]
"""Microseconds."""
SECOND = 1_000_000
_LONGER = np.cumsum([60, 300, 900, 1800, 3600, 7200, 18_000, 36_000, 72_000, 180_000, 360_000])
"""Seconds that a run is given beyond what was expected, each time that it is not over then (Tsafrir et al., 2007)."""
_MANY = 200
"""From so many attempts on ends are rounded, see `_rounded`."""
_FINE, _COARSE = 5 * SECOND, 0.03
_FEW = 16
"""So many attempts are taken from the quotas one by one, more by counting anew what all use."""
_UNSET = -1


def expected_ends(snapshot: Snapshot, rows: Rows, now: int) -> Times:
    """When attempts (rows of `holding`) have probably left: as runs before them, where nobody knows at their walltime.

    What is opportunistic, and what was asked to leave, goes within its grace.
    """
    columns = ("started", "expected", "grace", "leaving", "rank", "leaves_for", "notice")
    here = {name: snapshot.holding[name][rows].astype(np.int64) for name in columns}
    latest = snapshot.ends(rows, now)
    begun = np.where(here["started"] > 0, here["started"], now)
    over = (now - begun) // SECOND - here["expected"]
    step = np.searchsorted(_LONGER, over, side="right")
    longer = np.where(over < 0, 0, _LONGER[np.minimum(step, len(_LONGER) - 1)])
    known = (here["expected"] > 0) & (step < len(_LONGER))
    by_limit = np.where(latest >= ENDLESS, ENDLESS, latest - here["grace"] * SECOND)
    ends = np.where(known, begun + (here["expected"] + longer) * SECOND, by_limit)
    told = (here["leaves_for"] >= 0) & (here["notice"] > 0)
    ends = np.where(told, np.minimum(ends, np.maximum(now, here["notice"]) + here["grace"] * SECOND), ends)
    ends = np.where((here["leaving"] > 0) | (here["rank"] == OPPORTUNISTIC), latest, ends)
    return np.clip(ends, now, latest).astype(np.int64)


class Part(NamedTuple):
    """Something that changes at a time: room of a pool that becomes free, with what hangs on it."""

    time: int
    pool: int
    amounts: tuple[int, ...]
    """Below 0: what is kept from then on."""
    project: int = _UNSET
    """The node of the tree whose quota it is."""
    limit: int = _UNSET
    """The array's limit that it counts to."""
    attempts: int = 0
    wall: int = 0
    """When it is over at the latest."""


class RoomAhead:
    """Room by pool at a moment that moves on from now: `free` with a row for each pool, and slots by site."""

    def __init__(self, snapshot: Snapshot, now: int, limits: NDArray[np.int64]) -> None:
        """`limits` says to which array's limit each row of `holding` counts, -1 for none."""
        room = snapshot.room(now)
        self.now = now
        self.open = np.array(room.open, np.bool_)
        self.free: Amounts = np.array([as_row(amount) for amount in room.free], np.int64).reshape(-1, len(RESOURCES))
        self.site = np.array([list(room.slots).index(pool.site) for pool in room.pools], np.intp)
        """The number of each pool's site."""
        self.slots = np.array(list(room.slots.values()), np.int64)
        rows, pools = _held(snapshot)
        self._ends = expected_ends(snapshot, rows, now)
        if len(rows) > _MANY:
            self._ends = _rounded(self._ends, now)
        self._walls = np.maximum(snapshot.ends(rows, now), self._ends)
        self._pools, self._amounts = pools, held_amounts(snapshot, rows)
        self._projects = _projects(snapshot, rows)
        self._limits = limits[rows]
        order = np.argsort(self._ends, kind="stable")
        self._order = order[self._ends[order] < ENDLESS]
        self._sorted_ends = self._ends[self._order]
        self._done = 0
        self._parts: list[Part] = []
        self._many = len(rows) > _MANY
        self._lines: dict[int, tuple[Times, Times, Amounts]] = {}

    # ---- time

    def next(self) -> int:
        """When something changes next; ENDLESS for never."""
        first = int(self._sorted_ends[self._done]) if self._done < len(self._order) else ENDLESS
        return min(first, self._parts[0].time if self._parts else ENDLESS)

    def add(self, part: Part) -> None:
        """Let something change later."""
        if part.time >= ENDLESS:
            return
        if self._many and part.attempts:
            part = part._replace(time=int(_rounded(np.array([part.time]), self.now)[0]))
        heapq.heappush(self._parts, part)
        if part.pool in self._lines:
            self._insert(part)

    def advance(self, moment: int, quotas: "QuotasAhead | None", holders: NDArray[np.int64]) -> None:
        """Let time go on to a moment: what is over by then is free, in room, quotas, and `holders` by limit."""
        self.now = moment
        end = int(np.searchsorted(self._sorted_ends, moment, side="right"))
        over = self._order[self._done : end]
        self._done = end
        np.add.at(self.free, self._pools[over], self._amounts[over])
        np.add.at(self.slots, self.site[self._pools[over]], 1)
        limits = self._limits[over]
        np.subtract.at(holders, limits[limits >= 0], 1)
        if quotas is not None:
            quotas.give(self._projects[over], self._pools[over], self._amounts[over])
        while self._parts and self._parts[0].time <= moment:
            part = heapq.heappop(self._parts)
            self.free[part.pool] += part.amounts
            self.slots[self.site[part.pool]] += part.attempts
            if part.limit >= 0:
                holders[part.limit] -= part.attempts
            if quotas is not None and part.project >= 0:
                quotas.give(*(np.array([each]) for each in (part.project, part.pool, part.amounts)))

    # ---- room

    def free_at(self, pool: int, moment: int) -> Amounts:
        """What will be free of a pool at a moment for certain: when walltimes are over."""
        walls, ends, amounts = self._line(pool)
        until = int(np.searchsorted(walls, moment, side="right"))
        found: Amounts = self.free[pool] + amounts[:until][ends[:until] > self.now].sum(axis=0)
        return found

    def earliest(self, pool: int, total: Amounts) -> int:
        """When so much will be free of a pool for certain; ENDLESS for never."""
        if (total <= self.free[pool]).all():
            return self.now
        walls, ends, amounts = self._line(pool)
        sums = np.cumsum(np.where((ends > self.now)[:, None], amounts, 0), axis=0)
        enough = np.flatnonzero((self.free[pool] + sums >= total).all(axis=1))
        return max(self.now, int(walls[enough[0]])) if len(enough) else ENDLESS

    def _line(self, pool: int) -> tuple[Times, Times, Amounts]:
        """What holds room of a pool by the end of its walltime; with its expected end, and its amounts."""
        if pool not in self._lines:
            here = np.flatnonzero(self._pools == pool)
            here = here[np.argsort(self._walls[here], kind="stable")]
            self._lines[pool] = self._walls[here], self._ends[here], self._amounts[here]
            for part in self._parts:
                if part.pool == pool:
                    self._insert(part)
        return self._lines[pool]

    def _insert(self, part: Part) -> None:
        walls, ends, amounts = self._lines[part.pool]
        wall = max(part.time, part.wall)
        place = int(np.searchsorted(walls, wall, side="right"))
        self._lines[part.pool] = (
            np.insert(walls, place, wall),
            np.insert(ends, place, part.time),
            np.insert(amounts, place, part.amounts, axis=0),
        )


class QuotasAhead:
    """What each node of the tree uses at that moment, and what is available to it."""

    def __init__(self, snapshot: Snapshot, tree: Tree) -> None:
        self._tree, self._quotas = tree, Quotas(tree)
        self._flavors = [pool.flavor.name for pool in snapshot.pools]
        self._columns = np.full((len(self._flavors), len(RESOURCES)), len(tree.columns))
        """By pool and resource the column of the tree, the one after the last where it is not governed."""
        for number, name in enumerate(self._flavors):
            for resource, column in tree.governed.get(name, ()):
                self._columns[number, RESOURCES.index(resource)] = column
        self._own = np.zeros((len(tree), len(tree.columns) + 1), np.int64)
        self._available: Amounts | None = None
        rows, pools = _held(snapshot)
        self._count(_projects(snapshot, rows), pools, held_amounts(snapshot, rows), 1)

    def give(self, projects: NDArray[np.int64], pools: NDArray[np.int64], amounts: Amounts) -> None:
        """Count no longer what projects (nodes of the tree, -1: of none) used of pools."""
        self._count(projects, pools, amounts, -1)

    def take(self, project: int, pool: int, amounts: Amounts) -> None:
        """Count what a project uses from now on."""
        self._count(np.array([project]), np.array([pool]), amounts[None], 1)

    def _count(self, projects: NDArray[np.int64], pools: NDArray[np.int64], amounts: Amounts, sign: int) -> None:
        counted = projects >= 0
        if not counted.any():
            return
        projects, pools, amounts = projects[counted], pools[counted], amounts[counted]
        np.add.at(self._own, (projects[:, None], self._columns[pools]), sign * amounts)
        self._available = None
        if len(projects) <= _FEW:
            for project, pool, amount in zip(projects.tolist(), pools.tolist(), amounts.tolist(), strict=True):
                self._quotas.add(self._tree.nodes[project].name, self._flavors[pool], Resources(*amount), sign)
            return
        usage = self._own[:, :-1].copy()
        for level in reversed(self._tree.levels[1:]):
            beyond = np.maximum(0, usage[level] - self._tree.local[level])
            np.add.at(usage, self._tree.parent_numbers[level], beyond)
        self._quotas.usage = usage

    def available(self, projects: NDArray[np.int64]) -> Amounts:
        """What is available to projects, by pool and resource; nothing to one that the tree lacks."""
        tree = self._tree
        if self._available is None:
            self._available = np.zeros((len(tree) + 1, len(tree.columns) + 1), np.int64)
            self._available[:, -1] = ENDLESS
            self._available[:-1, :-1] = self._quotas.available()
        found: Amounts = self._available[projects[:, None, None], self._columns]
        return found

    def available_at(self, project: int, pool: int) -> list[int]:
        """The same for one project and one pool."""
        ungoverned = len(self._tree.columns)
        return [
            ENDLESS if column == ungoverned else 0 if project < 0 else self._quotas.available_at(project, column)
            for column in self._columns[pool].tolist()
        ]


def as_row(amount: object) -> list[int]:
    """Of each of RESOURCES."""
    return [getattr(amount, name) for name in RESOURCES]


def _held(snapshot: Snapshot) -> tuple[Rows, Rows]:
    """The rows of all attempts that hold room of a pool, and the number of the pool."""
    here = [snapshot.holders_of(number) for number in range(len(snapshot.pools))]
    pools = np.repeat(np.arange(len(here)), [len(each) for each in here])
    return np.concatenate([np.zeros(0, np.intp), *here]), pools


def held_amounts(snapshot: Snapshot, rows: Rows) -> Amounts:
    """What attempts (rows of `holding`) hold on all their nodes."""
    holding = snapshot.holding
    columns = [holding[name][rows] * holding["nodes"][rows] for name in RESOURCES]
    return np.stack(columns, axis=1).astype(np.int64)


def _projects(snapshot: Snapshot, rows: Rows) -> NDArray[np.int64]:
    """The node of the tree whose quota each attempt uses, -1 for none."""
    index = {} if snapshot.tree is None else snapshot.tree.index
    owners = np.array([index.get(project, _UNSET) for project, _ in snapshot.owners] or [_UNSET], np.int64)
    holding = snapshot.holding
    return np.where(holding["rank"][rows] == OPPORTUNISTIC, _UNSET, owners[holding["owner"][rows]])


def _rounded(ends: Times, now: int) -> Times:
    """Ends rounded, the later the more, to some hundredths of the time until then: so that many are one step."""
    wait = np.minimum(ends - now, ENDLESS // 2)
    steps = np.rint(np.log1p(wait / _FINE) / _COARSE)
    return np.where(ends >= ENDLESS, ENDLESS, now + (_FINE * np.expm1(steps * _COARSE)).astype(np.int64))
