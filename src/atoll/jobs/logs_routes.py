"""HTTP: output of jobs, files that they brought out, and streams of what changes."""

from typing import Annotated

from fastapi import APIRouter, Header, Path, Query, Request
from starlette.responses import FileResponse, JSONResponse, Response

from atoll.core.errors import NotFound, Unavailable
from atoll.core.ids import JobRef
from atoll.faces.http.auth import Caller, Here
from atoll.faces.http.problems import problems
from atoll.faces.http.sse import EventStream
from atoll.jobs import logs, model, service, watch
from atoll.jobs.estimates import Estimates
from atoll.jobs.follow import Follower, Position
from atoll.jobs.routes import JobId

router = APIRouter(tags=["logs"])
Attempt = Annotated[int | None, Query(ge=1, le=2**31 - 1, description="Number of the attempt; default: the last.")]
LastEventId = Annotated[
    str | None, Header(alias="Last-Event-ID", max_length=64, description="Id of the last event that was received.")
]
_LARGEST_OFFSET = 2**62


def _header(description: str) -> dict[str, object]:
    return {"schema": {"type": "string"}, "description": description}


def _binary(description: str) -> dict[str, object]:
    return {
        "description": description,
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }


def _events(description: str) -> dict[str, object]:
    return {"description": description, "content": {"text/event-stream": {"schema": {"type": "string"}}}}


@router.get(
    "/jobs/{id}/logs", response_class=Response,
    responses={**problems(404), 200: {**_binary("The bytes."), "headers": {
        "Atoll-Log-Offset": _header("Where these bytes begin."),
        "Atoll-Log-Size": _header("Bytes written so far."),
        "Atoll-Log-Complete": _header("true once there will be no more."),
        "Atoll-Log-Omitted": _header("Bytes in the middle that were not kept."),
    }}},
)  # fmt: skip
async def read_log(
    job: JobId,
    who: Caller,
    platform: Here,
    stream: logs.Stream = "stdout",
    attempt: Attempt = None,
    offset: Annotated[
        int, Query(ge=-_LARGEST_OFFSET, le=_LARGEST_OFFSET, description="First byte; negative: from the end.")
    ] = 0,
    limit: Annotated[int, Query(ge=0, le=logs.LARGEST, description="Most bytes.")] = logs.LARGEST,
) -> Response:
    """A piece of what a job wrote."""
    piece = await logs.read(platform, JobRef.parse(job), who, stream, attempt, offset, limit)
    headers = {
        "atoll-log-offset": str(piece.offset), "atoll-log-size": str(piece.size),
        "atoll-log-complete": "true" if piece.complete else "false", "atoll-log-omitted": str(piece.omitted),
        "x-content-type-options": "nosniff",
    }  # fmt: skip
    return Response(piece.data, 200, headers, "application/octet-stream")


@router.get(
    "/jobs/{id}/logs/follow", response_class=Response,
    responses={**problems(404), 200: _events("opened, chunk, state and end events.")},
)  # fmt: skip
async def follow_log(
    job: JobId,
    who: Caller,
    platform: Here,
    stream: Annotated[str, Query(pattern="^(stdout|stderr|both)$")] = "both",
    attempt: Attempt = None,
    tail: Annotated[int | None, Query(ge=0, le=1_000_000, description="Lines of each stream to begin with.")] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """What a job writes, as it writes it, to its end. Waits while the job waits; goes on over retries."""
    streams: tuple[logs.Stream, ...] = ("stdout", "stderr")
    if stream != "both":
        streams = ("stderr",) if stream == "stderr" else ("stdout",)
    position = Position.parse(last_event_id)
    follower = Follower(platform, JobRef.parse(job), who, streams, attempt, tail, position)
    return EventStream(follower.follow(await follower.start()), platform.stopping)


@router.get(
    "/events", response_class=Response,
    responses={**problems(404), 200: _events("opened and job events; the id of each is where to resume.")},
)  # fmt: skip
async def follow_events(
    request: Request,
    who: Caller,
    platform: Here,
    job: Annotated[
        list[Annotated[str, Path(max_length=200)]] | None, Query(max_length=watch.MOST_JOBS, description="12, 12[3].")
    ] = None,
    last_event_id: LastEventId = None,
) -> Response:
    """Changes of jobs as they happen: of those named, else of all that one may see."""
    refs = [JobRef.parse(text) for text in job or ()]
    position = watch.read_position(last_event_id)
    newest = await platform.database.read(lambda connection: watch.check(connection, refs, who))
    cursor = newest if position is None else position
    estimates: Estimates = request.app.state.estimates
    return EventStream(watch.watch(platform, refs, who, cursor, estimates), platform.stopping)


@router.get("/jobs/{id}/outputs", response_model=model.Outputs, responses=problems(404))
async def list_outputs(job: JobId, who: Caller, platform: Here) -> Response:
    """The files that a job brought out."""
    ref = JobRef.parse(job)
    found = await platform.database.read(lambda connection: service.outputs(connection, ref, who))
    return JSONResponse({"items": [{"path": path, "sha256": sha256, "size": size} for path, sha256, size in found]})


@router.get(
    "/jobs/{id}/outputs/{path:path}", response_class=Response,
    responses={**problems(404), 200: _binary("The file.")},
)  # fmt: skip
async def read_output(job: JobId, path: str, who: Caller, platform: Here) -> Response:
    """A file that a job brought out."""
    ref = JobRef.parse(job)
    found = await platform.database.read(lambda connection: service.outputs(connection, ref, who))
    for name, sha256, _ in found:
        if name == path:
            place = platform.files.path(sha256)
            if not place.is_file():
                raise Unavailable("file_store", "The file store does not have this file now.", retry_after=30)
            return FileResponse(place, media_type="application/octet-stream", filename=name.rpartition("/")[2])
    raise NotFound("no_such_output", f"Job {ref} brought out no file {path[:200]!r}.", field="path")
