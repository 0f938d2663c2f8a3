"""Which rows of the queue are alike to a cycle, so that what one finds out needs no second look.

Rows of a kind are of one bucket (one person in one project and class), demand the same, and may go to the same places.
A kind is one number: 7 bits of the level (see `Demands.levels`), 24 of the bucket, 32 of the demand.
"""

import numpy as np
from numpy.typing import NDArray

from atoll.scheduler.snapshot import Snapshot

Kinds = NDArray[np.int64]
_LEVEL, _BUCKET = 56, 32
_BUCKETS, _DEMANDS = 2**24 - 1, 2**32 - 1


def kinds_of(snapshot: Snapshot, rows: NDArray[np.intp]) -> Kinds:
    """The kind of each row."""
    waiting = snapshot.rows
    buckets, demands = waiting["bucket"][rows].astype(np.int64), waiting["demand"][rows]
    kinds: Kinds = buckets << _BUCKET | demands
    return kinds | snapshot.levels(rows) << _LEVEL if snapshot.demands.has_levels else kinds


def demands_in(kinds: Kinds) -> Kinds:
    """The number of each kind's demand."""
    return kinds & _DEMANDS


def buckets_in(kinds: Kinds) -> Kinds:
    """The number of each kind's bucket."""
    return kinds >> _BUCKET & _BUCKETS


def levels_in(kinds: Kinds) -> Kinds:
    """Each kind's level."""
    return kinds >> _LEVEL
