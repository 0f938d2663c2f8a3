"""Rows of the list of jobs: how they are shown, and how they stay live."""

from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Any

from sqlalchemy import Connection

from atoll.core.ids import JobRef
from atoll.core.resources import format_bytes
from atoll.core.states import JobState
from atoll.faces.http.sse import ServerEvent
from atoll.faces.web.live import News, elements
from atoll.faces.web.templates import render_block
from atoll.jobs import view
from atoll.jobs.estimates import Estimates
from atoll.jobs.service import find
from atoll.store import jobs
from atoll.store.events import Event
from atoll.store.jobs import JobRow
from atoll.store.people import Principal

Document = dict[str, Any]
TEMPLATE = "jobs/templates/jobs.html"
_NEW = frozenset({JobState.HELD, JobState.QUEUED})


def documents(connection: Connection, rows: Sequence[JobRow], estimates: Estimates) -> list[Document]:
    """Rows as the list shows them: as the API's summaries, and what they ask for in short."""
    found = [{**view.summary(row), "asks": asks(view.summary(row))} for row in rows]
    estimates.add(connection, found)
    return found


def asks(job: Document) -> str:
    """What a job asks for, in short: `2 CPU, 4 GiB, 1 GPU, 3 nodes`."""
    parts = [f"{job['cpu']} CPU", format_bytes(job["memory"])]
    if job["gpu"] != "0":
        parts.append(f"{job['gpu']} GPU")
    if job["nodes"] > 1:
        parts.append(f"{job['nodes']} nodes")
    return ", ".join(parts)


class JobRows:
    """The topic `jobs`: each changed row, made once for all who look at a list."""

    def __init__(self, estimates: Estimates) -> None:
        self._estimates = estimates

    def admit(self, connection: Connection, name: str, who: Principal) -> None:
        """Anybody has a list; whose jobs are on it is looked at with each row."""

    def news(self, connection: Connection, changes: Sequence[Event], names: Collection[str]) -> Sequence[News]:
        """Changed rows for the lists that show them, and that there are new ones."""
        told = [event for event in changes if event.kind == "job"]
        ids = sorted({job for event in told if (job := event.array_id or event.job_id) is not None})
        rows = jobs.get_many(connection, ids)
        shown = documents(connection, list(rows.values()), self._estimates)
        news = [
            News(name, elements(render_block(TEMPLATE, "live_row", {"job": job})), job["owner"])
            for job in shown for name in names
        ]  # fmt: skip
        added = {event.owner for event in told if _is_new(event)}
        return [*news, *(News(name, _ADDED, owner) for owner in sorted(filter(None, added)) for name in names)]


_ADDED = ServerEvent("added", {})
_CHANGED = ServerEvent("changed", {})


def _is_new(event: Event) -> bool:
    """Whether a job was submitted: later changes have their reason."""
    return event.array_id is None and not event.data and event.state in _NEW


class OneJob:
    """The topic `job`: that a job or a task has changed, upon which its page is fetched again."""

    def admit(self, connection: Connection, name: str, who: Principal) -> None:
        """Refuse (NotFound) whoever may not see the job."""
        find(connection, JobRef.parse(name), who)

    def news(self, connection: Connection, changes: Sequence[Event], names: Collection[str]) -> Sequence[News]:
        """Which of the jobs that somebody looks at have changed."""
        changed = {(event.array_id or event.job_id, event.task) for event in changes if event.kind == "job"}
        whole = {job for job, _ in changed}
        found = []
        for name in names:
            ref = _parse(name)
            if ref.tasks is None:
                concerned = ref.job in whole
            else:
                concerned = (ref.job, None) in changed or any((ref.job, task) in changed for task in ref.tasks)
            if concerned:
                found.append(News(name, _CHANGED))
        return found


@lru_cache(maxsize=1000)
def _parse(name: str) -> JobRef:
    return JobRef.parse(name)
