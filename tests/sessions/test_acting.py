"""Acting at the platform for the people of a hub."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from atoll.client.synchronous import Client
from atoll.core.errors import Denied, Unauthenticated
from atoll.sessions.acting import Acting, refused
from tests.support.platform import RunningPlatform


@pytest.fixture
async def acting(platform: RunningPlatform) -> AsyncIterator[Acting]:
    made = Acting(platform.url, platform.token, 10)
    yield made
    await made.close()


async def test_an_administrators_token_acts_as_each_person(acting: Acting) -> None:
    client = await acting.as_person("clara")
    me = await client.me()
    assert (me.person, me.administrator) == ("clara", False)
    assert await acting.as_person("clara") is client  # no token for each request


async def test_a_token_that_was_ended_is_replaced(acting: Acting, client: Client) -> None:
    first = await acting.as_person("dora")
    [token] = await first.tokens()
    client.revoke_token(token.id)
    with pytest.raises(Unauthenticated) as raised:
        await first.me()
    assert refused(raised.value)
    await acting.forget("dora")
    assert (await (await acting.as_person("dora")).me()).person == "dora"


async def test_another_token_acts_for_its_own_person_only(platform: RunningPlatform, client: Client) -> None:
    token = client.create_token("own hub", person="emil")
    acting = Acting(platform.url, str(token.token), 10)
    try:
        assert (await (await acting.as_person("emil")).me()).person == "emil"
        with pytest.raises(Denied, match=r"emil's.*starts nothing for clara.*token of an administrator"):
            await acting.as_person("clara")
    finally:
        await acting.close()
