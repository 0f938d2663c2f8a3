"""Which of many demands fit on some node now, asked again and again while little changes.

The cycle asks it before it looks at single jobs: whoever fits nowhere is passed over. A job on several nodes needs more
than one that fits; `Packer.best_many` says whether there are.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from atoll.scheduler.nodes import WHOLE, Column, Mask, Nodes

_CELLS = 2**20
"""How many pairs of demand and node are looked at in one go: what stays in the processor's cache."""
_FEW = 64
"""Up to so many demands are looked for on every node; for more it is worth while to find the nodes that matter."""

Rows = NDArray[np.intp]


class Witnesses:
    """Remembers for each demand one node on which it fits, its witness, or that there was none.

    As long as a witness has room there is nothing to look for, and where there was none only a node that has changed
    can be one. A demand is a row; one that is not as it was at the last question is looked for anew.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self._asked: Column = np.zeros((0, 4), np.int64)
        """By demand: milli-CPU, bytes, whole devices, milli-GPU of one device."""
        self._possible: Mask = np.zeros((0, 0), np.bool_)
        self._witness: Rows = np.zeros(0, np.intp)
        self._version = nodes.version

    def copy(self, nodes: Nodes) -> "Witnesses":
        """The same for `nodes`, a copy that was made of the nodes as they are now."""
        made = Witnesses(nodes)
        made._asked, made._possible = self._asked, self._possible
        made._witness, made._version = self._witness.copy(), self._version
        return made

    def fitting(self, requests: NDArray[Any], possible: Mask) -> Mask:
        """Which demands fit on at least one node now: a bool for each row.

        `requests` is a structured array with `cpu`, `memory` and `gpu` on one node, `possible` has a column for each
        pool: whether the demand may go there.
        """
        unknown = self._take_in(requests, possible)
        changed = self.nodes.changed(self._version)
        self._version = self.nodes.version
        without = np.flatnonzero((self._witness < 0) & ~unknown)
        with_one = np.flatnonzero(self._witness >= 0)
        lost = with_one[~self._fit(with_one, self._witness[with_one])]
        self._search(without, changed)
        unknown[lost] = True
        rows = np.flatnonzero(unknown)
        self._search(rows, np.arange(len(self.nodes)) if len(rows) <= _FEW else self._best_nodes())
        return self._witness >= 0

    def _take_in(self, requests: NDArray[Any], possible: Mask) -> Mask:
        """Remember what is asked for; the rows that were asked for something else before, and have no witness now."""
        gpu = requests["gpu"]
        is_share = gpu < WHOLE
        asked = np.stack(
            [requests["cpu"], requests["memory"], np.where(is_share, 0, gpu // WHOLE), np.where(is_share, gpu, 0)],
            axis=1,
        )
        known = min(len(asked), len(self._asked))
        unknown = np.ones(len(asked), np.bool_)
        if possible.shape[1] == self._possible.shape[1]:
            unknown[:known] = (asked[:known] != self._asked[:known]).any(axis=1)
            unknown[:known] |= (possible[:known] != self._possible[:known]).any(axis=1)
        witness = np.full(len(asked), -1, np.intp)
        witness[:known] = self._witness[:known]
        witness[unknown] = -1
        self._asked, self._possible, self._witness = asked, possible.copy(), witness
        return unknown

    def _fit(self, rows: Rows, nodes: Rows) -> Mask:
        """Whether each of these demands fits on the node beside it; arrays that broadcast give a matrix."""
        free, asked = self.nodes, self._asked
        found: Mask = self._possible[rows, free.pool[nodes]]
        for column, room in enumerate((free.cpu, free.memory, free.whole, free.largest)):
            found = found & (asked[rows, column] <= room[nodes])
        return found

    def _search(self, rows: Rows, candidates: Rows) -> None:
        """Find witnesses of these demands among the candidates, or that there are none."""
        self._witness[rows] = -1
        if not len(candidates):
            return
        # the last that fits: what is placed goes to the first of equal nodes, so that the last has room for longer
        candidates = candidates[::-1]
        block = max(1, _CELLS // len(candidates))
        for begin in range(0, len(rows), block):
            part = rows[begin : begin + block]
            fits = self._fit(part[:, None], candidates[None, :])
            self._witness[part] = np.where(fits.any(axis=1), candidates[fits.argmax(axis=1)], -1)

    def _best_nodes(self) -> Rows:
        """The nodes that matter: each pool's, without those that have no more of anything than another one there.

        What fits on one that is left out fits on the other, too.
        """
        free = self.nodes
        room = np.stack([free.cpu, free.memory, free.whole, free.largest], axis=1)
        best = []
        for pool in np.unique(free.pool):
            left = np.flatnonzero(free.pool == pool)
            left = left[np.lexsort(room[left].T)]
            while len(left):
                # the last one in this order has no less of everything than any other, so it matters
                best.append(left[-1])
                left = left[(room[left] > room[left[-1]]).any(axis=1)]
        return np.sort(np.array(best, np.intp))
