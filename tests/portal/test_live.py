"""Live pages by their stream: what comes, to whom, and what happens where it is too much."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.core.ids import JobRef
from atoll.faces.web import live
from atoll.faces.web.live import News, Raw, elements
from atoll.store import events
from atoll.store.people import Principal
from tests.support.http import Served
from tests.support.live import Stream
from tests.support.rows import end, run


async def _cursor(served: Served) -> int:
    return int(await served.database.read(events.last_id))


async def test_a_changed_row_comes_with_its_state(served: Served) -> None:
    job = await served.submit(name="train")
    async with Stream(served, f"/live?jobs=&since={await _cursor(served)}") as stream:
        await served.do(lambda connection: run(connection, job))
        await stream.until("running")
        assert f'data: <tr id="job-{job}" hx-swap-oob="outerMorph">' in stream.text


async def test_new_jobs_are_announced(served: Served) -> None:
    async with Stream(served, "/live?jobs=") as stream:
        await served.submit()
        await stream.until("event: added")


async def test_a_member_never_gets_another_persons_row(served: Served) -> None:
    hers, his = await served.submit("anna", name="hers"), await served.submit("bob", name="secret")
    since = await _cursor(served)
    async with (
        Stream(served, f"/live?jobs=&since={since}", "anna") as anna,
        Stream(served, f"/live?jobs=&since={since}", "root") as root,
    ):
        await served.submit("bob", name="secret")
        await served.do(lambda connection: run(connection, his))
        await served.do(lambda connection: run(connection, hers))
        await anna.until("hers")
        await root.until("secret")
        await root.until("hers")
        assert "secret" not in anna.text
        assert f"job-{his}" not in anna.text
        # not even that somebody submitted something
        assert "event: added" not in anna.text


async def test_nobody_opens_the_stream_of_another_persons_job(served: Served) -> None:
    his = await served.submit("bob")
    async with served.client("anna") as client:
        for topic in (f"job={his}", f"log={his}&at=0:0:0", f"jobs=&job={his}"):
            answer = await client.get(f"/live?{topic}")
            assert answer.status_code == 404
    async with served.client(None) as client:
        assert (await client.get("/live?jobs=")).status_code == 303


@pytest.mark.parametrize("query", ["", "since=1", "nothing=", "job=x", "&".join(f"job={n}" for n in range(1, 20))])
async def test_topics_that_are_none_are_refused(served: Served, query: str) -> None:
    async with served.client() as client:
        assert (await client.get(f"/live?{query}")).status_code in (404, 422)


async def test_what_changed_while_the_page_was_on_its_way_is_told_first(served: Served) -> None:
    job = await served.submit()
    since = await _cursor(served)
    await served.do(lambda connection: run(connection, job))
    async with Stream(served, f"/live?jobs=&since={since}") as stream:
        await stream.until(f'id="job-{job}"')


async def test_what_changes_while_a_stream_opens_is_told(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a stream while the reader is at work is told by the reader, or of what he missed; never neither."""
    first, second = await served.submit(), await served.submit()
    reading, opened = threading.Event(), threading.Event()
    after = events.after

    def slow_after(connection: Connection, *more: Any) -> Any:
        found = after(connection, *more)
        if found and not opened.is_set():
            reading.set()
            opened.wait(5)
        return found

    async with Stream(served, f"/live?job={first}"):
        monkeypatch.setattr(events, "after", slow_after)
        await served.do(lambda connection: run(connection, second))
        assert await asyncio.to_thread(reading.wait, 5)
        # the reader has read the change, and tells it to those who are there by then
        async with Stream(served, f"/live?job={second}&since={await _cursor(served)}") as stream:
            opened.set()
            await stream.until("event: changed")


async def test_the_reader_begins_no_later_than_the_stream(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    job = await served.submit()
    starts = []
    read = live.Live._read

    async def noted(self: live.Live, cursor: int | None) -> None:
        starts.append(cursor)
        await read(self, cursor)

    monkeypatch.setattr(live.Live, "_read", noted)
    before = await _cursor(served)
    # a position that nobody has reached yet keeps nothing from anybody
    async with Stream(served, f"/live?job={job}&since={10**17}") as stream:
        await served.do(lambda connection: run(connection, job))
        await stream.until("event: changed")
    assert starts == [before]


async def test_the_page_of_a_job_hears_that_it_changed_and_of_no_other(served: Served) -> None:
    job, other, array = await served.submit(), await served.submit(), await served.submit(array="0-3")
    since = await _cursor(served)
    async with (
        Stream(served, f"/live?job={job}&since={since}") as one,
        Stream(served, f"/live?job={array}[2]&since={since}") as task,
        Stream(served, f"/live?job={other}&since={since}") as rest,
    ):
        await served.do(lambda connection: run(connection, job))
        await one.until("event: changed")
        assert "event: changed" not in task.text
        await served.do(lambda connection: run(connection, array, "2"))
        await task.until("event: changed")
        assert "event: changed" not in rest.text


async def test_too_many_changes_have_pages_fetch_anew(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "_MOST_EVENTS", 3)
    job = await served.submit()
    async with Stream(served, f"/live?jobs=&since={await _cursor(served)}") as stream:
        await served.do(lambda connection: end(connection, run(connection, job)))
        await stream.until("event: stale")
        assert "<tr" not in stream.text


async def test_a_viewer_who_does_not_keep_up_loses_the_oldest_and_is_told() -> None:
    viewer = live._Viewer(frozenset({("jobs", "")}), Principal("anna", False))
    for number in range(live._MOST_WAITING + 5):
        viewer.put(f"data: {number}\n\n".encode())
    body = (await anext(viewer.take())).body
    assert b"data: 4\n" not in body
    assert b"data: 5\n" in body
    assert body.endswith(live.STALE.encode())


async def test_streams_end_when_the_platform_stops(served: Served) -> None:
    async with Stream(served, "/live?jobs=") as stream:
        served.platform.stopping.set()
        await stream.until_ended()


async def test_the_reader_rests_when_nobody_looks(served: Served) -> None:
    hub: live.Live = served.app.state.live
    async with Stream(served, "/live?jobs="):
        assert hub._reader is not None
    assert hub._reader is None


async def test_a_source_that_fails_ends_no_stream(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def admit(self, connection: Any, name: str, who: Principal) -> None:
            """Anybody."""

        def news(self, connection: Any, changes: Any, names: Any) -> list[News]:
            raise RuntimeError("broken")

    hub: live.Live = served.app.state.live
    hub.sources["broken"] = Broken()
    async with Stream(served, "/live?broken=&jobs=") as stream:
        await asyncio.sleep(0.1)  # its reader begins at the newest event
        await served.submit()
        await stream.until("event: stale")
        assert not stream.ended


async def test_output_comes_harmless_and_from_where_the_page_has_it(served: Served) -> None:
    from atoll.store import logs
    from atoll.store.logs import StoredLog

    job = await served.submit()
    [attempt] = await served.do(lambda connection: run(connection, job))
    await served.do(lambda connection: end(connection, [attempt]))
    text = b"before\n\x1b[31mred\x1b[0m \x07<script>\n"
    served.platform.logs.write(attempt, "stdout", text, b"")
    await served.do(lambda connection: logs.put(connection, [StoredLog(attempt, "stdout", len(text), len(text), 0)]))
    async with Stream(served, f"/live?log={job}&at=1:7:0") as stream:
        await stream.until("event: log")
        [data] = [line for line in stream.text.splitlines() if line.startswith('data: {"stream"')]
        chunk = json.loads(data.removeprefix("data: "))
        assert chunk == {
            "stream": "stdout", "attempt": 1, "offset": 7, "end": len(text), "text": "red \u2407<script>\n"
        }  # fmt: skip
        assert f"id: 1:{len(text)}:0" in stream.text


def test_elements_go_line_by_line() -> None:
    assert elements("<tr>\n\n  <td>\n</tr>") == Raw(b"data: <tr>\ndata:   <td>\ndata: </tr>\n\n")


def test_the_address_of_a_stream_names_what_the_page_shows() -> None:
    address = live.address(7, ("jobs", ""), ("job", str(JobRef(12))), at="1:0:0")
    assert address == "/live?jobs=&job=12&at=1%3A0%3A0&since=7"
