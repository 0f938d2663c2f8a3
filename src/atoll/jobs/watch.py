"""Following changes of jobs: the outbox as a stream of events."""

from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Any

from sqlalchemy import Connection

from atoll.core.errors import Invalid, NotFound, Unavailable
from atoll.core.ids import JobRef, task_name
from atoll.core.reasons import ReasonCode, general_sentence
from atoll.faces.http.platform import Platform
from atoll.faces.http.sse import HEARTBEAT_SECONDS, ServerEvent
from atoll.faces.http.times import moment
from atoll.jobs.estimates import Estimates, estimate, together
from atoll.store import events, jobs
from atoll.store.events import Event
from atoll.store.people import Principal

_PAGE = 500
MOST_JOBS = 100


def read_position(text: str | None) -> int | None:
    """The event id in a Last-Event-ID. Raises Invalid."""
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) <= 18):
        raise Invalid(
            "bad_event_id", "Last-Event-ID is not one of this stream: pass on the last event's id, unchanged.",
            field="Last-Event-ID",
        )  # fmt: skip
    return int(text)


def check(connection: Connection, refs: Sequence[JobRef], who: Principal) -> int:
    """Refuse (NotFound) jobs that `who` may not see; the newest event's id."""
    newest = events.last_id(connection)
    rows = jobs.get_many(connection, sorted({ref.job for ref in refs}))
    for ref in refs:
        row = rows.get(ref.job)
        if row is None or row.array_id is not None or not (who.administrator or row.owner == who.person):
            raise NotFound("no_such_job", f"There is no job {ref}.", field="job")
    return newest


def concerns(event: Event, refs: Sequence[JobRef], who: Principal) -> bool:
    """Whether an event is one of a job that was asked for, and for this person."""
    if event.kind != "job" or not (who.administrator or event.owner == who.person):
        return False
    return not refs or any(
        ref.job == (event.array_id or event.job_id)
        and (ref.tasks is None or (event.task is not None and event.task in ref.tasks))
        for ref in refs
    )


def document(event: Event) -> dict[str, Any]:
    """An event as the stream tells it."""
    job = event.array_id or event.job_id or 0
    code = event.data.get("reason")
    reason = {"code": code, "sentence": general_sentence(ReasonCode(code))} if code else None
    return {
        "id": task_name(job, event.task), "job": job, "task": event.task, "state": event.state,
        "at": moment(event.at), "reason": reason,
    }  # fmt: skip


class Expectations:
    """When the jobs that somebody watches are expected to start, told anew where it turns out to be another time."""

    def __init__(self, refs: Sequence[JobRef], estimates: Estimates) -> None:
        self._jobs = sorted({ref.job for ref in refs})
        self._estimates = estimates
        self._told: dict[int, dict[str, Any]] = {}

    def news(self, connection: Connection) -> list[ServerEvent]:
        """What to tell now."""
        forecast = self._estimates.current(connection) if self._jobs else None
        at_sites = self._estimates.at_sites(connection, self._jobs)
        arrays = self._estimates.arrays_at_sites(connection, self._jobs)
        found = []
        for job in self._jobs:
            known = at_sites.get(job) or together((estimate(forecast, job), arrays.get(job)))
            if known is None:
                self._told.pop(job, None)
            elif job not in self._told or not _still_holds(self._told[job], known):
                self._told[job] = known
                found.append(ServerEvent("estimate", {"id": str(job), "job": job, "estimate": known}))
        return found


def _still_holds(told: dict[str, Any], known: dict[str, Any]) -> bool:
    """Whether a start lies in the range that was told; all are written alike, so that their texts compare."""
    if known["by"] != told["by"]:
        return False
    if known["start"] is None or told["start"] is None:
        return bool(known["start"] == told["start"])
    return bool(told["earliest"] <= known["start"] <= told["latest"])


async def watch(
    platform: Platform, refs: Sequence[JobRef], who: Principal, cursor: int, estimates: Estimates
) -> AsyncIterator[ServerEvent]:
    """The events after `cursor`, for as long as the client listens; of jobs that are named their estimates too."""
    yield ServerEvent("opened", {"cursor": cursor}, str(cursor))
    newest, expectations = cursor, Expectations(refs, estimates)

    def look(connection: Connection, cursor: int) -> tuple[Sequence[Event], list[ServerEvent]]:
        return events.after(connection, cursor, _PAGE), expectations.news(connection)

    while True:
        try:
            page, expected = await platform.database.read(partial(look, cursor=cursor))
        except Unavailable:
            page, expected = [], []  # the stream goes on when the database does
        for event in page:
            cursor = event.id
            if concerns(event, refs, who):
                yield ServerEvent("job", document(event), str(event.id))
        for told in expected:
            yield told
        if len(page) < _PAGE:
            newest = await platform.changes.wait(max(newest, cursor), HEARTBEAT_SECONDS)
