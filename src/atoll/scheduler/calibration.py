"""From a predicted wait to a range that holds: learnt from what was forecast before and what then came.

Split conformal prediction on the logarithm of (wait + 5 s), from those of the last errors of a kind of job whose
predicted wait was most alike (Vovk, Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005; the neighbours
as in Lei, Wasserman, "Distribution-free Prediction Bands for Non-parametric Regression", 2014). Of the ranges that hold
as many of these the narrowest is told. How many that are adapts to how many came outside (Gibbs, Candès, "Adaptive
Conformal Inference Under Distribution Shift", NeurIPS 2021). The middle is moved by the median error where that helps.

Long waits end late, so that at first only the short ones are known. What still waits when its range is over counts as
outside at once, with what it has waited so far, until the truth is known.

Control has it `follow` each forecast, and tells it what `started`, what is `gone`, and from time to time to look for
what is `overdue`. Waits are microseconds.
"""

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from atoll.scheduler.model import CLASSES

if TYPE_CHECKING:
    from atoll.scheduler.forecast import Forecast

PROMISED = len(CLASSES)
"""The kind of a waiting job is its rank, and so much more where others leave for it."""
OUTSIDE = 0.1
"""The part that may come outside of its range."""
_FEW_SECONDS = 5.0
"""Added to all waits, so that seconds more or less do not count as many times as long."""
_CYCLE = 1_000_000
"""Microseconds: what could start now starts when the next cycle comes."""
_LAST = 400
"""So many of the last errors of each kind count."""
_ALIKE = 50
"""So many of them make a range."""
_ENOUGH = 20
"""From so many on they do."""
_GRAIN = 10
"""Predicted waits are alike that differ by less than one part in so many."""
_BETTER = 0.8
"""The middle is moved where that makes the usual error so many times as large, or less."""
_STEP = 0.02
"""By how much of an error the level of a group adapts."""
_FOLLOWED = 500
"""So many waiting jobs are followed at once."""
_AT_FIRST = {False: (math.log(1 / 4), 0.0, math.log(4)), True: (math.log(1 / 4), 0.0, math.log(3 / 2))}
"""Least, middle and greatest error that is taken for usual while nothing is learnt: of most jobs, of promised ones."""

Micros = NDArray[np.int64]


@dataclass(slots=True)
class _Followed:
    """What was forecast for a job that waits."""

    made: int
    """When, in microseconds."""
    wait: int
    """What was predicted, before anything was learnt from errors."""
    kind: int
    earliest: int
    latest: int
    """The range that was told."""
    entry: int = -1
    """The number of its error, where it counts as outside already."""


class _Kind:
    """The last errors of one kind of job: logarithms of what came through what was predicted."""

    def __init__(self) -> None:
        self.level = OUTSIDE
        self.errors: dict[int, tuple[float, float]] = {}
        """By their number, with the logarithm of what was predicted."""

    def add(self, number: int, predicted: float, error: float, *, outside: bool) -> None:
        """Learn one more."""
        self.errors[number] = predicted, error
        if len(self.errors) > _LAST:
            del self.errors[min(self.errors)]
        self.level = min(0.5, max(0.01, self.level + _STEP * (OUTSIDE - outside)))

    def alike(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """The errors of what was predicted most alike, the latest of equals, sorted; by logarithms of waits."""
        known = np.array(list(self.errors.values()))[::-1]
        nearest = np.argsort(np.abs(known[None, :, 0] - predicted[:, None]), axis=1, kind="stable")[:, :_ALIKE]
        return np.sort(known[nearest, 1], axis=1)

    def usual(self, predicted: NDArray[np.float64]) -> NDArray[np.float64]:
        """Least, middle and greatest error of what was predicted alike, by logarithms of predicted waits."""
        errors = self.alike(predicted)
        count = errors.shape[1]
        inside = min(count, int(np.ceil((count + 1) * (1 - self.level))))
        # e to the power of an error is what the wait is multiplied with
        widths = np.exp(errors[:, inside - 1 :]) - np.exp(errors[:, : count - inside + 1])
        first = widths.argmin(axis=1)
        row = np.arange(len(errors))
        middle = np.median(errors, axis=1)
        moved = np.median(np.abs(errors - middle[:, None]), axis=1)
        middle[moved > _BETTER * np.median(np.abs(errors), axis=1)] = 0.0
        return np.stack([errors[row, first], middle, errors[row, first + inside - 1]])


class Calibration:
    """What is known of the errors of forecasts."""

    def __init__(self) -> None:
        self._kinds: dict[int, _Kind] = {}
        self._followed: dict[int, _Followed] = {}
        self._number = 0

    # ---- using what is learnt

    def spread(self, kinds: NDArray[np.int8], waits: Micros) -> tuple[Micros, Micros, Micros]:
        """For predicted waits of jobs of some kinds: the least, the likely and the greatest wait."""
        shift = _FEW_SECONDS * 1e6
        sizes = np.rint(np.log(waits / 1e6 + _FEW_SECONDS) * _GRAIN).astype(np.int64)
        factors = np.zeros((3, len(waits)))
        for number in np.unique(kinds).tolist():
            here, kind = kinds == number, self._kinds.get(number)
            if kind is None or len(kind.errors) < _ENOUGH:
                factors[:, here] = np.array([_AT_FIRST[number >= PROMISED]]).T
            else:
                different, inverse = np.unique(sizes[here], return_inverse=True)
                factors[:, here] = kind.usual(different / _GRAIN)[:, inverse]
        found = np.maximum(0.0, (waits + shift) * np.exp(factors) - shift).astype(np.int64)
        least, middle, most = found
        return least, middle, most + _CYCLE

    def sooner(self, kind: int, predicted: int, came: int) -> float | None:
        """What part of the jobs whose wait was predicted alike came sooner than one did; None while too few are known.

        Where what is learnt holds, all parts are as frequent.
        """
        known = self._kinds.get(kind)
        if known is None or len(known.errors) < _ENOUGH:
            return None
        errors = known.alike(np.array([_logarithm(predicted)]))[0]
        return float(np.searchsorted(errors, _logarithm(came) - _logarithm(predicted)) / len(errors))

    # ---- learning

    def follow(self, forecast: "Forecast") -> None:
        """Remember what was forecast for jobs that are not followed yet: of a long queue some from all its length."""
        known = np.fromiter(self._followed, np.int64, len(self._followed))
        new = np.flatnonzero((forecast.starts >= 0) & (forecast.waits >= 0) & ~np.isin(forecast.jobs, known))
        places = _FOLLOWED - len(self._followed)
        if len(new) > places:
            new = new[np.linspace(0, len(new) - 1, places).astype(np.intp)] if places > 0 else new[:0]
        columns = (forecast.jobs, forecast.waits, forecast.kinds, forecast.earliest, forecast.latest)
        for job_id, wait, kind, earliest, latest in zip(*(column[new].tolist() for column in columns), strict=True):
            self._followed[job_id] = _Followed(forecast.at, wait, kind, earliest, latest)

    def started(self, job_id: int, at: int) -> None:
        """A job started, or the first task of an array."""
        followed = self._followed.pop(job_id, None)
        if followed is not None:
            self._learn(followed, at, outside=not followed.earliest <= at <= followed.latest)

    def gone(self, job_id: int) -> None:
        """A job waits no longer, and did not start: it was held or cancelled."""
        self._followed.pop(job_id, None)

    def overdue(self, now: int) -> None:
        """Count what still waits beyond its range."""
        for followed in self._followed.values():
            if now > followed.latest:
                self._learn(followed, now, outside=True)

    def _learn(self, followed: _Followed, at: int, *, outside: bool) -> None:
        kind = self._kinds.setdefault(followed.kind, _Kind())
        came, predicted = _logarithm(at - followed.made), _logarithm(followed.wait)
        if followed.entry < 0:
            followed.entry = self._number
            self._number += 1
            kind.add(followed.entry, predicted, came - predicted, outside=outside)
        elif followed.entry in kind.errors:
            kind.errors[followed.entry] = predicted, came - predicted

    # ---- keeping it

    def to_json(self) -> str:
        """The state: 15 bytes for each error that is known, and 60 for each job that is followed."""
        kinds = {
            number: [
                round(kind.level, 4),
                [[key, *(round(each, 3) for each in kind.errors[key])] for key in kind.errors],
            ]
            for number, kind in self._kinds.items()
        }
        followed = {
            job_id: [each.made, each.wait, each.kind, each.earliest, each.latest, each.entry]
            for job_id, each in self._followed.items()
        }
        return json.dumps({"number": self._number, "kinds": kinds, "followed": followed}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made; nothing is learnt where the text is none of its kind."""
        made = cls()
        try:
            state: dict[str, Any] = json.loads(text)
            for number, (level, errors) in state["kinds"].items():
                kind = made._kinds[int(number)] = _Kind()
                kind.level = float(level)
                kind.errors = {int(key): (float(predicted), float(error)) for key, predicted, error in errors}
            made._followed = {int(job_id): _Followed(*map(int, told)) for job_id, told in state["followed"].items()}
            made._number = int(state["number"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()
        return made


def _logarithm(wait: int) -> float:
    """Of a wait in microseconds, so that seconds more or less count little."""
    return math.log(max(0, wait) / 1e6 + _FEW_SECONDS)
