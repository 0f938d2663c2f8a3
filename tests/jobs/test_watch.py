"""The stream of changes: everybody's own jobs, in order, resumed without gaps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.core.errors import NotFound
from atoll.core.ids import JobRef
from atoll.faces.http.sse import ServerEvent
from atoll.jobs import watch
from atoll.store.people import Principal
from tests.support.http import Served
from tests.support.rows import end, run

ANNA = Principal("anna", False)


def _watch(served: Served, *refs: object, cursor: int = 0, who: Principal = ANNA) -> AsyncIterator[ServerEvent]:
    refs_of = [JobRef.parse(str(ref)) for ref in refs]
    return watch.watch(served.platform, refs_of, who, cursor, served.app.state.estimates)


async def _take(stream: AsyncIterator[ServerEvent], count: int) -> list[ServerEvent]:
    async with asyncio.timeout(20):
        return [await anext(stream) for _ in range(count)]


def _told(events: list[ServerEvent]) -> list[tuple[str, str]]:
    return [(event.data["id"], event.data["state"]) for event in events]


async def test_each_change_is_told_with_its_reason(served: Served) -> None:
    job = await served.submit()
    await served.do(lambda connection: end(connection, run(connection, job)))
    opened, *events = await _take(_watch(served), 7)
    assert (opened.name, opened.data) == ("opened", {"cursor": 0})
    states = ["queued", "placed", "starting", "running", "finishing", "succeeded"]
    assert _told(events) == [(str(job), state) for state in states]
    assert events[-1].data["reason"] == {"code": "Completed", "sentence": "Ended with exit code 0."}


async def test_a_watcher_that_resumes_misses_and_repeats_nothing(served: Served) -> None:
    job = await served.submit()
    first = (await _take(_watch(served), 2))[-1]
    await served.do(lambda connection: run(connection, job))
    assert first.id is not None
    _, *events = await _take(_watch(served, cursor=int(first.id)), 4)
    assert _told(events) == [(str(job), state) for state in ("placed", "starting", "running")]


async def test_a_watcher_is_told_at_once(served: Served) -> None:
    stream = _watch(served)
    await _take(stream, 1)
    waiting = asyncio.create_task(_take(stream, 1))
    job = await served.submit()
    assert _told(await waiting) == [(str(job), "queued")]


async def test_nobody_is_told_of_another_persons_jobs(served: Served) -> None:
    his, hers = await served.submit("bob"), await served.submit("anna")
    _, *events = await _take(_watch(served), 2)
    assert _told(events) == [(str(hers), "queued")]
    _, *everything = await _take(_watch(served, who=Principal("root", True)), 3)
    assert _told(everything) == [(str(his), "queued"), (str(hers), "queued")]
    with pytest.raises(NotFound):
        await served.database.read(lambda connection: watch.check(connection, [JobRef(his)], ANNA))


async def test_jobs_and_tasks_can_be_watched_alone(served: Served) -> None:
    other, array = await served.submit(), await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, other))
    await served.do(lambda connection: run(connection, array, "3-4"))
    _, *tasks = await _take(_watch(served, f"{array}[4]"), 4)
    assert _told(tasks) == [(f"{array}[4]", state) for state in ("placed", "starting", "running")]
    _, *both = await _take(_watch(served, array), 4)
    assert {event.data["job"] for event in both} == {array}


async def test_a_position_of_another_stream_is_refused(served: Served) -> None:
    async with served.client() as client:
        answer: Any = await client.get("/api/v1/events", headers={"last-event-id": "1:2:3"})
    assert (answer.status_code, answer.json()["field"]) == (422, "Last-Event-ID")
