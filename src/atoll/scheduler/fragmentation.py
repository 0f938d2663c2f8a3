"""How much of the free GPUs of a node typical tasks could use; `packing` places by it.

Weng, Yang, Yu, Wang, Tang, Yang, Zhang: Beware of Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation
Gradient Descent. USENIX ATC 2023. For typical tasks M, each with a weight, the fragmentation F_n(M) of a node is the
GPU room that a task drawn from M is expected to find there and not to be able to use: all of it where the task does not
fit, or may not go; else what is free on devices that have less than it asks of one.

Here it is the *usable* room that is counted, U_n(M) = free GPUs - F_n(M). Weights are integers, so that sums do not
depend on their order, and what is kept up to date equals what is computed afresh.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import MOST_DEVICES, WHOLE, Column, Nodes, devices_of

SCALE = 2**16
"""What the weights of all typical tasks come to together."""
DAMPING = 0.25
"""To which power it counts how often a request comes; 1 would be as often, 0 all alike."""
CELLS = 2**23
"""How many numbers are kept at most. Where tasks ask for too many different amounts, the least typical are left out."""

Rows = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Typical:
    """A task as it often comes: a request, the pools that it may use (None: any), how often it comes."""

    request: Resources
    pools: frozenset[int] | None = None
    weight: float = 1


def damped(typical: Iterable[Typical]) -> list[Typical]:
    """The same tasks, weighed for filling a site over a long time instead of for the one task that comes next.

    Rare requests count for more than their number (see `DAMPING`): in a queue one of them comes sooner or later, and
    takes what nobody else can. Those for small shares count for more too, as they can take what others leave. On the
    trace of `bench/packing.py` this leaves a seventh less of the GPUs unused than the plain distribution.
    """
    tasks = [task for task in typical if task.request.gpu]
    together: dict[Resources, float] = defaultdict(float)
    for task in tasks:
        together[task.request] += task.weight
    return [
        replace(
            task,
            weight=task.weight * together[task.request] ** (DAMPING - 1) * WHOLE / min(task.request.gpu, WHOLE),
        )
        for task in tasks
        if task.weight > 0
    ]


class Fragmentation:
    """U_n(M) of nodes in any state, in milli-GPU times `SCALE`.

    Which tasks of M have the CPUs and the memory that they need changes only at amounts that some task asks for. So
    there is a *row* for each pool and each step between such amounts: the weight of the share tasks that can use a
    device, by its free milli-GPU, and what whole devices are worth, by their number.
    """

    def __init__(self, typical: Iterable[Typical], pools: int) -> None:
        """`pools` is how many there are. Tasks without GPU have no part in it: they can use no GPU anywhere."""
        tasks = _most_typical([task for task in typical if task.request.gpu and task.weight > 0], pools)
        total = sum(task.weight for task in tasks)
        self._cpu = np.unique(np.array([task.request.cpu for task in tasks], np.int64))
        self._memory = np.unique(np.array([task.request.memory for task in tasks], np.int64))
        shares = sorted({task.request.gpu for task in tasks if task.request.gpu < WHOLE})
        self._steps = (pools, len(self._cpu) + 1, len(self._memory) + 1)
        share = np.zeros((*self._steps, len(shares) + 1), np.int64)
        whole = np.zeros((*self._steps, MOST_DEVICES + 1), np.int64)
        for task in tasks:
            count, part = devices_of(task.request)
            if count > MOST_DEVICES:
                continue
            cpu = int(self._cpu.searchsorted(task.request.cpu)) + 1
            memory = int(self._memory.searchsorted(task.request.memory)) + 1
            where = list(range(pools)) if task.pools is None else sorted(task.pools)
            weight = max(1, round(task.weight / total * SCALE))
            if count:
                whole[where, cpu, memory, count] += weight
            else:
                share[where, cpu, memory, shares.index(part) + 1] += weight
        for axis in (1, 2, 3):
            np.cumsum(share, axis, out=share)
            np.cumsum(whole, axis, out=whole)
        whole *= WHOLE * np.arange(MOST_DEVICES + 1)
        self._share = share.reshape(-1, len(shares) + 1)
        self._whole = whole.reshape(-1, MOST_DEVICES + 1)
        self._levels = np.array(shares, np.int64).searchsorted(np.arange(WHOLE + 1), side="right")

    def usable(self, nodes: Nodes, which: NDArray[np.intp]) -> Column:
        """U_n(M) of these nodes as they are."""
        rows = self.rows(nodes.pool.take(which), nodes.cpu.take(which), nodes.memory.take(which))
        usable: Column = self.of_devices(rows, nodes.gpu.take(which, axis=0)).sum(axis=1)
        usable += self.of_whole(rows, nodes.whole.take(which))
        return usable

    def rows(self, pool: Column, cpu: Column, memory: Column) -> Rows:
        """The row for each pool with so much free milli-CPU and bytes."""
        _, cpus, memories = self._steps
        rows: Rows = pool * cpus + self._cpu.searchsorted(cpu, side="right")
        rows *= memories
        rows += self._memory.searchsorted(memory, side="right")
        return rows

    def of_devices(self, rows: Rows, gpu: Column) -> Column:
        """What share tasks can use of devices; `gpu` has a row of free milli-GPU for each of the rows."""
        levels = self._levels.take(gpu)
        levels += (rows * self._share.shape[1])[:, None]
        used: Column = self._share.take(levels)
        used *= gpu
        return used

    def of_whole(self, rows: Rows, count: Column) -> Column:
        """What tasks of whole devices can use of so many that are completely free."""
        found: Column = self._whole.take(rows * (MOST_DEVICES + 1) + count)
        return found

    def of_a_free_device(self, rows: Rows) -> Column:
        """What share tasks can use of a device that is completely free."""
        found: Column = WHOLE * self._share[rows, -1]
        return found


def _most_typical(tasks: list[Typical], pools: int) -> list[Typical]:
    """As many of the weightiest tasks as there is memory for."""
    tasks = sorted(tasks, key=lambda task: -task.weight)
    while tasks and _cells(tasks, pools) > CELLS:
        tasks = tasks[: len(tasks) * 7 // 8]
    return tasks


def _cells(tasks: list[Typical], pools: int) -> int:
    requests = [task.request for task in tasks]
    steps = (len({request.cpu for request in requests}) + 1) * (len({request.memory for request in requests}) + 1)
    shares = len({request.gpu for request in requests if request.gpu < WHOLE})
    return pools * steps * (shares + 1 + MOST_DEVICES + 1)
