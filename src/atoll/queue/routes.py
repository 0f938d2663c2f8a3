"""HTTP: projects and their quotas, flavors, reservations, and how the queue stands."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import Invalid, NotFound
from atoll.core.project_file import read_projects
from atoll.faces.http.auth import Caller, Here, require_administrator
from atoll.faces.http.body import json_body, read_json
from atoll.faces.http.problems import problems
from atoll.jobs.prepare import SitesView
from atoll.queue import flavors, model, service
from atoll.store import reservations

router = APIRouter(tags=["queue"])
ProjectName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$")]
FlavorName = ProjectName
ReservationId = Annotated[int, Path(alias="id", ge=1, le=2**63 - 1)]


def _body(name: str) -> dict[str, Any]:
    """What the document says of a body that a route reads by itself."""
    schema = {"$ref": f"#/components/schemas/{name}"}
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


@router.get("/projects", response_model=model.Projects, responses=problems())
async def list_projects(who: Caller, platform: Here) -> Response:
    """The project tree with its quotas, what is used of them, and who has borrowed and lent."""
    return JSONResponse(await platform.database.read(lambda connection: service.listed(connection, who)))


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
    document = _parsed(await json_body(request))
    revision = _revision(document)
    nodes = read_projects(document)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> dict[str, Any]:
        return service.put(connection, nodes, revision, now, dry_run=dry_run)

    if dry_run:
        return JSONResponse(await platform.database.read(work))
    plan = await platform.database.write(work)
    _tell(request, platform)
    return JSONResponse(plan)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("bad_json", "The body is not JSON that can be read.", field="body") from None


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
async def get_project(name: ProjectName, who: Caller, platform: Here) -> Response:
    """One project."""
    return JSONResponse(await platform.database.read(lambda connection: service.get(connection, name, who)))


@router.patch(
    "/projects/{name}", response_model=model.Project, responses=problems(403, 404, 409, 413, 415),
    openapi_extra=_body("PeopleChange"),
)  # fmt: skip
async def change_project(request: Request, name: ProjectName, who: Caller, platform: Here) -> Response:
    """Let people submit to a project, or no longer. For its managers, and administrators."""
    change = await read_json(request, model.PeopleChange)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> dict[str, Any]:
        service.change_people(connection, name, who, change.add, change.remove, now)
        return service.get(connection, name, who)

    document = await platform.database.write(work)
    _tell(request, platform)
    return JSONResponse(document)


@router.get("/flavors", response_model=model.FlavorList, responses=problems())
async def list_flavors(_who: Caller, platform: Here) -> Response:
    """The kinds of hardware over all sites: what there is, what is used, what quotas give out."""
    return JSONResponse({"items": await platform.database.read(flavors.listed)})


@router.get("/flavors/{name}", response_model=model.FlavorSummary, responses=problems(404))
async def get_flavor(name: FlavorName, _who: Caller, platform: Here) -> Response:
    """One kind of hardware."""
    for found in await platform.database.read(flavors.listed):
        if found["name"] == name:
            return JSONResponse(found)
    raise NotFound("no_such_flavor", f"There is no flavor {name!r}; see: atoll flavor.", field="name")


@router.get("/reservations", response_model=model.Reservations, responses=problems())
async def list_reservations(_who: Caller, platform: Here) -> Response:
    """The reservations that are not over, by begin."""
    now = to_micros(platform.clock())
    found = await platform.database.read(lambda connection: reservations.load(connection, now))
    return JSONResponse({"items": [flavors.document(kept) for kept in found]})


@router.post(
    "/reservations", status_code=201, response_model=model.Reservation, responses=problems(403, 413, 415),
    openapi_extra=_body("ReservationRequest"),
)  # fmt: skip
async def add_reservation(request: Request, who: Caller, platform: Here) -> Response:
    """Keep room for a project, for people, or for maintenance. For administrators."""
    require_administrator(who, "make reservations")
    wanted = await read_json(request, model.ReservationRequest)
    now = to_micros(platform.clock())
    document = await platform.database.write(lambda connection: flavors.reserve(connection, wanted, who, now))
    platform.changed()
    return JSONResponse(document, 201)


@router.delete("/reservations/{id}", status_code=204, response_class=Response, responses=problems(403, 404))
async def remove_reservation(number: ReservationId, who: Caller, platform: Here) -> Response:
    """Keep that room no longer. For administrators."""
    require_administrator(who, "remove reservations")
    now = to_micros(platform.clock())
    await platform.database.write(lambda connection: flavors.release(connection, number, now))
    platform.changed()
    return Response(status_code=204)


@router.get("/queue", response_model=model.Queue, responses=problems())
async def get_queue(_who: Caller, platform: Here) -> Response:
    """How many jobs wait and run, by class and project, and who borrows from whom."""
    return JSONResponse(await platform.database.read(service.queue))
