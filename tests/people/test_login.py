"""Logging in by a password and by a link that is good once, how long it lasts, and what ends it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from sqlalchemy import select

from atoll.people import login, passwords
from atoll.store import events, people
from atoll.store.tables import logins, once_links
from tests.support.browser import PASSWORD, browser, give_password, log_in, logged_in
from tests.support.http import Served


async def _link(served: Served, person: str = "anna") -> str:
    async with served.client("root") as client:
        answer = await client.post(f"/api/v1/people/{person}/link")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["link"]).removeprefix("http://127.0.0.1")


async def _account_events(served: Served) -> list[tuple[str | None, str | None]]:
    found = await served.database.read(lambda connection: events.after(connection, 0, kinds=["account"]))
    return [(event.owner, event.state) for event in found]


async def test_one_login_is_good_for_pages_and_api(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client:
        answer = await log_in(client, next="/jobs?page=2")
        assert (answer.status_code, answer.headers["location"]) == (303, "/jobs?page=2")
        me = await client.get("/api/v1/me")
        assert me.json() == {"person": "anna", "administrator": False, "token_id": None}
        made = await client.post("/api/v1/jobs", json={"command": ["true"]})
        assert made.status_code == 201
        assert "anna" in (await client.get("/")).text
    assert ("anna", "login") in await _account_events(served)


async def test_the_cookie_is_host_only_and_not_for_scripts(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client:
        cookie = (await log_in(client)).headers["set-cookie"]
    assert re.fullmatch(r"atoll=[\w-]{43}; Path=/; Max-Age=2592000; HttpOnly; SameSite=Lax", cookie)
    async with served.client(None, origin="https://atoll.example.org", host="atoll.example.org") as client:
        client.base_url = "https://atoll.example.org"
        cookie = (await log_in(client)).headers["set-cookie"]
    assert re.fullmatch(r"__Host-atoll=[\w-]{43}; Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax; Secure", cookie)


async def test_what_is_in_the_cookie_is_kept_nowhere(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client:
        await log_in(client)
        secret = client.cookies["atoll"]
    rows = await served.database.read(lambda connection: connection.execute(select(logins)).all())
    assert len(rows) == 1
    assert not any(secret in str(value) for value in rows[0])


@pytest.mark.parametrize(
    "place",
    [
        "//evil.example",
        "/\\evil.example",
        "https://evil.example",
        "javascript:alert(1)",
        "evil",
        "/\t/evil.example",
        "",
    ],
)
async def test_nobody_is_sent_elsewhere_after_the_login(served: Served, place: str) -> None:
    await give_password(served)
    async with browser(served) as client:
        page = await client.get("/login", params={"next": place})
        assert '<input type="hidden" name="next" value="/">' in page.text
        assert (await log_in(client, next=place)).headers["location"] == "/"
        assert (await client.get("/login", params={"next": place})).headers["location"] == "/"


async def test_a_wrong_password_an_unknown_name_and_a_disabled_person_are_answered_alike(served: Served) -> None:
    await give_password(served, "anna")
    await give_password(served, "bob")
    await served.do(lambda connection: people.change_person(connection, "bob", disabled_at=1))
    seen = set()
    async with browser(served) as client:
        for name, password in (("anna", "wrong"), ("nobody", "wrong"), ("bob", PASSWORD), ("root", "wrong")):
            page = await log_in(client, name, password)
            assert page.status_code == 403
            assert 'aria-invalid="true" aria-describedby="password-wrong" autofocus' in " ".join(page.text.split())
            seen.add(re.sub(r'nonce="[^"]*"', "", page.text.replace(f'value="{name}"', "")))
            assert "set-cookie" not in page.headers
    assert len(seen) == 1
    assert await _account_events(served) == [
        ("anna", "login_failed"), (None, "login_failed"), ("bob", "login_failed"), ("root", "login_failed"),
    ]  # fmt: skip


async def test_as_much_is_computed_for_names_that_are_not_there(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[str] = []

    def fits(kept: str, password: str) -> bool:
        compared.append(kept.rsplit("$", 2)[0])
        return False

    monkeypatch.setattr(passwords, "_fits", fits)
    kept = await passwords.Passwords().keep(PASSWORD)
    await served.do(lambda connection: people.change_person(connection, "anna", password=kept))
    async with browser(served) as client:
        for name in ("anna", "nobody", "bob"):
            await log_in(client, name, "wrong")
    assert compared == ["$argon2id$v=19$m=65536,t=3,p=4"] * 3


async def test_a_name_and_a_password_are_asked_for(served: Served) -> None:
    async with browser(served) as client:
        page = await client.post("/login", data={"name": "<b>", "password": ""})
    assert page.status_code == 422
    assert "Type your password." in page.text
    assert 'value="&lt;b&gt;"' in page.text
    assert "<form" in page.text
    assert "novalidate" in page.text


async def test_a_login_renews_what_was_kept_with_other_parameters(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client:
        await log_in(client)
    row = await served.database.read(lambda connection: people.find_person(connection, "anna"))
    assert row is not None
    assert row.password.startswith("$argon2id$v=19$m=65536,t=3,p=4$")


async def test_after_twelve_idle_hours_and_after_thirty_days_a_login_is_over(served: Served) -> None:
    async with await logged_in(served) as client:
        for _ in range(4):
            served.clock.advance(11 * 3600)
            served.app.state.authenticator._known.clear()
            assert (await client.get("/api/v1/me")).status_code == 200
        served.clock.advance(12 * 3600 + 1)
        served.app.state.authenticator._known.clear()
        answer = await client.get("/api/v1/me")
        assert (answer.status_code, answer.json()["code"]) == (401, "login_over")
    last = 0
    async with await logged_in(served) as client:
        for _ in range(66):
            served.clock.advance(11 * 3600)
            served.app.state.authenticator._known.clear()
            last = (await client.get("/api/v1/me")).status_code
        assert last == 401


async def test_logging_out_ends_the_login_everywhere_it_was_copied_to(served: Served) -> None:
    async with await logged_in(served) as client, browser(served) as thief:
        thief.cookies.set("atoll", client.cookies["atoll"], domain="127.0.0.1", path="/")
        assert (await thief.get("/api/v1/me")).status_code == 200
        answer = await client.post("/logout")
        assert (answer.status_code, answer.headers["location"]) == (303, "/login")
        assert "Max-Age=0" in answer.headers["set-cookie"]
        assert (await thief.get("/api/v1/me")).status_code == 401
        page = await thief.get("/")
        assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert ("anna", "logout") in await _account_events(served)


async def test_a_new_login_replaces_the_one_that_the_browser_had(served: Served) -> None:
    await give_password(served, "bob")
    async with await logged_in(served, "anna") as client:
        before = client.cookies["atoll"]
        client.cookies.clear()
        await client.post("/login", data={"name": "bob", "password": PASSWORD}, headers={"cookie": f"atoll={before}"})
        assert (await client.get("/api/v1/me")).json()["person"] == "bob"
        client.cookies.clear()
        assert (await client.get("/api/v1/me", headers={"cookie": f"atoll={before}"})).status_code == 401


async def test_a_link_is_looked_at_often_and_used_once(served: Served) -> None:
    place = await _link(served)
    async with browser(served) as client:
        for _ in range(3):
            page = await client.get(place)
            assert page.status_code == 200
            assert "anna" in page.text
            assert page.headers["cache-control"] == "no-store"
        form = {"password": "a new long one", "again": "a new long one"}
        assert (await client.post(place, data=form)).headers["location"] == "/"
        assert (await client.get("/api/v1/me")).json()["person"] == "anna"
        for answer in (await client.get(place), await client.post(place, data=form)):
            assert answer.status_code == 404
            assert "ask an administrator" in answer.text
        client.cookies.clear()
        assert (await log_in(client, "anna", "a new long one")).status_code == 303


async def test_a_link_is_good_for_a_day_and_until_the_next_one(served: Served) -> None:
    first = await _link(served)
    second = await _link(served)
    async with browser(served) as client:
        assert (await client.get(first)).status_code == 404
        served.clock.advance(24 * 3600 - 1)
        assert (await client.get(second)).status_code == 200
        served.clock.advance(2)
        assert (await client.get(second)).status_code == 404
        assert (await client.get("/login/once/guessed")).status_code == 404


@pytest.mark.parametrize(
    ("password", "again", "wrong", "sentence"),
    [
        ("short", "short", "password", "at least 10 characters"),
        ("", "", "password", "at least 10 characters"),
        ("x" * 1025, "x" * 1025, "password", "at most 1024 bytes"),
        ("Anna.Example", "Anna.Example", "password", "not your name"),
        ("a new long one", "a new lung one", "again", "not the same"),
    ],
)
async def test_a_password_that_is_not_taken_leaves_the_link_good(
    served: Served, password: str, again: str, wrong: str, sentence: str
) -> None:
    async with served.client("root") as client:
        place = (await client.post("/api/v1/people", json={"person": "anna.example"})).json()["link"]
    async with browser(served) as client:
        page = await client.post(place, data={"password": password, "again": again})
        assert page.status_code == 422
        assert sentence in page.text
        assert f'aria-describedby="{wrong}-wrong' in page.text
        assert (await client.get(place)).status_code == 200


async def test_a_changed_password_logs_out_every_other_browser_and_leaves_tokens(served: Served) -> None:
    await give_password(served)
    form = {"present": PASSWORD, "password": "a new long one", "again": "a new long one"}
    async with await logged_in(served) as client, await logged_in(served) as other, served.client() as program:
        wrong = await client.post("/password", data={**form, "present": "wrong"})
        assert wrong.status_code == 403
        assert "This is not your password." in wrong.text
        assert (await client.post("/password", data=form)).headers["location"] == "/"
        assert (await client.get("/api/v1/me")).status_code == 200
        assert (await other.get("/api/v1/me")).status_code == 401
        assert (await program.get("/api/v1/me")).status_code == 200


async def test_a_disabled_person_is_out_at_once_and_back_when_enabled(served: Served) -> None:
    await give_password(served)
    place = await _link(served)
    async with await logged_in(served) as client, served.client() as program, served.client("root") as root:
        assert (await program.get("/api/v1/me")).status_code == 200
        changed = await root.patch("/api/v1/people/anna", json={"disabled": True})
        assert changed.json()["disabled"] is True
        assert (await client.get("/api/v1/me")).status_code == 401
        assert (await program.get("/api/v1/me")).status_code == 401
        assert (await program.post("/api/v1/jobs", json={"command": ["true"]})).status_code == 401
        assert (await client.get(place)).status_code == 404
        assert (await root.post("/api/v1/people/anna/link")).status_code == 409
        assert (await log_in(client)).status_code == 403
        await root.patch("/api/v1/people/anna", json={"disabled": False})
        assert (await program.get("/api/v1/me")).status_code == 200
        assert (await client.get("/api/v1/me")).status_code == 401


async def test_the_owner_gets_a_link_until_an_administrator_has_a_password(served: Served) -> None:
    def first(connection: Any) -> str | None:
        return login.first_link(connection, "root", 0)

    one, two = await served.do(first), await served.do(first)
    assert one != two
    links = await served.database.read(lambda connection: connection.execute(select(once_links.c.person)).all())
    assert [row.person for row in links] == ["root"]
    await give_password(served, "anna")
    assert await served.do(first) is not None
    await give_password(served, "root")
    assert await served.do(first) is None


async def test_a_form_that_is_none_is_refused(served: Served) -> None:
    async with browser(served) as client:
        assert (await client.post("/login", json={})).status_code == 415
        headers = {"content-type": "application/x-www-form-urlencoded"}
        assert (await client.post("/login", content=b"x" * 1_100_000, headers=headers)).status_code == 413
        assert (await client.post("/login", content=b"name=%ff&password=x", headers=headers)).status_code == 422
        for content in (b"name=\xff", b"name=a%00&password=x", b"name=a&password=%00", b"&" * 5000 + b"a=b" * 2000):
            assert (await client.post("/login", content=content, headers=headers)).status_code == 422
        for name in ("a" * 60_000, "' OR 1=1 --", "\u202eanna", "ANNA", "anna "):
            assert (await log_in(client, name, "wrong")).status_code in (403, 429)
