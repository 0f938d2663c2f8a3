"""The distinct demands of all waiting jobs, each kept once: most queues hold far fewer demands than jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import MAX_AMOUNT, Resources
from atoll.core.spec import JobClass
from atoll.scheduler.fit import Pool, flavor_obstacle, is_open, placement_obstacle
from atoll.scheduler.model import Demand, Placement, SiteState, Weights
from atoll.scheduler.scores import Scores, wish
from atoll.scheduler.table import Table

_REQUEST = np.dtype([("cpu", "i8"), ("memory", "i8"), ("gpu", "i8")])
_ENDLESS = 2**62
"""The seconds that a demand without a walltime may run."""
_LEVELS = 100
"""So many usual waits of remote sites are told apart, the longest."""
_CLASSES = (None, *JobClass)
_Shape = tuple[Resources, int, int, bytes]


class Demands:
    """Numbers for demands, counted by their users, with the pools that each could ever use."""

    def __init__(self) -> None:
        columns = ("cpu", "memory", "gpu", "uses", "shape", "walltime", "class")
        self._table: Table[Demand] = Table([(name, "i8") for name in columns])
        self._objects: dict[int, Demand] = {}
        self._requests = np.zeros(len(self._table.rows), _REQUEST)
        self._shapes: Table[_Shape] = Table([("uses", "i8")])
        self._shape_of: dict[int, _Shape] = {}
        self._preferences: dict[tuple[int, int], tuple[int, ...]] = {}  # by number and level
        self._choices: dict[tuple[int, int], tuple[tuple[int, ...], ...]] = {}
        self._spread: dict[tuple[int, int], tuple[tuple[int, float], ...]] = {}
        self._weights = Weights()
        self._scores = Scores((), {}, self._weights)
        self._waits = np.zeros((len(_CLASSES), 0), np.int64)  # by class and pool the usual wait there, if it is remote
        self._at_home = np.zeros(0, np.bool_)  # by pool whether it is local, and open
        self._cutoffs = np.zeros(0, np.int64)  # the different waits
        self._willing: dict[tuple[Placement, bool, str], bool] = {}
        self._pools: Sequence[Pool] = ()
        self._states: Mapping[str, SiteState] = {}
        self._possible = np.zeros((len(self._table.rows), 0), np.bool_)

    def __len__(self) -> int:
        return len(self._table)

    def __getitem__(self, number: int) -> Demand:
        return self._objects[number]

    def hold(self, demand: Demand) -> int:
        """The number of `demand`, with one user more."""
        number = self._table.index.get(demand)
        if number is None:
            number = self._table.add(demand)
            self._objects[number] = demand
            row, total = self._table.rows[number], demand.total
            # Sums over many nodes may leave 64 bits; no site has that much, and `possible` says so exactly.
            row["cpu"], row["memory"], row["gpu"] = (
                min(value, MAX_AMOUNT) for value in (total.cpu, total.memory, total.gpu)
            )
            if number >= len(self._requests):
                self._requests = np.concatenate([self._requests, np.zeros_like(self._requests)])
            request = demand.request
            walltime = demand.placement.walltime
            row["walltime"] = _ENDLESS if walltime is None else walltime
            row["class"] = _CLASSES.index(demand.placement.class_)
            self._requests[number] = (request.cpu, request.memory, request.gpu)
            self._judge(number)
        self._table.rows["uses"][number] += 1
        return number

    def drop(self, number: int) -> None:
        """One user less; a demand that nobody has is forgotten."""
        uses = self._table.rows["uses"]
        uses[number] -= 1
        if not uses[number]:
            self._table.pop(self._objects.pop(number))
            for level in range(len(self._cutoffs) + 1):
                self._preferences.pop((number, level), None)
                self._choices.pop((number, level), None)
                self._spread.pop((number, level), None)
            self._possible[number] = False
            self._drop_shape(number)
            self._table.release((number,))

    def uses(self, number: int) -> int:
        """How many jobs have this demand."""
        return int(self._table.rows["uses"][number])

    def place(self, pools: Sequence[Pool], states: Mapping[str, SiteState]) -> None:
        """Judge all demands anew, against other pools."""
        self._pools, self._states = pools, states
        self._willing.clear()
        self.weigh(self._weights)
        self._possible = np.zeros((len(self._table.rows), len(pools)), np.bool_)
        for number in self._objects:
            self._judge(number)

    def weigh(self, weights: Weights) -> None:
        """Prefer places by these weights, and by the sites' waits, prices and health as they are now."""
        self._weights = weights
        self._preferences.clear()
        self._choices.clear()
        self._spread.clear()
        self._scores = Scores(self._pools, self._states, weights)
        states = [self._states[pool.site] for pool in self._pools]
        sites = [(pool.remote, state.site.wait) for pool, state in zip(self._pools, states, strict=True)]
        waits = [[wait.of(class_) if remote else 0 for remote, wait in sites] for class_ in _CLASSES]
        self._waits = np.array(waits, np.int64)
        homes = [not pool.remote and is_open(state) for pool, state in zip(self._pools, states, strict=True)]
        self._at_home = np.array(homes, np.bool_)
        self._cutoffs = np.unique(self._waits[self._waits > 0])[-_LEVELS:]

    @property
    def has_levels(self) -> bool:
        """Whether there is any level but 0."""
        return len(self._cutoffs) > 0

    def levels(self, numbers: NDArray[np.int32], expected: NDArray[np.int32]) -> NDArray[np.int64]:
        """For demands that are expected to run for so many seconds (0: their walltime) how many usual waits are longer.

        Those of all classes are told apart. The sites with these waits for their class are left out for them, where an
        open local site could run them: see `within`.
        """
        if not len(self._cutoffs):
            return np.zeros(len(numbers), np.int64)
        seconds = np.where(expected > 0, expected, self._table.rows["walltime"][numbers])
        return len(self._cutoffs) - np.searchsorted(self._cutoffs, seconds, side="right")

    def within(self, numbers: NDArray[Any], levels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Rows of `possible` for demands, without what is left out at their levels."""
        found: NDArray[np.bool_] = self._possible[numbers]
        for level in np.unique(levels[levels > 0]).tolist():
            far = self._waits >= self._cutoffs[-level]
            home = (levels == level) & (found & self._at_home).any(axis=1)
            found[home] &= ~far[self._table.rows["class"][numbers[home]]]
        return found

    def _judge(self, number: int) -> None:
        if len(self._possible) < len(self._table.rows):
            longer = np.zeros((len(self._table.rows), len(self._pools)), np.bool_)
            longer[: len(self._possible)] = self._possible
            self._possible = longer
        demand = self._objects[number]
        for column, pool in enumerate(self._pools):
            fits = flavor_obstacle(demand, pool.flavor, pool.site) is None
            self._possible[number, column] = fits and self._is_willing(demand, pool.site)
        self._drop_shape(number)
        self._table.rows["shape"][number] = self._hold_shape(number)

    def _hold_shape(self, number: int) -> int:
        shape = self._shape_of[number] = self._shape_key(number)
        place = self._shapes.index.get(shape)
        if place is None:
            place = self._shapes.add(shape)
        self._shapes.rows["uses"][place] += 1
        return place

    def _shape_key(self, number: int) -> _Shape:
        demand = self._objects[number]
        return demand.request, demand.nodes, demand.placement.grace, self._possible[number].tobytes()

    def _drop_shape(self, number: int) -> None:
        if (shape := self._shape_of.pop(number, None)) is None:
            return
        place = self._shapes.index[shape]
        self._shapes.rows["uses"][place] -= 1
        if not self._shapes.rows["uses"][place]:
            self._shapes.pop(shape)
            self._shapes.release((place,))

    def _is_willing(self, demand: Demand, site: str) -> bool:
        key = (demand.placement, demand.nodes > 1, site)
        if (known := self._willing.get(key)) is None:
            if len(self._willing) > 100_000:  # placements of jobs long gone
                self._willing.clear()
            known = placement_obstacle(demand.placement, demand.nodes, self._states[site].site) is None
            self._willing[key] = known
        return known

    @property
    def totals(self) -> NDArray[Any]:
        """A row for each number: milli-CPU, bytes and milli-GPU on all nodes together."""
        return self._table.rows

    @property
    def shapes(self) -> NDArray[np.int64]:
        """A number for each number: the same for demands that differ only in who asks, and for how long."""
        shapes: NDArray[np.int64] = self._table.rows["shape"]
        return shapes

    def validate(self) -> None:
        """Hold the shapes against what they are made from. Raises AssertionError."""
        made = {number: self._shape_key(number) for number in self._objects}
        assert made == self._shape_of, "a shape is stale"
        shapes = {number: self._shapes.index.get(shape) for number, shape in made.items()}
        assert shapes == {number: int(self.shapes[number]) for number in made}, "a shape has another number"
        assert len(self._shapes) == len(set(made.values())), "a shape without a demand is kept"
        known = dict(self._preferences)
        self.weigh(self._weights)
        for number, level in known:
            assert known[number, level] == self.preference(number, level), "places are preferred as they were"

    @property
    def requests(self) -> NDArray[Any]:
        """A row for each number: milli-CPU, bytes and milli-GPU on each node."""
        return self._requests

    @property
    def possible(self) -> NDArray[np.bool_]:
        """A row for each number, a column for each pool: whether the pool, when empty, could hold it."""
        return self._possible

    def preference(self, number: int, level: int = 0) -> tuple[int, ...]:
        """The pools that the demand could use at a level, the preferred first."""
        if (known := self._preferences.get((number, level))) is None:
            possible = self.within(np.array([number]), np.array([level]))[0] if level else self._possible[number]
            known = self._scores.preference(self._objects[number], possible.tolist())
            self._preferences[number, level] = known
        return known

    def spread(self, number: int, level: int = 0) -> tuple[tuple[int, float], ...]:
        """For each of `choices` the wish and what speaks against it; empty where there is nothing to spread."""
        if (known := self._spread.get((number, level))) is None:
            demand, choices = self._objects[number], self.choices(number, level)
            sites = {self._pools[choice[0]].site for choice in choices}
            several = self._weights.spread > 0 and len(sites) > 1
            known = tuple(self._scores.order(demand, choice[0])[:2] for choice in choices) if several else ()
            self._spread[number, level] = known
        return known

    def choices(self, number: int, level: int = 0) -> tuple[tuple[int, ...], ...]:
        """The same pools; those that are liked alike, and whose nodes Atoll chooses, are one choice together."""
        if (known := self._choices.get((number, level))) is None:
            demand, parts = self._objects[number], dict[tuple[Any, ...], list[int]]()
            for choice in self.preference(number, level):
                pool = self._pools[choice]
                report = self._states[pool.site].site.report
                is_owned = report is not None and bool(report.nodes)
                # of nodes that some waste and others do not, packing chooses
                liked = wish(demand, pool), self._scores.place(demand, choice)
                parts.setdefault(liked if is_owned else (choice,), []).append(choice)
            known = self._choices[number, level] = tuple(map(tuple, parts.values()))
        return known
