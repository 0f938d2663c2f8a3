"""The first in line, as a forecast looks at them: what each wants, where, for how long, and how many of its tasks."""

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.scheduler.ahead import SECOND, Amounts, Rows, Times, expected_ends
from atoll.scheduler.kinds import buckets_in, demands_in, kinds_of, levels_in
from atoll.scheduler.noderoom import NodeRoom
from atoll.scheduler.room import ENDLESS
from atoll.scheduler.snapshot import Snapshot

_LOOKS = 10_000_000
"""So many claims on nodes are looked at for when a node is first large enough: each costs some 30 ns."""


class Candidates:
    """Rows of what waits in the order of the queue. Those of one kind are of one bucket, and demand the same."""

    def __init__(self, snapshot: Snapshot, now: int, rows: Rows) -> None:
        waiting = snapshot.rows[rows]
        self.rows = rows
        self.jobs: list[int] = waiting["job"].tolist()
        self.begins: Times = waiting["not_before"].astype(np.int64)
        self.left = [1 if (tasks := snapshot.tasks(row)) is None else len(tasks) for row in rows.tolist()]
        """How many tasks still wait of each, 1 of a single job."""
        self.limits: list[int] = waiting["limit"].tolist()
        self.widths: list[int] = waiting["width"].tolist()
        self._kinds(snapshot)
        self._stays(snapshot, waiting)
        self._nodes = NodeRoom(snapshot.owned, lambda held: _node_ends(snapshot, held, now)) if snapshot.owned else None
        self._looks = _LOOKS
        self._snapshot, self._now = snapshot, now

    def _kinds(self, snapshot: Snapshot) -> None:
        kinds, inverse = np.unique(kinds_of(snapshot, self.rows), return_inverse=True)
        self.kind = inverse.astype(np.intp)
        """The kind of each row; what follows has an entry for each kind."""
        self.demand = demands_in(kinds).astype(np.intp)
        keys = [snapshot.bucket_key(bucket) for bucket in buckets_in(kinds).tolist()]
        index = {} if snapshot.tree is None else snapshot.tree.index
        self.project = np.array([index.get(project, -1) for _, project, _ in keys], np.int64)
        """The node of the tree, -1 for none."""
        self.owner = [(project, person) for _, project, person in keys]
        totals = snapshot.demands.totals[self.demand]
        self.total: Amounts = np.stack([totals[name] for name in RESOURCES], axis=1).astype(np.int64)
        levels = levels_in(kinds)
        self.possible = snapshot.demands.within(self.demand, levels)
        """By kind and pool."""
        pairs = zip(self.demand.tolist(), levels.tolist(), strict=True)
        self.preference = [snapshot.demands.preference(number, level) for number, level in pairs]

    def _stays(self, snapshot: Snapshot, waiting: NDArray[np.void]) -> None:
        self.run: list[int] = []
        """How long each row will probably run, in microseconds."""
        self.wall: list[int] = []
        """How long it will hold room at most."""
        columns = (waiting[name].tolist() for name in ("rank", "demand", "expected"))
        for rank, number, expected in zip(*columns, strict=True):
            placement = snapshot.demands[number].placement
            limit = snapshot.walltime(rank, placement.walltime)
            seconds = min(expected or ENDLESS, ENDLESS if limit is None else limit)
            self.run.append(min(ENDLESS, seconds * SECOND))
            self.wall.append(ENDLESS if limit is None else (limit + placement.grace) * SECOND)
        self.wall_of_kind = np.zeros(len(self.demand), np.int64)
        self.wall_of_kind[self.kind] = self.wall

    def limits_of_running(self, snapshot: Snapshot) -> NDArray[np.int64]:
        """To which limit of an array each row of `holding` counts, -1 for none."""
        waiting, holding = snapshot.rows[self.rows], snapshot.holding
        limited = waiting[waiting["limit"] >= 0]
        found = np.full(len(holding), -1, np.int64)
        if len(limited):
            own = np.where(limited["group"] < 0, limited["job"], limited["group"])
            groups, first = np.unique(own, return_index=True)
            place = np.minimum(np.searchsorted(groups, holding["job"]), len(groups) - 1)
            here = (groups[place] == holding["job"]) & (holding["nodes"] > 0)
            found[here] = limited["limit"][first][place[here]]
        return found

    def nearest(self, kind: int, pool: int) -> int:
        """When a node of a pool is first large enough for a kind: what is free in all may lie in small pieces.

        It is looked up when it is asked for, and not for all where there are very many.
        """
        nodes, snapshot = self._nodes, self._snapshot
        if nodes is None or pool not in nodes.owned.stretches or self._looks < 0:
            return self._now
        self._looks -= len(nodes.claims(pool))
        found = nodes.earliest(pool, snapshot.demands[int(self.demand[kind])], self._now)
        return ENDLESS if found is None else found[0]


def _node_ends(snapshot: Snapshot, held: Rows, now: int) -> Times:
    """When attempts have probably left their nodes; what leaves for somebody leaves nothing to others."""
    leaves: Times = snapshot.holding["leaves_for"][held]
    return np.where(leaves >= 0, ENDLESS, expected_ends(snapshot, held, now))
