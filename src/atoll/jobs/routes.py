"""HTTP: submitting jobs, and all that can be asked about one or done to it, but for its output."""

import asyncio
import hashlib
import json
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.exceptions import HTTPException
from pydantic import AfterValidator, AwareDatetime
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.ids import JobRef
from atoll.core.spec import read_spec_json
from atoll.core.states import ENDED, JobState
from atoll.faces.http.auth import Caller, Here
from atoll.faces.http.body import idempotency_key, json_body, read_json
from atoll.faces.http.paging import Cursor, Limit, read_cursor, write_cursor
from atoll.faces.http.platform import Platform
from atoll.faces.http.problems import problems
from atoll.jobs import actions, model, service
from atoll.jobs.accept import Wanted, accept, judged
from atoll.jobs.acting import act, send_signal
from atoll.jobs.asking import ask, what_helps
from atoll.jobs.bulk import read_bulk
from atoll.jobs.change import change, read_changes
from atoll.jobs.estimates import Estimates
from atoll.jobs.prepare import SitesView, prepare_all, prepare_one
from atoll.jobs.submit import Accepted, Submission, Submitter
from atoll.jobs.why import entry, why
from atoll.store.jobs import ListFilter
from atoll.store.people import Principal

router = APIRouter(tags=["jobs"])
_LARGE_BODY = 64 * 1024
"""Bytes beyond which a body is taken apart in a thread, so that the others need not wait."""
_REFERENCE = r"^[0-9]{1,18}(\[[0-9,:\-]+\])?$"
JobId = Annotated[
    str,
    Path(alias="id", pattern=_REFERENCE, max_length=8_000, description="12, or a task 12[3]; actions: 12[3,7-9]."),
]


def _plain(text: str) -> str:
    if not text.isprintable():
        raise ValueError("use printable characters only")
    return text


Word = Annotated[str | None, Query(min_length=1, max_length=255), AfterValidator(lambda text: text and _plain(text))]
Key = {
    "name": "Idempotency-Key", "in": "header", "required": False,
    "description": "The same key with the same body gets the same answer, and makes nothing twice.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[ -~]+$"},
}  # fmt: skip


def _body(schema: dict[str, Any], *parameters: dict[str, Any]) -> dict[str, Any]:
    """What the document says of a body that a route reads by itself."""
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    return extra | ({"parameters": list(parameters)} if parameters else {})


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


_CREATED = {
    "headers": {
        "Location": {"schema": {"type": "string"}},
        "Idempotent-Replay": {"schema": {"type": "string"}, "description": "true: this was answered before."},
    }
}


def _created(accepted: Accepted, location: str | None) -> Response:
    headers = {"idempotent-replay": "true"} if accepted.replayed else {}
    if location is not None:
        headers["location"] = location
    return Response(accepted.answer, 201, headers, "application/json")


@router.post(
    "/jobs", status_code=201, response_model=model.Submitted,
    responses={**problems(403, 404, 409, 413, 415), 201: _CREATED}, openapi_extra=_body(_reference("JobSpec"), Key),
)  # fmt: skip
async def submit(request: Request, who: Caller, platform: Here, hold: bool = False) -> Response:
    """Submit a job, or an array."""
    return await answer_submission(request, who, platform, request.app.state.sites, request.app.state.submitter, hold)


async def answer_submission(
    request: Request, who: Principal, platform: Platform, view: SitesView, submitter: Submitter, hold: bool
) -> Response:
    """Take one job; what `submit` and `FastSubmissions` share."""
    text = await json_body(request)
    key = idempotency_key(request)
    if len(text) > _LARGE_BODY:
        spec = await asyncio.to_thread(read_spec_json, text)
    else:
        spec = read_spec_json(text)
    digest = hashlib.sha256(b"one %d\n" % hold + text).digest() if key is not None else b""

    async def prepare() -> Submission:
        prepared = prepare_one(spec, who, view, platform, hold=hold)
        return Submission(who, [prepared], False, view.warnings(), key, digest)

    accepted = await accept(Wanted(who, prepare, submitter.submit, key, digest), view, submitter)
    return _created(accepted, f"/api/v1/jobs/{json.loads(accepted.answer)['id']}")


@router.post(
    "/jobs/bulk", status_code=201, response_model=model.SubmittedMany,
    responses={**problems(403, 404, 409, 413, 415), 201: {"headers": {
        "Idempotent-Replay": _CREATED["headers"]["Idempotent-Replay"]}}},
    openapi_extra=_body({
        "type": "object", "required": ["jobs"], "additionalProperties": False,
        "properties": {"jobs": {"type": "array", "minItems": 1, "maxItems": 10_000, "items": _reference("JobSpec")}},
    }, Key),
)  # fmt: skip
async def submit_many(request: Request, who: Caller, platform: Here, hold: bool = False) -> Response:
    """Submit up to 10,000 jobs, all or none. A dependency may name another job of the same request."""
    view: SitesView = request.app.state.sites
    text = await json_body(request)
    key = idempotency_key(request)
    submitter: Submitter = request.app.state.submitter
    digest = hashlib.sha256(b"many %d\n" % hold + text).digest() if key is not None else b""

    def prepare_now() -> Submission:
        specs = read_bulk(text)
        return Submission(who, prepare_all(specs, who, view, platform, hold=hold), True, (), key, digest)

    async def prepare() -> Submission:
        return await asyncio.to_thread(prepare_now) if len(text) > _LARGE_BODY else prepare_now()

    wanted = Wanted(who, prepare, submitter.submit_alone, key, digest)
    return _created(await accept(wanted, view, submitter), None)


@router.post(
    "/jobs/explain", response_model=model.Explained, responses=problems(403, 404, 409, 413, 415),
    openapi_extra=_body(_reference("JobSpec")),
)  # fmt: skip
async def explain_hypothetical_job(request: Request, who: Caller, platform: Here) -> Response:
    """Whether a job could run, where, and when it would start, without submitting it."""
    view: SitesView = request.app.state.sites
    spec = read_spec_json(await json_body(request))

    async def prepare_now() -> dict[str, Any]:
        return prepare_one(spec, who, view, platform).columns

    columns = await judged(prepare_now, view)
    answer = await ask(platform, who.person, columns)
    return JSONResponse({"project": columns["project"], **answer, "warnings": view.warnings()})


@router.api_route("/jobs/bulk", methods=["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], include_in_schema=False)
@router.api_route(
    "/jobs/explain", methods=["GET", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], include_in_schema=False
)
async def nothing_else_there() -> Response:
    """`bulk` and `explain` are no jobs, so that what can be done to a job cannot be done to them."""
    raise HTTPException(405)


@router.get("/jobs", response_model=model.JobPage, responses=problems(404))
async def list_jobs(
    request: Request,
    who: Caller,
    platform: Here,
    state: Annotated[list[JobState] | None, Query(max_length=10)] = None,
    owner: Word = None,
    project: Word = None,
    name: Word = None,
    site: Word = None,
    since: Annotated[AwareDatetime | None, Query(description="Submitted or ended at this time or later.")] = None,
    all_: Annotated[bool, Query(alias="all", description="Also those that ended.")] = False,
    array: Annotated[int | None, Query(ge=1, le=2**63 - 1, description="The tasks of this array.")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> Response:
    """Jobs, newest first: those that have not ended, unless `state`, `since` or `all` ask for others."""
    if state:
        states = frozenset(state)
    elif all_ or since is not None:
        states = frozenset()
    else:
        states = frozenset(JobState) - ENDED
    wanted = ListFilter(
        owner=owner, states=states, project=project, name=name, since=_since(since), array_id=array, site=site
    )
    kind = "j" if array is None else "t"
    estimates: Estimates = request.app.state.estimates
    position = read_cursor(kind, cursor)
    items, following = await platform.database.read(
        lambda connection: service.page(connection, wanted, who, position, limit, estimates)
    )
    next_cursor = write_cursor(kind, following) if following is not None else None
    return JSONResponse({"items": items, "next_cursor": next_cursor})


def _since(since: datetime | None) -> int | None:
    return max(0, to_micros(since)) if since is not None else None


@router.get("/jobs/{id}", response_model=model.Job, responses=problems(404))
async def get_job(request: Request, job: JobId, who: Caller, platform: Here) -> Response:
    """A job or one task in full."""
    return await _job_in_full(request, platform, JobRef.parse(job), who)


async def _job_in_full(request: Request, platform: Platform, ref: JobRef, who: Principal) -> Response:
    estimates: Estimates = request.app.state.estimates
    return JSONResponse(await platform.database.read(lambda connection: service.get(connection, ref, who, estimates)))


@router.get("/jobs/{id}/why", response_model=model.Why, responses=problems(404))
async def explain_job(
    request: Request,
    job: JobId,
    who: Caller,
    platform: Here,
    remedies: Annotated[bool, Query(description="Also what would help, which takes a moment to find out.")] = False,
) -> Response:
    """Why a job waits and when it is expected to start, or why it ended."""
    ref, now = JobRef.parse(job), to_micros(platform.clock())
    estimates: Estimates = request.app.state.estimates
    answer = await platform.database.read(lambda connection: why(connection, ref, who, now, estimates))
    if (
        remedies
        and (job_id := await platform.database.read(lambda connection: entry(connection, ref, who))) is not None
    ):
        answer["remedies"] = await what_helps(platform, who.person, job_id)
    return JSONResponse(answer)


@router.post("/jobs/{id}/cancel", response_model=model.Changed, responses=problems(404))
async def cancel_job(job: JobId, who: Caller, platform: Here) -> Response:
    """End a job, an array or some tasks; what has ended stays as it is."""
    return JSONResponse(await act(platform, actions.cancel, JobRef.parse(job), who))


@router.post("/jobs/{id}/hold", response_model=model.Changed, responses=problems(404, 409))
async def hold_job(job: JobId, who: Caller, platform: Here) -> Response:
    """Keep what waits from starting."""
    return JSONResponse(await act(platform, actions.hold, JobRef.parse(job), who))


@router.post("/jobs/{id}/release", response_model=model.Changed, responses=problems(404, 409))
async def release_job(job: JobId, who: Caller, platform: Here) -> Response:
    """Let go what is held."""
    return JSONResponse(await act(platform, actions.release, JobRef.parse(job), who))


@router.post("/jobs/{id}/requeue", response_model=model.Changed, responses=problems(404, 409))
async def requeue_job(job: JobId, who: Caller, platform: Here) -> Response:
    """Have a job run again. What runs is stopped first; of a whole array what did not succeed runs again."""
    return JSONResponse(await act(platform, actions.requeue, JobRef.parse(job), who))


@router.post(
    "/jobs/{id}/signal", response_model=model.Changed, responses=problems(404, 409, 413, 415),
    openapi_extra=_body(_reference("SignalRequest")),
)  # fmt: skip
async def signal_job(request: Request, job: JobId, who: Caller, platform: Here) -> Response:
    """Send a signal to what runs."""
    ref = JobRef.parse(job)
    wanted = await read_json(request, model.SignalRequest)
    return JSONResponse(await send_signal(platform, ref, who, wanted.signal))


@router.patch(
    "/jobs/{id}", response_model=model.Job, responses=problems(403, 404, 409, 413, 415),
    openapi_extra=_body(_reference("JobChanges")),
)  # fmt: skip
async def change_job(request: Request, job: JobId, who: Caller, platform: Here) -> Response:
    """Change what may still change."""
    ref = JobRef.parse(job)
    view: SitesView = request.app.state.sites
    changes = read_changes(await json_body(request))
    now = to_micros(platform.clock())

    async def write() -> None:
        await platform.database.write(lambda connection: change(connection, ref, who, changes, view, now))

    await judged(write, view)
    platform.changed()
    return await _job_in_full(request, platform, ref, who)
