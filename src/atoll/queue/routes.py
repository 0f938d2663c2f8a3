"""HTTP: projects and their quotas, flavors, reservations, and how the queue stands."""

import asyncio
import hashlib
import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import Invalid, NotFound
from atoll.core.project import TreeNode
from atoll.core.project_file import read_projects
from atoll.faces.http.auth import Caller, Here, require_administrator
from atoll.faces.http.body import idempotency_key, json_body, read_json
from atoll.faces.http.problems import problems
from atoll.jobs.prepare import SitesView
from atoll.jobs.projects import Projects
from atoll.jobs.routes import Key
from atoll.queue import flavors, model, service
from atoll.store import reservations

router = APIRouter(tags=["queue"])
ProjectName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$")]
FlavorName = ProjectName
ReservationId = Annotated[int, Path(alias="id", ge=1, le=2**63 - 1)]


def _body(name: str, *parameters: dict[str, Any]) -> dict[str, Any]:
    """What the document says of a body that a route reads by itself."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    extra: dict[str, Any] = {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}
    return extra | ({"parameters": list(parameters)} if parameters else {})


async def _known(request: Request) -> Projects:
    """The project tree as of a moment ago."""
    view: SitesView = request.app.state.sites
    await view.refresh()
    return view.projects


@router.get("/projects", response_model=model.Projects, responses=problems())
async def list_projects(request: Request, who: Caller, platform: Here) -> Response:
    """The project tree with its quotas, what is used of them, and who has borrowed and lent."""
    known = await _known(request)
    return JSONResponse(await platform.database.read(lambda connection: service.listed(connection, who, known)))


@router.get("/tree", response_model=model.Tree, responses=problems(403))
async def get_tree(who: Caller, platform: Here) -> Response:
    """The project tree as a project file has it. For administrators."""
    require_administrator(who, "see the whole project tree as it is configured")
    return JSONResponse(await platform.database.read(service.tree_file))


@router.put(
    "/projects", response_model=model.Plan, responses=problems(403, 409, 413, 415),
    openapi_extra=_body("TreeRequest"),
)  # fmt: skip
async def put_projects(
    request: Request, who: Caller, platform: Here,
    dry_run: Annotated[bool, Query(description="Only say what would change.")] = False,
) -> Response:  # fmt: skip
    """Make this the whole project tree. For administrators."""
    require_administrator(who, "change the project tree")
    nodes, revision = await asyncio.to_thread(_read_tree, await json_body(request))
    now = to_micros(platform.clock())

    def work(connection: Connection) -> dict[str, Any]:
        return service.put(connection, nodes, revision, now, dry_run=dry_run)

    if dry_run:
        return JSONResponse(await platform.database.read(work))
    plan = await platform.database.write(work)
    _tell(request, platform)
    return JSONResponse(plan)


def _read_tree(text: bytes) -> tuple[list[TreeNode], int | None]:
    """The nodes of a request, and the revision that they shall replace. Takes its time. Raises Invalid."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("bad_json", "The body is not JSON that can be read.", field="body") from None
    revision = _revision(document)
    return read_projects(document), revision


def _revision(document: Any) -> int | None:
    """Take the revision out of a request; what remains is a project file. Raises Invalid."""
    revision = document.pop("revision", None) if isinstance(document, dict) else None
    if revision is not None and (type(revision) is not int or revision < 0):
        raise Invalid("bad_revision", "revision: write the number that the tree was told with.", field="revision")
    return revision


def _tell(request: Request, platform: Here) -> None:
    """Have the dispatcher, and the next submission here, see the change at once."""
    view: SitesView = request.app.state.sites
    view.forget()
    platform.changed()


@router.get("/projects/{name}", response_model=model.Project, responses=problems(404))
async def get_project(request: Request, name: ProjectName, who: Caller, platform: Here) -> Response:
    """One project."""
    known = await _known(request)
    return JSONResponse(await platform.database.read(lambda connection: service.get(connection, name, who, known)))


@router.patch(
    "/projects/{name}", response_model=model.Project, responses=problems(403, 404, 409, 413, 415),
    openapi_extra=_body("PeopleChange"),
)  # fmt: skip
async def change_project(request: Request, name: ProjectName, who: Caller, platform: Here) -> Response:
    """Let people submit to a project, or no longer. For its managers, and administrators."""
    change = await read_json(request, model.PeopleChange)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> None:
        service.change_people(connection, name, who, change.add, change.remove, now)

    await platform.database.write(work)
    _tell(request, platform)
    return await get_project(request, name, who, platform)


@router.get("/flavors", response_model=model.FlavorList, responses=problems())
async def list_flavors(request: Request, _who: Caller, platform: Here) -> Response:
    """The kinds of hardware over all sites: what there is, what is used, what quotas give out."""
    known = await _known(request)
    return JSONResponse({"items": await platform.database.read(lambda connection: flavors.listed(connection, known))})


@router.get("/flavors/{name}", response_model=model.FlavorSummary, responses=problems(404))
async def get_flavor(request: Request, name: FlavorName, _who: Caller, platform: Here) -> Response:
    """One kind of hardware."""
    known = await _known(request)
    for found in await platform.database.read(lambda connection: flavors.listed(connection, known)):
        if found["name"] == name:
            return JSONResponse(found)
    raise NotFound("no_such_flavor", f"There is no flavor {name!r}; see: atoll flavor.", field="name")


@router.get("/reservations", response_model=model.Reservations, responses=problems())
async def list_reservations(request: Request, who: Caller, platform: Here) -> Response:
    """The reservations that are not over, by begin."""
    known, now = await _known(request), to_micros(platform.clock())
    found = await platform.database.read(lambda connection: reservations.load(connection, now))
    return JSONResponse({"items": [flavors.told(kept, who, known) for kept in found]})


@router.post(
    "/reservations", status_code=201, response_model=model.Reservation, responses=problems(403, 409, 413, 415),
    openapi_extra=_body("ReservationRequest", Key),
)  # fmt: skip
async def add_reservation(request: Request, who: Caller, platform: Here) -> Response:
    """Keep room for a project, for people, or for maintenance. For administrators."""
    require_administrator(who, "make reservations")
    key = idempotency_key(request)
    wanted = await read_json(request, model.ReservationRequest)
    digest = hashlib.sha256(b"reservation\n" + await json_body(request)).digest() if key is not None else b""
    now = to_micros(platform.clock())

    def work(connection: Connection) -> tuple[dict[str, Any], bool]:
        if key is None:
            return flavors.reserve(connection, wanted, who, now), False
        return flavors.reserve_once(connection, wanted, who, now, key, digest)

    document, replayed = await platform.database.write(work)
    platform.changed()
    return JSONResponse(document, 201, {"idempotent-replay": "true"} if replayed else None)


@router.delete("/reservations/{id}", status_code=204, response_class=Response, responses=problems(403, 404))
async def remove_reservation(number: ReservationId, who: Caller, platform: Here) -> Response:
    """Keep that room no longer. For administrators."""
    require_administrator(who, "remove reservations")
    now = to_micros(platform.clock())
    await platform.database.write(lambda connection: flavors.release(connection, number, now))
    platform.changed()
    return Response(status_code=204)


@router.get("/queue", response_model=model.Queue, responses=problems())
async def get_queue(request: Request, _who: Caller, platform: Here) -> Response:
    """How many jobs wait and run, by class and project, and who borrows from whom."""
    known = await _known(request)
    return JSONResponse(await platform.database.read(lambda connection: service.queue(connection, known)))
