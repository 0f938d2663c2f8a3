"""When waiting jobs are expected to start, as the scheduler forecast it last."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection

from atoll.core.states import JobState
from atoll.faces.http.times import moment, moment_or_none
from atoll.scheduler.forecast import Forecast
from atoll.store import forecasts
from atoll.store.jobs import JobRow

Document = dict[str, Any]


class Estimates:
    """The forecast in the store, read again where there is a newer one. Threads may ask at once."""

    def __init__(self) -> None:
        self._known: Forecast | None = None

    def current(self, connection: Connection) -> Forecast | None:
        """The newest forecast; None before the first."""
        known, made_at = self._known, forecasts.made_at(connection)
        if made_at is None:
            return None
        if known is None or known.at != made_at:
            kept = forecasts.read(connection)
            known = Forecast.from_bytes(kept.data) if kept is not None else None
            if known is not None:
                known.of(0)  # its index is made before another thread asks
            self._known = known
        return known

    def add(self, connection: Connection, jobs: Sequence[Document]) -> None:
        """Tell of each job, as `view.summary` shows it, when it is expected to start: `estimate`."""
        forecast = self.current(connection) if any(_waits(job) for job in jobs) else None
        for job in jobs:
            if _waits(job):
                job["estimate"] = estimate(forecast, job["job"])

    def of(self, connection: Connection, row: JobRow) -> Document | None:
        """When a job, an array's next task or a task that waits again is expected to start."""
        return estimate(self.current(connection), row.id)


def estimate(forecast: Forecast | None, job_id: int) -> Document | None:
    """What is forecast of a waiting job; None where it is newer than the forecast."""
    expected = forecast.of(job_id) if forecast is not None else None
    if forecast is None or expected is None:
        return None
    return {
        "position": expected.position, "waiting": expected.waiting, "start": moment_or_none(expected.start),
        "earliest": moment_or_none(expected.earliest), "latest": moment_or_none(expected.latest),
        "at": moment(forecast.at),
    }  # fmt: skip


def _waits(job: Document) -> bool:
    if job["state"] == JobState.QUEUED:
        return True
    return job["state"] == JobState.RUNNING and bool(job["tasks"]) and job["tasks"]["waiting"] > 0
