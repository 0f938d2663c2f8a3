"""One job, or one task of an array: where it is and why, its attempts, its output, what it asked for."""

from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import yaml
from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import Response

from atoll.core.clock import to_micros
from atoll.core.ids import JobRef
from atoll.core.resources import format_bytes, format_seconds
from atoll.core.states import ACTIVE, ENDED, WAITING, JobState
from atoll.faces.http.auth import Here
from atoll.faces.http.platform import Platform
from atoll.faces.web import live
from atoll.faces.web.route import Page
from atoll.faces.web.templates import is_fragment, show
from atoll.faces.web.visitor import Visitor
from atoll.jobs import service
from atoll.jobs.asking import what_helps
from atoll.jobs.estimates import Estimates
from atoll.jobs.logs import Stream
from atoll.jobs.pages import log
from atoll.jobs.pages.picture import Ahead, ahead, axis, stretches
from atoll.jobs.pages.rows import Document, asks
from atoll.jobs.why import entry, why
from atoll.store import events
from atoll.store.jobs import ListFilter
from atoll.store.people import Principal

router = APIRouter(route_class=Page)
_TEMPLATE = "jobs/templates/job.html"
_TASKS = 50
_MOST_OUTPUTS = 200
Reference = Annotated[str, Path(alias="id", max_length=40, pattern=r"^[0-9]{1,18}(\[[0-9]{1,9}\])?$")]


@dataclass(frozen=True)
class _Read:
    """What the store says of a job."""

    job: Document
    answer: Document
    ahead: Ahead | None
    outputs: list[tuple[str, str, int]]
    tasks: list[Document]
    next_task: int | None
    cursor: int


@router.get("/jobs/{id}")
async def show_job(
    request: Request, job: Reference, who: Visitor, platform: Here,
    help_: Annotated[bool, Query(alias="help")] = False,
    after: Annotated[int | None, Query(ge=0, le=2**31, description="Tasks above this number.")] = None,
) -> Response:  # fmt: skip
    """The page; without the output where htmx asks for what changes."""
    ref = JobRef.parse(job)
    values = await _values(request, platform, ref, who, after)
    values["remedies"] = await _remedies(platform, ref, who) if help_ else None
    values["log"] = None
    if values["has_log"] and not is_fragment(request):
        values |= await _log_values(platform, ref, who, log.Wanted())
    values["stream"] = _stream(ref, values)
    return show(request, _TEMPLATE, values, block="help" if help_ else "job")


@router.get("/jobs/{id}/log")
async def show_log(
    request: Request, job: Reference, who: Visitor, platform: Here,
    stream: Annotated[Stream, Query()] = "stdout",
    attempt: Annotated[int | None, Query(ge=1, le=2**31 - 1)] = None,
    before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
    find: Annotated[str, Query(max_length=200)] = "",
) -> Response:  # fmt: skip
    """The page with another piece of the output, or only that where htmx asks."""
    ref = JobRef.parse(job)
    found = await _log_values(platform, ref, who, log.Wanted(stream, attempt, before, find.strip()))
    if is_fragment(request):
        return show(request, _TEMPLATE, {"ref": str(ref), **found}, block="log")
    values = {**await _values(request, platform, ref, who, None), **found, "remedies": None}
    return show(request, _TEMPLATE, {**values, "stream": _stream(ref, values)})


async def _remedies(platform: Platform, ref: JobRef, who: Principal) -> list[Document] | None:
    """What would help; None where the scheduler does not say, or the job does not wait."""
    job_id = await platform.database.read(lambda connection: entry(connection, ref, who))
    return None if job_id is None else await what_helps(platform, who.person, job_id)


async def _log_values(platform: Platform, ref: JobRef, who: Principal, wanted: log.Wanted) -> Document:
    found = await log.view(platform, ref, who, wanted)

    def at(**changes: Any) -> str:
        fields = {"stream": found.stream, "attempt": wanted.attempt, **changes}
        return f"/jobs/{ref}/log?" + urlencode({name: value for name, value in fields.items() if value is not None})

    return {"log": found, "log_at": at, "has_log": True}


async def _values(request: Request, platform: Platform, ref: JobRef, who: Principal, after: int | None) -> Document:
    estimates: Estimates = request.app.state.estimates
    now = to_micros(platform.clock())
    found = await platform.database.read(lambda connection: _read(connection, ref, who, after, now, estimates))
    job, answer = found.job, found.answer
    state = JobState(job["state"])
    whole_array = job["tasks"] is not None
    return {
        "ref": str(ref), "job": job, "why": answer, "ahead": found.ahead, "axis": axis(answer["estimate"], now),
        "now": now, "attempts": list(zip(job["attempt_list"], stretches(job["attempt_list"], now), strict=True)),
        "facts": _facts(job), "outputs": found.outputs, "output_at": _output_address, "bytes": format_bytes,
        "tasks": found.tasks, "next_task": found.next_task, "spec": _yaml(job["spec"]),
        "actions": _actions(state, job), "has_log": not whole_array, "waits": answer["estimate"] is not None,
        "cursor": found.cursor,
    }  # fmt: skip


def _read(
    connection: Connection, ref: JobRef, who: Principal, after: int | None, now: int, estimates: Estimates
) -> _Read:
    # before all else: what changes from here on, the stream tells
    cursor = events.last_id(connection)
    job = service.get(connection, ref, who, estimates)
    answer = why(connection, ref, who, now, estimates)
    outputs = service.outputs(connection, ref, who)[:_MOST_OUTPUTS] if job["outputs"] else []
    tasks: list[Document] = []
    next_task = None
    if job["tasks"] is not None:
        wanted = ListFilter(array_id=ref.job)
        tasks, next_task = service.page(connection, wanted, who, after, _TASKS, estimates)
    return _Read(
        {**job, "asks": asks(job)}, answer, ahead(connection, answer["estimate"], estimates), outputs, tasks, next_task,
        cursor,
    )  # fmt: skip


def _stream(ref: JobRef, values: Document) -> str:
    """The address of the page's stream."""
    shown = values["log"]
    topics = [("job", str(ref))]
    if shown is not None and shown.position:
        return live.address(values["cursor"], *topics, ("log", str(ref)), at=shown.position)
    return live.address(values["cursor"], *topics)


def _facts(job: Document) -> list[tuple[str, Any]]:
    """What is told of a job beside its state: name and value."""
    walltime = job["spec"].get("walltime")
    facts = [
        ("Person", job["owner"]), ("Project", job["project"]), ("Class", job["class"]), ("Asks for", job["asks"]),
        ("Walltime", format_seconds(walltime) if isinstance(walltime, int) else walltime),
        ("Priority", job["priority"] or None), ("Site", job["site"]),
        ("Exit code", job["exit_code"]), ("Attempts", job["attempts"] or None),
    ]  # fmt: skip
    return [(name, value) for name, value in facts if value is not None]


def _actions(state: JobState, job: Document) -> list[tuple[str, str]]:
    """What can be done to a job now: action and word."""
    waits = state in WAITING or bool(job["tasks"] and job["tasks"]["waiting"])
    found = []
    if state is JobState.HELD:
        found.append(("release", "Release"))
    elif waits:
        found.append(("hold", "Hold"))
    if state in ENDED or state in ACTIVE:
        found.append(("requeue", "Run again"))
    if state not in ENDED:
        found.append(("cancel", "Cancel"))
    return found


def _yaml(spec: Document) -> str:
    return yaml.safe_dump(spec, sort_keys=False, allow_unicode=True, width=100)


def _output_address(ref: str, path: str) -> str:
    return f"/api/v1/jobs/{quote(ref)}/outputs/{quote(path)}"
