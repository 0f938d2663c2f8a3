"""Views of the list that people keep under a name."""

from functools import partial

from fastapi import APIRouter, Request
from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response

from atoll.core.errors import Invalid
from atoll.faces.http.auth import Here
from atoll.faces.web.forms import read_form
from atoll.faces.web.route import Page
from atoll.faces.web.visitor import Visitor
from atoll.jobs.pages.address import Address
from atoll.store import views

router = APIRouter(route_class=Page)
_LONGEST = 40


@router.post("/jobs/views")
async def keep_view(request: Request, who: Visitor, platform: Here) -> Response:
    """Keep a view; then back to it."""
    form = await read_form(request)
    name = form.get("name").strip()
    if not 0 < len(name) <= _LONGEST or not name.isprintable():
        raise Invalid("bad_name", f"Give the view a name of 1 to {_LONGEST} printable characters.", field="name")
    # read and written again: what is kept is an address of the list and nothing else
    at = Address.read(QueryParams(form.get("query")))
    await platform.database.write(partial(views.put, person=who.person, name=name, query=at.lasting))
    return RedirectResponse(at.to(), 303)


@router.post("/jobs/views/remove")
async def forget_view(request: Request, who: Visitor, platform: Here) -> Response:
    """Forget a view."""
    name = (await read_form(request)).get("name")
    await platform.database.write(partial(views.remove, person=who.person, name=name))
    return RedirectResponse("/jobs", 303)
