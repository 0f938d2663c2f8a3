"""When the first of many uncertain ends comes: sooner than the first that is expected.

Of a thousand runs that each have an hour left or so, some end within the minute. A waiting job that finds room where
any of many attempts ends starts by then, even where others were asked to leave for it. That each may end at any share
of its walltime, as runs do, gives the rate of such ends (`Runtimes.ending`); the median time of as many as are needed
is that of a Poisson process.
"""

import numpy as np
from numpy.typing import NDArray

from atoll.core.project import RESOURCES
from atoll.core.resources import Resources
from atoll.scheduler.ahead import SECOND, Rows, Times
from atoll.scheduler.model import Demand
from atoll.scheduler.nodes import WHOLE, devices_of
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot

_MOMENTS = (np.arange(1, 33) / 32) ** 2
"""Where the time until a start is looked at, as parts of it."""
_MEDIAN = 0.69
"""How many ends must be expected for it to be as likely as not that there was one; for one more, about 1 more."""


class Chances:
    """The ends of what runs now that would make room for somebody."""

    def __init__(self, snapshot: Snapshot, now: int, runtimes: Runtimes) -> None:
        self._snapshot, self._now, self._runtimes = snapshot, now, runtimes
        self._rates: dict[tuple[Resources, tuple[int, ...]], Rows] = {}

    def first(self, demand: Demand, pools: tuple[int, ...], before: int, until: int, job_id: int) -> int:
        """When as likely as not there is room for a demand on one node of some pools, at `until` at the latest.

        `before` others want the same and go first. What leaves for others than the job leaves nothing to it.
        """
        if demand.nodes > 1 or until <= self._now:
            return until
        key = demand.request, pools
        if key not in self._rates:
            self._rates[key] = self._making_room(demand.request, pools)
        rows, holding = self._rates[key], self._snapshot.holding
        leaves_for = holding["leaves_for"][rows]
        rows = rows[(leaves_for < 0) | (leaves_for == job_id)]
        moments = _MOMENTS * ((until - self._now) / SECOND)
        ends = self._expected_ends(rows, moments)
        if ends[-1] < _MEDIAN + before:
            return until
        seconds = np.interp(_MEDIAN + before, np.append(0.0, ends), np.append(0.0, moments))
        return min(until, self._now + int(seconds * SECOND))

    def _expected_ends(self, rows: Rows, moments: NDArray[np.float64]) -> NDArray[np.float64]:
        """How many of some attempts will have ended by moments, in seconds from now: the mean of a Poisson process."""
        holding = self._snapshot.holding
        usual = [0 if limit is None else limit for limit in self._snapshot.policy.walltimes]
        walltime = np.where(
            holding["walltime"][rows] < 0, np.array(usual)[holding["rank"][rows]], holding["walltime"][rows]
        )
        begun = holding["started"][rows] > 0
        rows, walltime = rows[begun & (walltime > 0)], walltime[begun & (walltime > 0)]
        ran = (self._now - holding["started"][rows]) / SECOND
        chances = self._runtimes.ending(ran[:, None], walltime[:, None], moments)
        found: NDArray[np.float64] = -np.log1p(-np.minimum(chances, 0.99)).sum(axis=0)
        return found

    def _making_room(self, request: Resources, pools: tuple[int, ...]) -> Rows:
        """The rows of attempts each of whose ends alone makes room for a request."""
        snapshot, found = self._snapshot, [np.zeros(0, np.intp)]
        for pool in pools:
            on_nodes = pool in snapshot.owned.stretches
            found.append(self._on_nodes(request, pool) if on_nodes else self._in_pool(request, pool))
        return np.unique(np.concatenate(found))

    def _on_nodes(self, request: Resources, pool: int) -> Rows:
        nodes, claims = self._snapshot.owned.nodes, self._snapshot.owned.claims_in(pool)
        at = claims["node"].astype(np.intp)
        enough = (nodes.cpu[at] >= 0) & (nodes.cpu[at] + claims["cpu"] >= request.cpu)
        enough &= nodes.memory[at] + claims["memory"] >= request.memory
        whole, share = devices_of(request)
        if whole or share:
            free = nodes.gpu[at] + claims["gpus"][:, : nodes.gpu.shape[1]]
            enough &= (free == WHOLE).sum(axis=1) >= whole if whole else free.max(axis=1, initial=0) >= share
        rows: Rows = claims["row"][enough].astype(np.intp)
        return rows

    def _in_pool(self, request: Resources, pool: int) -> Rows:
        snapshot, here = self._snapshot, self._snapshot.holders_of(pool)
        free = snapshot.room(self._now).free[pool]
        enough = np.ones(len(here), np.bool_)
        for name in RESOURCES:
            held: Times = snapshot.holding[name][here] * snapshot.holding["nodes"][here]
            enough &= getattr(free, name) + held >= getattr(request, name)
        return here[enough]
