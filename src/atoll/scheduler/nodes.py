"""The room on each node of the sites that place nothing by themselves: CPUs, memory, and each GPU of its own.

A request (`Resources`) is for one node. Its `gpu` is in milli-GPU: 0 is none; below 1000 a share of one device; above
that so many whole devices, each completely free. `packing` chooses among the nodes, `witnesses` says what fits
anywhere; this module only counts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources

WHOLE = 1000
"""Milli-GPU of a whole device."""
MOST_DEVICES = 16
"""GPUs that a node has at most."""

Column = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class NodeInfo:
    """A node as it is when nothing runs there; `pool` is the number of its flavor at its site (`fit.Pool`)."""

    name: str
    pool: int
    capacity: Resources


@dataclass(frozen=True, slots=True)
class Spot:
    """A place for one request: a node by its number, and what is taken of which devices, in milli-GPU."""

    node: int
    gpus: tuple[tuple[int, int], ...] = ()


def devices_of(request: Resources) -> tuple[int, int]:
    """What a request asks of GPUs: a number of whole devices, and the share of one (milli-GPU); one of them is 0."""
    return (request.gpu // WHOLE, 0) if request.gpu >= WHOLE else (0, request.gpu)


class Nodes:
    """What is free on each node, in columns. Read them as you like; only `take` and `give` write.

    Each change gives its node a new version, so that what was computed of it can be brought up to date (`changed`).
    """

    def __init__(self, infos: Sequence[NodeInfo]) -> None:
        """Empty nodes. Raises ValueError for a node of more than `MOST_DEVICES` GPUs."""
        self.infos = tuple(infos)
        devices = [info.capacity.gpu // WHOLE for info in self.infos]
        if max(devices, default=0) > MOST_DEVICES:
            raise ValueError(f"a node has {max(devices)} GPUs; {MOST_DEVICES} are the most")
        self.pool: Column = np.array([info.pool for info in self.infos], np.int64)
        self.cpu: Column = np.array([info.capacity.cpu for info in self.infos], np.int64)
        """Free milli-CPU of each node."""
        self.memory: Column = np.array([info.capacity.memory for info in self.infos], np.int64)
        """Free bytes of each node."""
        self.gpu: Column = np.zeros((len(self.infos), max(devices, default=0)), np.int64)
        """Free milli-GPU, a column for each device; where a node has fewer devices the last ones are 0 for ever."""
        for node, count in enumerate(devices):
            self.gpu[node, :count] = WHOLE
        self.whole: Column = np.array(devices, np.int64)
        """How many devices of each node are completely free."""
        self.largest: Column = np.where(self.whole > 0, WHOLE, 0)
        """Milli-GPU of each node's device with the most room."""
        self.together: Column = WHOLE * self.whole
        """Free milli-GPU of all devices of each node together."""
        self.versions: Column = np.zeros(len(self.infos), np.int64)
        self.version = 0
        """The version of the last change."""

    def __len__(self) -> int:
        return len(self.infos)

    def copy(self) -> "Nodes":
        """The same again, on which others may count."""
        made = Nodes.__new__(Nodes)
        made.infos, made.pool, made.version = self.infos, self.pool, self.version
        for name in ("cpu", "memory", "gpu", "whole", "largest", "together", "versions"):
            setattr(made, name, getattr(self, name).copy())
        return made

    def changed(self, since: int) -> NDArray[np.intp]:
        """The nodes that changed after that version."""
        return (self.versions > since).nonzero()[0]

    # ---- counting

    def take(self, spot: Spot, request: Resources) -> None:
        """Count a request at a spot as taken. Raises ValueError, and counts nothing, where it does not fit there."""
        node, free = spot.node, self.gpu[spot.node]
        if (
            not self.made_for(spot, request)
            or self.cpu[node] < request.cpu
            or self.memory[node] < request.memory
            or any(free[device] < milli for device, milli in spot.gpus)
        ):
            raise ValueError(f"{request} does not fit on {self.infos[node].name}")
        self._count(spot, request, -1)

    def give(self, spot: Spot, request: Resources) -> None:
        """Count a request at a spot as free again. Raises ValueError where more would be free than there is."""
        node, free = spot.node, self.gpu[spot.node]
        capacity = self.infos[node].capacity
        if (
            not self.made_for(spot, request)
            or self.cpu[node] + request.cpu > capacity.cpu
            or self.memory[node] + request.memory > capacity.memory
            or any(free[device] + milli > WHOLE for device, milli in spot.gpus)
        ):
            raise ValueError(f"{request} was not taken on {self.infos[node].name}")
        self._count(spot, request, 1)

    def set_free(self, node: int, cpu: int, memory: int, gpus: Column) -> None:
        """Say what is free on a node, as somebody else counted it; `gpus` is milli-GPU of each of its devices."""
        self.cpu[node], self.memory[node], self.gpu[node] = cpu, memory, gpus
        self._recount(node)

    def give_many(self, which: NDArray[np.intp], cpu: Column, memory: Column, gpus: Column) -> None:
        """Count much as free at once, an entry for each amount; a node may come several times."""
        np.add.at(self.cpu, which, cpu)
        np.add.at(self.memory, which, memory)
        np.add.at(self.gpu, which, gpus)
        changed = np.unique(which)
        left = self.gpu[changed]
        self.whole[changed] = (left == WHOLE).sum(axis=1)
        self.largest[changed] = left.max(axis=1, initial=0)
        self.together[changed] = left.sum(axis=1)
        self.version += 1
        self.versions[changed] = self.version

    def close(self, node: int) -> None:
        """Let a node take nothing, whatever is asked for."""
        self.set_free(node, -1, 0, np.zeros(self.gpu.shape[1], np.int64))

    def made_for(self, spot: Spot, request: Resources) -> bool:
        """Whether the devices of a spot are distinct ones that its node has, and as many as are asked for."""
        devices = [device for device, _ in spot.gpus]
        whole, share = devices_of(request)
        if [milli for _, milli in spot.gpus] != ([share] if share else [WHOLE] * whole):
            return False
        if not devices:
            return True
        last = self.infos[spot.node].capacity.gpu // WHOLE - 1
        return len(set(devices)) == len(devices) and min(devices) >= 0 and max(devices) <= last

    def _count(self, spot: Spot, request: Resources, sign: int) -> None:
        node = spot.node
        self.cpu[node] += sign * request.cpu
        self.memory[node] += sign * request.memory
        for device, milli in spot.gpus:
            self.gpu[node, device] += sign * milli
        self._recount(node, gpus=bool(spot.gpus))

    def _recount(self, node: int, *, gpus: bool = True) -> None:
        """Bring up to date what is made from a node's columns: its GPUs, if these changed, and its version."""
        if gpus and self.gpu.shape[1]:
            left = self.gpu[node].tolist()
            self.whole[node] = left.count(WHOLE)
            self.largest[node] = max(left)
            self.together[node] = sum(left)
        self.version += 1
        self.versions[node] = self.version

    # ---- asking

    def fits(self, request: Resources, pools: Mask) -> Mask:
        """On which nodes a request fits now, in pools of a mask over their numbers: a bool for each node."""
        return pools[self.pool] & self.holds(request, slice(None))

    def holds(self, request: Resources, which: NDArray[np.intp] | slice) -> Mask:
        """Which of these nodes have room for a request now, in whatever pool: a bool for each of them."""
        found: Mask = self.cpu[which] >= request.cpu
        found &= self.memory[which] >= request.memory
        whole, share = devices_of(request)
        if whole:
            found &= self.whole[which] >= whole
        elif share:
            found &= self.largest[which] >= share
        return found

    def spot(self, node: int, request: Resources) -> Spot:
        """The devices of a node that a request gets if none is better than another: of those with room the fullest.

        The node must have room, see `fits`.
        """
        whole, share = devices_of(request)
        if not (whole or share):
            return Spot(node)
        free: list[int] = self.gpu[node].tolist()
        if whole:
            devices = [device for device, milli in enumerate(free) if milli == WHOLE][:whole]
            return Spot(node, tuple((device, WHOLE) for device in devices))
        _, device = min((milli, device) for device, milli in enumerate(free) if milli >= share)
        return Spot(node, ((device, share),))
