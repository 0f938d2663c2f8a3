"""The policies that "Beware of Fragmentation" (USENIX ATC 2023, section 6) compares with."""

from __future__ import annotations

import random

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import Mask, Nodes, Spot
from bench.policies.base import Score, Scoring


class Random:
    """Any node with room, any device with room."""

    def __init__(self, nodes: Nodes, seed: int = 0) -> None:
        self.nodes = nodes
        self._random = random.Random(seed)

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """See `Policy`."""
        able = np.flatnonzero(self.nodes.fits(request, pools)).tolist()
        if not able:
            return None
        node = self._random.choice(able)
        if not 0 < request.gpu < 1000:
            return self.nodes.spot(node, request)
        devices = np.flatnonzero(self.nodes.gpu[node] >= request.gpu).tolist()
        return Spot(node, ((self._random.choice(devices), request.gpu),))


class BestFit(Scoring):
    """The node that has least left: CPUs and GPUs, each as a part of what the largest node has, count alike."""

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self._largest = _largest(nodes)

    def score(self, request: Resources, able: NDArray[np.intp]) -> Score:
        """What is left, negative."""
        cpu, gpu = self._largest
        left = (self.nodes.cpu[able] - request.cpu) / cpu + (self.nodes.together[able] - request.gpu) / gpu
        return -left


class DotProduct(Scoring):
    """Grandl et al.: Multi-resource Packing for Cluster Schedulers (Tetris), SIGCOMM 2014, as that paper applies it.

    The node whose free CPUs and GPUs have the smallest inner product with what is asked for, each as a part of what the
    largest node has.
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self._largest = _largest(nodes)

    def score(self, request: Resources, able: NDArray[np.intp]) -> Score:
        """The inner product, negative."""
        cpu, gpu = self._largest
        product = self.nodes.cpu[able] / cpu * (request.cpu / cpu) + self.nodes.together[able] / gpu * (
            request.gpu / gpu
        )
        return -product


class GpuPacking(Scoring):
    """Weng et al.: MLaaS in the Wild, NSDI 2022: GPUs in use first, then free ones of nodes in use, then free nodes.

    Among GPUs in use the fullest; else the node with the fewest free GPUs.
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self._devices = np.array([info.capacity.gpu // 1000 for info in nodes.infos])

    def score(self, request: Resources, able: NDArray[np.intp]) -> Score:
        """Above 2 where a GPU in use will do, above 1 on a node in use, above 0 on a free node."""
        if not request.gpu:
            return np.zeros(len(able))
        gpu, whole = self.nodes.gpu[able], self.nodes.whole[able]
        in_use = whole < self._devices[able]
        fewest = 1 - whole / 100
        score: Score = np.where(in_use, 1 + fewest, fewest)
        if request.gpu < 1000:
            room = np.where((gpu >= request.gpu) & (gpu < 1000), gpu, 1000).min(axis=1)
            score = np.where(room < 1000, 3 - room / 1000, score)
        return score


class GpuClustering(Scoring):
    """Xiao et al.: Gandiva, OSDI 2018: tasks of the same number of GPUs together, to keep others' nodes free for them.

    First nodes with such tasks only, then with such tasks among others, then free ones, then the rest; of each kind the
    one with the fewest free GPUs. All shares are one kind.
    """

    def __init__(self, nodes: Nodes) -> None:
        super().__init__(nodes)
        self._kinds = np.zeros((len(nodes), 17), np.bool_)
        """By node, the kinds of the tasks that it has: 0 shares, else their number of GPUs."""

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """See `Policy`; what is chosen counts from then on."""
        spot = super().best(request, pools)
        if spot is not None and request.gpu:
            self._kinds[spot.node, request.gpu // 1000] = True
        return spot

    def score(self, request: Resources, able: NDArray[np.intp]) -> Score:
        """From 3 downwards by kind of node."""
        if not request.gpu:
            return np.zeros(len(able))
        alike = self._kinds[able, request.gpu // 1000]
        kinds = self._kinds[able].sum(axis=1)
        order = np.where(alike, np.where(kinds == 1, 3, 2), np.where(kinds == 0, 1, 0))
        score: Score = order - self.nodes.together[able] / 1e6
        return score


def _largest(nodes: Nodes) -> tuple[int, int]:
    """The most CPUs and GPUs of any node."""
    capacities = [info.capacity for info in nodes.infos]
    return max(capacity.cpu for capacity in capacities), max(1, *(capacity.gpu for capacity in capacities))
