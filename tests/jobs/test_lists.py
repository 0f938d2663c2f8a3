"""Lists and single jobs: everybody sees their own, pages follow each other without gaps, why has the facts."""

from __future__ import annotations

from typing import Any

import pytest

from atoll.core.site import Health
from atoll.core.states import Outcome
from atoll.store import sites
from tests.support.http import Json, Served
from tests.support.rows import end, run

JOBS = "/api/v1/jobs"


async def _list(served: Served, query: str = "", person: str = "anna") -> list[str]:
    async with served.client(person) as client:
        answer = await client.get(f"{JOBS}{query}")
    assert answer.status_code == 200, answer.text
    return [item["id"] for item in answer.json()["items"]]


async def _why(served: Served, job: object) -> Json:
    async with served.client() as client:
        found: Json = (await client.get(f"{JOBS}/{job}/why")).json()
    return found


async def test_members_see_their_own_jobs_and_administrators_all(served: Served) -> None:
    hers, his = await served.submit("anna"), await served.submit("bob")
    assert await _list(served, person="anna") == [str(hers)]
    assert await _list(served, "?owner=bob", "anna") == []
    assert await _list(served, person="root") == [str(his), str(hers)]
    assert await _list(served, "?owner=bob", "root") == [str(his)]
    async with served.client("anna") as anna:
        for path in (f"{JOBS}/{his}", f"{JOBS}/{his}/why", f"{JOBS}/{his}/logs", f"{JOBS}/{his}/outputs"):
            answer = await anna.get(path)
            assert (answer.status_code, answer.json()["detail"]) == (404, f"There is no job {his}.")


async def test_pages_follow_each_other_without_gaps_while_jobs_come(served: Served) -> None:
    old = [await served.submit(name=f"job-{number}") for number in range(7)]
    seen: list[str] = []
    cursor = ""
    async with served.client() as client:
        while True:
            page = (await client.get(f"{JOBS}?limit=3{cursor}")).json()
            seen += [item["id"] for item in page["items"]]
            await served.submit()
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
    assert seen == [str(job) for job in reversed(old)]


async def test_what_ended_is_shown_only_where_it_is_asked_for(served: Served) -> None:
    waiting, ended = await served.submit(name="a"), await served.submit(name="b")
    await served.do(lambda connection: end(connection, run(connection, ended), Outcome.FAILED))
    assert await _list(served) == [str(waiting)]
    assert await _list(served, "?all=true") == [str(ended), str(waiting)]
    assert await _list(served, "?state=failed") == [str(ended)]
    assert await _list(served, "?state=failed&state=queued") == [str(ended), str(waiting)]
    assert await _list(served, "?since=2020-01-01T00:00:00Z") == [str(ended), str(waiting)]
    assert await _list(served, "?since=2030-01-01T00:00:00Z") == []
    assert await _list(served, "?name=b&all=1") == [str(ended)]
    assert await _list(served, "?site=here&all=1") == [str(ended)]


async def test_an_array_is_one_item_and_its_tasks_are_listed_by_number(served: Served) -> None:
    array = await served.submit(array="0-999999")
    await served.do(lambda connection: end(connection, run(connection, array, "2")))
    await served.do(lambda connection: run(connection, array, "5"))
    async with served.client() as client:
        await client.post(f"{JOBS}/{array}[1,3]/cancel")
        assert await _list(served) == [str(array)]
        assert await _list(served, f"?array={array}&limit=3") == [f"{array}[{task}]" for task in (0, 4, 5)]
        assert await _list(served, f"?array={array}&limit=4&all=1") == [f"{array}[{task}]" for task in range(4)]
        assert await _list(served, f"?array={array}&state=cancelled") == [f"{array}[1]", f"{array}[3]"]
        assert await _list(served, f"?array={array}&state=running&state=succeeded") == [f"{array}[2]", f"{array}[5]"]
        page = (await client.get(f"{JOBS}?array={array}&limit=2")).json()
        following = (await client.get(f"{JOBS}?array={array}&limit=2&cursor={page['next_cursor']}")).json()
        assert [item["task"] for item in following["items"]] == [5, 6]
        wrong = await client.get(f"{JOBS}?cursor={page['next_cursor']}")
        assert wrong.status_code == 422  # a cursor of another list
    async with served.client("bob") as bob:
        assert (await bob.get(f"{JOBS}?array={array}")).status_code == 404
        assert (await bob.get(f"{JOBS}/{array}[5]")).status_code == 404


async def test_a_task_is_shown_whether_it_has_started_or_not(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, array, "4"))
    async with served.client() as client:
        for reference, state, tried in ((f"{array}[4]", "running", 1), (f"{array}[5]", "queued", 0)):
            found = (await client.get(f"{JOBS}/{reference}")).json()
            assert (found["id"], found["state"], len(found["attempt_list"])) == (reference, state, tried)
            assert found["spec"]["command"] == ["true"]
        assert (await client.get(f"{JOBS}/{array}[10]")).status_code == 404
        several = await client.get(f"{JOBS}/{array}[4-5]")
        assert (several.status_code, several.json()["field"]) == (422, "id")


async def test_rows_of_tasks_cannot_be_had_by_their_own_number(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, array, "4"))
    async with served.client() as client:
        assert (await client.get(f"{JOBS}/{array + 1}")).status_code == 404


# ---- why


async def test_why_names_what_a_job_waits_for(served: Served) -> None:
    first = await served.submit()
    second = await served.submit(dependencies=[{"job": str(first), "on": "any"}])
    found = await _why(served, second)
    assert (found["state"], found["code"]) == ("held", "Dependency")
    assert f"Waits for job {first} to end; it is queued." in found["facts"]
    later = await served.submit(begin="2026-01-01T00:10:00Z")
    assert "Does not start before 2026-01-01 00:10:00 UTC, in 10m 0s." in (await _why(served, later))["facts"]


async def test_why_tells_how_old_the_news_of_a_silent_site_is(served: Served) -> None:
    await served.add_site()
    job = await served.submit()
    await served.do(lambda connection: run(connection, job))
    served.clock.advance(125)
    await served.do(lambda connection: sites.set_health(connection, "here", Health.UNREACHABLE, "connection refused"))
    facts = " ".join((await _why(served, job))["facts"])
    assert "Site here does not answer; it last did 2m 5s ago: connection refused." in facts
    assert "The last known state is shown." in facts


async def test_why_tells_how_attempts_ended(served: Served) -> None:
    job = await served.submit()
    await served.do(lambda connection: end(connection, run(connection, job), Outcome.FAILED))
    found = await _why(served, job)
    assert (found["code"], found["sentence"]) == ("NonZeroExitCode", "Ended with exit code 1.")
    assert found["facts"] == ["Attempt 1 at site here: failed, exit code 1."]


async def test_sites_show_what_is_used_of_them(served: Served) -> None:
    await served.add_site(region="eu")
    job = await served.submit(cpu=2, memory="1G")
    await served.do(lambda connection: run(connection, job))
    async with served.client() as client:
        [site] = (await client.get("/api/v1/sites")).json()["items"]
        assert (await client.get("/api/v1/sites/here")).json() == {**site, "nodes": []}
    [flavor] = site["flavors"]
    assert flavor["used"] == {"cpu": "2", "memory": 1 << 30, "gpu": "0"}
    assert flavor["total"]["cpu"] == "8"
    assert site["labels"]["region"] == "eu"
    assert (site["health"], site["seen_at"]) == ("ok", "2026-01-01T00:00:00.000000Z")


@pytest.mark.parametrize("size", [0, 5, 70_000])
async def test_files_are_kept_by_their_hash(served: Served, size: int) -> None:
    import hashlib

    content = b"x" * size
    sha256 = hashlib.sha256(content).hexdigest()
    path = f"/api/v1/files/{sha256}"
    async with served.client("anna") as anna, served.client("bob") as bob:
        assert (await anna.head(path)).status_code == 404
        answers: list[Any] = [await anna.put(path, content=content) for _ in range(2)]
        assert [answer.status_code for answer in answers] == [201, 200]
        assert answers[0].json() == {"sha256": sha256, "size": size}
        assert ((await anna.head(path)).status_code, (await bob.head(path)).status_code) == (200, 404)
        wrong = await bob.put(path, content=content + b"!")
        assert (wrong.status_code, wrong.json()["field"]) == (422, "sha256")
    assert [item.name for item in served.platform.files.folder.glob("part-*")] == []
