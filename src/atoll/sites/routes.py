"""HTTP: the sites."""

from typing import Annotated

from fastapi import APIRouter, Path
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from atoll.core.site import Ability, Health
from atoll.faces.http.auth import Caller, Here
from atoll.faces.http.problems import problems
from atoll.sites import service

router = APIRouter(tags=["sites"])
SiteName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$")]


class Amounts(BaseModel):
    """An amount of each resource."""

    cpu: str
    memory: int
    gpu: str


class FlavorDocument(BaseModel):
    """A kind of hardware at a site."""

    name: str
    nodes: int
    total: Amounts
    node: Amounts
    used: Amounts


class SiteDocument(BaseModel):
    """A place that runs jobs."""

    name: str
    driver: str
    labels: dict[str, str]
    health: Health
    message: str
    seen_at: str | None
    flavors: list[FlavorDocument]
    abilities: list[Ability]
    notes: list[str]


class SiteList(BaseModel):
    """All sites."""

    items: list[SiteDocument]


@router.get("/sites", response_model=SiteList, responses=problems())
async def list_sites(_who: Caller, platform: Here) -> Response:
    """All sites: what they have, what of it jobs of this platform use, how they do."""
    return JSONResponse({"items": await platform.database.read(service.listed)})


@router.get("/sites/{name}", response_model=SiteDocument, responses=problems(404))
async def get_site(name: SiteName, _who: Caller, platform: Here) -> Response:
    """One site."""
    return JSONResponse(await platform.database.read(lambda connection: service.get(connection, name)))
