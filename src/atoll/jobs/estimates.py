"""When waiting jobs are expected to start.

Of those in Atoll's queue, as the scheduler forecast it last; of those that were handed over to an engine's own queue,
in the engine's words, or by the usual wait there.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import Clock, system_clock, to_micros
from atoll.core.site import UsualWait
from atoll.core.spec import JobClass
from atoll.core.states import JobState
from atoll.faces.http.times import moment, moment_or_none
from atoll.scheduler.forecast import Forecast
from atoll.store import attempts, forecasts, jobs, sites
from atoll.store.attempts import AttemptRow
from atoll.store.jobs import JobRow

Document = dict[str, Any]
BY_QUEUE, BY_SITE, BY_USUAL_WAIT = "queue", "site", "usual_wait"
"""From where an estimate comes: Atoll's own queue played forward, the engine's word, the usual wait at the site."""
_HANDED_OVER = frozenset({JobState.PLACED, JobState.STARTING})
_OVERDUE = 1.5
"""Who has waited longer than is usual is expected to wait for half as long again as until now."""
_LATEST = 2.3
"""So many times its mean nine in ten waits are shorter, where ends come at random: -ln(0.1)."""


class Estimates:
    """The forecast in the store, read again where there is a newer one. Threads may ask at once."""

    def __init__(self, clock: Clock = system_clock) -> None:
        self._clock = clock
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

    def add(self, connection: Connection, documents: Sequence[Document]) -> None:
        """Tell of each job, as `view.summary` shows it, when it is expected to start: `estimate`."""
        forecast = self.current(connection) if any(_waits(job) for job in documents) else None
        for job in documents:
            if _waits(job):
                job["estimate"] = estimate(forecast, job["job"])
        handed_over = [job for job in documents if job["state"] in _HANDED_OVER]
        names = [(job["job"], job["task"]) for job in handed_over if job["task"] is not None]
        tasks = jobs.get_named_tasks(connection, names) if names else {}
        rows = [tasks[key].id if (key := (job["job"], job["task"])) in tasks else job["job"] for job in handed_over]
        found = self.at_sites(connection, rows)
        for job, row in zip(handed_over, rows, strict=True):
            job["estimate"] = found.get(row)
        arrays = [job for job in documents if job["tasks"] and job["tasks"]["active"]]
        there = self.arrays_at_sites(connection, [job["job"] for job in arrays])
        for job in arrays:
            job["estimate"] = together((job["estimate"], there.get(job["job"])))

    def of(self, connection: Connection, row: JobRow) -> Document | None:
        """When a job, an array's next task in Atoll's queue or a task that waits again is expected to start."""
        if row.state in _HANDED_OVER:
            return self.at_sites(connection, [row.id]).get(row.id)
        return estimate(self.current(connection), row.id)

    def arrays_at_sites(self, connection: Connection, array_ids: Sequence[int]) -> dict[int, Document]:
        """The same as `at_sites` of those tasks of some arrays that wait there, `together`."""
        handed_over = attempts.queueing_tasks(connection, array_ids) if array_ids else {}
        if not handed_over:
            return {}
        now, usual = to_micros(self._clock()), sites.waits(connection)
        found = {
            array_id: together(_at_site(row, _usual(usual, row), now) for row in rows)
            for array_id, rows in handed_over.items()
        }
        return {array_id: document for array_id, document in found.items() if document is not None}

    def at_sites(self, connection: Connection, job_ids: Sequence[int]) -> dict[int, Document]:
        """When those of some jobs (rows) that wait in an engine's own queue are expected to start, as far as is known.

        The engine's word is a latest, by walltimes, for as long as nothing better comes: the range begins now.
        """
        handed_over = attempts.queueing(connection, job_ids) if job_ids else {}
        if not handed_over:
            return {}
        now, usual = to_micros(self._clock()), sites.waits(connection)
        found = {job_id: _at_site(row, _usual(usual, row), now) for job_id, row in handed_over.items()}
        return {job_id: document for job_id, document in found.items() if document is not None}


def estimate(forecast: Forecast | None, job_id: int) -> Document | None:
    """What is forecast of a waiting job; None where it is newer than the forecast."""
    expected = forecast.of(job_id) if forecast is not None else None
    if forecast is None or expected is None:
        return None
    return {
        "position": expected.position, "waiting": expected.waiting, "start": moment_or_none(expected.start),
        "earliest": moment_or_none(expected.earliest), "latest": moment_or_none(expected.latest),
        "at": moment(forecast.at), "by": BY_QUEUE, "site": None,
    }  # fmt: skip


def together(parts: Iterable[Document | None]) -> Document | None:
    """One estimate for tasks that wait in several places: the first start, with the range up to the last.

    Those of which nobody can say when they start are left out, unless there are no others. Of what waits in Atoll's
    queue the next task is known.
    """
    known = [part for part in parts if part is not None]
    timed = [part for part in known if part["start"] is not None]
    if len(timed) < 2:
        return next(iter(timed or known), None)
    # all moments are written alike, so that their texts compare
    first = min(timed, key=lambda part: str(part["start"]))
    earliest = [part["earliest"] for part in timed if part["earliest"] is not None]
    latest = [part["latest"] for part in timed if part["latest"] is not None]
    return {**first, "earliest": min(earliest, default=None), "latest": max(latest, default=None)}


def _usual(waits: Mapping[str, UsualWait], row: AttemptRow) -> int:
    return waits.get(row.site, UsualWait()).of(JobClass(row.class_))


def _at_site(row: AttemptRow, usual: int, now: int) -> Document | None:
    """What is expected of an attempt that has not begun, where it waits for `usual` seconds usually."""
    if row.expected_at is not None and row.expected_at > now:
        by, start, latest = BY_SITE, row.expected_at, row.expected_at
    elif usual:
        wait = max(usual * 1_000_000, round(_OVERDUE * (now - row.placed_at)))
        by, start, latest = BY_USUAL_WAIT, row.placed_at + wait, row.placed_at + round(_LATEST * wait)
    else:
        return None
    return {
        "position": None, "waiting": None, "start": moment(start), "earliest": moment(now), "latest": moment(latest),
        "at": moment(now), "by": by, "site": row.site,
    }  # fmt: skip


def _waits(job: Document) -> bool:
    if job["state"] == JobState.QUEUED:
        return True
    return job["state"] == JobState.RUNNING and bool(job["tasks"]) and job["tasks"]["waiting"] > 0
