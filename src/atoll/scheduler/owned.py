"""The nodes of the sites that place nothing by themselves, kept current with what attempts hold of each.

The snapshot keeps one `OwnedNodes`, for all such sites together; a cycle counts on a copy of it (`noderoom`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.scheduler.fit import Pool
from atoll.scheduler.fragmentation import Fragmentation, Typical, damped
from atoll.scheduler.freeing import Leaving, room_from
from atoll.scheduler.model import Running, SiteState
from atoll.scheduler.nodes import MOST_DEVICES, WHOLE, Column, NodeInfo, Nodes, Spot, devices_of
from atoll.scheduler.packing import Packer
from atoll.scheduler.table import Columns, Table
from atoll.scheduler.witnesses import Witnesses

MOST_KINDS = 1000
"""How many of the most frequent requests count as typical."""
_MOST_TIMES = 100
"""For so many requests it is kept when nodes of a pool have room."""
_CLAIMS: Columns = [
    ("cpu", "i8"), ("memory", "i8"), ("node", "i4"), ("row", "i4"), ("odd", "?"), ("gpus", f"({MOST_DEVICES},)i2"),
]  # fmt: skip


class OwnedNodes:
    """Room by node, and which attempts hold it. The numbers of pools are those of the snapshot."""

    def __init__(self, pools: Sequence[Pool], states: Mapping[str, SiteState]) -> None:
        """All nodes are empty. Of a node with more than `MOST_DEVICES` GPUs the others are not used.

        Nodes that are not open stay closed; what runs there is counted all the same.
        """
        members: dict[int, list[NodeInfo]] = {}
        numbers = {(pool.site, pool.flavor.name): number for number, pool in enumerate(pools)}
        for name, state in states.items():
            for node in state.site.report.nodes if state.site.report else ():
                if (number := numbers.get((name, node.flavor))) is not None:
                    members.setdefault(number, []).append(NodeInfo(node.name, number, _usable(node.resources)))
        self.nodes = Nodes([info for number in sorted(members) for info in members[number]])
        self.pools = np.zeros(len(pools), np.bool_)
        """Which pools are of such nodes."""
        self.pools[list(members)] = True
        self.stretches: dict[int, slice] = {}
        """The numbers of each pool's nodes, which adjoin."""
        end = 0
        for number in sorted(members):
            self.stretches[number] = slice(end, end + len(members[number]))
            end += len(members[number])
        self.packer = Packer(self.nodes, Fragmentation((), len(pools)))
        self.witnesses = Witnesses(self.nodes)
        self.unplaced: dict[int, Resources] = {}
        """By pool: what attempts hold there of which no node is known."""
        self._pool_numbers = numbers
        self._numbers = {(pools[info.pool].site, info.name): number for number, info in enumerate(self.nodes.infos)}
        self._claims: Table[tuple[str, int]] = Table(_CLAIMS)
        self._shut = {
            self._numbers[name, node.name]
            for name, state in states.items()
            for node in (state.site.report.nodes if state.site.report else ())
            if not node.open and (name, node.flavor) in numbers
        }
        self._closed: set[int] = set()
        self._known_claims: dict[int, NDArray[Any]] = {}  # by pool
        self._known_leaving: dict[int, tuple[Column, NDArray[Any], Leaving]] = {}  # by pool: ends and claims of it
        self._known_times: dict[int, tuple[int, Leaving, dict[Resources, Column]]] = {}  # by pool: nodes' version
        for number in self._shut:
            self._recount(number)

    def __bool__(self) -> bool:
        """Whether there are any nodes."""
        return bool(len(self.nodes))

    # ---- counting

    def take(self, running: Running, row: int) -> None:
        """Count what an attempt holds, that is in a row of the snapshot's `holding`.

        What no longer fits onto its node, because that was changed, closes the node for others.
        """
        if not running.spots:
            self._count_unplaced(running, 1)
        for place, named in enumerate(running.spots):
            number = self._numbers.get((running.site, named.node))
            if number is None:
                continue  # the node is gone, and with it what was held there
            request = running.request
            spot = self._spot_of(Spot(number, named.gpus), request)
            suits = self.nodes.made_for(spot, request)
            self._claim((running.attempt_id, place), spot, request, row, odd=not suits)
            try:
                self.nodes.take(spot, request)
            except ValueError:
                self._recount(number)

    def give(self, running: Running) -> None:
        """Count an attempt no more."""
        if not running.spots:
            self._count_unplaced(running, -1)
        for place in range(len(running.spots)):
            claim = self._claims.pop((running.attempt_id, place))
            if claim is None:
                continue
            number = int(self._claims.rows["node"][claim])
            self._known_claims.pop(int(self.nodes.pool[number]), None)
            gpus = self._claims.rows["gpus"][claim].tolist()
            spot = Spot(number, tuple((device, milli) for device, milli in enumerate(gpus) if milli))
            self._claims.rows["node"][claim] = -1
            self._claims.release((claim,))
            if number in self._closed:
                self._recount(number)
            else:
                self.nodes.give(spot, running.request)

    def _spot_of(self, spot: Spot, request: Resources) -> Spot:
        """The spot as it is to be counted: of whole GPUs that are not there any more, or not free, others that are.

        An engine that is told the node alone numbers its GPUs as it likes, and what others hold there comes and goes.
        """
        whole, _ = devices_of(request)
        free = self.nodes.gpu[spot.node]
        if not whole or int(self.nodes.whole[spot.node]) < whole:
            return spot
        if self.nodes.made_for(spot, request) and all(free[device] == WHOLE for device, _ in spot.gpus):
            return spot
        return self.nodes.spot(spot.node, request)

    def _count_unplaced(self, running: Running, sign: int) -> None:
        number = self._pool_numbers.get((running.site, running.flavor))
        if number is not None and self.pools[number]:
            held = self.unplaced.get(number, Resources()) + running.request * running.nodes * sign
            self.unplaced[number] = held

    def _claim(self, key: tuple[str, int], spot: Spot, request: Resources, row: int, *, odd: bool) -> None:
        gpus = np.zeros(MOST_DEVICES, np.int16)
        for device, milli in spot.gpus:
            if 0 <= device < MOST_DEVICES:
                gpus[device] += milli
        self._known_claims.pop(int(self.nodes.pool[spot.node]), None)
        claim = self._claims.add(key)
        self._claims.rows[claim] = (request.cpu, request.memory, spot.node, row, odd, gpus)

    def _recount(self, number: int) -> None:
        """Count a node anew from all that is there; close it where that is more than it has, or it is not open."""
        nodes, here = self.nodes, self.claims(number)
        capacity, devices = nodes.infos[number].capacity, nodes.gpu.shape[1]
        cpu, memory = capacity.cpu - int(here["cpu"].sum()), capacity.memory - int(here["memory"].sum())
        gpus = np.zeros(devices, np.int64)
        gpus[: capacity.gpu // WHOLE] = WHOLE
        gpus -= here["gpus"][:, :devices].sum(axis=0, dtype=np.int64)
        if number in self._shut or here["odd"].any() or cpu < 0 or memory < 0 or (gpus < 0).any():
            nodes.close(number)
            self._closed.add(number)
        else:
            nodes.set_free(number, cpu, memory, gpus)
            self._closed.discard(number)

    # ---- reading

    def claims(self, node: int) -> NDArray[Any]:
        """What attempts hold of a node.

        By `node` and by `row` of the snapshot's `holding`; `gpus` is milli-GPU of each device.
        """
        rows = self._claims.rows
        found: NDArray[Any] = rows[(rows["node"] == node) & self._live()]
        return found

    def claims_in(self, number: int) -> NDArray[Any]:
        """The same of all nodes of a pool; not to be changed."""
        if (known := self._known_claims.get(number)) is None:
            rows, stretch = self._claims.rows, self.stretches[number]
            known = rows[(rows["node"] >= stretch.start) & (rows["node"] < stretch.stop) & self._live()]
            self._known_claims[number] = known
        return known

    def leaving(self, number: int, ends: Callable[[NDArray[np.intp]], Column]) -> Leaving:
        """When what attempts hold of a pool's nodes goes; `ends` tells it, in microseconds, of rows of `holding`."""
        claims = self.claims_in(number)
        times = ends(claims["row"].astype(np.intp))
        known = self._known_leaving.get(number)
        if known is not None and known[1] is claims and np.array_equal(known[0], times):
            return known[2]
        made = Leaving.of(claims, times, self.nodes.gpu.shape[1])
        self._known_leaving[number] = times, claims, made
        return made

    def known_times(self, number: int, leaving: Leaving) -> dict[Resources, Column]:
        """By request, when each node of a pool as it is has room for it: to be looked up, and added to.

        They are forgotten when a node changes, or when what is there goes at other times.
        """
        latest = int(self.nodes.versions[self.stretches[number]].max(initial=0))
        known = self._known_times.get(number)
        if known is None or known[0] != latest or known[1] is not leaving or len(known[2]) >= _MOST_TIMES:
            known = self._known_times[number] = latest, leaving, {}
        return known[2]

    def _live(self) -> NDArray[np.bool_]:
        """Which rows of the table are in use: those that never were are zero."""
        rows = self._claims.rows
        live: NDArray[np.bool_] = rows["node"] >= 0
        live[self._claims.end :] = False
        return live

    def free(self, number: int) -> Resources:
        """What the open nodes of a pool have free together, without what is held on nodes that are not known."""
        return free_of(self.nodes, self.stretches[number]) - self.unplaced.get(number, Resources())

    # ---- what typically comes

    def learn(self, typical: Iterable[Typical]) -> None:
        """Place by these tasks from now on (see `fragmentation`); the most frequent `MOST_KINDS` of them count."""
        frequent = sorted(typical, key=_by_weight)[:MOST_KINDS]
        self.packer = Packer(self.nodes, Fragmentation(damped(frequent), len(self.pools)))

    def named(self, spots: Iterable[Spot]) -> tuple[NodeSpot, ...]:
        """Spots with their nodes' names instead of numbers."""
        return tuple(NodeSpot(self.nodes.infos[spot.node].name, spot.gpus) for spot in spots)

    # ---- checking

    def validate(self) -> None:
        """Hold what is free against what attempts hold. Raises AssertionError."""
        counted = self.nodes, self._closed
        self.nodes, self._closed = self.nodes.copy(), set(self._closed)  # so that what is known stays known
        try:
            for number in range(len(self.nodes)):
                self._recount(number)
            for name in ("cpu", "memory", "gpu", "whole", "largest", "together"):
                same = getattr(self.nodes, name) == getattr(counted[0], name)
                assert same.all(), f"{name} of a node is miscounted"
            assert self._closed == counted[1], "a node is closed, or is not, for no reason"
        finally:
            self.nodes, self._closed = counted
        self._validate_known()

    def _validate_known(self) -> None:
        """Hold what is known of each pool against what its nodes are and who is there."""
        claims, self._known_claims = self._known_claims, {}
        for number, known in claims.items():
            assert np.array_equal(known, self.claims_in(number)), "what is held of a pool is stale"
        self._known_claims = claims
        for number, (ends, of, leaving) in self._known_leaving.items():
            if claims.get(number) is of:  # else it is made anew before it is used
                anew = Leaving.of(of, ends, self.nodes.gpu.shape[1])
                assert leaving.equals(anew), "who leaves the nodes of a pool, and when, is stale"
        for number, (latest, leaving, times) in self._known_times.items():
            stretch = self.stretches[number]
            current = self._known_leaving.get(number)
            if latest == self.nodes.versions[stretch].max(initial=0) and current and current[2] is leaving:
                for request, known_times in times.items():
                    anew_times = room_from(self.nodes, stretch, request, leaving)
                    assert np.array_equal(known_times, anew_times), "when nodes have room is stale"


def _usable(amount: Resources) -> Resources:
    return Resources(amount.cpu, amount.memory, min(amount.gpu, MOST_DEVICES * WHOLE))


def free_of(nodes: Nodes, stretch: slice) -> Resources:
    """What those nodes of a stretch that are not closed have free together."""
    is_open = nodes.cpu[stretch] >= 0
    columns = (nodes.cpu, nodes.memory, nodes.together)
    return Resources(*(int(column[stretch].sum(where=is_open)) for column in columns))


def _by_weight(task: Typical) -> tuple[float, int, int, int, list[int]]:
    """The weightiest first, in an order that does not depend on how they were found."""
    request = task.request
    return -task.weight, request.gpu, request.cpu, request.memory, sorted(task.pools or ())
