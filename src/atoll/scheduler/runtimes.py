"""How long a run is expected to take, from the runs before it: for the order of candidates and for estimates.

The mean of the last two runs of the same person and name is hard to beat: Tsafrir, Etsion, Feitelson, "Backfilling
using system-generated predictions rather than user runtime estimates", TPDS 2007. Control tells what ended, and asks.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from atoll.core.spec import JobClass

MOST = 20_000
"""Of so many names, and of so many persons and walltimes, the last runs are known: those that came up last."""
_ENOUGH = 10
"""From so many runs on, the usual share of the walltime says something."""
_RECENT = 1000
"""About so many of the last runs make the usual share, and how shares are spread."""
_BINS = 40
"""So many parts of the walltime are told apart."""

Floats = NDArray[np.float64]
_Known = OrderedDict[Hashable, tuple[int, ...]]


class Runtimes:
    """The last runs by person and name, and by person and walltime; times are seconds."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._named: _Known = OrderedDict()
        self._like: _Known = OrderedDict()
        self._runs = 0
        self._share = 0.0
        self._spread = np.full(_BINS, 1 / _BINS)  # the part of the runs that end in each part of their walltime

    def learn(self, person: str, name: str, job_class: JobClass, walltime: int | None, seconds: int) -> None:
        """Take in a run that ended by itself or at its walltime; what was evicted or cancelled says nothing.

        A service ends when somebody ends it: nothing is learnt of it.
        """
        if job_class is JobClass.SERVICE or seconds < 0:
            return
        if name:
            self._add(self._named, (person, name), seconds)
        self._add(self._like, (person, _size(walltime)), seconds)
        if walltime:
            self._runs += 1
            share = min(1.0, seconds / walltime)
            self._share += (share - self._share) / min(self._runs, _RECENT)
            self._spread *= 1 - 1 / min(self._runs + _ENOUGH, _RECENT)
            self._spread[min(_BINS - 1, int(share * _BINS))] += 1 - self._spread.sum()

    def expected(self, person: str, name: str, walltime: int | None) -> int:
        """How long a run will take, at least 1 and at most its walltime; 0: nobody knows."""
        last = (name and self._last(self._named, (person, name))) or self._last(self._like, (person, _size(walltime)))
        if last:
            guess = sum(last) / len(last)
        elif walltime and self._runs >= _ENOUGH:
            guess = self._share * walltime
        else:
            return 0
        seconds = max(1, round(guess))
        return min(seconds, walltime) if walltime else seconds

    def ending(self, ran: Floats, walltime: Floats, within: Floats) -> Floats:
        """How likely runs end within so many seconds, of those that have run so long; the arrays are broadcast."""
        shares, below = np.linspace(0, 1, _BINS + 1), np.concatenate([[0.0], np.cumsum(self._spread)])
        over = np.interp(ran / walltime, shares, below)
        then = np.interp((ran + within) / walltime, shares, below)
        left = 1 - over
        found: Floats = np.where(left > 1e-9, (then - over) / np.maximum(left, 1e-9), 1.0)
        return found

    def _add(self, known: _Known, key: Hashable, seconds: int) -> None:
        known[key] = (*known.get(key, ())[-1:], seconds)
        known.move_to_end(key)
        if len(known) > self._most:
            known.popitem(last=False)

    def _last(self, known: _Known, key: Hashable) -> tuple[int, ...]:
        found = known.get(key, ())
        if found:
            known.move_to_end(key)
        return found


def _size(walltime: int | None) -> int | None:
    """Walltimes that are alike, those of one half of an octave, have one number."""
    return None if walltime is None else round(2 * math.log2(max(1, walltime)))
