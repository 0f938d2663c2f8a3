"""HTTP: the sites."""

import json
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from atoll.core.clock import to_micros
from atoll.core.errors import Invalid
from atoll.core.site import Ability, Health
from atoll.core.site_file import Price, SiteFile, read_site
from atoll.core.spec import JobClass
from atoll.faces.http.auth import Caller, Here, require_administrator
from atoll.faces.http.body import json_body, read_json
from atoll.faces.http.problems import problems
from atoll.sites import operate, service

router = APIRouter(tags=["sites"])
SiteName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$")]


class Amounts(BaseModel):
    """An amount of each resource."""

    cpu: str
    memory: int
    gpu: str


class OpeningDocument(BaseModel):
    """When the site's engine expects to have room on one node for a job of a size, as it said at `asked_at`."""

    room: Amounts
    at: str
    asked_at: str


class FlavorDocument(BaseModel):
    """A kind of hardware at a site; `used` by jobs of this platform, `others` by others, as far as is known."""

    name: str
    nodes: int
    total: Amounts
    node: Amounts
    used: Amounts
    others: Amounts
    openings: Annotated[
        list[OpeningDocument], Field(description="Of sizes for which there is no room now, where the engine tells.")
    ]


class NodeDocument(BaseModel):
    """A node that Atoll chooses: what its jobs may have of it together, and whether it takes new ones."""

    name: str
    flavor: str
    open: bool
    resources: Amounts


class UsualWaitDocument(BaseModel):
    """For how long attempts usually wait in a site's own queue, in whole minutes, as seconds; 0: not at all."""

    all: Annotated[int, Field(description="Those of all classes together.")]
    of_class: Annotated[dict[JobClass, int], Field(description="Those of the classes that have begun there of late.")]


class SiteDocument(BaseModel):
    """A place that runs jobs. A list of sites leaves the nodes out."""

    name: str
    driver: str
    labels: dict[str, str]
    health: Health
    drained: bool
    identity: str
    message: str
    seen_at: str | None
    clearance: Annotated[list[str], Field(description="Words of projects whose data may be there.")]
    price: Annotated[Price | None, Field(description="Of an hour of one CPU, and of one GPU.")]
    energy: Annotated[float | None, Field(description="Grams of CO2e in a kWh there.")]
    usual_wait: UsualWaitDocument
    flavors: list[FlavorDocument]
    abilities: list[Ability]
    notes: list[str]
    nodes: list[NodeDocument] = []


class SiteList(BaseModel):
    """All sites."""

    items: list[SiteDocument]


class SiteChange(BaseModel):
    """What an operator changes about a site."""

    drained: bool


class Described(BaseModel):
    """What a site said just now, or why it said nothing."""

    answers: bool
    message: str
    seconds: float
    flavors: list[FlavorDocument]
    abilities: list[Ability]
    notes: list[str]


@router.get("/sites", response_model=SiteList, responses=problems())
async def list_sites(_who: Caller, platform: Here) -> Response:
    """All sites: what they have, what of it jobs of this platform use, how they do."""
    return JSONResponse({"items": await platform.database.read(service.listed)})


@router.get("/sites/{name}", response_model=SiteDocument, responses=problems(404))
async def get_site(name: SiteName, _who: Caller, platform: Here) -> Response:
    """One site."""
    return JSONResponse(await platform.database.read(lambda connection: service.get(connection, name)))


@router.get("/sites/{name}/file", response_model=SiteFile, responses=problems(403, 404))
async def get_site_file(name: SiteName, who: Caller, platform: Here) -> Response:
    """The site as it is configured; for administrators."""
    require_administrator(who, "see how a site is configured")
    file = await platform.database.read(lambda connection: service.file_of(connection, name))
    return JSONResponse(file.model_dump(mode="json"))


@router.put(
    "/sites/{name}", response_model=SiteDocument,
    responses={**problems(403, 409, 413, 415), 201: {"model": SiteDocument, "description": "The site is new."}},
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/SiteFile"}}}}},
)  # fmt: skip
async def put_site(request: Request, name: SiteName, who: Caller, platform: Here) -> Response:
    """Add a site, or change how it is configured; at work within seconds. For administrators."""
    require_administrator(who, "configure sites")
    file = read_site(_parsed(await json_body(request)))
    if file.name != name:
        raise Invalid("wrong_name", f"The file is of the site {file.name!r}, the address of {name!r}.", field="name")
    added, document = await operate.configure(platform, request.app.state.sites, file)
    return JSONResponse(document, 201 if added else 200)


def _parsed(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise Invalid("bad_json", "The body is not JSON that can be read.", field="body") from None


@router.patch(
    "/sites/{name}", response_model=SiteDocument, responses=problems(403, 404, 413, 415),
    openapi_extra={"requestBody": {"required": True, "content": {"application/json": {
        "schema": {"$ref": "#/components/schemas/SiteChange"}}}}},
)  # fmt: skip
async def change_site(request: Request, name: SiteName, who: Caller, platform: Here) -> Response:
    """Drain a site (what runs there goes on, nothing new starts) or let it work again. For administrators."""
    require_administrator(who, "drain sites")
    change = await read_json(request, SiteChange)
    return JSONResponse(await operate.set_drained(platform, name, change.drained))


@router.delete("/sites/{name}", status_code=204, response_class=Response, responses=problems(403, 404, 409))
async def remove_site(name: SiteName, who: Caller, platform: Here) -> Response:
    """Remove a site at which no job is any more. For administrators."""
    require_administrator(who, "remove sites")
    now = to_micros(platform.clock())
    await platform.database.write(lambda connection: service.remove(connection, name, now))
    platform.changed()
    return Response(status_code=204)


@router.post("/sites/{name}/describe", response_model=Described, responses=problems(403, 404))
async def describe_site(name: SiteName, who: Caller, platform: Here) -> Response:
    """Ask the site what it has, now, and wait for its answer, or for why there is none. For administrators."""
    require_administrator(who, "question sites")
    return JSONResponse(await operate.question(platform, name))
