"""Server-sent events: streams that live as long as the client listens and the server runs."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from atoll.core.errors import AtollError

log = logging.getLogger(__name__)
HEARTBEAT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event: its name, its data as JSON, and the id by which a client resumes after it."""

    name: str
    data: Any
    id: str | None = None

    def encode(self) -> bytes:
        """The event as it goes over the wire. JSON has no raw line breaks, so the data is one line."""
        head = f"id: {self.id}\n" if self.id is not None else ""
        data = json.dumps(self.data, separators=(",", ":"), ensure_ascii=False)
        return f"{head}event: {self.name}\ndata: {data}\n\n".encode("utf-8", "replace")


class Encodable(Protocol):
    """What a stream sends: one event, or several."""

    def encode(self) -> bytes:
        """As it goes over the wire."""


class EventStream(Response):
    """An answer that sends events as `source` yields them, and a comment where it is silent for long.

    It ends when `source` does, when the client goes away, and when `stopping` is set.
    """

    media_type = "text/event-stream"

    def __init__(self, source: AsyncIterator[Encodable], stopping: asyncio.Event) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-accel-buffering": "no"})
        del self.headers["content-length"]
        self._source = source
        self._stopping = stopping

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        ends: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(_disconnected(receive)), asyncio.ensure_future(self._stopping.wait())
        ]  # fmt: skip
        try:
            await self._send_all(send, ends)
        finally:
            for end in ends:
                end.cancel()
            await asyncio.gather(*ends, return_exceptions=True)
            await self._source.aclose()  # type: ignore[attr-defined]  # sources are generators
        if not ends[0].done() or ends[0].cancelled():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send_all(self, send: Send, ends: list[asyncio.Future[Any]]) -> None:
        while True:
            following = asyncio.ensure_future(anext(self._source))
            try:
                while not following.done() and not any(end.done() for end in ends):
                    done, _ = await asyncio.wait(
                        [following, *ends], timeout=HEARTBEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED
                    )
                    if not done:
                        await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
                ended = any(end.done() for end in ends)
                if ended and not following.done():
                    return
                event: Encodable = (
                    following.result()
                )  # asked for even where nobody listens: its error must not go unheard
                if ended:
                    return
            except StopAsyncIteration:
                return
            except AtollError as error:
                event = ServerEvent("problem", error.problem())
                await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
                return
            finally:
                if not following.done():
                    following.cancel()
                    with contextlib.suppress(asyncio.CancelledError, StopAsyncIteration):
                        await following
            await send({"type": "http.response.body", "body": event.encode(), "more_body": True})


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
