"""Who looks at a page: like `Caller` of the API, but whoever is not logged in is shown the way to the login."""

from typing import Annotated
from urllib.parse import quote

from fastapi import Depends, FastAPI, Request
from starlette.responses import RedirectResponse, Response

from atoll.core.errors import Unauthenticated
from atoll.faces.http.auth import caller
from atoll.faces.web.templates import is_fragment
from atoll.store.people import Principal


class LoginNeeded(Exception):
    """Nobody is logged in."""


async def visitor(request: Request) -> Principal:
    """Who looks; templates find it as `viewer`. Raises LoginNeeded."""
    try:
        found = await caller(request)
    except Unauthenticated as error:
        raise LoginNeeded from error
    request.state.viewer = found
    return found


Visitor = Annotated[Principal, Depends(visitor)]


async def _to_login(request: Request, _error: Exception) -> Response:
    """To the login, and from there back to the page."""
    if is_fragment(request):
        # what htmx fetched is a piece of a page: the page itself has to go there
        return Response(status_code=401, headers={"HX-Redirect": f"/login?next={quote(_page(request), safe='/')}"})
    where = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    place = "/login" if where == "/" else f"/login?next={quote(where, safe='/')}"
    return RedirectResponse(place, 303, {"cache-control": "no-store"})


def _page(request: Request) -> str:
    """The page that a browser is on, by what htmx says."""
    _, _, where = request.headers.get("hx-current-url", "").partition("://")
    _, slash, path = where.partition("/")
    return slash + path or "/"


def install(app: FastAPI) -> None:
    """Have the application show the way."""
    app.add_exception_handler(LoginNeeded, _to_login)
