"""Pages: the sites, each with what it has, who uses it and how it does; for administrators also to change them."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from sqlalchemy import Connection
from starlette.responses import RedirectResponse, Response

from atoll.core.documents import line_of
from atoll.core.errors import Conflict, Invalid
from atoll.core.site_file import SiteFile, read_site_file
from atoll.faces.http.auth import Here, require_administrator
from atoll.faces.web.forms import read_form
from atoll.faces.web.route import Page
from atoll.faces.web.templates import show
from atoll.faces.web.visitor import Visitor
from atoll.sites import operate, service
from atoll.sites.picture import FREE, USES, SitePicture, bar, chooses_nodes, holding, pictures
from atoll.store import holdings, sites
from atoll.store.holdings import Held

router = APIRouter(route_class=Page)
SiteName = Annotated[str, Path(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$")]
_MOST_NODES = 200
_EXAMPLE = """name: my-site
driver: slurm
labels:
  region: eu
identity:
  map: same-name
config: {}
"""


def _load(connection: Connection, name: str | None = None) -> tuple[list[SitePicture], list[Held]]:
    """All sites, or one, and what is held there. Raises NotFound."""
    found = sites.load(connection) if name is None else [service.find(connection, name)]
    held = holdings.by_class(connection)
    spots = holdings.on_nodes(connection, [site.name for site in found if chooses_nodes(site)])
    return pictures(found, sites.drained(connection), held, spots), held


def _seen(found: list[SitePicture]) -> list[str]:
    """The uses that there is a colour of to explain."""
    there = {use for each in found for shown in (each.cpu.parts, each.gpu.parts, each.counts) for use in shown}
    return [use for use in USES if use in there or use == FREE]


@router.get("/sites")
async def show_sites(request: Request, who: Visitor, platform: Here) -> Response:
    """All sites, a tile each."""
    found, _ = await platform.database.read(_load)
    values = {
        "sites": found, "uses": _seen(found), "unwell": sum(each.health == "unreachable" for each in found),
    }  # fmt: skip
    return show(request, "sites/templates/sites.html", values, block="sites")


@router.get("/sites/{name}")
async def show_site(request: Request, name: SiteName, who: Visitor, platform: Here) -> Response:
    """One site."""
    (each,), held = await platform.database.read(partial(_load, name=name))
    here = holding(each.site, [some for some in held if some.site == name])
    named = [node for node in each.nodes if node.name]
    values = {
        "each": each, "uses": _seen([each]), "identity": service.identity_of(each.site),
        "abilities": sorted(ability.value.replace("_", " ") for ability in each.site.report.abilities)
        if each.site.report else [],
        "flavors": [(flavor, *(bar([flavor], here, what) for what in ("cpu", "memory", "gpu")))
                    for flavor in each.flavors],
        "named": named[:_MOST_NODES], "left_out": max(0, len(named) - _MOST_NODES),
    }  # fmt: skip
    return show(request, "sites/templates/site.html", values, block="site")


# ---- for administrators


@router.post("/sites/{name}/drain")
async def drain(name: SiteName, who: Visitor, platform: Here) -> Response:
    """Let nothing new start there."""
    require_administrator(who, "drain sites")
    await operate.set_drained(platform, name, True)
    return RedirectResponse(f"/sites/{name}", 303)


@router.post("/sites/{name}/resume")
async def resume(name: SiteName, who: Visitor, platform: Here) -> Response:
    """Let it work again."""
    require_administrator(who, "drain sites")
    await operate.set_drained(platform, name, False)
    return RedirectResponse(f"/sites/{name}", 303)


@router.post("/sites/{name}/check")
async def check(request: Request, name: SiteName, who: Visitor, platform: Here) -> Response:
    """Ask it what it has, now."""
    require_administrator(who, "question sites")
    said = await operate.question(platform, name)
    return show(request, "sites/templates/checked.html", {"name": name, "said": said})


@router.get("/sites/-/add")
async def ask_for_site(request: Request, who: Visitor) -> Response:
    """The form for a new site."""
    require_administrator(who, "configure sites")
    return _form(request, None, _EXAMPLE)


@router.post("/sites/-/add")
async def add(request: Request, who: Visitor, platform: Here) -> Response:
    """Add a site, or show the form again with what is wrong."""
    require_administrator(who, "configure sites")
    return await _configure(request, None, platform)


@router.get("/sites/{name}/edit")
async def ask_for_change(request: Request, name: SiteName, who: Visitor, platform: Here) -> Response:
    """The form with the site as it is configured."""
    require_administrator(who, "see how a site is configured")
    file = await platform.database.read(lambda connection: service.file_of(connection, name))
    return _form(request, name, service.written(file))


@router.post("/sites/{name}/edit")
async def change(request: Request, name: SiteName, who: Visitor, platform: Here) -> Response:
    """Change how it is configured, or show the form again with what is wrong."""
    require_administrator(who, "configure sites")
    return await _configure(request, name, platform)


@dataclass(frozen=True)
class _Mistake:
    """What is wrong with a site file, and where."""

    sentence: str
    line: int | None = None
    text: str = ""


def _form(request: Request, name: str | None, text: str, mistakes: list[_Mistake] | None = None) -> Response:
    values = {"name": name, "text": text, "mistakes": mistakes or []}
    return show(request, "sites/templates/edit.html", values, status=422 if mistakes else 200)


async def _configure(request: Request, name: str | None, platform: Here) -> Response:
    text = (await read_form(request)).get("file").replace("\r\n", "\n")
    try:
        file = await asyncio.to_thread(_read, text, name)
        await operate.configure(platform, request.app.state.sites, file)
    except (Invalid, Conflict) as error:
        return _form(request, name, text, await asyncio.to_thread(_mistakes, text, error))
    return RedirectResponse(f"/sites/{file.name}", 303)


def _read(text: str, name: str | None) -> SiteFile:
    """The file; of a site that is there it has to keep the name. Raises Invalid."""
    file = read_site_file(text.encode(), "file")
    if name is not None and file.name != name:
        raise Invalid("wrong_name", f"name: This page is of the site {name}; write that name.", field="name")
    return file


def _mistakes(text: str, error: Invalid | Conflict) -> list[_Mistake]:
    """Each mistake with the line that it is on."""
    pairs: list[tuple[Any, str]] = list(getattr(error, "errors", ())) or [(error.field, error.sentence)]
    lines = text.split("\n")
    found = []
    for field, sentence in pairs:
        try:
            line = line_of(text, field) if field else None
        except Exception:
            # what is no YAML says its line itself
            line = None
        told = sentence if not field or sentence.startswith(field) or field == "site" else f"{field}: {sentence}"
        found.append(_Mistake(told, line, lines[line - 1].strip() if line else ""))
    return found
