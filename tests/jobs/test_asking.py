"""What would become of a job: asked over HTTP, and answered by the scheduler."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from atoll.jobs import asking
from atoll.store import events, jobs, questions
from tests.support.http import Served

PATH = "/api/v1/jobs/explain"
ANSWER = {
    "code": "Resources", "sentence": "Waits for 9 CPUs.", "facts": ["Site here is small."], "position": 3, "waiting": 7,
    "start": 60_000_000, "earliest": None, "latest": None, "at": 1_000_000,
}  # fmt: skip


async def explain(served: Served, person: str = "anna", **job: Any) -> Any:
    async with served.client(person) as client:
        return await client.post(PATH, json={"command": ["true"], **job})


async def scheduler(served: Served, answer: Any = ANSWER) -> list[questions.Question]:
    """Answer what is asked next, as the dispatcher does."""
    seen = 0
    while not (found := await served.database.read(lambda connection: questions.unanswered(connection, 10))):
        seen = await served.platform.changes.wait(seen, 1)
    told = {question.id: json.dumps(answer) for question in found}
    await served.do(lambda connection: questions.answer(connection, told, 5))
    return found


async def test_a_question_is_answered_and_nothing_is_submitted(served: Served) -> None:
    await served.add_site()
    answer, [asked] = await asyncio.gather(explain(served, cpu=2, name="train"), scheduler(served))
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert (found["code"], found["facts"]) == ("Resources", ["Site here is small."])
    assert (found["estimate"]["position"], found["estimate"]["start"]) == (3, "1970-01-01T00:01:00.000000Z")
    assert (asked.columns["cpu"], asked.columns["name"], asked.columns["owner"]) == (2000, "train", "anna")
    assert not await served.database.read(lambda connection: jobs.load_unended(connection, 0, 10))
    assert not await served.database.read(lambda connection: questions.unanswered(connection, 10)), "it is kept"


async def test_what_could_never_run_is_refused_as_a_submission_is(served: Served) -> None:
    await served.add_site()
    refused = await explain(served, cpu=99)
    assert (refused.status_code, refused.json()["code"], refused.json()["field"]) == (422, "impossible", "cpu")
    unknown = await explain(served, comand=1)
    assert (unknown.status_code, unknown.json()["field"]) == (422, "comand")


async def test_who_asks_twice_at_once_is_answered_the_second_time(served: Served) -> None:
    await served.add_site()
    first = asyncio.create_task(explain(served, name="first"))
    async with asyncio.timeout(20):
        seen = 0
        while not await served.database.read(lambda connection: questions.unanswered(connection, 10)):
            seen = await served.platform.changes.wait(seen, 1)
        second = asyncio.create_task(explain(served, name="second"))
        assert (await first).json()["code"] == "asked_again"
        await scheduler(served)
        assert (await second).status_code == 200


@pytest.mark.parametrize("answered", [True, False])
async def test_where_nobody_can_say_that_is_said(
    served: Served, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    await served.add_site()
    if answered:
        answer, _ = await asyncio.gather(explain(served), scheduler(served, None))
    else:
        monkeypatch.setattr(asking, "SECONDS", 0.2)
        answer = await explain(served)
    assert (answer.status_code, answer.json()["estimate"]) == (200, None)
    assert "Nobody can say" in answer.json()["sentence"]
    assert not await served.database.read(lambda connection: questions.unanswered(connection, 10))


async def test_nothing_else_can_be_done_to_it(served: Served) -> None:
    async with served.client() as client:
        assert (await client.get(PATH)).status_code == 405
        assert (await client.delete(PATH)).status_code == 405


async def test_a_question_is_told_to_the_dispatcher(served: Served) -> None:
    await served.add_site()
    before = await served.database.read(events.last_id)
    await asyncio.gather(explain(served), scheduler(served))
    changed = await served.database.read(lambda connection: events.changed(connection, before, 100))
    assert changed.questions


async def why(served: Served, job: int, person: str = "anna", **query: Any) -> Any:
    async with served.client(person) as client:
        return await client.get(f"/api/v1/jobs/{job}/why", params=query)


async def test_what_would_help_a_waiting_job_is_asked_of_the_scheduler(served: Served) -> None:
    job = await served.submit()
    told = {"remedies": [{"kind": "offload", "sentence": "Let it go far.", "start": 60_000_000}], "at": 1}
    answer, [asked] = await asyncio.gather(why(served, job, remedies=True), scheduler(served, told))
    assert (asked.job, dict(asked.columns)) == (job, {})
    [found] = answer.json()["remedies"]
    assert found == {"kind": "offload", "sentence": "Let it go far.", "start": "1970-01-01T00:01:00.000000Z"}
    assert not await served.database.read(lambda connection: questions.unanswered(connection, 10)), "it is kept"


async def test_without_being_asked_why_does_not_look_for_what_would_help(served: Served) -> None:
    job = await served.submit()
    assert (await why(served, job)).json()["remedies"] is None
    await served.submit(array="0-3")
    held = await served.submit()
    async with served.client("anna") as client:
        await client.post(f"/api/v1/jobs/{held}/hold")
    assert (await why(served, held, remedies=True)).json()["remedies"] is None, "it does not wait in the queue"


async def test_why_answers_also_where_the_scheduler_does_not(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "HELP_SECONDS", 0.2)
    job = await served.submit()
    answer = await why(served, job, remedies=True)
    assert (answer.status_code, answer.json()["remedies"], answer.json()["state"]) == (200, None, "queued")


async def test_a_question_of_one_kind_does_not_take_the_place_of_another(served: Served) -> None:
    await served.add_site()
    job = await served.submit()
    first, second = asyncio.create_task(explain(served)), asyncio.create_task(why(served, job, remedies=True))
    seen = 0
    async with asyncio.timeout(20):
        while len(found := await served.database.read(lambda connection: questions.unanswered(connection, 10))) < 2:
            seen = await served.platform.changes.wait(seen, 1)
    told = {each.id: json.dumps(ANSWER if each.job is None else {"remedies": [], "at": 1}) for each in found}
    await served.do(lambda connection: questions.answer(connection, told, 5))
    assert (await first).json()["code"] == "Resources"
    assert (await second).json()["remedies"] == []
