"""Fragmentation Gradient Descent as its paper has it: Weng et al.: Beware of Fragmentation, USENIX ATC 2023."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import Mask, Nodes, Spot
from bench.policies.base import Score


@dataclass(frozen=True)
class Task:
    """A task of M: what it asks for, the pools that it may use, how popular it is."""

    request: Resources
    pools: frozenset[int]
    popularity: float


@dataclass
class States:
    """Nodes as they are or would be: a row for each, of `gpu` a column for each device (milli-GPU)."""

    pool: NDArray[np.int64]
    cpu: NDArray[np.int64]
    memory: NDArray[np.int64]
    gpu: NDArray[np.int64]


class Fragmentation:
    """F_n(M) in milli-GPU."""

    def __init__(self, tasks: Iterable[Task], pools: int) -> None:
        """The popularities are normalised. Tasks that ask for the same and may use a pool are one there."""
        tasks = list(tasks)
        total = sum(task.popularity for task in tasks)
        asked = {request: number for number, request in enumerate(dict.fromkeys(task.request for task in tasks))}
        self._popularity = np.zeros((pools, len(asked)))
        self._everywhere = np.zeros(len(asked))
        for task in tasks:
            self._everywhere[asked[task.request]] += task.popularity / total
            self._popularity[sorted(task.pools), asked[task.request]] += task.popularity / total
        self._cpu = np.array([request.cpu for request in asked])
        self._memory = np.array([request.memory for request in asked])
        self._count = np.array([-(-request.gpu // 1000) for request in asked])
        each = np.array([min(request.gpu, 1000) for request in asked])
        # few tasks differ in what they ask of one device
        self._each, self._kind = np.unique(each, return_inverse=True)
        self._without = each == 0

    def of(self, states: States) -> Score:
        """Of each state: what a task of M is expected to find free and not to be able to use."""
        together = states.gpu.sum(axis=1).astype(np.float64)
        able, left_over = self._devices(states.gpu)
        fits = (states.cpu[:, None] >= self._cpu) & (states.memory[:, None] >= self._memory)
        fits &= able[:, self._kind] >= self._count
        fits &= ~self._without  # what asks for no GPU can use none
        found = np.where(fits, left_over[:, self._kind], together[:, None])
        # what may not use this pool finds all of it free, and unusable
        allowed = self._popularity[states.pool]
        fragmented: Score = (found * allowed).sum(axis=1) + together * (self._everywhere - allowed).sum(axis=1)
        return fragmented

    def _devices(self, gpu: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """By state and by what is asked of one device: how many have it, and what is free on those that have not."""
        able = np.zeros((len(gpu), len(self._each)), np.int64)
        left_over = np.zeros_like(able)
        for number, each in enumerate(self._each):
            has = gpu >= each
            able[:, number] = has.sum(axis=1)
            left_over[:, number] = np.where(has, 0, gpu).sum(axis=1)
        return able, left_over


class FragmentationGradientDescent:
    """Each task goes where F grows least, be it node or device."""

    def __init__(self, nodes: Nodes, tasks: Sequence[Task], pools: int) -> None:
        self.nodes = nodes
        self._fragmentation = Fragmentation(tasks, pools)
        self._now = self._fragmentation.of(self._states(np.arange(len(nodes))))
        self._version = nodes.version
        self._grows: dict[Resources, tuple[Score, NDArray[np.int64]]] = {}
        self._versions: dict[Resources, int] = {}

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """See `Policy`."""
        nodes = self.nodes
        changed = nodes.changed(self._version)
        self._now[changed] = self._fragmentation.of(self._states(changed))
        self._version = nodes.version
        if request not in self._grows:
            self._grows[request] = np.full(len(nodes), np.inf), np.zeros(len(nodes), np.int64)
        grows, devices = self._grows[request]
        which = nodes.changed(self._versions.get(request, -1))
        grows[which] = np.inf
        which = which[nodes.fits(request, np.ones(len(pools), np.bool_))[which]]
        if len(which):
            found, devices[which] = self._growth(request, which)
            # sums of fractions differ in their last digits where nodes are alike
            grows[which] = found.round(6)
        self._versions[request] = nodes.version
        allowed = np.where(pools[nodes.pool], grows, np.inf)
        node = int(allowed.argmin())
        if np.isinf(allowed[node]):
            return None
        if 0 < request.gpu < 1000:
            return Spot(node, ((int(devices[node]), request.gpu),))
        return nodes.spot(node, request)

    def _growth(self, request: Resources, which: NDArray[np.intp]) -> tuple[Score, NDArray[np.int64]]:
        """By how much F grows on each of these nodes, and, for a share, on which device it does so."""
        states = self._states(which)
        states.cpu -= request.cpu
        states.memory -= request.memory
        if not 0 < request.gpu < 1000:
            for row in states.gpu if request.gpu else ():
                row[np.flatnonzero(row == 1000)[: request.gpu // 1000]] = 0
            return self._fragmentation.of(states) - self._now[which], np.zeros(len(which), np.int64)
        # a state for each device that has room
        rows, devices = np.nonzero(states.gpu >= request.gpu)
        tried = States(states.pool[rows], states.cpu[rows], states.memory[rows], states.gpu[rows])
        tried.gpu[np.arange(len(rows)), devices] -= request.gpu
        grows = np.full(states.gpu.shape, np.inf)
        grows[rows, devices] = self._fragmentation.of(tried) - self._now[which][rows]
        device = grows.round(6).argmin(axis=1)
        return grows[np.arange(len(which)), device], device

    def _states(self, which: NDArray[np.intp]) -> States:
        nodes = self.nodes
        return States(nodes.pool[which], nodes.cpu[which], nodes.memory[which], nodes.gpu[which])
