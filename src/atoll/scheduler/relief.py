"""Which demands could have room if others left: asked for all at once, before single jobs are looked at.

It says yes too often, as it does not tell projects apart; never too rarely. `evict` chooses exactly.
"""

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.noderoom import Plan
from atoll.scheduler.quota import Quotas
from atoll.scheduler.room import Room
from atoll.scheduler.snapshot import Snapshot
from atoll.scheduler.witnesses import Witnesses

Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]


def relieved(
    snapshot: Snapshot, room: Room, quotas: Quotas | None, rank: int, priority: int, numbers: NDArray[np.int64]
) -> Flags:
    """Which demands (their numbers) might start if jobs of a class, with at most a `priority`, evicted others."""
    leavers = _might_leave(snapshot, quotas, rank, priority)
    found = np.zeros(len(numbers), np.bool_)
    if not len(leavers):
        return found
    totals, possible = snapshot.demands.totals[numbers], snapshot.demands.possible[numbers]
    for number, pool in enumerate(room.pools):
        here = np.intersect1d(leavers, snapshot.holders_of(number), assume_unique=True)
        if not room.open[number] or room.slots[pool.site] <= 0 or not (len(here) or quotas):
            continue
        fits = possible[:, number].copy()
        if (nodes := room.nodes_of(number)) is not None:
            plan = Plan(nodes, number, 0)
            plan.leave(here)
            alone = np.zeros_like(possible)
            alone[:, number] = fits
            fits = Witnesses(plan.nodes).fitting(snapshot.demands.requests[numbers], alone)
        else:
            rows = snapshot.holding[here]
            for name in RESOURCES:
                most = getattr(room.free[number], name) + int((rows[name] * rows["nodes"]).sum())
                fits &= (totals[name] == 0) | (totals[name] <= most)
        found |= fits
    return found


def _might_leave(snapshot: Snapshot, quotas: Quotas | None, rank: int, priority: int) -> Rows:
    """The rows of `holding` of all that any job of a class, with at most a priority, might evict, and of who leaves."""
    rows = snapshot.holding
    goes = (rows["rank"] > rank) | ((rows["rank"] == rank) & (rows["priority"] < priority))
    goes |= rows["rank"] == OPPORTUNISTIC
    if quotas is not None:
        over = np.asarray((quotas.usage > quotas.subtree).any(axis=1))
        index = quotas.tree.index
        borrows = [project in index and bool(over[index[project]]) for project, _ in snapshot.owners]
        goes |= np.array([*borrows, False], np.bool_)[rows["owner"]]
    goes &= (rows["evictions"] < snapshot.policy.most_evictions) | (rows["rank"] == OPPORTUNISTIC) | rows["waits"]
    goes |= rows["leaving"] | (rows["leaves_for"] >= 0)  # they may leave more than they leave for
    return np.flatnonzero(goes & (rows["nodes"] > 0))
