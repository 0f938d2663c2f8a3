"""What a simulation holds at each moment, by resource and by project: written down as it goes, for `metrics`."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.simulate.cluster import Cluster

RESOURCES = ("gpu", "cpu", "memory")


@dataclass(frozen=True, slots=True)
class Step:
    """What is held, and how many jobs wait, from a time on (microseconds)."""

    begin: int
    held: Resources
    waiting: int


@dataclass(frozen=True, slots=True)
class Loss:
    """Work from a time to a time (microseconds) that an eviction made vain."""

    begin: int
    end: int
    held: Resources


class Meter:
    """Counts as attempts begin and end; a time is told before what happens at it."""

    def __init__(self, cluster: Cluster, projects: Sequence[str], gpus: bool) -> None:
        self.now = 0
        self.steps: list[Step] = []
        self.losses: list[Loss] = []
        self.projects = tuple(dict.fromkeys(projects))
        """The projects, in the order in which they come."""
        self.by_gpu = gpus
        """Whether a project's use is its GPUs; else it is its dominant share of all resources."""
        self.used = np.zeros((len(self.projects), len(RESOURCES)))
        """By project and resource: base units times seconds."""
        self._held = Resources()
        self._waiting = 0
        self._numbers = {project: number for number, project in enumerate(self.projects)}
        self._holds = np.zeros((len(self.projects), len(RESOURCES)))
        self._waits = np.zeros(len(self.projects), np.int64)
        self._capacity = np.maximum(_row(cluster.capacity), 1.0)
        self._weights = np.array([cluster.weight(project) for project in self.projects])
        self._fair_time = self._fairness = 0.0

    def advance(self, now: int) -> None:
        """Time passes, with all as it is."""
        if now == self.now:
            return
        self.steps.append(Step(self.now, self._held, self._waiting))
        seconds = (now - self.now) / 1e6
        self.used += self._holds * seconds
        if self._waiting and (index := self._jain()) is not None:
            self._fair_time += seconds
            self._fairness += seconds * index
        self.now = now

    def waits(self, project: str) -> None:
        """A job of a project waits."""
        self._waiting += 1
        self._waits[self._numbers[project]] += 1

    def begins(self, project: str, total: Resources) -> None:
        """A job that waited holds `total`."""
        number = self._numbers[project]
        self._waiting -= 1
        self._waits[number] -= 1
        self._held += total
        self._holds[number] += _row(total)

    def ends(self, project: str, total: Resources) -> None:
        """`total` is held no longer."""
        self._held -= total
        self._holds[self._numbers[project]] -= _row(total)

    def loses(self, total: Resources, micros: int) -> None:
        """What held `total` for the last `micros` did so in vain."""
        if micros:
            self.losses.append(Loss(self.now - micros, self.now, total))

    @property
    def held(self) -> Resources:
        """What is held now."""
        return self._held

    @property
    def fairness(self) -> float | None:
        """Mean of Jain's index over the time that something waited; None where that never was among projects."""
        return self._fairness / self._fair_time if self._fair_time else None

    def _jain(self) -> float | None:
        """Jain's fairness index of the projects that now run or wait, by what they hold for their weight.

        R. Jain, D. Chiu, W. Hawe, "A Quantitative Measure of Fairness and Discrimination for Resource Allocation in
        Shared Computer Systems", DEC-TR-301, 1984. None for fewer than two, and where nobody holds anything.
        """
        active = (self._waits > 0) | self._holds.any(1)
        if active.sum() < 2:
            return None
        holds = self._holds[active] / self._capacity
        shares: NDArray[np.float64] = (holds[:, 0] if self.by_gpu else holds.max(1)) / self._weights[active]
        squares = float((shares**2).sum())
        return float(shares.sum()) ** 2 / (len(shares) * squares) if squares > 0 else None


def _row(amount: Resources) -> NDArray[np.float64]:
    return np.array([amount.gpu, amount.cpu, amount.memory], np.float64)
