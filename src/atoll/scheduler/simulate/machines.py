"""The nodes of a simulated cluster: what each has left, down to the single GPU.

The scheduler counts a flavor's nodes together and leaves it to the engine which node takes an attempt; this is that
engine. So room that lies in pieces too small for anybody shows in a simulation as it does in life.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.simulate.cluster import Node

WHOLE = 1000
"""Milli-GPU of a device."""

Numbers = NDArray[np.int64]
Choice = Callable[["Machines", Numbers, Resources], int]
"""Which of several nodes (their numbers), all with room, takes a request: the place in the list."""


@dataclass(frozen=True, slots=True)
class Spot:
    """What an attempt holds of one node: its number, and of which devices how many milli-GPU."""

    node: int
    devices: tuple[tuple[int, int], ...] = ()


class Machines:
    """Room by node: milli-CPU, bytes, and milli-GPU of each device."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self.cpu: Numbers = np.array([node.amount.cpu for node in nodes], np.int64)
        self.memory: Numbers = np.array([node.amount.memory for node in nodes], np.int64)
        devices = [node.amount.gpu // WHOLE for node in nodes]
        self.devices: Numbers = np.zeros((len(nodes), max(devices, default=0) or 1), np.int64)
        for number, count in enumerate(devices):
            self.devices[number, :count] = WHOLE
        self.free: Numbers = (self.devices == WHOLE).sum(1)
        """Devices that nobody uses, by node."""
        self.largest: Numbers = self.devices.max(1)
        """The largest share of one device that is left, by node."""
        members: dict[tuple[str, str], list[int]] = {}
        for number, node in enumerate(nodes):
            members.setdefault((node.site, node.flavor), []).append(number)
        self.pools: dict[tuple[str, str], Numbers] = {
            pool: np.array(numbers, np.int64) for pool, numbers in members.items()
        }
        """The numbers of the nodes of a flavor at a site."""

    def with_room(self, pool: tuple[str, str], request: Resources) -> Numbers:
        """The numbers of the nodes of a pool that have room for a request now."""
        nodes = self.pools[pool]
        fits: NDArray[np.bool_] = (self.cpu[nodes] >= request.cpu) & (self.memory[nodes] >= request.memory)
        if request.gpu >= WHOLE:
            fits &= self.free[nodes] >= request.gpu // WHOLE
        elif request.gpu:
            fits &= self.largest[nodes] >= request.gpu
        chosen: Numbers = nodes[fits]
        return chosen

    def put(self, pool: tuple[str, str], request: Resources, count: int, choice: Choice) -> tuple[Spot, ...] | None:
        """Give a request room on `count` different nodes of a pool; None, and nothing changes, where it has none."""
        nodes = self.with_room(pool, request)
        if len(nodes) < count:
            return None
        spots = []
        for _ in range(count):
            place = choice(self, nodes, request)
            spots.append(self._take(int(nodes[place]), request))
            nodes = np.delete(nodes, place) if count > 1 else nodes
        return tuple(spots)

    def put_at(self, spots: Sequence[Spot], request: Resources) -> None:
        """Give a request room on these nodes and devices. Raises ValueError where there is none."""
        for spot in spots:
            devices = self.devices[spot.node]
            devices_full = any(devices[device] < share for device, share in spot.devices)
            if self.cpu[spot.node] < request.cpu or self.memory[spot.node] < request.memory or devices_full:
                raise ValueError(f"{request} has no room at {spot}")
            self.cpu[spot.node] -= request.cpu
            self.memory[spot.node] -= request.memory
            for device, share in spot.devices:
                devices[device] -= share
            self._recount(spot.node)

    def _take(self, node: int, request: Resources) -> Spot:
        self.cpu[node] -= request.cpu
        self.memory[node] -= request.memory
        devices = self.devices[node]
        taken: tuple[tuple[int, int], ...] = ()
        if request.gpu >= WHOLE:
            wanted = np.flatnonzero(devices == WHOLE)[: request.gpu // WHOLE]
            taken = tuple((int(device), WHOLE) for device in wanted)
        elif request.gpu:
            enough = np.where(devices >= request.gpu, devices, 2 * WHOLE)
            taken = ((int(enough.argmin()), request.gpu),)  # the device that it fills best
        for device, share in taken:
            devices[device] -= share
        self._recount(node)
        return Spot(node, taken)

    def leave(self, spots: Sequence[Spot], request: Resources) -> None:
        """Give back what an attempt held."""
        for spot in spots:
            self.cpu[spot.node] += request.cpu
            self.memory[spot.node] += request.memory
            for device, share in spot.devices:
                self.devices[spot.node, device] += share
            self._recount(spot.node)

    def _recount(self, node: int) -> None:
        devices = self.devices[node]
        self.free[node] = (devices == WHOLE).sum()
        self.largest[node] = devices.max()


def first_node(machines: Machines, nodes: Numbers, request: Resources) -> int:
    """The first that has room."""
    return 0


def fullest_node(machines: Machines, nodes: Numbers, request: Resources) -> int:
    """The one that the request leaves fullest, so that large jobs still find whole nodes.

    Parts of a GPU go where one is already in use; else what counts is how many GPUs are free, then how many CPUs.
    """
    columns: list[Any] = [machines.cpu[nodes], machines.free[nodes]]
    if 0 < request.gpu < WHOLE:
        devices = machines.devices[nodes]
        columns.append(~((devices >= request.gpu) & (devices < WHOLE)).any(1))
    return int(np.lexsort(columns)[0])
