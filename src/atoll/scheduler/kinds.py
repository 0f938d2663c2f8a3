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


def alike(snapshot: Snapshot, rows: NDArray[np.intp]) -> tuple[Kinds, NDArray[np.intp], NDArray[np.intp]]:
    """The kinds of rows, each once; by row the place of its own among them; which of the rows is the first of each."""
    if snapshot.demands.has_levels or not len(rows):
        kinds, first, inverse = np.unique(kinds_of(snapshot, rows), return_index=True, return_inverse=True)
        return kinds, inverse, first
    numbers = snapshot.rows["kind"][rows]
    first_of = np.full(snapshot.kinds_end, -1, np.intp)
    first_of[numbers[::-1]] = np.arange(len(rows) - 1, -1, -1)  # of several the last is what stays
    there = np.flatnonzero(first_of >= 0)
    places = np.zeros(len(first_of), np.intp)
    places[there] = np.arange(len(there))
    first = first_of[there]
    return kinds_of(snapshot, rows[first]), places[numbers], first


def demands_in(kinds: Kinds) -> Kinds:
    """The number of each kind's demand."""
    return kinds & _DEMANDS


def buckets_in(kinds: Kinds) -> Kinds:
    """The number of each kind's bucket."""
    return kinds >> _BUCKET & _BUCKETS


def levels_in(kinds: Kinds) -> Kinds:
    """Each kind's level."""
    return kinds >> _LEVEL
