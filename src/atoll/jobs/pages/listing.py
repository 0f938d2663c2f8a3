"""The list of jobs: it stays fast at a hundred thousand, and live."""

from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.datastructures import QueryParams
from starlette.responses import Response

from atoll.core.spec import JobClass
from atoll.faces.http.auth import Here
from atoll.faces.web import live
from atoll.faces.web.route import Page
from atoll.faces.web.templates import is_fragment, show
from atoll.faces.web.visitor import Visitor
from atoll.jobs.estimates import Estimates
from atoll.jobs.pages.acts import told
from atoll.jobs.pages.address import GROUPS, MINE, PER_PAGE, Address
from atoll.jobs.pages.rows import TEMPLATE, Document, documents
from atoll.store import events, listing, projects, sites, views
from atoll.store.people import Principal

router = APIRouter(route_class=Page)
_COLUMNS = (
    ("state", "State", "at"), ("name", "Name", "what"), ("id", "Job", "number id"), ("class", "Class", "class"),
    ("site", "Site", "site"), (None, "Asks for", "asks"), ("project", "Project", "project"),
    ("owner", "Person", "person"), (None, "Submitted", "submitted"), ("started", "Start", "started"),
    (None, "Reason", "why"),
)  # fmt: skip
"""Key to sort by, name, and classes."""


@dataclass(frozen=True)
class _Read:
    """What the store says for one page of the list."""

    jobs: list[Document]
    count: int
    views: list[tuple[str, str]]
    sites: list[str]
    projects: list[str]
    cursor: int


@router.get("/jobs")
async def show_jobs(request: Request, who: Visitor, platform: Here) -> Response:
    """The list, or only it where htmx asks."""
    at = Address.read(request.query_params)
    estimates: Estimates = request.app.state.estimates
    found = await platform.database.read(lambda connection: _read(connection, at, who, estimates))
    values = {
        "at": at, "jobs": found.jobs, "count": found.count,
        "pages": -(-found.count // PER_PAGE), "per_page": PER_PAGE, "views": found.views,
        "kept": next((name for name, query in found.views if query == at.lasting), ""),
        "groups": [("", "All"), *((group, group.capitalize()) for group in GROUPS)],
        "filters": _filters(at, who, found), "columns": _COLUMNS,
        # what was just done is said once: a page that fetches itself again no longer says it
        "did": "" if is_fragment(request) else told(request.query_params.get("did", "")),
        "stream": live.address(found.cursor, ("jobs", "")),
    }  # fmt: skip
    return show(request, TEMPLATE, values, block="jobs", headers=_address_of_search(request, at))


def _address_of_search(request: Request, at: Address) -> dict[str, str]:
    """What the browser is to show as the address of a search; while somebody types, all of it is one step of Back."""
    if request.headers.get("hx-source") != "form#filters":
        return {}
    shown = urlsplit(request.headers.get("hx-current-url", ""))
    before = Address.read(QueryParams(shown.query))
    goes_on = before.q and at.q and replace(before, q=at.q, page=1) == at
    return {"HX-Replace-Url" if goes_on else "HX-Push-Url": at.here}


def _read(connection: Connection, at: Address, who: Principal, estimates: Estimates) -> _Read:
    # before all else: what changes from here on, the stream tells
    cursor = events.last_id(connection)
    wanted = at.wanted(who)
    key, descending = at.sort.removeprefix("-"), at.sort.startswith("-")
    rows = listing.page(connection, wanted, key, descending, (at.page - 1) * PER_PAGE, PER_PAGE)
    return _Read(
        jobs=documents(connection, rows, estimates), count=listing.count(connection, wanted),
        views=views.of_person(connection, who.person), sites=sorted(sites.configured(connection)),
        projects=projects.names(connection), cursor=cursor,
    )  # fmt: skip


def _filters(at: Address, who: Principal, found: _Read) -> list[tuple[str, str, str, list[tuple[str, Any]]]]:
    """Name, label, value and choices of each field but the search."""
    filters = [
        ("class", "Class", at.class_, [each.value for each in JobClass]),
        ("site", "Site", at.site, found.sites), ("project", "Project", at.project, found.projects),
    ]  # fmt: skip
    shown = [
        # what an address asks for can be chosen, whether it is there or not
        (name, label, value, [(each, each) for each in dict.fromkeys([*choices, *([value] if value else [])])])
        for name, label, value, choices in filters if choices or value
    ]  # fmt: skip
    if who.administrator:
        people = [(MINE, "Mine"), *([(at.owner, at.owner)] if at.owner not in ("", MINE) else [])]
        shown.append(("owner", "Person", at.owner, people))
    return shown
