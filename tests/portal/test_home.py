"""The first page: what of one's own runs and waits, has ended, and what is to be known."""

from __future__ import annotations

from sqlalchemy import Connection

from atoll.core.clock import from_micros
from atoll.core.site import Health
from atoll.core.states import Outcome
from atoll.store import sites
from tests.support.http import Served
from tests.support.rows import NOW, add, end, new_job, run


async def home(served: Served, person: str = "anna", **headers: str) -> str:
    async with served.client(person, **headers) as client:
        answer = await client.get("/")
    assert answer.status_code == 200, answer.text
    return answer.text


async def test_a_newcomer_is_told_three_commands_once_there_is_a_site(served: Served) -> None:
    assert "There is no site yet" in await home(served)
    assert "Add a site" in await home(served, "root")
    await served.add_site()
    text = await home(served)
    assert "Submit your first job" in text
    assert text.count("data-copy=") == 3
    assert "atoll login http://127.0.0.1</code>" in text


async def test_jobs_of_ones_own_are_told_and_nobody_elses_not_even_to_administrators(served: Served) -> None:
    await served.add_site()
    served.clock.now = from_micros(NOW)

    def work(connection: Connection) -> None:
        runs, ended, old, *_ = add(
            connection, new_job(name="that-runs"), new_job(name="that-failed"), new_job(name="long-ago"),
            new_job(name="that-waits"), new_job(name="of-bob", owner="bob"),
        )  # fmt: skip
        run(connection, runs)
        end(connection, run(connection, ended), Outcome.FAILED, now=NOW - 3600 * 1_000_000)
        end(connection, run(connection, old), now=NOW - 48 * 3600 * 1_000_000)

    await served.do(work)
    text = await home(served)
    assert "1 running, 1 waiting" in text
    for name in ("that-runs", "that-failed", "that-waits"):
        assert name in text
    assert "long-ago" not in text, "it ended before yesterday"
    assert "of-bob" not in text
    assert "of-bob" not in await home(served, "root")
    piece = await home(served, **{"hx-request": "true"})
    assert piece.strip().startswith('<div id="home"')
    assert piece.strip() in text


async def test_sites_that_are_out_of_reach_or_drained_are_messages(served: Served) -> None:
    for name in ("well", "away", "empty"):
        await served.add_site(name)
    await served.do(lambda connection: sites.set_health(connection, "away", Health.UNREACHABLE, "no route"))
    await served.do(lambda connection: sites.set_drained(connection, "empty", True))
    text = await home(served)
    assert '<a href="/sites/away">away</a> cannot be reached' in text
    assert '<a href="/sites/empty">empty</a> is drained' in text
    assert "/sites/well" not in text


async def test_my_projects_show_their_quota_and_a_name_of_html_stays_text(served: Served) -> None:
    await served.add_site()
    tree = {"all": {}, "astro": {"parent": "all", "people": ["anna"], "quotas": {"cpu": {"cpu": 2}}},
            "bio": {"parent": "all", "people": ["bob"], "quotas": {"cpu": {"cpu": 2}}}}  # fmt: skip
    async with served.client("root") as client:
        assert (await client.put("/api/v1/projects", json={"projects": tree})).status_code == 200
    await served.submit("anna", name="<script>alert(1)</script>")
    text = await home(served)
    assert 'aria-label="astro uses 0, its quota is 2"' in text
    assert "bio" not in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
