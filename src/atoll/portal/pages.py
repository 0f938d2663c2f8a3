"""Home: what runs and waits for the person who looks, what has ended, what is to be known."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from atoll.core.clock import to_micros
from atoll.core.site import Health, Site
from atoll.faces.http.auth import Here
from atoll.faces.http.platform import Platform
from atoll.faces.web.route import Page
from atoll.faces.web.templates import show
from atoll.faces.web.visitor import Visitor
from atoll.jobs import mine
from atoll.jobs.estimates import Estimates
from atoll.jobs.mine import Mine
from atoll.jobs.prepare import SitesView
from atoll.jobs.projects import Projects
from atoll.queue import picture
from atoll.queue import service as queue
from atoll.queue.picture import Branch
from atoll.store import sites
from atoll.store.people import Principal

router = APIRouter(route_class=Page)
_MOST = 8
"""So many jobs of each kind are shown; the page of jobs has all."""
_DAY = 24 * 3600 * 1_000_000


@dataclass(frozen=True)
class _Loaded:
    """What one look at the store finds."""

    mine: Mine
    sites: list[Site]
    drained: set[str]
    tree: list[dict[str, Any]]


@router.get("/")
async def home(request: Request, who: Visitor, platform: Here) -> Response:
    """The first page after the login."""
    view: SitesView = request.app.state.sites
    estimates: Estimates = request.app.state.estimates
    await view.refresh()
    known, since = view.projects, to_micros(platform.clock()) - _DAY
    found = await platform.database.read(lambda connection: _load(connection, who, known, since, estimates))
    values = {
        "mine": found.mine, "shares": _shares(found.tree), "messages": _messages(platform, found),
        "has_sites": bool(found.sites), "address": str(request.base_url).rstrip("/"),
    }  # fmt: skip
    return show(request, "portal/templates/home.html", values, block="home")


def _load(connection: Connection, who: Principal, known: Projects, since: int, estimates: Estimates) -> _Loaded:
    items = queue.listed(connection, who, known)["items"] if known.of(who.person) else []
    return _Loaded(
        mine.look(connection, who.person, since, _MOST, estimates), sites.load(connection), sites.drained(connection),
        [item for item in items if item["member"]],
    )  # fmt: skip


def _shares(tree: list[dict[str, Any]]) -> list[tuple[str, str, list[tuple[str, str, Branch]]]]:
    """Of each project its name, description, and use by flavor and resource."""
    return [
        (item["name"], item["description"],
         [(flavor, resource, picture.branch_of(item, flavor, resource))
          for flavor, resource in picture.columns([item])])
        for item in tree
    ]  # fmt: skip


@dataclass(frozen=True)
class _Message:
    """Something that everybody has to know: how bad it is, of which site, in a sentence."""

    look: str
    sentence: str
    site: Site | None = None


def _messages(platform: Platform, found: _Loaded) -> list[_Message]:
    told = []
    if (problem := platform.ready()) is not None:
        told.append(_Message("bad", f"Nothing new starts: {problem}"))
    for site in found.sites:
        if site.health is Health.UNREACHABLE:
            told.append(_Message("bad", "cannot be reached; its jobs go on, and show what was known last.", site))
        elif site.name in found.drained:
            told.append(_Message("wait", "is drained: what runs there goes on, nothing new starts.", site))
    return told
