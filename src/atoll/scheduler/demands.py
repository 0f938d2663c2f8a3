"""The distinct demands of all waiting jobs, each kept once: most queues hold far fewer demands than jobs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import MAX_AMOUNT, Resources
from atoll.scheduler.fit import Pool, flavor_obstacle, placement_obstacle, preference, wish
from atoll.scheduler.model import Demand, Placement, SiteState
from atoll.scheduler.table import Table

_REQUEST = np.dtype([("cpu", "i8"), ("memory", "i8"), ("gpu", "i8")])
_Shape = tuple[Resources, int, int, bytes]


class Demands:
    """Numbers for demands, counted by their users, with the pools that each could ever use."""

    def __init__(self) -> None:
        self._table: Table[Demand] = Table(
            [("cpu", "i8"), ("memory", "i8"), ("gpu", "i8"), ("uses", "i8"), ("shape", "i8")]
        )
        self._objects: dict[int, Demand] = {}
        self._requests = np.zeros(len(self._table.rows), _REQUEST)
        self._shapes: Table[_Shape] = Table([("uses", "i8")])
        self._shape_of: dict[int, _Shape] = {}
        self._preferences: dict[int, tuple[int, ...]] = {}
        self._choices: dict[int, tuple[tuple[int, ...], ...]] = {}
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
            self._preferences.pop(number, None)
            self._choices.pop(number, None)
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
        self._preferences.clear()
        self._choices.clear()
        self._possible = np.zeros((len(self._table.rows), len(pools)), np.bool_)
        for number in self._objects:
            self._judge(number)

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

    @property
    def requests(self) -> NDArray[Any]:
        """A row for each number: milli-CPU, bytes and milli-GPU on each node."""
        return self._requests

    @property
    def possible(self) -> NDArray[np.bool_]:
        """A row for each number, a column for each pool: whether the pool, when empty, could hold it."""
        return self._possible

    def preference(self, number: int) -> tuple[int, ...]:
        """The pools that the demand could use, the preferred first."""
        if (known := self._preferences.get(number)) is None:
            known = preference(self._objects[number], self._pools, self._possible[number].tolist())
            self._preferences[number] = known
        return known

    def choices(self, number: int) -> tuple[tuple[int, ...], ...]:
        """The same pools; those that are liked alike, and whose nodes Atoll chooses, are one choice together."""
        if (known := self._choices.get(number)) is None:
            demand, parts = self._objects[number], dict[tuple[Any, ...], list[int]]()
            for choice in self.preference(number):
                pool = self._pools[choice]
                report = self._states[pool.site].site.report
                is_owned = report is not None and bool(report.nodes)
                parts.setdefault((wish(demand, pool), pool.remote) if is_owned else (choice,), []).append(choice)
            known = self._choices[number] = tuple(map(tuple, parts.values()))
        return known
