"""When all that waits will probably start, with a range for each: `forecast`.

The first in line are simulated (`outlook`), what is behind them goes by their pace, and `calibration` makes ranges of
it that hold. What is opportunistic has no promise, and so no estimate. Control makes a forecast from time to time,
keeps it, and tells people what it says of their jobs.
"""

import json
import zlib
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from numpy.typing import NDArray

from atoll.scheduler.calibration import PROMISED, Calibration
from atoll.scheduler.fit import is_open
from atoll.scheduler.model import OPPORTUNISTIC
from atoll.scheduler.outlook import Outlook
from atoll.scheduler.quota import Tree
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot

UNKNOWN = -1
"""The time of what nobody can say."""
_PACED = 0.9
"""The pace is that of this part of the simulated ones: the last may be held up by something of their own."""
_GRAIN = 1000
"""Microseconds: estimates are not finer, and so become small."""

Times = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Expected:
    """What a job may expect. Times are microseconds, None where nobody can say."""

    position: int
    """Its place in the queue; 1 is the head."""
    waiting: int
    """How many entries wait in all; an array is one."""
    start: int | None
    earliest: int | None
    latest: int | None


@dataclass(frozen=True)
class Forecast:
    """The estimates for all that waits, in parallel arrays in the order of the queue; times are microseconds, or -1."""

    at: int
    """When it was made."""
    jobs: NDArray[np.int64]
    starts: Times
    earliest: Times
    latest: Times
    waits: Times
    """What was predicted before anything was learnt from errors, for `Calibration.follow`; -1: not to be followed."""
    kinds: NDArray[np.int8]
    """See `calibration.PROMISED`."""
    _places: dict[int, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of(self, job_id: int) -> Expected | None:
        """What a job may expect; None for one that did not wait then."""
        if not self._places:
            self._places.update((job, place) for place, job in enumerate(self.jobs.tolist()))
        place = self._places.get(job_id)
        if place is None:
            return None
        start, earliest, latest = (
            None if (time := int(column[place])) == UNKNOWN else time
            for column in (self.starts, self.earliest, self.latest)
        )
        return Expected(place + 1, len(self.jobs), start, earliest, latest)

    def to_bytes(self) -> bytes:
        """All of it, for `from_bytes`: some 15 bytes a job."""
        told = [self.jobs, self.starts, self.earliest, self.latest, self.waits]
        parts = [np.diff(column, prepend=0).astype("<i8") for column in told]
        # the bytes of one weight side by side: most are zero
        flat = b"".join(part.view(np.uint8).reshape(-1, 8).T.tobytes() for part in parts)
        head = json.dumps({"at": self.at, "count": len(self.jobs)}).encode()
        return zlib.compress(head + b"\n" + flat + self.kinds.tobytes(), 6)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` made. Raises ValueError for anything else."""
        try:
            head, flat = zlib.decompress(data).split(b"\n", 1)
            told = json.loads(head)
            count = int(told["count"])
            columns = np.frombuffer(flat, np.uint8, 40 * count).reshape(5, 8, count)
            kinds = np.frombuffer(flat, np.int8, count, 40 * count)
        except (KeyError, TypeError, ValueError, zlib.error) as error:
            raise ValueError("it is no forecast") from error
        jobs, *times = (np.cumsum(np.ascontiguousarray(each.T).view("<i8").reshape(-1)) for each in columns)
        starts, earliest, latest, waits = times
        return cls(int(told["at"]), jobs, starts, earliest, latest, waits, kinds)


def forecast(
    snapshot: Snapshot, now: int, calibration: Calibration, *, simulated: int = 1000, runtimes: Runtimes | None = None
) -> Forecast:
    """Estimates for all that waits at `now` (microseconds), with so many simulated. The snapshot is only read.

    With `runtimes` the first in line may start when the first of many ends comes, and not only when one is expected.
    """
    queue = snapshot.queue()
    rows = snapshot.rows
    claims = np.flatnonzero(rows["rank"][queue] != OPPORTUNISTIC)
    first = claims[:simulated]
    outlook = Outlook(snapshot, now, queue[first])
    outlook.run()
    if runtimes is not None:
        outlook.hasten(runtimes)
    starts = np.full(len(queue), UNKNOWN, np.int64)
    starts[first] = outlook.starts
    behind = claims[simulated:]
    starts[behind] = _behind(snapshot, queue[behind], outlook.starts, now)
    kinds = rows["rank"][queue].astype(np.int8)
    kinds[first[outlook.promised]] += PROMISED
    return _with_ranges(snapshot, queue, now, starts, kinds, calibration)


def likely_start(
    snapshot: Snapshot, now: int, job_id: int, calibration: Calibration, runtimes: Runtimes, *,
    tree: Tree | None = None, simulated: int = 1000,
) -> int | None:  # fmt: skip
    """When a job will probably start, as a forecast tells it; None where nobody can say, or it is far behind.

    `tree`: as if these were the quotas. It takes less time than a forecast: it ends when the job has started.
    """
    queue, rows = snapshot.queue(), snapshot.rows
    first = queue[rows["rank"][queue] != OPPORTUNISTIC][:simulated]
    places = np.flatnonzero(rows["job"][first] == job_id)
    if not len(places):
        return None
    place = int(places[0])
    outlook = Outlook(snapshot, now, first, tree)
    outlook.run(place)
    outlook.hasten(runtimes)
    kinds = rows["rank"][first[places]].astype(np.int8)
    kinds[outlook.promised[places]] += PROMISED
    told = _with_ranges(snapshot, first[places], now, outlook.starts[places], kinds, calibration)
    return None if told.starts[0] == UNKNOWN else int(told.starts[0])


def _behind(snapshot: Snapshot, behind: NDArray[np.intp], starts: Times, now: int) -> Times:
    """When those start that are behind the simulated ones: at their pace, where a pool is open to them."""
    found = np.full(len(behind), UNKNOWN, np.int64)
    known = np.sort(starts[starts >= 0])
    if not len(known) or not len(behind):
        return found
    paced = max(1, int(_PACED * len(known)))
    each = max(1, int(known[paced - 1]) - now) / paced
    moments = now + (each * (len(known) + 1 + np.arange(len(behind)))).astype(np.int64)
    openings = np.array([is_open(snapshot.sites[pool.site]) for pool in snapshot.pools], np.bool_)
    rows = snapshot.rows
    able = np.asarray((snapshot.demands.possible & openings).any(axis=1))[rows["demand"][behind]]
    found[able] = np.maximum(moments, rows["not_before"][behind])[able]
    return found


def _with_ranges(
    snapshot: Snapshot, queue: NDArray[np.intp], now: int, starts: Times, kinds: NDArray[np.int8],
    calibration: Calibration,
) -> Forecast:  # fmt: skip
    rows = snapshot.rows
    jobs = rows["job"][queue].astype(np.int64)
    known = starts >= 0
    # up to the begin time all is certain: only what is waited for then is not
    begins = np.maximum(0, rows["not_before"][queue] - now)
    waits = np.where(known, np.maximum(0, starts - now - begins), 0)
    spread = calibration.spread(kinds[known], waits[known])
    columns = []
    for column, later in zip(spread, (0, 0, _GRAIN - 1), strict=True):
        told = np.full(len(queue), UNKNOWN, np.int64)
        told[known] = np.maximum(now, (now + begins[known] + column + later) // _GRAIN * _GRAIN)
        columns.append(told)
    earliest, likely, latest = columns
    for place, reserved in _reserved(snapshot, jobs):
        # a reservation holds but for a fault
        for column in (earliest, likely, latest):
            if column[place] != UNKNOWN:
                column[place] = min(column[place], max(now, reserved))
    told = np.where(known & (begins == 0), waits // _GRAIN * _GRAIN, UNKNOWN)
    return Forecast(now, jobs, likely, earliest, latest, told, kinds)


def _reserved(snapshot: Snapshot, jobs: NDArray[np.int64]) -> list[tuple[int, int]]:
    """The places of what has a reservation, and its start."""
    starts = {known.job_id: known.start for known in snapshot.reservations.values()}
    places = np.flatnonzero(np.isin(jobs, list(starts)))
    return [(place, starts[int(jobs[place])]) for place in places.tolist()]
