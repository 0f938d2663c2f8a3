"""Which node and which GPUs a request gets, so that little room is left that nobody can use.

Fragmentation Gradient Descent: Weng, Yang, Yu, Wang, Tang, Yang, Zhang: Beware of Fragmentation: Scheduling GPU-Sharing
Workloads with Fragmentation Gradient Descent. USENIX ATC 2023. For the typical tasks M, each with its weight, the
fragmentation F_n(M) of a node is the GPU room there that a task drawn from M is expected to be unable to use; a request
goes where F grows least.

What follows is about the opposite, the *usable* room U_n(M) = free GPUs - F_n(M): a request takes as many GPUs from
whatever node it goes to, so F grows least where the usable room shrinks least (its *loss*). Weights are integers, so
that sums do not depend on their order, and what is kept up to date equals what is computed afresh.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.nodes import MOST_DEVICES, WHOLE, Column, Mask, Nodes, Spot, devices_of

SCALE = 2**16
"""What the weights of all typical tasks together are scaled to."""
_NEVER = np.iinfo(np.int64).max
_LEFT_BITS = 24
_MOST = 2**50


@dataclass(frozen=True, slots=True)
class Typical:
    """A task as it often comes: a request, the pools that it may use (None: any), how often it comes."""

    request: Resources
    pools: frozenset[int] | None = None
    weight: float = 1


class Fragmentation:
    """U_n(M) of nodes in any state.

    Which tasks of M have the CPUs and the memory that they need changes only at what some task asks for. So there is a
    row for each pool and each step between such amounts, with the weight of the share tasks that can use a device, by
    its free milli-GPU, and what whole devices are worth, by their number.
    """

    def __init__(self, typical: Iterable[Typical], pools: int) -> None:
        """`pools` is how many there are; tasks without GPU have no part in it."""
        tasks = [task for task in typical if task.request.gpu and task.weight > 0]
        total = sum(task.weight for task in tasks)
        self._cpu = np.unique(np.array([task.request.cpu for task in tasks], np.int64))
        self._memory = np.unique(np.array([task.request.memory for task in tasks], np.int64))
        shares = sorted({task.request.gpu for task in tasks if task.request.gpu < WHOLE})
        steps = (pools, len(self._cpu) + 1, len(self._memory) + 1)
        share = np.zeros((*steps, len(shares) + 1), np.int64)
        whole = np.zeros((*steps, MOST_DEVICES + 1), np.int64)
        for task in tasks:
            count, part = devices_of(task.request)
            if count > MOST_DEVICES:
                continue
            cpu = int(np.searchsorted(self._cpu, task.request.cpu)) + 1
            memory = int(np.searchsorted(self._memory, task.request.memory)) + 1
            weight = max(1, round(task.weight / total * SCALE))
            for pool in range(pools) if task.pools is None else sorted(task.pools):
                if count:
                    whole[pool, cpu, memory, count] += weight
                else:
                    share[pool, cpu, memory, shares.index(part) + 1] += weight
        for axis in (1, 2, 3):
            np.cumsum(share, axis, out=share)
            np.cumsum(whole, axis, out=whole)
        whole *= WHOLE * np.arange(MOST_DEVICES + 1)
        self._steps = steps
        self._share = share.reshape(-1, len(shares) + 1)
        self._whole = whole.reshape(-1, MOST_DEVICES + 1)
        self._levels = np.searchsorted(np.array(shares, np.int64), np.arange(WHOLE + 1), side="right")

    def rows(self, pool: Column, cpu: Column, memory: Column) -> NDArray[np.intp]:
        """The row for what is free."""
        _, cpus, memories = self._steps
        rows = pool * cpus + np.searchsorted(self._cpu, cpu, side="right")
        return rows * memories + np.searchsorted(self._memory, memory, side="right")

    def usable(self, nodes: Nodes, which: NDArray[np.intp]) -> Column:
        """U_n(M), times the sum of all weights, of these nodes as they are."""
        rows = self.rows(nodes.pool[which], nodes.cpu[which], nodes.memory[which])
        return self.of_devices(rows, nodes.gpu[which]).sum(axis=1) + self.of_whole(rows, nodes.whole[which])

    def of_devices(self, rows: NDArray[np.intp], gpu: Column) -> Column:
        """What share tasks can use of devices with so much free milli-GPU; `gpu` has a row of them for each row."""
        levels = self._levels.take(gpu)
        levels += (rows * self._share.shape[1])[:, None]
        return self._share.take(levels) * gpu

    def of_whole(self, rows: NDArray[np.intp], count: Column) -> Column:
        """What tasks of whole devices can use of so many that are completely free."""
        return self._whole.take(rows * (MOST_DEVICES + 1) + count)

    def of_a_free_device(self, rows: NDArray[np.intp]) -> Column:
        """What share tasks can use of a device that is completely free."""
        return WHOLE * self._share[rows, -1]


class _Scores:
    """What each node would lose to one kind of request, as of a version of the nodes."""

    def __init__(self, request: Resources, pools: Mask, nodes: int) -> None:
        self.request = request
        self.pools = pools.copy()
        self.scores: Column = np.full(nodes, _NEVER, np.int64)
        """Loss, then what else decides; `_NEVER` where the request does not fit."""
        self.devices = np.zeros(nodes, np.int8)
        """The device that a share gets."""
        self.version = -1


class Packer:
    """Chooses among nodes, and keeps what it found out until the node changes.

    There is one for the nodes as they are, and a `copy` of it to place on what may or may not come about.
    """

    def __init__(self, nodes: Nodes, fragmentation: Fragmentation, limit: int = 2**27) -> None:
        """`limit` is how many bytes of scores are kept at most; a kind of request takes nine for each node."""
        self.nodes = nodes
        self.fragmentation = fragmentation
        self._most = max(1, limit // (9 * max(1, len(nodes))))
        self._kinds: dict[tuple[Resources, bytes], _Scores] = {}
        self._usable = fragmentation.usable(nodes, np.arange(len(nodes)))
        self._version = nodes.version

    def best(self, request: Resources, pools: Mask) -> Spot | None:
        """Where a request loses least, in pools of a mask over their numbers; None where it fits nowhere.

        Of equal nodes it is the one with the fewest free GPUs, then the fewest free CPUs, then the first.
        """
        if not len(self.nodes):
            return None
        kind = self._kind(request, pools)
        node = int(kind.scores.argmin())
        return None if kind.scores[node] == _NEVER else self._spot(kind, node)

    def best_many(self, request: Resources, pools: Mask, count: int) -> tuple[Spot, ...] | None:
        """The same for `count` distinct nodes, the best first; None where there are not as many."""
        scores = (kind := self._kind(request, pools)).scores
        chosen = np.argsort(scores, kind="stable")[:count]
        if len(chosen) < count or (count and scores[chosen[-1]] == _NEVER):
            return None
        return tuple(self._spot(kind, node) for node in chosen.tolist())

    def _spot(self, kind: _Scores, node: int) -> Spot:
        if 0 < kind.request.gpu < WHOLE:
            return Spot(node, ((int(kind.devices[node]), kind.request.gpu),))
        return self.nodes.spot(node, kind.request)

    def _kind(self, request: Resources, pools: Mask) -> _Scores:
        """The scores of all nodes for a kind of request, up to date."""
        nodes = self.nodes
        if self._version != nodes.version:
            changed = nodes.changed(self._version)
            self._usable[changed] = self.fragmentation.usable(nodes, changed)
            self._version = nodes.version
        key = (request, pools.tobytes())
        kind = self._kinds.pop(key, None) or _Scores(request, pools, len(nodes))
        while len(self._kinds) >= self._most:  # the one that nobody has asked for for the longest time
            del self._kinds[next(iter(self._kinds))]
        self._kinds[key] = kind
        if kind.version != nodes.version:
            self._score(kind, nodes.changed(kind.version))
            kind.version = nodes.version
        return kind

    def _score(self, kind: _Scores, which: NDArray[np.intp]) -> None:
        """Score these nodes anew."""
        nodes, fragmentation, request = self.nodes, self.fragmentation, kind.request
        whole, share = devices_of(request)
        kind.scores[which] = _NEVER
        which = which[nodes.fits(request, kind.pools, which)]
        if not len(which):
            return
        cpu = nodes.cpu.take(which) - request.cpu
        rows = fragmentation.rows(nodes.pool.take(which), cpu, nodes.memory.take(which) - request.memory)
        gpu = nodes.gpu.take(which, axis=0)
        free = nodes.whole.take(which)
        usable = fragmentation.of_devices(rows, gpu)
        after = usable.sum(axis=1)
        if share:
            device, change = self._best_device(rows, gpu, free, usable, share)
            kind.devices[which] = device
            after += change + fragmentation.of_whole(rows, free)
        else:
            after += fragmentation.of_whole(rows, free - whole)
            if whole:
                after -= whole * fragmentation.of_a_free_device(rows)
        loss = self._usable.take(which) - after
        left = (nodes.together.take(which) << 10) + np.minimum(cpu // 1000, 1023)
        kind.scores[which] = (loss << _LEFT_BITS) + left

    def _best_device(
        self, rows: NDArray[np.intp], gpu: Column, free: Column, usable: Column, share: int
    ) -> tuple[NDArray[np.intp], Column]:
        """The device of each node that had best give the share, and how much usable room that adds (it is below 0).

        `gpu` and `usable` have a column for each device, `free` is the number of those that are completely free.
        """
        fragmentation = self.fragmentation
        left = gpu - share
        lacks = left < 0
        left[lacks] = 0
        change = fragmentation.of_devices(rows, left) - usable
        fewer = fragmentation.of_whole(rows, np.maximum(free - 1, 0)) - fragmentation.of_whole(rows, free)
        change += (gpu == WHOLE) * fewer[:, None]
        change[lacks] = -_MOST
        # of equal devices the one that is fullest afterwards
        device = (change * 1024 - left).argmax(axis=1)
        return device, change[np.arange(len(rows)), device]
