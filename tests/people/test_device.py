"""Letting a command line in by a code, as RFC 8628 has it, and what somebody might try with it."""

from __future__ import annotations

import httpx2

from atoll.people import device
from atoll.store import people
from tests.support.browser import browser, logged_in
from tests.support.http import Json, Served

MACHINE = {"machine": "laptop"}


async def _begin(served: Served, machine: str = "laptop") -> Json:
    async with served.client(None) as client:
        answer = await client.post("/api/v1/login/device", json={"machine": machine})
    assert answer.status_code == 201, answer.text
    found: Json = answer.json()
    return found


async def _ask(served: Served, code: Json) -> httpx2.Response:
    async with served.client(None) as client:
        return await client.post("/api/v1/login/device/token", json={"device_code": code["device_code"]})


async def _decide(served: Served, code: Json, person: str = "anna", decision: str = "approve") -> httpx2.Response:
    async with await logged_in(served, person) as client:
        return await client.post("/device", data={"code": code["user_code"], "decision": decision})


async def test_a_code_that_is_confirmed_gives_a_token_once(served: Served) -> None:
    code = await _begin(served)
    assert code["verification_uri_complete"] == f"http://127.0.0.1/device?code={code['user_code']}"
    pending = await _ask(served, code)
    assert (pending.status_code, pending.json()["code"]) == (409, "authorization_pending")
    assert "logged in as anna" in (await _decide(served, code)).text
    served.clock.advance(5)
    answer = await _ask(served, code)
    assert answer.headers["cache-control"] == "no-store"
    made = answer.json()
    assert (made["person"], made["name"]) == ("anna", "laptop")
    async with served.client(None, authorization=f"Bearer {made['token']}") as client:
        assert (await client.get("/api/v1/me")).json()["token_id"] == made["id"]
        assert [item["name"] for item in (await client.get("/api/v1/tokens")).json()["items"]].count("laptop") == 1
        served.clock.advance(90 * 86400)
        served.app.state.authenticator._known.clear()
        assert (await client.get("/api/v1/me")).status_code == 401
    assert (await _ask(served, code)).json()["code"] == "expired_token"


async def test_who_asks_too_often_is_told_to_wait_longer(served: Served) -> None:
    code = await _begin(served)
    await _ask(served, code)
    for expected in (10, 15):
        answer = await _ask(served, code)
        assert (answer.status_code, answer.json()["code"]) == (429, "slow_down")
        assert answer.json()["retry_after"] == expected
    served.clock.advance(15)
    assert (await _ask(served, code)).json()["code"] == "authorization_pending"


async def test_a_code_that_is_refused_or_too_old_gives_nothing(served: Served) -> None:
    code = await _begin(served)
    assert "was refused" in (await _decide(served, code, decision="refuse")).text
    assert (await _decide(served, code)).status_code == 404, "nobody else decides again"
    assert (await _ask(served, code)).json()["code"] == "access_denied"
    late = await _begin(served)
    served.clock.advance(device.CODE_SECONDS + 1)
    assert (await _decide(served, late)).status_code == 404
    assert (await _ask(served, late)).json()["code"] == "expired_token"


async def test_looking_at_the_page_confirms_nothing(served: Served) -> None:
    code = await _begin(served, "a.b@c-1")
    async with await logged_in(served) as client:
        page = await client.get(code["verification_uri_complete"])
        assert page.status_code == 200
        assert code["user_code"] in page.text
        assert "a.b@c-1" in page.text
        assert 'name="decision"' in page.text
    async with browser(served) as client:
        answer = await client.get(code["verification_uri_complete"])
        assert answer.headers["location"] == f"/login?next=/device%3Fcode%3D{code['user_code']}"
        answer = await client.post("/device", data={"code": code["user_code"], "decision": "approve"})
        assert answer.status_code == 303
    assert (await _ask(served, code)).json()["code"] == "authorization_pending"


async def test_a_person_who_is_disabled_meanwhile_gets_no_token(served: Served) -> None:
    code = await _begin(served)
    await _decide(served, code)
    await served.do(lambda connection: people.change_person(connection, "anna", disabled_at=1))
    assert (await _ask(served, code)).json()["code"] == "access_denied"
    other = await _begin(served)
    await _decide(served, other, "bob")
    async with served.client("root") as root:
        await root.patch("/api/v1/people/bob", json={"disabled": True})
        await root.patch("/api/v1/people/bob", json={"disabled": False})
    assert (await _ask(served, other)).json()["code"] == "expired_token"


async def test_guessing_codes_is_slow(served: Served) -> None:
    code = await _begin(served)
    async with await logged_in(served) as client:
        assert (await client.get("/device", params={"code": code["user_code"]})).status_code == 200
        wrong = [(await client.get("/device", params={"code": "BBBB-BBBB"})).status_code for _ in range(12)]
        assert wrong == [404] * 10 + [429] * 2
        answer = await client.post("/device", data={"code": code["user_code"], "decision": "approve"})
        assert answer.status_code == 429
    assert (await _decide(served, code, "bob")).status_code == 200


async def test_a_machine_with_a_name_of_html_is_refused_and_a_code_of_html_is_shown_as_text(served: Served) -> None:
    async with served.client(None) as client:
        for name in ("<script>", "", "x" * 65, "a\nb", " "):
            answer = await client.post("/api/v1/login/device", json={"machine": name})
            assert answer.status_code == 422
    async with await logged_in(served) as client:
        page = await client.get("/device", params={"code": '"><script>'})
        assert page.status_code == 404
        assert '"><script>' not in page.text


async def test_one_address_cannot_fill_the_database_with_codes(served: Served) -> None:
    async with served.client(None) as client:
        answers = [(await client.post("/api/v1/login/device", json=MACHINE)).status_code for _ in range(62)]
    assert answers == [201] * 60 + [429] * 2
