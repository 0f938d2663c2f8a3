"""A page of another origin, also of a sibling subdomain, can neither act as its visitor nor read what is theirs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message

from atoll.api.app import create_app
from tests.support.browser import OWN, PASSWORD, browser, give_password, log_in, logged_in
from tests.support.http import Served

SIBLING = "http://anna.127.0.0.1.example"
_FETCH = {"sec-fetch-mode": "cors", "sec-fetch-dest": "empty"}
_LINK = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


async def _visitor(served: Served, person: str = "anna") -> Any:
    client = await logged_in(served, person)
    for name in ("origin", "sec-fetch-site"):
        del client.headers[name]
    return client


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": SIBLING, "sec-fetch-site": "same-site", **_FETCH},
        {"origin": "https://evil.example", "sec-fetch-site": "cross-site", **_FETCH},
        {"origin": "null", "sec-fetch-site": "cross-site", **_FETCH},
        {"origin": SIBLING},
        {"origin": "null"},
        {"origin": "https://127.0.0.1"},
        {"origin": "http://127.0.0.1:8471"},
        {"origin": "http://127.0.0.1.evil.example"},
        {"origin": OWN, "sec-fetch-site": "same-site"},
        {"origin": SIBLING, "sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-site", **_LINK},
        {"sec-fetch-site": "none"},
        {},
    ],
)
async def test_nothing_is_changed_for_a_page_of_another_origin(served: Served, headers: dict[str, str]) -> None:
    job = await served.submit("root")
    async with await _visitor(served, "root") as client:
        for method, path, body in (
            ("POST", "/api/v1/jobs", {"command": ["true"]}),
            ("POST", "/api/v1/jobs?hold=true", {"command": ["true"]}),
            ("POST", f"/api/v1/jobs/{job}/cancel", None),
            ("PATCH", "/api/v1/people/root", {"disabled": True}),
            ("DELETE", "/api/v1/sites/here", None),
        ):
            answer = await client.request(method, path, json=body, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "other_origin"), (method, path)
        for path in ("/logout", "/password", "/device"):
            assert (await client.post(path, data={"code": "x"}, headers=headers)).status_code == 403
        assert (await client.get("/api/v1/me")).json()["person"] == "root"
    async with served.client("root") as client:
        assert [item["id"] for item in (await client.get("/api/v1/jobs")).json()["items"]] == [str(job)]


@pytest.mark.parametrize(
    "headers",
    [{"origin": OWN, "sec-fetch-site": "same-origin"}, {"origin": OWN}, {"sec-fetch-site": "same-origin"}],
)
async def test_the_platforms_own_pages_may(served: Served, headers: dict[str, str]) -> None:
    async with await _visitor(served) as client:
        assert (await client.post("/api/v1/jobs", json={"command": ["true"]}, headers=headers)).status_code == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "same-site", **_FETCH},
        {"sec-fetch-site": "cross-site", **_FETCH},
        {"origin": SIBLING},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "script"},
        {"sec-fetch-site": "something-new"},
    ],
)
async def test_nothing_is_read_by_a_page_of_another_origin(served: Served, headers: dict[str, str]) -> None:
    async with await _visitor(served) as client:
        for method, path in (("GET", "/api/v1/jobs"), ("HEAD", "/api/v1/me"), ("GET", "/api/v1/events"), ("GET", "/")):
            assert (await client.request(method, path, headers=headers)).status_code == 403, path


async def test_a_link_to_a_page_may_be_followed_from_anywhere_but_not_to_the_api(served: Served) -> None:
    for site in ("same-site", "cross-site"):
        async with await _visitor(served) as client:
            headers = {"sec-fetch-site": site, **_LINK}
            assert (await client.get("/", headers=headers)).status_code == 200
            assert (await client.get("/api/v1/me", headers=headers)).status_code == 403
            assert (await client.head("/", headers=headers)).status_code == 403


async def test_what_a_person_types_into_the_address_bar_is_answered(served: Served) -> None:
    async with await _visitor(served) as client:
        headers = {"sec-fetch-site": "none", **_LINK}
        assert (await client.get("/", headers=headers)).status_code == 200
        assert (await client.get("/api/v1/me", headers=headers)).status_code == 200


async def test_no_page_elsewhere_is_told_that_it_may(served: Served) -> None:
    """Preflights, and every answer: no CORS header at all."""
    asks = {
        "origin": SIBLING,
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization",
    }
    async with await _visitor(served) as visitor, served.client(None) as nobody:
        for client in (visitor, nobody):
            for method, path in (
                ("OPTIONS", "/api/v1/jobs"), ("OPTIONS", "/login"), ("GET", "/api/v1/version"), ("GET", "/login"),
                ("POST", "/api/v1/login/device"),
            ):  # fmt: skip
                answer = await client.request(method, path, headers=asks)
                assert not [name for name in answer.headers if name.startswith("access-control")], (method, path)
                assert method != "OPTIONS" or answer.status_code in (403, 405)


async def test_nobody_is_logged_in_as_somebody_else_from_elsewhere(served: Served) -> None:
    """Login forgery: a page elsewhere sends its own name and password, and waits for what its visitor then does."""
    await give_password(served, "bob")
    async with served.client("root") as root:
        place = (await root.post("/api/v1/people/bob/link")).json()["link"].removeprefix(OWN)
    form = {"password": "a new long one", "again": "a new long one"}
    for headers in ({}, {"origin": SIBLING, "sec-fetch-site": "same-site"}, {"origin": "null"}):
        async with served.client(None, **headers) as client:
            assert (await log_in(client, "bob")).status_code == 403
            assert "set-cookie" not in (await log_in(client, "bob")).headers
            assert (await client.post(place, data=form)).status_code == 403


async def test_two_cookies_of_one_name_are_none(served: Served) -> None:
    async with await _visitor(served, "bob") as mallory:
        tossed = mallory.cookies["atoll"]
    async with await _visitor(served) as client:
        own = client.cookies["atoll"]
        client.cookies.clear()
        for value in (f"atoll={own}; atoll={tossed}", f"atoll={tossed}; atoll={own}", f"atoll={own}; atoll={own}"):
            answer = await client.get("/api/v1/me", headers={"cookie": value})
            assert (answer.status_code, answer.json()["code"]) == (401, "two_logins")
            page = await client.get("/login", headers={"cookie": value})
            assert "remove this platform&#39;s cookies" in page.text
            assert (await client.post("/api/v1/jobs", json={}, headers={"cookie": value})).status_code == 403
        assert (await client.get("/api/v1/me", headers={"cookie": f"other=1; atoll={own}"})).status_code == 200


async def test_a_cookie_beside_a_token_is_not_looked_at(served: Served) -> None:
    async with await _visitor(served, "root") as client:
        headers = {"authorization": f"Bearer {served.tokens['anna']}"}
        assert (await client.get("/api/v1/me", headers=headers)).json()["person"] == "anna"
        for wrong in ("Bearer x", "Basic cm9vdDp4", ""):
            assert (await client.get("/api/v1/me", headers={"authorization": wrong})).status_code == 401


async def test_under_https_only_the_cookie_that_nobody_can_add_from_elsewhere_counts(served: Served) -> None:
    async with await _visitor(served) as client:
        secret = client.cookies["atoll"]
        client.cookies.clear()
        client.base_url = "https://atoll.example.org"
        assert (await client.get("/api/v1/me", headers={"cookie": f"atoll={secret}"})).status_code == 401
        assert (await client.get("/api/v1/me", headers={"cookie": f"__Host-atoll={secret}"})).status_code == 200


async def test_a_websocket_is_opened_by_our_own_pages_only(served: Served) -> None:
    async with await _visitor(served) as client:
        cookie = f"atoll={client.cookies['atoll']}".encode()
    told: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        told.append(message)

    for origin in (b"http://sibling.example", b""):
        headers = [(b"host", b"127.0.0.1"), (b"cookie", cookie), *([(b"origin", origin)] if origin else [])]
        scope = {"type": "websocket", "scheme": "ws", "path": "/api/v1/x", "query_string": b"", "headers": headers}
        await served.app({**scope, "app": served.app}, receive, send)
        assert told.pop() == {"type": "websocket.close", "code": 1008, "reason": "another origin"}


async def test_no_page_is_shown_in_a_frame(served: Served) -> None:
    async with await logged_in(served) as client, browser(served) as nobody:
        pages = [await client.get(path) for path in ("/", "/password", "/device")]
        pages += [await nobody.get(path) for path in ("/login", "/login/once/x", "/api/docs")]
    for page in pages:
        assert "frame-ancestors 'none'" in page.headers["content-security-policy"]
        assert page.headers["cache-control"] == "no-store"


async def test_the_configured_address_is_the_only_own_one(served: Served) -> None:
    app = create_app(replace(served.platform, address="https://atoll.example.org"))
    await give_password(served)
    there = Served(served.platform, app, served.clock, served.drivers, served.tokens)
    async with browser(there, origin="https://atoll.example.org") as client:
        answer = await log_in(client, password=PASSWORD)
        assert answer.status_code == 303
        assert re.match(r"__Host-atoll=.*; Secure$", answer.headers["set-cookie"])
    async with browser(there) as client:
        answer = await log_in(client)
        assert answer.status_code == 403
        assert "at https://atoll.example.org; the browser says that it is at 'http://127.0.0.1'" in answer.text
