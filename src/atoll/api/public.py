"""HTTP: the few routes that need no token. They say nothing about persons and their jobs but how many there are."""

import ipaddress

from fastapi import APIRouter, Request
from pydantic import BaseModel
from sqlalchemy import text
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response

from atoll.api import metrics, openapi, reference
from atoll.core.errors import Unavailable
from atoll.faces.http.auth import Authenticator, Here, require_administrator
from atoll.faces.http.problems import problems

router = APIRouter(tags=["platform"])
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


class Version(BaseModel):
    """What runs here."""

    version: str
    api: str


def is_local(request: Request) -> bool:
    """Whether the request came over this machine's loopback and names it, and not by way of a proxy on it.

    The name matters: a page from elsewhere whose own name was made to mean this machine must not read ours.
    """
    if request.client is None or any(name in request.headers for name in _FORWARDED):
        return False
    if request.url.hostname not in ("localhost", "127.0.0.1", "::1"):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


@router.get("/api/v1/version", response_model=Version, responses={400: problems()[400]})
async def version(platform: Here) -> Response:
    """Which version of Atoll this is, and of its API."""
    return JSONResponse({"version": platform.version, "api": "v1"})


@router.get("/healthz", response_class=PlainTextResponse, responses={400: problems()[400]})
async def healthz() -> Response:
    """Whether the process lives."""
    return PlainTextResponse("ok\n")


@router.get(
    "/readyz", response_class=PlainTextResponse, responses={status: problems()[status] for status in (400, 500, 503)}
)
async def readyz(platform: Here) -> Response:
    """Whether the database answers and the control plane runs."""
    reason = platform.ready()
    if reason is not None:
        raise Unavailable("not_ready", reason, retry_after=5)
    await platform.database.read(lambda connection: connection.execute(text("SELECT 1")).scalar())
    return PlainTextResponse("ok\n")


@router.get("/metrics", response_class=PlainTextResponse, responses=problems(403))
async def prometheus(request: Request, platform: Here) -> Response:
    """Figures for Prometheus; over the loopback, or with an administrator's token."""
    if not is_local(request):
        authenticator: Authenticator = request.app.state.authenticator
        require_administrator(await authenticator.find(request), "read the metrics")
    found = await platform.database.read(metrics.read)
    return Response(metrics.render(found, platform.version), media_type=metrics.MEDIA_TYPE)


@router.get("/api/v1/openapi.json", include_in_schema=False)
async def openapi_document(request: Request) -> Response:
    """The OpenAPI document."""
    return JSONResponse(openapi.document(request.app))


@router.get("/api/docs", response_class=HTMLResponse, include_in_schema=False)
async def openapi_pages(request: Request) -> Response:
    """The OpenAPI document for people."""
    return reference.response(openapi.document(request.app))
