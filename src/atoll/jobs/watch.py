"""Following changes of jobs: the outbox as a stream of events."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

from sqlalchemy import Connection

from atoll.core.errors import Invalid, NotFound, Unavailable
from atoll.core.ids import JobRef, task_name
from atoll.core.reasons import ReasonCode, general_sentence
from atoll.faces.http.platform import Platform
from atoll.faces.http.sse import HEARTBEAT_SECONDS, ServerEvent
from atoll.faces.http.times import moment
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


async def watch(platform: Platform, refs: Sequence[JobRef], who: Principal, cursor: int) -> AsyncIterator[ServerEvent]:
    """The events after `cursor`, for as long as the client listens."""
    yield ServerEvent("opened", {"cursor": cursor}, str(cursor))
    newest = cursor
    while True:
        try:
            page = await platform.database.read(
                lambda connection, cursor=cursor: events.after(connection, cursor, _PAGE)  # type: ignore[misc]
            )
        except Unavailable:
            page = []  # the stream goes on when the database does
        for event in page:
            cursor = event.id
            if concerns(event, refs, who):
                yield ServerEvent("job", document(event), str(event.id))
        if len(page) < _PAGE:
            newest = await platform.changes.wait(max(newest, cursor), HEARTBEAT_SECONDS)
