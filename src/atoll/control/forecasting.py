"""Forecasts of the queue, made from time to time, and what is learnt from how it really went."""

import logging
import time
from collections.abc import Iterable
from typing import Self

from sqlalchemy import Connection

from atoll.core.spec import JobClass
from atoll.scheduler.calibration import Calibration
from atoll.scheduler.forecast import Forecast, forecast, likely_start
from atoll.scheduler.model import Expects
from atoll.scheduler.quota import Tree
from atoll.scheduler.runtimes import Runtimes
from atoll.scheduler.snapshot import Snapshot
from atoll.store import forecasts, rooms
from atoll.store.forecasts import Kept
from atoll.store.rooms import Room, Run, Span

log = logging.getLogger(__name__)

_SECOND = 1_000_000
_EVERY = _SECOND // 5
"""Microseconds that lie between two forecasts at least where something changes, and more where they take long."""
_ANYWAY = 30 * _SECOND
"""What waits too long changes a forecast too."""
_SHARE = 20
"""A forecast may take one part in so many of the time."""
_KEEP_EVERY = 30 * _SECOND
"""Microseconds after which what was learnt is written down again."""
_RUNS = 20_000
"""Of so many runs of the past it is looked up how long they took."""


class Forecaster:
    """What the forecasts of one tenure know of the past, and when the next is due. Times are microseconds."""

    def __init__(self, learnt: str = "{}", runs: Iterable[Run] = ()) -> None:
        self._calibration = Calibration.from_json(learnt)
        self.runtimes = Runtimes()
        for run in runs:
            self.runtimes.learn(run.person, run.name, JobClass(run.class_), run.walltime, run.seconds)
        self._due = self._learnt_at = 0
        self._late = 0
        self._news = True
        self._empty = False

    @classmethod
    def load(cls, connection: Connection) -> Self:
        """With what those before it have learnt."""
        kept = forecasts.read(connection)
        return cls((kept and kept.learnt) or "{}", rooms.last_runs(connection, _RUNS))

    # ---- learning

    def changed(self) -> None:
        """The queue is another than at the last forecast."""
        self._news = True

    def ran(self, room: Room, span: Span) -> Expects | None:
        """An attempt has ended; what is expected of those like it now, where it told anything of them."""
        if not span.told:
            return None
        seconds = (span.ended - span.began) // _SECOND
        self.runtimes.learn(room.person, room.name, JobClass(room.class_), room.walltime, seconds)
        expected = self.runtimes.expected(room.person, room.name, None)
        return Expects(like(room.person, room.name), expected) if room.name else None

    def started(self, room: Room, at: int) -> None:
        """An attempt began to run."""
        self._calibration.started(room.job_id, at)
        if room.array_id is not None:
            self._calibration.started(room.array_id, at)

    def gone(self, job_id: int) -> None:
        """A job waits no longer, and has not started."""
        self._calibration.gone(job_id)

    # ---- forecasting

    def due_in(self, now: int) -> int | None:
        """In how many microseconds a forecast is due, 0: now; None where nothing waits and that is known."""
        if self._empty and not self._news:
            return None
        return max(0, (self._due if self._news else self._late) - now)

    def make(self, snapshot: Snapshot, now: int) -> Kept | None:
        """The forecast, to be kept; None where it cannot be made, of which jobs must not suffer."""
        began = time.perf_counter()
        self._news, self._empty = False, not len(snapshot)
        try:
            self._calibration.overdue(now)
            made = self.forecast(snapshot, now)
            self._calibration.follow(made)
            data = made.to_bytes()
        except Exception:
            log.exception("the queue cannot be forecast")
            return None
        finally:
            took = int((time.perf_counter() - began) * _SECOND)
            self._due = now + max(_EVERY, _SHARE * took)
            self._late = max(self._due, now + _ANYWAY)
        if now - self._learnt_at < _KEEP_EVERY:
            return Kept(now, data)
        self._learnt_at = now
        return Kept(now, data, self._calibration.to_json())

    def forecast(self, snapshot: Snapshot, now: int) -> Forecast:
        """What is expected of all that waits, of which nothing is kept or learnt."""
        return forecast(snapshot, now, self._calibration, runtimes=self.runtimes)

    def likely_start(self, snapshot: Snapshot, job_id: int, now: int, tree: Tree | None = None) -> int | None:
        """When a job would start, as a forecast would tell it; `tree`: as if the quotas were these."""
        return likely_start(snapshot, now, job_id, self._calibration, self.runtimes, tree=tree)


def like(person: str, name: str) -> int:
    """What the jobs of one person and name have in common; 0 for those without a name."""
    return hash((person, name)) if name else 0
