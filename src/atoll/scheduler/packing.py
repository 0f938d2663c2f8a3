"""Which node and which GPUs a request gets, so that little room is left that nobody can use.

Fragmentation Gradient Descent (see `fragmentation`): a request goes where the fragmentation F_n(M) grows least. As it
takes as many GPUs from whatever node it goes to, that is where the usable room shrinks least: its *loss*.
"""

import numpy as np
from numpy.typing import NDArray

from atoll.core.resources import Resources
from atoll.scheduler.fragmentation import Fragmentation, Rows
from atoll.scheduler.nodes import WHOLE, Column, Mask, Nodes, Spot, devices_of

KEEP = 2**27
"""Bytes of scores that a packer keeps."""
_NEVER = np.iinfo(np.int64).max
_LEAST = -(2**50)
_BLOCK = 1024
"""How many nodes are scored in one go: what stays in the processor's cache."""
_MASKS = 1000
"""How many masks over the nodes are kept."""
_CPU_BITS, _LEFT_BITS = 10, 24
"""Below the loss in a score stand the free GPUs (14 bits) and CPUs (10 bits) that the node would have."""


class _Scores:
    """What each node would lose to one request, as of a version of the nodes."""

    def __init__(self, scores: Column, devices: NDArray[np.int8], version: int) -> None:
        self.scores = scores
        """By node: loss, then what else decides; `_NEVER` where the request does not fit."""
        self.devices = devices
        """By node: the device that a share gets."""
        self.version = version

    def copy(self) -> "_Scores":
        return _Scores(self.scores.copy(), self.devices.copy(), self.version)


class Packer:
    """Chooses among nodes, and keeps what it found out of each until that changes. It takes nothing: `Nodes.take` does.

    There is one for the nodes as they are, and a `copy` of it to place on what may or may not come about.
    """

    def __init__(self, nodes: Nodes, fragmentation: Fragmentation, keep: int = KEEP) -> None:
        """`keep` is in bytes; the scores of one request take nine for each node."""
        self.nodes = nodes
        self.fragmentation = fragmentation
        self._most = max(1, keep // (9 * max(1, len(nodes))))
        self._scores: dict[Resources, _Scores] = {}
        self._masks: dict[bytes, Mask] = {}
        self._usable = fragmentation.usable(nodes, np.arange(len(nodes)))
        self._version = nodes.version
        self._original: Packer | None = None
        self._copied_at = nodes.version

    def copy(self) -> "Packer":
        """A packer on a copy of the nodes. While these stay as they are it learns from this one, and this one by it."""
        made = Packer.__new__(Packer)
        made.nodes = self.nodes.copy()
        made.fragmentation, made._most, made._scores, made._masks = self.fragmentation, self._most, {}, self._masks
        made._usable, made._version = self._usable.copy(), self._version
        made._original, made._copied_at = self, self.nodes.version
        return made

    def best(self, request: Resources, pools: Mask, among: Mask | None = None) -> Spot | None:
        """Where a request loses least, in pools of a mask over their numbers; None where it fits nowhere.

        Of equal nodes it is the one with the fewest free GPUs, then the fewest free CPUs, then the first. `among` is
        a mask over the nodes, where not all may be taken.
        """
        if not len(self.nodes):
            return None
        found = self._scored(request)
        scores = self._allowed(found.scores, pools, among)
        node = int(scores.argmin())
        return None if scores[node] == _NEVER else self._spot(found, request, node)

    def best_many(
        self, request: Resources, pools: Mask, count: int, among: Mask | None = None
    ) -> tuple[Spot, ...] | None:
        """The same for each of `count` distinct nodes, the best first; None where there are not as many.

        To have them in one pool, ask for one pool after the other.
        """
        found = self._scored(request)
        scores = self._allowed(found.scores, pools, among)
        chosen = scores.argsort(kind="stable")[:count]
        if len(chosen) < count or (scores[chosen] == _NEVER).any():
            return None
        return tuple(self._spot(found, request, node) for node in chosen.tolist())

    def losses(self, request: Resources) -> Column:
        """By node, how little a request suits it: what `best` goes by; to be compared, it has no unit."""
        return self._scored(request).scores

    def _allowed(self, scores: Column, pools: Mask, among: Mask | None) -> Column:
        """The scores, without those of nodes in other pools and of others than `among`."""
        if among is not None:
            scores = np.where(among, scores, _NEVER)
        if pools.all():
            return scores
        key = pools.tobytes()
        if (mask := self._masks.get(key)) is None:
            if len(self._masks) >= _MASKS:
                self._masks.clear()
            mask = self._masks[key] = pools[self.nodes.pool]
        return np.where(mask, scores, _NEVER)

    def _spot(self, found: _Scores, request: Resources, node: int) -> Spot:
        if 0 < request.gpu < WHOLE:
            return Spot(node, ((int(found.devices[node]), request.gpu),))
        return self.nodes.spot(node, request)

    # ---- scores

    def _scored(self, request: Resources) -> _Scores:
        """The scores of all nodes for a request, up to date."""
        nodes = self.nodes
        if self._version != nodes.version:
            changed = nodes.changed(self._version)
            self._usable[changed] = self.fragmentation.usable(nodes, changed)
            self._version = nodes.version
        found = self._scores.pop(request, None) or self._new(request)
        if len(self._scores) >= self._most:  # forget what nobody has asked for for the longest time
            del self._scores[next(iter(self._scores))]
        self._scores[request] = found
        if found.version != nodes.version:
            changed = nodes.changed(found.version)
            for begin in range(0, len(changed), _BLOCK):
                self._score(found, request, changed[begin : begin + _BLOCK])
            found.version = nodes.version
        return found

    def _new(self, request: Resources) -> _Scores:
        if self._original is not None and self._original.nodes.version == self._copied_at:
            return self._original._scored(request).copy()
        count = len(self.nodes)
        return _Scores(np.full(count, _NEVER, np.int64), np.zeros(count, np.int8), -1)

    def _score(self, found: _Scores, request: Resources, which: NDArray[np.intp]) -> None:
        """Score these nodes anew."""
        nodes, fragmentation = self.nodes, self.fragmentation
        whole, share = devices_of(request)
        found.scores[which] = _NEVER
        which = which[nodes.holds(request, which)]
        if not len(which):
            return
        cpu = nodes.cpu.take(which) - request.cpu
        rows = fragmentation.rows(nodes.pool.take(which), cpu, nodes.memory.take(which) - request.memory)
        gpu = nodes.gpu.take(which, axis=0)
        free = nodes.whole.take(which)
        usable = fragmentation.of_devices(rows, gpu)
        after = usable.sum(axis=1)
        if share:
            found.devices[which], change = self._best_device(rows, gpu, free, usable, share)
            after += fragmentation.of_whole(rows, free)
            after += change
        else:
            after += fragmentation.of_whole(rows, free - whole)
            if whole:
                after -= whole * fragmentation.of_a_free_device(rows)
        left = (nodes.together.take(which) << _CPU_BITS) + np.minimum(cpu // 1000, 2**_CPU_BITS - 1)
        found.scores[which] = ((self._usable.take(which) - after) << _LEFT_BITS) + left

    def _best_device(
        self, rows: Rows, gpu: Column, free: Column, usable: Column, share: int
    ) -> tuple[NDArray[np.intp], Column]:
        """By node, the device that had best give the share, and what that adds to the usable room (at most 0).

        `gpu` and `usable` have a column for each device, `free` is how many of them are completely free. Of equal
        devices it is the one that has least left.
        """
        fragmentation = self.fragmentation
        left = gpu - share
        lacks = left < 0
        left[lacks] = 0
        change = fragmentation.of_devices(rows, left) - usable
        fewer = fragmentation.of_whole(rows, np.maximum(free - 1, 0)) - fragmentation.of_whole(rows, free)
        change += (gpu == WHOLE) * fewer[:, None]
        change[lacks] = _LEAST
        device = (change * 1024 - left).argmax(axis=1)
        return device, change[np.arange(len(rows)), device]
