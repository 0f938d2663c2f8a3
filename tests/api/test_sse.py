"""Event streams as they go over the wire: encoded right, alive while silent, over when either side leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from starlette.types import Message

from atoll.core.errors import Unavailable
from atoll.faces.http import sse
from atoll.faces.http.sse import EventStream, ServerEvent


class Wire:
    """Both ends of an ASGI connection."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.gone = asyncio.Event()
        self.arrived = asyncio.Condition()

    async def receive(self) -> Message:
        """What the client does: at last it goes away."""
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """What the server sends."""
        async with self.arrived:
            self.sent.append(message)
            self.arrived.notify_all()

    async def until(self, text: bytes) -> None:
        """Wait until `text` was sent."""
        async with asyncio.timeout(10), self.arrived:
            await self.arrived.wait_for(lambda: text in self.body)

    @property
    def body(self) -> bytes:
        """All that was sent."""
        return b"".join(message.get("body", b"") for message in self.sent)

    @property
    def finished(self) -> bool:
        """Whether the answer was brought to its end."""
        return bool(self.sent) and self.sent[-1].get("more_body") is False


class Source:
    """Events from a queue, that knows whether it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[ServerEvent | Exception | None] = asyncio.Queue()
        self.closed = False

    async def events(self) -> AsyncIterator[ServerEvent]:
        """The generator."""
        try:
            while (item := await self.queue.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed = True


def _open(source: Source, stopping: asyncio.Event | None = None) -> tuple[Wire, asyncio.Task[None]]:
    wire = Wire()
    response = EventStream(source.events(), stopping or asyncio.Event())
    scope: Any = {"type": "http"}
    return wire, asyncio.create_task(response(scope, wire.receive, wire.send))


def test_an_event_is_one_line_of_data_whatever_is_in_it() -> None:
    event = ServerEvent("chunk", {"text": "a\nb\r\u2028 \ud800 €"}, "1:2:3")
    lines = event.encode().decode().split("\n")
    assert lines[:2] == ["id: 1:2:3", "event: chunk"]
    assert lines[2].startswith("data: {")
    assert lines[3:] == ["", ""]


async def test_a_stream_sends_events_and_ends_with_its_source() -> None:
    source = Source()
    wire, task = _open(source)
    source.queue.put_nowait(ServerEvent("opened", {}))
    source.queue.put_nowait(None)
    await asyncio.wait_for(task, 10)
    assert wire.sent[0]["status"] == 200
    assert (b"content-type", b"text/event-stream; charset=utf-8") in wire.sent[0]["headers"]
    assert wire.body == b"event: opened\ndata: {}\n\n"
    assert wire.finished


async def test_a_silent_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "HEARTBEAT_SECONDS", 0.01)
    source = Source()
    wire, task = _open(source)
    await wire.until(b": still here\n\n: still here\n\n")
    source.queue.put_nowait(ServerEvent("opened", {}))
    await wire.until(b"event: opened")
    source.queue.put_nowait(None)
    await asyncio.wait_for(task, 10)


async def test_a_stream_ends_when_the_client_goes_away() -> None:
    source = Source()
    wire, task = _open(source)
    source.queue.put_nowait(ServerEvent("opened", {}))
    await wire.until(b"opened")
    wire.gone.set()
    await asyncio.wait_for(task, 10)
    assert source.closed


async def test_a_stream_ends_when_the_server_stops() -> None:
    source, stopping = Source(), asyncio.Event()
    wire, task = _open(source, stopping)
    source.queue.put_nowait(ServerEvent("opened", {}))
    await wire.until(b"opened")
    stopping.set()
    await asyncio.wait_for(task, 10)
    assert wire.finished
    assert source.closed


async def test_what_goes_wrong_in_the_middle_is_told_as_an_event() -> None:
    source = Source()
    wire, task = _open(source)
    source.queue.put_nowait(Unavailable("database", "The database does not answer."))
    await asyncio.wait_for(task, 10)
    assert b"event: problem\n" in wire.body
    assert b"The database does not answer." in wire.body
    assert wire.finished
