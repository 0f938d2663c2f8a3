"""Live pages: one stream of server-sent events for each open tab, made once for all who look.

A page names what it shows as topics in the address of its stream, as in `/live?jobs=&job=12` (see `address`). Each kind
of topic has a `Source`, which its room provides. One reader follows the outbox for all viewers of this process; what a
source makes of the changes is put, as bytes, into the bounded queue of each viewer who may see it. What must not be
dropped, as a log, is a `Follow` of the one viewer who asked.

The first event of a stream is `opened`: at a later one a page fetches anew what it shows. So it does at `stale`, which
says that something was dropped. Messages without a name are elements that take the place of those with the same id.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlencode

from fastapi import APIRouter, Request
from sqlalchemy import Connection
from starlette.responses import Response

from atoll.core.errors import AtollError, Invalid, NotFound
from atoll.faces.http.auth import Here
from atoll.faces.http.platform import Platform
from atoll.faces.http.sse import HEARTBEAT_SECONDS, EventStream, ServerEvent
from atoll.faces.web.visitor import Visitor
from atoll.store import events
from atoll.store.events import Event
from atoll.store.people import Principal

log = logging.getLogger(__name__)
_MOST_TOPICS = 8
_MOST_EVENTS = 500
"""Changes that are told one by one; where more come together, pages fetch anew."""
_MOST_WAITING = 100
"""Pieces in the queue of a viewer who does not keep up."""
_GATHER_SECONDS = 0.25
"""Changes that come so close together are told together."""
_LONGEST_SECONDS = 900.0
"""Then a stream ends, and the browser opens it again: so whoever may no longer look soon does not."""


@dataclass(frozen=True, slots=True)
class Raw:
    """Events that are bytes already."""

    body: bytes

    def encode(self) -> bytes:
        """The events as they go over the wire."""
        return self.body


OPENED = ServerEvent("opened", {})
STALE = ServerEvent("stale", {})


def elements(html: str) -> Raw:
    """A message without a name: elements that say themselves, by `hx-swap-oob`, where they belong."""
    return Raw("".join(f"data: {line}\n" for line in html.splitlines() if line.strip()).encode() + b"\n")


@dataclass(frozen=True, slots=True)
class News:
    """Something to tell all who show a topic of the source's kind, by its name."""

    name: str
    event: ServerEvent | Raw
    owner: str | None = None
    """Only this person and administrators may see it; None: all who show the topic."""


class Source(Protocol):
    """What a room tells of one kind of topic."""

    def admit(self, connection: Connection, name: str, who: Principal) -> None:
        """Refuse (NotFound, Denied, Invalid) who may not look at the topic."""

    def news(self, connection: Connection, changes: Sequence[Event], names: Collection[str]) -> Sequence[News]:
        """What changes mean for those who show `names`; called once for all of them."""


Follow = Callable[[Request, str, Principal], Awaitable[AsyncIterator[ServerEvent]]]
"""What one viewer follows by himself; Last-Event-ID is the position in it. Raises AtollError before it begins."""
Topics = frozenset[tuple[str, str]]


class _Viewer:
    """One open stream, and what waits to go over it."""

    def __init__(self, topics: Topics, who: Principal) -> None:
        self.topics = topics
        self._who = who
        self._waiting: deque[bytes] = deque()
        self._dropped = False
        self._something = asyncio.Event()

    def may_see(self, kind: str, news: News) -> bool:
        shown = (kind, news.name) in self.topics
        return shown and (news.owner is None or self._who.administrator or news.owner == self._who.person)

    def put(self, body: bytes) -> None:
        if len(self._waiting) >= _MOST_WAITING:
            self._waiting.popleft()
            self._dropped = True
        self._waiting.append(body)
        self._something.set()

    async def take(self) -> AsyncIterator[Raw]:
        """What has come, all of it at once."""
        while True:
            await self._something.wait()
            self._something.clear()
            body = b"".join(self._waiting)
            self._waiting.clear()
            if self._dropped:
                self._dropped = False
                body += STALE.encode()
            yield Raw(body)


class Live:
    """The streams of this process. Rooms add to `sources` and `follows` by kind of topic."""

    def __init__(self, platform: Platform) -> None:
        self.sources: dict[str, Source] = {}
        self.follows: dict[str, Follow] = {}
        self._platform = platform
        self._viewers: set[_Viewer] = set()
        self._reader: asyncio.Task[None] | None = None

    async def open(self, request: Request, who: Principal, topics: Topics, since: int | None) -> EventStream:
        """The stream of a tab. `since`: what changed after this event, while the page was on its way, is told first.

        Raises NotFound, Denied and Invalid for topics.
        """
        known = {(kind, name) for kind, name in topics if kind in self.sources}

        def admit(connection: Connection) -> int:
            for kind, name in sorted(known):
                self.sources[kind].admit(connection, name, who)
            return events.last_id(connection)

        now = await self._platform.database.read(admit)
        follows = []
        for kind, name in sorted(topics - known):
            if kind not in self.follows:
                raise NotFound("no_such_topic", f"There is no live topic {kind[:40]!r}.", field="topic")
            follows.append(await self.follows[kind](request, name, who))
        viewer = _Viewer(frozenset(known), who)
        return EventStream(self._stream(viewer, follows, now if since is None else since, now), self._platform.stopping)

    async def _stream(
        self, viewer: _Viewer, follows: Sequence[AsyncIterator[ServerEvent]], since: int, now: int
    ) -> AsyncIterator[ServerEvent | Raw]:
        self._viewers.add(viewer)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read(now), name="live pages")
        try:
            yield OPENED
            # some of it may come again by the reader, but nothing falls between the two
            yield await self._missed(viewer, since)
            async with aclosing(_merged([viewer.take(), *follows], _LONGEST_SECONDS)) as found:
                async for event in found:
                    yield event
        finally:
            self._viewers.discard(viewer)
            if not self._viewers and self._reader is not None:
                self._reader.cancel()
                self._reader = None

    async def _missed(self, viewer: _Viewer, since: int) -> ServerEvent | Raw:
        """What changed between the making of a page and the opening of its stream."""
        _, told = await self._platform.database.read(partial(self._look, cursor=since, viewers=(viewer,)))
        if told is None:
            return STALE
        return Raw(b"".join(news.event.encode() for kind, news in told if viewer.may_see(kind, news)))

    async def _read(self, cursor: int | None) -> None:
        """Follow the outbox for all viewers, until cancelled."""
        while True:
            try:
                if cursor is None:
                    cursor = await self._platform.database.read(events.last_id)
                    self._tell(None)
                await self._platform.changes.wait(cursor, HEARTBEAT_SECONDS)
                await asyncio.sleep(_GATHER_SECONDS)
                cursor, told = await self._platform.database.read(
                    partial(self._look, cursor=cursor, viewers=self._viewers)
                )
            except AtollError:
                await asyncio.sleep(1)  # the streams go on when the database does
                continue
            except Exception:
                # one change that cannot be told must not end the stream of everybody else's
                log.exception("changes could not be told to live pages")
                cursor = None
                continue
            self._tell(told)

    def _look(
        self, connection: Connection, *, cursor: int, viewers: Collection[_Viewer]
    ) -> tuple[int, list[tuple[str, News]] | None]:
        """What changed after `cursor`: where to go on, and what to tell `viewers`; None: too much to tell."""
        changes = events.after(connection, cursor, _MOST_EVENTS + 1)
        if len(changes) > _MOST_EVENTS:
            return events.last_id(connection), None
        if not changes:
            return cursor, []
        # only now: who comes after this line looks for what he missed after it, and so finds these changes
        topics = {topic for viewer in tuple(viewers) for topic in viewer.topics}
        told = []
        for kind in sorted({kind for kind, _ in topics}):
            names = {name for each, name in topics if each == kind}
            told += [(kind, news) for news in self.sources[kind].news(connection, changes, names)]
        return changes[-1].id, told

    def _tell(self, told: Sequence[tuple[str, News]] | None) -> None:
        if told is None:
            for viewer in self._viewers:
                viewer.put(STALE.encode())
            return
        encoded = [(kind, news, news.event.encode()) for kind, news in told]
        for viewer in self._viewers:
            body = b"".join(body for kind, news, body in encoded if viewer.may_see(kind, news))
            if body:
                viewer.put(body)


async def _merged(sources: Sequence[AsyncIterator[Any]], seconds: float) -> AsyncGenerator[ServerEvent | Raw, None]:
    """What several sources yield, as it comes, for at most so long. Each is asked on once its last was taken."""
    deadline = time.monotonic() + seconds
    waiting = {asyncio.ensure_future(anext(source)): source for source in sources}
    try:
        while waiting and (left := deadline - time.monotonic()) > 0:
            done, _ = await asyncio.wait(waiting, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                source = waiting.pop(task)
                try:
                    event = task.result()
                except StopAsyncIteration:
                    continue
                yield event
                waiting[asyncio.ensure_future(anext(source))] = source
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for source in sources:
            await source.aclose()  # type: ignore[attr-defined]  # all are generators


# ---- what pages and their browsers use


def address(cursor: int, *topics: tuple[str, str], **more: str) -> str:
    """Where a page that was made at event `cursor` finds its stream; `more` is for the follows among its topics."""
    return "/live?" + urlencode([*topics, *more.items(), ("since", str(cursor))])


router = APIRouter()
_NO_TOPICS = {"since", "at"}


@router.get("/live")
async def follow_live(request: Request, who: Visitor, platform: Here) -> Response:
    """The stream of a tab."""
    items = request.query_params.multi_items()
    topics = frozenset((kind, name) for kind, name in items if kind not in _NO_TOPICS)
    if not topics or len(topics) > _MOST_TOPICS or any(len(name) > 100 for _, name in topics):
        raise Invalid("bad_topics", f"Name what the page shows, in at most {_MOST_TOPICS} topics.", field="topic")
    text = request.query_params.get("since", "")
    since = int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else None
    live: Live = request.app.state.live
    return await live.open(request, who, topics, since)
