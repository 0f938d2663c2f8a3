"""HTTP: how the platform does."""

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel
from sqlalchemy import Connection
from starlette.responses import JSONResponse, Response

from atoll.core.states import JobState
from atoll.faces.http.auth import Caller, Here
from atoll.faces.http.problems import problems
from atoll.sites import service as sites
from atoll.sites.routes import SiteDocument
from atoll.store import jobs

router = APIRouter(tags=["platform"])


class Status(BaseModel):
    """How the platform does."""

    version: str
    instance: str
    jobs: dict[JobState, int]
    sites: list[SiteDocument]


@router.get("/status", response_model=Status, responses=problems())
async def status(who: Caller, platform: Here) -> Response:
    """How many unended jobs (administrators: everybody's) are in each state, and how the sites do."""
    owner = None if who.administrator else who.person

    def read(connection: Connection) -> dict[str, Any]:
        return {"jobs": jobs.count_by_state(connection, owner), "sites": sites.listed(connection)}

    found = await platform.database.read(read)
    return JSONResponse({"version": platform.version, "instance": platform.instance, **found})
