"""Guessing is slow, by name and by address, on all replicas; and nobody is kept out of an account for good."""

from __future__ import annotations

import asyncio
import functools
import re

import pytest
from sqlalchemy import Connection, text

from atoll.people.login import network_of
from atoll.store import tries
from atoll.store.tries import Limit
from tests.support.browser import PASSWORD, browser, give_password, log_in, logged_in
from tests.support.http import Served


async def test_after_five_wrong_passwords_each_try_waits_longer(served: Served) -> None:
    await give_password(served)
    waits = []
    async with browser(served) as client:
        for _ in range(5):
            assert (await log_in(client, password="wrong")).status_code == 403
        for _ in range(10):
            page = await log_in(client)  # the right one has to wait, too: or guessing would not be slow
            assert page.status_code == 429
            assert re.search(r"tried in vain too often; try again in (a second|\d+ seconds)\.", page.text)
            assert 'role="alert"' in page.text
            waits.append(int(page.headers["retry-after"]))
            served.clock.advance(waits[-1])
            assert (await log_in(client, password="wrong")).status_code == 403
        assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
        served.clock.advance(300)
        assert (await log_in(client)).status_code == 303
        assert (await log_in(client, password="wrong")).status_code == 403


async def test_a_refused_try_does_not_lengthen_the_wait(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client:
        for _ in range(5):
            await log_in(client, password="wrong")
        assert {(await log_in(client)).status_code for _ in range(20)} == {429}
        served.clock.advance(1)
        assert (await log_in(client)).status_code == 303


async def test_the_right_person_elsewhere_is_hardly_kept_out(served: Served) -> None:
    await give_password(served)
    async with browser(served) as client, browser(served) as elsewhere:
        client._transport.client = ("198.51.100.7", 1)  # type: ignore[attr-defined]
        elsewhere._transport.client = ("203.0.113.9", 1)  # type: ignore[attr-defined]
        for _ in range(200):
            page = await log_in(client, password="wrong")
            served.clock.advance(int(page.headers.get("retry-after", 0)))
        page = await log_in(elsewhere)
        assert int(page.headers.get("retry-after", 0)) <= 30
        served.clock.advance(30)
        assert (await log_in(elsewhere)).status_code == 303


async def test_one_address_cannot_try_one_password_on_many_names(served: Served) -> None:
    async with browser(served) as client:
        answers = [(await log_in(client, f"name{number}", "Spring2026!")).status_code for number in range(22)]
    assert answers == [403] * 20 + [429] * 2


async def test_an_account_of_ones_own_does_not_make_guessing_fast(served: Served) -> None:
    await give_password(served, "bob")
    answers = []
    async with browser(served) as client:
        for number in range(21):
            answers.append((await log_in(client, f"name{number}", "wrong")).status_code)
            if answers[-1] == 403:
                assert (await log_in(client, "bob", PASSWORD)).status_code in (303, 429)
    assert 429 in answers


async def test_what_is_tried_at_once_counts_one_by_one(served: Served) -> None:
    async with browser(served) as client:
        pages = await asyncio.gather(*(log_in(client, password=f"wrong {number}") for number in range(12)))
    assert sorted(page.status_code for page in pages) == [403] * 5 + [429] * 7


async def test_changing_a_password_is_slowed_down_as_well(served: Served) -> None:
    await give_password(served)
    form = {"password": "a new long one", "again": "a new long one"}
    async with await logged_in(served) as client:
        answers = [
            (await client.post("/password", data={"present": f"wrong{number}", **form})).status_code
            for number in range(6)
        ]
    assert answers == [403] * 5 + [429]


async def test_no_name_that_was_tried_is_kept(served: Served) -> None:
    async with browser(served) as client:
        await log_in(client, "hunter2-in-the-wrong-field", "x")
    for table in ("tries", "events", "logins"):
        rows = await served.database.read(functools.partial(_rows, table))
        assert "hunter2" not in str(rows)


def _rows(table: str, connection: Connection) -> object:
    return connection.execute(text(f"SELECT * FROM {table}")).all()


async def test_tries_are_forgotten_after_a_quarter_of_an_hour(served: Served) -> None:
    limit = Limit(("name", "anna"), 2, 300)
    second = 1_000_000
    assert [await served.do(lambda connection: tries.begin(connection, [limit], 0)) for _ in range(3)] == [0, 0, 1]
    assert await served.do(lambda connection: tries.begin(connection, [limit], 900 * second)) == 0
    assert await served.do(lambda connection: tries.purge(connection, 1799 * second)) == 0
    assert await served.do(lambda connection: tries.purge(connection, 1800 * second)) == 1


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "unknown"),
        ("testclient", "unknown"),
        (None, "unknown"),
    ],
)
def test_an_address_is_counted_as_the_network_of_one_customer(host: str | None, network: str) -> None:
    assert network_of(host) in (network, "fe80::/64")
