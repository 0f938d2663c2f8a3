"""The page of the queue: how the tree shares what there is, who waits, who borrows, who had to leave."""

from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from sqlalchemy import Connection
from starlette.responses import Response

from atoll.core.clock import to_micros
from atoll.core.ids import task_name
from atoll.faces.http.auth import Here
from atoll.faces.http.platform import Platform
from atoll.faces.web.recent import Recent
from atoll.faces.web.route import Page
from atoll.faces.web.templates import show
from atoll.faces.web.visitor import Visitor
from atoll.jobs.prepare import SitesView
from atoll.jobs.projects import Projects
from atoll.queue import flavors, picture, service
from atoll.store import evictions, figures, reservations, spent
from atoll.store.evictions import Evicted
from atoll.store.figures import Standing
from atoll.store.people import Principal

router = APIRouter(route_class=Page)
_MOST_BRANCHES = 400
_MOST_EVICTED = 20
_COUNTED_SECONDS = 3.0
STANDING_DAYS = 7


@dataclass(frozen=True)
class _Loaded:
    """What one look at the store finds."""

    tree: list[dict[str, Any]]
    queue: dict[str, Any]
    spent: dict[tuple[str, str], Any]
    evicted: list[Evicted]
    reserved: list[dict[str, Any]]


def install(app: FastAPI, platform: Platform) -> None:
    """Prepare an application for the page."""

    async def count() -> list[Standing]:
        return await platform.database.read(figures.by_class_and_project)

    # of all that is looked up here only this takes long where the queue is long
    app.state.standings = Recent(count, _COUNTED_SECONDS)


def _load(
    connection: Connection, who: Principal, known: Projects, now: int, standings: list[Standing]
) -> _Loaded:  # fmt: skip
    return _Loaded(
        service.listed(connection, who, known)["items"], service.queue(connection, known, standings),
        spent.by_project(connection, now - STANDING_DAYS * spent.DAY), evictions.latest(connection, _MOST_EVICTED),
        [flavors.told(kept, who, known) for kept in reservations.load(connection, now)],
    )  # fmt: skip


@router.get("/queue")
async def show_queue(request: Request, who: Visitor, platform: Here, flavor: str = "", resource: str = "") -> Response:
    """How the queue stands; the tree for one flavor and resource."""
    view: SitesView = request.app.state.sites
    await view.refresh()
    known, now = view.projects, to_micros(platform.clock())
    recent: Recent[list[Standing]] = request.app.state.standings
    standings = await recent.get()
    found = await platform.database.read(lambda connection: _load(connection, who, known, now, standings))
    columns = picture.columns(found.tree)
    chosen = (flavor, resource) if (flavor, resource) in columns else next(iter(columns), ("", ""))
    lines = picture.lines(found.queue["items"])
    root = picture.tree(found.tree[:_MOST_BRANCHES], *chosen, found.spent, lines)
    branches = picture.flat(root) if root is not None and columns else []
    values = {
        "queue": found.queue, "columns": columns, "chosen": chosen, "lines": lines, "classes": picture.CLASSES,
        "root": root if columns else None, "branches": branches, "left_out": max(0, len(found.tree) - _MOST_BRANCHES),
        "widest": max((max(branch.quota, branch.usage) for _, branch in branches), default=0) or 1,
        "evicted": [(each, _seen_by(each, who)) for each in found.evicted], "reserved": found.reserved,
        "days": STANDING_DAYS, "has_tree": bool(found.tree),
    }  # fmt: skip
    return show(request, "queue/templates/queue.html", values, block="queue")


def _seen_by(evicted: Evicted, who: Principal) -> str | None:
    """The id of a job, for its person and administrators; None for others, who only learn that it was there."""
    if not (who.administrator or evicted.owner == who.person):
        return None
    return task_name(evicted.array_id or evicted.job_id, evicted.task)
