"""What is free on each node that Atoll places on, counted down while a cycle places jobs, and what is kept of it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.freeing import NEVER, Leaving, room_from
from atoll.scheduler.model import Demand
from atoll.scheduler.nodes import Column, Mask, Nodes, Spot
from atoll.scheduler.owned import OwnedNodes
from atoll.scheduler.packing import Packer
from atoll.scheduler.witnesses import Witnesses

Rows = NDArray[np.intp]
_FEW = 8


@dataclass(frozen=True, slots=True)
class NodeHold:
    """Nodes that a job will have from `start` on; whoever would stay longer does not get them."""

    start: int
    nodes: Rows


@dataclass(frozen=True, slots=True)
class _Amount:
    """What of a node is kept from everybody, or what of it others leave beyond what they leave for."""

    node: int
    cpu: int
    memory: int
    gpus: Column


class NodeRoom:
    """Room by node for one cycle. A pool here is its number in the snapshot; times are microseconds."""

    def __init__(self, owned: OwnedNodes, ends: Callable[[Rows], Column]) -> None:
        """`ends` tells of rows of the snapshot's `holding` when each has left."""
        self.owned = owned
        self.packer = owned.packer.copy()
        self.nodes = self.packer.nodes
        self.holds: dict[int, NodeHold] = {}
        """By job."""
        self._ends = ends
        self._witnesses: Witnesses | None = None
        self._kept: dict[int, list[tuple[_Amount, _Amount]]] = {}  # by job: of what is free, and what is left over
        self._surplus: dict[int, _Amount] = {}  # by node
        self._started: list[tuple[int, Spot, Resources]] = []
        self._held: dict[int, Leaving] = {}
        self._known_times: dict[tuple[int, Resources], tuple[int, Column]] = {}
        self._counts: dict[Resources, tuple[int, NDArray[np.intp]]] = {}
        self._copied_at = owned.nodes.version

    # ---- starting now

    def fitting(self, requests: NDArray[Any], possible: Mask) -> Mask:
        """Which of many demands find room on one node at least, see `Witnesses.fitting`."""
        if self._witnesses is None:
            found = self.owned.witnesses.fitting(requests, possible)
            self._witnesses = self.owned.witnesses.copy(self.nodes)
            if self.nodes.version == self.owned.nodes.version:
                return found
        return self._witnesses.fitting(requests, possible)

    def with_room(self, number: int, request: Resources) -> int:
        """How many nodes of a pool have room for a request."""
        version, counts = self._counts.get(request, (-1, None))
        if counts is None or version != self.nodes.version:
            pools = self.nodes.pool[self.nodes.holds(request, slice(None))]
            counts = np.bincount(pools, minlength=len(self.owned.pools))
            self._counts[request] = self.nodes.version, counts
        return int(counts[number])

    def find(self, demand: Demand, pools: Mask, end: int) -> tuple[Spot, ...] | None:
        """Where one attempt had best go in pools of a mask, if it may stay until `end`; None where it fits nowhere.

        An attempt on several nodes is in one pool, the first that has them.
        """
        among = self.open_until(end)
        if demand.nodes == 1:
            spot = self.packer.best(demand.request, pools, among)
            return None if spot is None else (spot,)
        for number in np.flatnonzero(pools).tolist():
            alone = np.zeros_like(pools)
            alone[number] = True
            spots = self.packer.best_many(demand.request, alone, demand.nodes, among)
            if spots is not None:
                return spots
        return None

    def open_until(self, end: int) -> Mask | None:
        """The nodes on which one may stay until `end`; None for all."""
        held = [hold.nodes for hold in self.holds.values() if hold.start < end]
        if not held:
            return None
        among = np.ones(len(self.nodes), np.bool_)
        among[np.concatenate(held)] = False
        return among

    def take(self, spots: Iterable[Spot], request: Resources, end: int) -> None:
        """Count an attempt down from its nodes, until `end`. Raises ValueError where it does not fit there."""
        for spot in spots:
            self.nodes.take(spot, request)
            self._started.append((end, spot, request))

    def claims(self, number: int) -> NDArray[Any]:
        """What attempts hold of the nodes of a pool, without those that start in this cycle."""
        return self.owned.claims_in(number)

    def packer_without(self, rows: Rows) -> Packer:
        """A packer on the nodes as they are without the attempts of these rows of `holding`."""
        nodes = self.nodes.copy()
        claims = np.concatenate([self.claims(number) for number in self.owned.stretches])
        claims = claims[np.isin(claims["row"], rows) & (nodes.cpu[claims["node"]] >= 0)]
        gpus = claims["gpus"][:, : nodes.gpu.shape[1]]
        nodes.give_many(claims["node"].astype(np.intp), claims["cpu"], claims["memory"], gpus)
        return Packer(nodes, self.owned.packer.fragmentation)

    # ---- keeping room that others leave

    def keep(self, job_id: int, plan: "Plan") -> None:
        """Leave a job what it needs of nodes of which others go; what they leave beyond that may be promised too."""
        nodes, kept = self.nodes, self._kept.setdefault(job_id, [])
        for node in plan.touched:
            more_cpu = int(plan.nodes.cpu[node] - nodes.cpu[node])
            more_memory = int(plan.nodes.memory[node] - nodes.memory[node])
            more_gpus = plan.nodes.gpu[node] - nodes.gpu[node]
            over = _Amount(node, max(0, more_cpu), max(0, more_memory), np.maximum(0, more_gpus))
            if plan.with_surplus:
                self._surplus.pop(node, None)  # it is in what the plan has left
            self._add_surplus(over, 1)
            cpu, memory, gpus = max(0, -more_cpu), max(0, -more_memory), np.maximum(0, -more_gpus)
            kept.append((_Amount(node, cpu, memory, gpus), over))
            nodes.set_free(node, int(nodes.cpu[node]) - cpu, int(nodes.memory[node]) - memory, nodes.gpu[node] - gpus)

    def _add_surplus(self, over: _Amount, sign: int) -> None:
        known = self._surplus.pop(over.node, None)
        cpu, memory, gpus = sign * over.cpu, sign * over.memory, sign * over.gpus
        if known is not None:
            cpu, memory, gpus = cpu + known.cpu, memory + known.memory, gpus + known.gpus
        if cpu or memory or gpus.any():
            self._surplus[over.node] = _Amount(over.node, cpu, memory, gpus)

    def release(self, job_id: int) -> None:
        """Keep nothing for a job any more. Only before anything of what is left over was promised to others."""
        nodes = self.nodes
        for kept, over in self._kept.pop(job_id, ()):
            cpu, memory = int(nodes.cpu[kept.node]) + kept.cpu, int(nodes.memory[kept.node]) + kept.memory
            nodes.set_free(kept.node, cpu, memory, nodes.gpu[kept.node] + kept.gpus)
            self._add_surplus(over, -1)

    def with_surplus(self, stretch: slice) -> int:
        """On how many nodes of a stretch others leave more than they leave for."""
        return sum(stretch.start <= node < stretch.stop for node in self._surplus)

    def add_surplus(self, nodes: Nodes, stretch: slice) -> None:
        """Let nodes have free what others leave beyond what they leave for."""
        for surplus in self._surplus.values():
            if stretch.start <= surplus.node < stretch.stop and nodes.cpu[surplus.node] >= 0:
                at = surplus.node
                cpu, memory = int(nodes.cpu[at]) + surplus.cpu, int(nodes.memory[at]) + surplus.memory
                nodes.set_free(at, cpu, memory, nodes.gpu[at] + surplus.gpus)

    # ---- starting later

    def earliest(self, number: int, demand: Demand, start: int) -> tuple[int, Rows] | None:
        """When the first nodes of a pool have room, not before `start`, and which; None for never.

        What others hold for later, and where others leave for somebody, does not count.
        """
        times = self._times(number, demand.request, start)
        order = np.lexsort((np.arange(len(times)), times))[: demand.nodes]
        if len(order) < demand.nodes or times[order[-1]] >= NEVER:
            return None
        return int(times[order[-1]]), order + self.owned.stretches[number].start

    def _times(self, number: int, request: Resources, start: int) -> Column:
        """When each node of a pool has room for a request."""
        stretch = self.owned.stretches[number]
        latest = int(self.nodes.versions[stretch].max(initial=0))
        version, times = self._known_times.get((number, request), (-1, None))
        if times is None or version != latest:
            # while nothing has started here, what the cycle before found out still holds
            as_before = self.owned.known_times(number, self._leaving_of(number)) if latest <= self._copied_at else {}
            times = as_before.get(request)
            if times is None:
                times = as_before[request] = room_from(self.nodes, stretch, request, self._leaving(number))
            self._known_times[number, request] = latest, times
        times = np.maximum(times, start)
        spoken_for = [each.node for kept in self._kept.values() for each, _ in kept]
        for hold in self.holds.values():
            spoken_for += hold.nodes.tolist()
        outside = [node - stretch.start for node in spoken_for if stretch.start <= node < stretch.stop]
        times[outside] = NEVER
        times[self.nodes.cpu[stretch] < 0] = NEVER
        return times

    def _leaving_of(self, number: int) -> Leaving:
        """All that was in a pool before this cycle, in the order in which it goes."""
        if number not in self._held:
            self._held[number] = self.owned.leaving(number, self._ends)
        return self._held[number]

    def _leaving(self, number: int) -> Leaving:
        """All that is in a pool, what has started in this cycle too, in the order in which it goes."""
        stretch, there = self.owned.stretches[number], self._leaving_of(number)
        started = [
            (end, spot, request)
            for end, spot, request in self._started
            if stretch.start <= spot.node < stretch.stop and end < NEVER
        ]
        return there.with_more(started)

    def hold(self, job_id: int, number: int, demand: Demand, start: int) -> None:
        """Keep nodes for a job that it can have at `start`, see `earliest`."""
        found = self.earliest(number, demand, start)
        if found is not None:
            self.holds[job_id] = NodeHold(start, found[1])

    def unhold(self, job_id: int) -> None:
        """Keep no nodes for a job any more."""
        self.holds.pop(job_id, None)

    def plan_at(self, number: int, held: NodeHold, staying: Rows) -> "Plan":
        """A pool whose held nodes are as they will be when their hold begins, if attempts of some rows stay."""
        plan = Plan(self, number, held.start)
        rows = np.unique(plan.claims_on(held.nodes.tolist())["row"]).astype(np.intp)
        gone: Rows = rows[self._ends(rows) <= held.start]
        plan.leave(np.setdiff1d(gone, staying))
        for end, spot, request in self._started:
            if end <= held.start and spot.node in held.nodes:
                plan.nodes.give(spot, request)
        return plan

    def is_held(self, number: int) -> bool:
        """Whether nodes of a pool are held for a job."""
        return any((self.nodes.pool[hold.nodes] == number).any() for hold in self.holds.values())


class Plan:
    """What would be free in a pool if some left and others came: a copy of the nodes to try that on."""

    def __init__(self, room: NodeRoom, number: int, end: int, *, with_surplus: bool = False) -> None:
        """`end` is until when those would stay who come; `with_surplus`: what others leave over may be used."""
        self.nodes: Nodes = room.nodes.copy()
        self.with_surplus = with_surplus
        self.touched: dict[int, None] = {}
        """The nodes on which anything changed, in that order."""
        self._claims = room.claims(number)
        self.stretch = room.owned.stretches[number]
        self.among = room.open_until(end)
        """The nodes that those who come may use; None for all."""
        self._room = room
        self._end = end
        if with_surplus:
            room.add_surplus(self.nodes, self.stretch)

    def may_wait(self, nodes: Sequence[int], late: int) -> bool:
        """Whether these nodes are held for nobody when one that comes so much later (microseconds) still stays."""
        among = self._room.open_until(min(NEVER, self._end + late)) if late else self.among
        return among is None or bool(among[list(nodes)].all())

    def wait(self, late: int) -> None:
        """Let those who come do so later, and stay until then too."""
        self.among = self._room.open_until(min(NEVER, self._end + late))

    def leave(self, rows: Sequence[int] | Rows) -> None:
        """Let the attempts of these rows of `holding` go."""
        nodes, claims = self.nodes, self.claims_of(rows)
        claims = claims[nodes.cpu[claims["node"]] >= 0]  # what is closed stays so until it was counted anew
        at = claims["node"].astype(np.intp)
        nodes.give_many(at, claims["cpu"], claims["memory"], claims["gpus"][:, : nodes.gpu.shape[1]])
        self.touched.update(dict.fromkeys(at.tolist()))

    def place(self, demand: Demand, *, elsewhere: bool = True) -> bool:
        """Let one come, rather where something changed than elsewhere; whether there was room."""
        touched = np.array([*self.touched], np.intp)
        others = np.arange(self.stretch.start, self.stretch.stop) if elsewhere else np.zeros(0, np.intp)
        candidates = np.concatenate([touched, others[~np.isin(others, touched)]])
        if self.among is not None:
            candidates = candidates[self.among[candidates]]
        found = candidates[self.nodes.holds(demand.request, candidates)][: demand.nodes].tolist()
        if len(found) < demand.nodes:
            return False
        for node in found:
            self.nodes.take(self.nodes.spot(node, demand.request), demand.request)
            self.touched[node] = None
        return True

    def may_use(self, nodes: Rows) -> Mask:
        """Which of these nodes are neither closed nor held for others."""
        found: Mask = self.nodes.cpu[nodes] >= 0
        return found if self.among is None else found & self.among[nodes]

    def place_many(self, demand: Demand, count: int) -> None:
        """Let so many come, or as many as there is room for."""
        for _ in range(count):
            if not self.place(demand):
                return

    def claims_of(self, rows: Sequence[int] | Rows) -> NDArray[Any]:
        """What the attempts of these rows of `holding` hold here, see `OwnedNodes.claims`."""
        if len(rows) < _FEW:
            return np.asarray(self._claims[np.isin(self._claims["row"], rows)])
        wanted = np.zeros(1 + max(int(self._claims["row"].max(initial=0)), int(np.max(rows))), np.bool_)
        wanted[rows] = True
        return np.asarray(self._claims[wanted[self._claims["row"]]])

    def claims_on(self, nodes: Sequence[int]) -> NDArray[Any]:
        """What attempts hold of these nodes."""
        return np.asarray(self._claims[np.isin(self._claims["node"], nodes)])
