"""Tokens: they say who asks, they end when they are revoked or expire, and their text is kept nowhere."""

from __future__ import annotations

import stat
from pathlib import Path

from sqlalchemy import select

from atoll.core.clock import to_micros
from atoll.faces.http.auth import digest_of
from atoll.people.service import local_token
from atoll.store import people
from atoll.store.tables import tokens
from tests.support.http import Served


async def test_a_token_is_shown_once_and_kept_only_as_a_digest(served: Served) -> None:
    async with served.client() as client:
        made = (await client.post("/api/v1/tokens", json={"name": "laptop"})).json()
        listed = (await client.get("/api/v1/tokens")).json()["items"]
    assert made["token"].startswith("atl_")
    assert len(made["token"]) > 40
    assert made["name"] in {item["name"] for item in listed}
    assert all("token" not in item for item in listed)
    rows = await served.database.read(lambda connection: connection.execute(select(tokens)).all())
    assert not any(made["token"] in str(value) for row in rows for value in row)
    assert digest_of(made["token"]) in {bytes(row.digest) for row in rows}


async def test_a_new_token_says_who_its_person_is(served: Served) -> None:
    async with served.client() as client:
        made = (await client.post("/api/v1/tokens", json={})).json()
    async with served.client(None, authorization=f"Bearer {made['token']}") as client:
        me = (await client.get("/api/v1/me")).json()
    assert me == {"person": "anna", "administrator": False, "token_id": made["id"]}


async def test_a_revoked_token_is_refused_at_once(served: Served) -> None:
    async with served.client() as client:
        made = (await client.post("/api/v1/tokens", json={})).json()
        async with served.client(None, authorization=f"Bearer {made['token']}") as other:
            assert (await other.get("/api/v1/me")).status_code == 200
            assert (await client.delete(f"/api/v1/tokens/{made['id']}")).status_code == 204
            answer = await other.get("/api/v1/me")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "atoll token create" in answer.json()["detail"]


async def test_a_token_ends_when_its_time_is_over(served: Served) -> None:
    async with served.client() as client:
        made = (await client.post("/api/v1/tokens", json={"expires_in": 60})).json()
    served.clock.advance(61)
    async with served.client(None, authorization=f"Bearer {made['token']}") as client:
        assert (await client.get("/api/v1/me")).status_code == 401


async def test_a_wrong_or_missing_token_gets_a_sentence_and_no_hint_of_what_is_there(served: Served) -> None:
    job = await served.submit()
    for header in ({}, {"authorization": "Bearer atl_wrong"}, {"authorization": "Basic YTpi"}, {"authorization": ""}):
        async with served.client(None, **header) as client:
            answers = [await client.get(f"/api/v1/jobs/{number}") for number in (job, job + 1)]
        assert [answer.status_code for answer in answers] == [401, 401]
        assert answers[0].text == answers[1].text
        assert answers[0].json()["detail"].endswith(".")


async def test_members_see_and_end_only_their_own_tokens(served: Served) -> None:
    async with served.client("anna") as anna, served.client("bob") as bob:
        made = (await anna.post("/api/v1/tokens", json={"name": "hers"})).json()
        assert "hers" not in {item["name"] for item in (await bob.get("/api/v1/tokens")).json()["items"]}
        assert (await bob.delete(f"/api/v1/tokens/{made['id']}")).status_code == 404
        assert (await bob.post("/api/v1/tokens", json={"person": "anna"})).status_code == 403
        assert (await anna.get("/api/v1/me")).status_code == 200


async def test_an_administrator_makes_tokens_for_new_people_who_are_members(served: Served) -> None:
    async with served.client("root") as root:
        made = (await root.post("/api/v1/tokens", json={"person": "carl"})).json()
    async with served.client(None, authorization=f"Bearer {made['token']}") as carl:
        me = (await carl.get("/api/v1/me")).json()
    assert (me["person"], me["administrator"]) == ("carl", False)


async def test_a_wrong_request_for_a_token_names_the_field(served: Served) -> None:
    async with served.client() as client:
        for body, field in (
            ({"name": "a\nb"}, "name"), ({"expires_in": 0}, "expires_in"), ({"expires_in": 10**30}, "expires_in"),
            ({"nam": "x"}, "nam"),
        ):  # fmt: skip
            answer = await client.post("/api/v1/tokens", json=body)
            assert (answer.status_code, answer.json()["field"]) == (422, field)


async def test_the_local_token_is_found_again_and_only_its_owner_can_read_it(served: Served, tmp_path: Path) -> None:
    now = to_micros(served.clock())
    first = await served.do(lambda connection: local_token(connection, "owner", tmp_path, now))
    second = await served.do(lambda connection: local_token(connection, "owner", tmp_path, now))
    assert first == second
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    async with served.client(None, authorization=f"Bearer {first}") as client:
        me = (await client.get("/api/v1/me")).json()
    assert (me["person"], me["administrator"]) == ("owner", True)


async def test_a_local_token_that_was_revoked_is_made_anew(served: Served, tmp_path: Path) -> None:
    now = to_micros(served.clock())
    first = await served.do(lambda connection: local_token(connection, "owner", tmp_path, now))
    found = await served.database.read(lambda connection: people.find_by_digest(connection, digest_of(first), now))
    assert found is not None
    assert found.token_id is not None
    token_id = found.token_id
    await served.do(lambda connection: people.revoke_token(connection, token_id, None, now))
    second = await served.do(lambda connection: local_token(connection, "owner", tmp_path, now))
    assert second != first
