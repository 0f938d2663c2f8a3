"""From a predicted wait to a range that holds: learnt from what was forecast before and what then came.

Split conformal prediction on the logarithm of (wait + 5 s), by kind of job and size of the predicted wait (Vovk,
Gammerman, Shafer, "Algorithmic Learning in a Random World", 2005), whose level adapts where too many fall outside or
too few (Gibbs, Candès, "Adaptive Conformal Inference Under Distribution Shift", NeurIPS 2021). The middle is moved by
the median error, which lowers the mean absolute one.

Long waits end late, so that at first only the short ones are known. What still waits when its range is over counts as
outside at once, with what it has waited so far, until the truth is known.

Control has it `follow` each forecast, and tells it what `started`, what is `gone`, and from time to time to look for
what is `overdue`. Waits are microseconds.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from atoll.scheduler.model import CLASSES

if TYPE_CHECKING:
    from atoll.scheduler.forecast import Forecast

PROMISED = len(CLASSES)
"""The kind of a waiting job is its rank, and so much more where others leave for it."""
KINDS = 2 * PROMISED
OUTSIDE = 0.1
"""The part that may come outside of its range."""
_EDGES = (15, 60, 300, 1800, 2 * 3600, 8 * 3600, 86400)
"""Seconds: where one size of a predicted wait ends and the next begins."""
_FEW_SECONDS = 5.0
"""Added to all waits, so that seconds more or less do not count as many times as long."""
_LAST = 200
"""So many of the last errors of each group count."""
_ENOUGH = 20
"""With so many errors a group speaks for itself."""
_STEP = 0.02
"""By how much of an error the level of a group adapts."""
_FOLLOWED = 1000
"""So many waiting jobs are followed at once."""
_AT_FIRST = {False: (math.log(1 / 4), 0.0, math.log(4)), True: (math.log(1 / 4), 0.0, math.log(3 / 2))}
"""Least, middle and greatest error that is taken for usual while nothing is learnt: of most jobs, of promised ones."""

Micros = NDArray[np.int64]
Errors = tuple[float, float, float]


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


class _Group:
    """The last errors of one kind and size: logarithms of what came through what was predicted, by their number."""

    def __init__(self) -> None:
        self.errors: dict[int, float] = {}
        self.level = OUTSIDE

    def add(self, number: int, error: float, *, outside: bool) -> None:
        self.errors[number] = error
        if len(self.errors) > _LAST:
            del self.errors[min(self.errors)]
        self.level = min(0.5, max(0.01, self.level + _STEP * (OUTSIDE - outside)))


class Calibration:
    """What is known of the errors of forecasts."""

    def __init__(self) -> None:
        self._groups: dict[tuple[int, int], _Group] = {}
        self._followed: dict[int, _Followed] = {}
        self._number = 0

    # ---- using what is learnt

    def spread(self, kinds: NDArray[np.int8], waits: Micros) -> tuple[Micros, Micros, Micros]:
        """For predicted waits of jobs of some kinds: the least, the likely and the greatest wait."""
        sizes = np.searchsorted(np.array(_EDGES) * 1_000_000, waits, side="right")
        keys = kinds.astype(np.int64) * (len(_EDGES) + 1) + sizes
        found = np.zeros((3, len(waits)))
        for key in np.unique(keys).tolist():
            found[:, keys == key] = np.array([self._usual(*divmod(key, len(_EDGES) + 1))]).T
        shift = _FEW_SECONDS * 1e6
        least, middle, most = np.maximum(0.0, (waits + shift) * np.exp(found) - shift).astype(np.int64)
        return least, middle, most

    def _usual(self, kind: int, size: int) -> Errors:
        """The usual errors of a group: its own, or those of its kind, or what is sane."""
        group = self._groups.get((kind, size))
        if group is not None and len(group.errors) >= _ENOUGH:
            return _range_of(group.errors.values(), group.level)
        alike = [error for key, other in self._groups.items() if key[0] == kind for error in other.errors.values()]
        if len(alike) >= _ENOUGH:
            return _range_of(alike, OUTSIDE)
        return _AT_FIRST[kind >= PROMISED]

    # ---- learning

    def follow(self, forecast: "Forecast") -> None:
        """Remember what was forecast for jobs that are not followed yet: of a long queue some from all its length."""
        known = np.fromiter(self._followed, np.int64, len(self._followed))
        new = np.flatnonzero((forecast.starts >= 0) & ~np.isin(forecast.jobs, known))
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
        key = followed.kind, int(np.searchsorted(_EDGES, followed.wait / 1e6, side="right"))
        group = self._groups.setdefault(key, _Group())
        came, predicted = max(0, at - followed.made) / 1e6, followed.wait / 1e6
        error = math.log((came + _FEW_SECONDS) / (predicted + _FEW_SECONDS))
        if followed.entry >= 0:
            if followed.entry in group.errors:
                group.errors[followed.entry] = error
            return
        followed.entry = self._number
        self._number += 1
        group.add(followed.entry, error, outside=outside)

    # ---- keeping it

    def to_json(self) -> str:
        """The state, below 100 kB."""
        groups = {
            f"{kind} {size}": {
                "level": round(group.level, 4),
                "errors": [[number, round(error, 3)] for number, error in group.errors.items()],
            }
            for (kind, size), group in self._groups.items()
        }
        followed = {
            job_id: [each.made, each.wait, each.kind, each.earliest, each.latest, each.entry]
            for job_id, each in self._followed.items()
        }
        return json.dumps({"number": self._number, "groups": groups, "followed": followed}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` made; nothing is learnt where the text is none of its kind."""
        made = cls()
        try:
            state: dict[str, Any] = json.loads(text)
            for key, told in state["groups"].items():
                kind, size = map(int, key.split())
                group = made._groups[kind, size] = _Group()
                group.level = float(told["level"])
                group.errors = {int(number): float(error) for number, error in told["errors"]}
            made._followed = {int(job_id): _Followed(*map(int, told)) for job_id, told in state["followed"].items()}
            made._number = int(state["number"])
        except (AttributeError, KeyError, TypeError, ValueError):
            return cls()
        return made


def _range_of(errors: Iterable[float], level: float) -> Errors:
    """Least, middle and greatest error but for a part `level`, with the correction for few of split conformal."""
    known = sorted(errors)
    count = len(known)
    low = math.floor((count + 1) * level / 2) - 1
    high = math.ceil((count + 1) * (1 - level / 2)) - 1
    return known[max(0, low)], known[count // 2], known[min(count - 1, high)]
