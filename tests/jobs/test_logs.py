"""Output: live from the site, then from the store, followed over retries, lost connections and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.core.errors import Invalid
from atoll.core.ids import JobRef
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Held, LogChunk
from atoll.faces.http.sse import ServerEvent
from atoll.jobs.follow import Follower, Position, whole_characters
from atoll.store import attempts, logs
from atoll.store.attempts import End
from atoll.store.logs import StoredLog
from atoll.store.people import Principal
from tests.support.http import Json, Served
from tests.support.rows import finish, run

ANNA = Principal("anna", False)
WAIT = 20.0


class LiveLogs:
    """A driver with output in memory; `silent` as a site that does not answer."""

    def __init__(self) -> None:
        self.written: dict[tuple[str, str], bytes] = {}
        self.silent = False

    def write(self, attempt_id: str, data: bytes, stream: str = "stdout") -> None:
        """What the attempt's program does."""
        self.written[attempt_id, stream] = self.written.get((attempt_id, stream), b"") + data

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        attempt_id = attempt.attempt_id
        """As drivers do."""
        if self.silent:
            raise DriverError("connection refused")
        if not any(key[0] == attempt_id for key in self.written):
            raise KeyError(attempt_id)
        data = self.written.get((attempt_id, stream), b"")
        start = max(0, len(data) + offset) if offset < 0 else min(offset, len(data))
        return LogChunk(start, data[start : start + limit], len(data))


@pytest.fixture
def live(served: Served) -> LiveLogs:
    driver: Any = LiveLogs()
    served.drivers["here"] = driver
    return driver


async def _bring_home(
    served: Served, live: LiveLogs, attempt: str, outcome: Outcome = Outcome.SUCCEEDED, *,
    retries: int = 0, head: int | None = None, tail: int = 0,
) -> None:  # fmt: skip
    """The attempt ends; its output goes to the log store (`head` first and `tail` last bytes), the site forgets."""
    code = 0 if outcome is Outcome.SUCCEEDED else 1
    await served.do(lambda connection: attempts.ended(connection, [End(attempt, outcome, code)], 1))
    stored = []
    for stream in ("stdout", "stderr"):
        data = live.written.get((attempt, stream), b"")
        if data:
            kept = len(data) if head is None else head
            served.platform.logs.write(attempt, stream, data[:kept], data[len(data) - tail :] if tail else b"")
            stored.append(StoredLog(attempt, stream, len(data), kept, tail))

    def store(connection: Connection) -> None:
        logs.put(connection, stored)
        finish(connection, [attempt], retries=retries)

    await served.do(store)
    for key in [key for key in live.written if key[0] == attempt]:
        del live.written[key]


async def _read(served: Served, job: object, query: str = "") -> Any:
    async with served.client() as client:
        return await client.get(f"/api/v1/jobs/{job}/logs{query}")


class Stream:
    """A follower whose events a test takes one by one."""

    def __init__(self, events: AsyncIterator[ServerEvent]) -> None:
        self._events = events

    async def next(self, name: str | None = None) -> ServerEvent:
        """The next event (of a name: others are passed over)."""
        async with asyncio.timeout(WAIT):
            while True:
                event = await anext(self._events)
                if name is None or event.name == name:
                    return event

    async def text(self, wanted: str) -> ServerEvent:
        """Collect chunks until they are exactly `wanted`; the last one."""
        text = ""
        while True:
            event = await self.next("chunk")
            text += event.data["text"]
            if text == wanted:
                return event
            assert wanted.startswith(text), text

    async def rest(self) -> list[ServerEvent]:
        """All that comes until the stream ends by itself."""
        async with asyncio.timeout(WAIT):
            return [event async for event in self._events]


async def _follow(served: Served, job: object, **options: Any) -> Stream:
    position = Position.parse(options.pop("resume", None))
    streams = options.pop("streams", ("stdout", "stderr"))
    follower = Follower(served.platform, JobRef.parse(str(job)), ANNA, streams, position=position, **options)
    return Stream(follower.follow(await follower.start()))


# ---- reading


async def test_a_job_that_waits_has_written_nothing_yet(served: Served) -> None:
    answer = await _read(served, await served.submit())
    assert (answer.status_code, answer.content) == (200, b"")
    assert (answer.headers["atoll-log-size"], answer.headers["atoll-log-complete"]) == ("0", "false")


async def test_output_is_read_from_the_site_while_the_job_runs_and_from_the_store_afterwards(
    served: Served, live: LiveLogs
) -> None:
    job = await served.submit()
    [attempt] = await served.do(lambda connection: run(connection, job))
    live.write(attempt, b"one\ntwo\n")
    before = await _read(served, job)
    live.write(attempt, b"warning\n", "stderr")
    await _bring_home(served, live, attempt)
    after = await _read(served, job)
    assert before.content == after.content == b"one\ntwo\n"
    assert [answer.headers["atoll-log-complete"] for answer in (before, after)] == ["false", "true"]
    assert (await _read(served, job, "?stream=stderr")).content == b"warning\n"
    part = await _read(served, job, "?offset=-4&limit=2")
    assert (part.content, part.headers["atoll-log-offset"], part.headers["atoll-log-size"]) == (b"tw", "4", "8")


async def test_what_was_not_kept_is_told(served: Served, live: LiveLogs) -> None:
    job = await served.submit()
    [attempt] = await served.do(lambda connection: run(connection, job))
    live.write(attempt, bytes(range(100)))
    await _bring_home(served, live, attempt, head=10, tail=5)
    first, later = await _read(served, job), await _read(served, job, "?offset=10")
    assert (first.content, first.headers["atoll-log-omitted"]) == (bytes(range(10)), "85")
    assert (later.content, later.headers["atoll-log-offset"]) == (bytes(range(95, 100)), "95")


async def test_each_attempt_has_output_of_its_own(served: Served, live: LiveLogs) -> None:
    job = await served.submit(retries=1)
    for text, outcome in ((b"first", Outcome.FAILED), (b"second", Outcome.SUCCEEDED)):
        [attempt] = await served.do(lambda connection: run(connection, job))
        live.write(attempt, text)
        await _bring_home(served, live, attempt, outcome, retries=1)
    assert [(await _read(served, job, query)).content for query in ("?attempt=1", "?attempt=2", "")] == [
        b"first", b"second", b"second",
    ]  # fmt: skip
    missing = await _read(served, job, "?attempt=3")
    assert (missing.status_code, missing.json()["field"]) == (404, "attempt")


async def test_an_array_has_output_by_its_tasks(served: Served, live: LiveLogs) -> None:
    array = await served.submit(array="0-3")
    [attempt] = await served.do(lambda connection: run(connection, array, "2"))
    live.write(attempt, b"task two")
    assert (await _read(served, f"{array}[2]")).content == b"task two"
    assert (await _read(served, f"{array}[3]")).content == b""
    whole = await _read(served, array)
    assert (whole.status_code, whole.json()["field"]) == (422, "id")


async def test_a_site_that_does_not_answer_is_told_as_such(served: Served, live: LiveLogs) -> None:
    job = await served.submit()
    await served.do(lambda connection: run(connection, job))
    live.silent = True
    answer = await _read(served, job)
    assert answer.status_code == 503
    assert "connection refused" in answer.json()["detail"]
    served.drivers.clear()
    assert (await _read(served, job)).status_code == 503


# ---- following


async def test_a_follower_sees_the_whole_life_of_a_job(served: Served, live: LiveLogs) -> None:
    job = await served.submit()
    stream = await _follow(served, job)
    assert (await stream.next()).name == "opened"
    assert (await stream.next("state")).data["state"] == "queued"
    [attempt] = await served.do(lambda connection: run(connection, job))
    assert (await stream.next("state")).data["state"] == "running"
    live.write(attempt, b"one\n")
    await stream.text("one\n")
    live.write(attempt, b"two\n")
    await _bring_home(served, live, attempt)
    rest = await stream.rest()
    assert "".join(event.data["text"] for event in rest if event.name == "chunk") == "two\n"
    assert (rest[-1].name, rest[-1].data) == ("end", {"state": "succeeded", "exit_code": 0})


async def test_a_follower_goes_on_with_the_next_attempt(served: Served, live: LiveLogs) -> None:
    job = await served.submit(retries=1)
    [first] = await served.do(lambda connection: run(connection, job))
    live.write(first, b"first\n")
    stream = await _follow(served, job)
    await stream.text("first\n")
    live.write(first, b"failed\n")
    await _bring_home(served, live, first, Outcome.FAILED, retries=1)
    [second] = await served.do(lambda connection: run(connection, job))
    live.write(second, b"second\n")
    chunk = await stream.text("failed\nsecond\n")
    assert chunk.data["attempt"] == 2
    await _bring_home(served, live, second)
    assert (await stream.rest())[-1].data == {"state": "succeeded", "exit_code": 0}


async def test_a_follower_that_lost_its_connection_misses_and_repeats_nothing(served: Served, live: LiveLogs) -> None:
    job = await served.submit(retries=1)
    [first] = await served.do(lambda connection: run(connection, job))
    live.write(first, b"a" * 10)
    live.write(first, b"E" * 3, "stderr")
    stream = await _follow(served, job)
    await stream.text("a" * 10)
    error = await stream.next("chunk")
    assert error.data == {"stream": "stderr", "attempt": 1, "offset": 0, "text": "EEE"}
    assert error.id == "1:10:3"
    live.write(first, b"b" * 5)
    await _bring_home(served, live, first, Outcome.FAILED, retries=1)
    [second] = await served.do(lambda connection: run(connection, job))
    live.write(second, b"c")
    await _bring_home(served, live, second)
    again = await (await _follow(served, job, resume=error.id)).rest()
    chunks = [event for event in again if event.name == "chunk"]
    told = [(event.data["attempt"], event.data["offset"], event.data["text"]) for event in chunks]
    assert told == [(1, 10, "bbbbb"), (2, 0, "c")]
    at_the_end = await (await _follow(served, job, resume=chunks[-1].id)).rest()
    assert [event.name for event in at_the_end] == ["opened", "state", "end"]


async def test_a_job_cancelled_before_it_ran_ends_its_stream(served: Served) -> None:
    job = await served.submit()
    stream = await _follow(served, job)
    await stream.next("state")
    async with served.client() as client:
        await client.post(f"/api/v1/jobs/{job}/cancel")
    assert (await stream.rest())[-1].data == {"state": "cancelled", "exit_code": None}


def test_a_position_that_is_none_is_refused() -> None:
    for text in ("1", "1:2", "a:b:c", "1:2:-3", "1:2:3:4"):
        with pytest.raises(Invalid):
            Position.parse(text)
    assert Position.parse(None) is None
    assert str(Position.parse("1:2:3")) == "1:2:3"


@pytest.mark.parametrize("text", ["", "a", "é", "€", "😀", "ab€", "😀é"])
def test_text_is_cut_between_characters_only(text: str) -> None:
    data = text.encode()
    for length in range(len(data) + 1):
        kept = data[: whole_characters(data[:length])]
        assert text.startswith(kept.decode())
        assert length - len(kept) < 4


def _names(page: Json) -> list[str]:
    return [item["path"] for item in page["items"]]


async def test_files_that_a_job_brought_out_are_listed_and_fetched(served: Served, tmp_path: Any) -> None:
    from atoll.store import files

    job = await served.submit(files_out=["out/*"])
    source = tmp_path / "result"
    source.write_bytes(b"42")
    sha256, size = served.platform.files.take(source)
    await served.do(lambda connection: files.set_outputs(connection, job, [("out/a b.txt", sha256, size)]))
    async with served.client() as client:
        assert _names((await client.get(f"/api/v1/jobs/{job}/outputs")).json()) == ["out/a b.txt"]
        answer = await client.get(f"/api/v1/jobs/{job}/outputs/out/a%20b.txt")
        assert (answer.content, answer.headers["content-type"]) == (b"42", "application/octet-stream")
        assert (await client.get(f"/api/v1/jobs/{job}/outputs/out/none")).status_code == 404
        assert (await client.get(f"/api/v1/jobs/{job}/outputs/%2e%2e/%2e%2e/files")).status_code == 404
    async with served.client("bob") as bob:
        assert (await bob.get(f"/api/v1/jobs/{job}/outputs/out/a%20b.txt")).status_code == 404
