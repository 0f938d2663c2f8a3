"""Every route refuses whoever is not logged in, but for a short list; those of administrators refuse members."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator
from typing import Any

from fastapi import FastAPI

from tests.support.browser import browser, logged_in
from tests.support.http import Served

PUBLIC = {
    "GET /healthz", "GET /readyz",
    "GET /metrics",  # over the loopback; else for administrators, as tests/api/test_app.py holds
    "GET /api/v1/version", "GET /api/v1/openapi.json", "GET /api/docs",
    "GET /static/{digest}/{name:path}",
    # by these one logs in, or out
    "GET /login", "POST /login", "POST /logout", "GET /login/once/{secret}", "POST /login/once/{secret}",
    "POST /api/v1/login/device", "POST /api/v1/login/device/token",
}  # fmt: skip
ADMINISTRATORS = {
    "GET /api/v1/people", "POST /api/v1/people", "GET /api/v1/people/{person}", "PATCH /api/v1/people/{person}",
    "POST /api/v1/people/{person}/link",
    "GET /api/v1/sites/{name}/file", "PUT /api/v1/sites/{name}", "PATCH /api/v1/sites/{name}",
    "DELETE /api/v1/sites/{name}", "POST /api/v1/sites/{name}/describe",
    "GET /sites/-/add", "POST /sites/-/add", "GET /sites/{name}/edit", "POST /sites/{name}/edit",
    "POST /sites/{name}/check", "POST /sites/{name}/drain", "POST /sites/{name}/resume",
    "GET /api/v1/tree", "PUT /api/v1/projects", "POST /api/v1/reservations", "DELETE /api/v1/reservations/{id}",
}  # fmt: skip
VALUES = {"id": "1", "sha256": "0" * 64, "token_id": "ab"}


def doors(app: FastAPI) -> Iterator[tuple[str, Any]]:
    """Each method and path of the application, with the function behind it."""
    included: Any
    for included in app.routes:
        found: Iterable[Any] = (
            included.effective_route_contexts() if hasattr(included, "effective_route_contexts") else [included]
        )
        for route in found:
            for method in sorted((route.methods or set()) - {"HEAD"}):
                yield f"{method} {route.path}", route.endpoint


def place(path: str) -> str:
    """An address that the path fits."""
    return re.sub(r"{(\w+)(?::\w+)?}", lambda match: VALUES.get(match[1], "x"), path)


async def test_every_door_but_the_named_ones_is_shut_for_visitors(served: Served) -> None:
    shut = set()
    async with browser(served) as client:
        for door, _ in doors(served.app):
            method, _, path = door.partition(" ")
            answer = await client.request(method, place(path), follow_redirects=False)
            if door in PUBLIC:
                continue
            shut.add(door)
            if path.startswith("/api/"):
                assert answer.status_code == 401, door
            else:
                assert answer.status_code == 303, door
                assert answer.headers["location"].startswith("/login"), door
    assert len(shut) > 40
    assert {door for door, _ in doors(served.app)} >= PUBLIC | ADMINISTRATORS


async def test_every_door_of_administrators_is_shut_for_members(served: Served) -> None:
    async with served.client("anna") as program, await logged_in(served) as page:
        for door in sorted(ADMINISTRATORS):
            method, _, path = door.partition(" ")
            for client in (program, page):
                answer = await client.request(
                    method, place(path), json={} if method in ("POST", "PUT", "PATCH") else None
                )
                assert answer.status_code == 403, door
                if path.startswith("/api/"):
                    assert answer.json()["code"] == "administrators_only", door


def test_the_list_of_administrators_doors_is_whole(served: Served) -> None:
    asking = {door for door, function in doors(served.app) if "require_administrator(" in inspect.getsource(function)}
    assert asking - PUBLIC == ADMINISTRATORS
