"""Following a job's output to its end: over the waiting, over retries, from the site to the log store.

A follower is only a position, `attempt:stdout:stderr`, that travels as the id of each event; so it goes on after a
lost connection or a restart of the platform where it was.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from atoll.core.errors import Invalid, Unavailable
from atoll.core.ids import JobRef
from atoll.core.states import ENDED
from atoll.faces.http.platform import Platform
from atoll.faces.http.sse import ServerEvent
from atoll.jobs.logs import LARGEST, Piece, Stream, Tried, choose, load, read_attempt
from atoll.store import events
from atoll.store.attempts import AttemptRow
from atoll.store.people import Principal

_POSITION = re.compile(r"(\d{1,9}):(\d{1,18}):(\d{1,18})")
_CHUNK = 64 * 1024
_LIVE_SECONDS = 0.25
"""How soon after output was written it is looked for at the site."""
_LEAST_SECONDS = 0.1
_IDLE_SECONDS = 5.0
"""How often a job is looked at that writes nothing because it does not run; changes come at once."""


@dataclass(slots=True)
class Position:
    """How far a follower is: the attempt's number, and bytes of each stream."""

    attempt: int = 0
    offsets: dict[Stream, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})

    def __str__(self) -> str:
        return f"{self.attempt}:{self.offsets['stdout']}:{self.offsets['stderr']}"

    @classmethod
    def parse(cls, text: str | None) -> "Position | None":
        """The position in a Last-Event-ID. Raises Invalid."""
        if not text:
            return None
        match = _POSITION.fullmatch(text)
        if match is None:
            raise Invalid(
                "bad_event_id", "Last-Event-ID is not one of this stream: pass on the last event's id, unchanged.",
                field="Last-Event-ID",
            )  # fmt: skip
        return cls(int(match[1]), {"stdout": int(match[2]), "stderr": int(match[3])})


def whole_characters(data: bytes) -> int:
    """How many bytes of `data` do not end within a UTF-8 character."""
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte >= 0xC0:
            needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) - back if needed > back else len(data)
        if byte < 0x80:
            break
    return len(data)


class Follower:
    """One client that follows one job.

    `attempt`: only this one, else from the current one through all that follow. `tail`: lines of each stream to begin
    with, else all. `position`: where an earlier connection was. `most_behind`: who is more bytes behind what is written
    goes on this far before its end, and is told by the offset.
    """

    def __init__(
        self, platform: Platform, ref: JobRef, who: Principal, streams: tuple[Stream, ...],
        attempt: int | None = None, tail: int | None = None, position: Position | None = None,
        most_behind: int | None = None,
    ) -> None:  # fmt: skip
        self._platform = platform
        self._ref = ref
        self._who = who
        self._streams = streams
        self._attempt = attempt
        self._tail = tail
        self._at = position
        self._most_behind = most_behind
        self._all_read: dict[Stream, bool] = {}
        self._cursor = 0
        self._pause = _LIVE_SECONDS

    async def start(self) -> Tried:
        """Look the job up. Raises NotFound and Invalid before anything is answered."""
        self._cursor = await self._platform.database.read(events.last_id)
        tried = await self._load()
        choose(tried, self._ref, self._attempt)
        return tried

    async def follow(self, tried: Tried) -> AsyncIterator[ServerEvent]:
        """The events of the stream, from what `start` found on."""
        yield ServerEvent("opened", {"job": str(self._ref)}, str(self._at) if self._at else None)
        told: object = None
        while True:
            state = self._state(tried)
            if state != told:
                told = state
                yield ServerEvent("state", state)
            row = self._current(tried)
            wrote = False
            if row is not None:
                async for event in self._news(tried, row):
                    wrote = True
                    yield event
                if self._attempt is None and self._is_done() and row is not tried.attempts[-1]:
                    self._at = Position(row.number + 1)  # it was tried again
                    continue
            if self._is_over(tried, row):
                yield ServerEvent("end", {"state": state["state"], "exit_code": _exit_code(tried, row)})
                return
            if not wrote:
                await self._wait(tried, row)
            tried = await self._reload(tried)

    async def _load(self) -> Tried:
        return await self._platform.database.read(lambda connection: load(connection, self._ref, self._who))

    async def _reload(self, tried: Tried) -> Tried:
        """As it is now; as it was where the database does not answer."""
        try:
            return await self._load()
        except Unavailable:
            await asyncio.sleep(_LIVE_SECONDS)
            return tried

    def _state(self, tried: Tried) -> dict[str, Any]:
        short = tried.found.summary()
        number = tried.attempts[-1].number if tried.attempts else None
        return {"state": short["state"], "reason": short["reason"], "attempt": number}

    def _current(self, tried: Tried) -> AttemptRow | None:
        """The attempt to read from; None while there is none."""
        if self._attempt is not None:
            return choose(tried, self._ref, self._attempt)
        if self._at is None:
            return tried.attempts[-1] if tried.attempts else None
        at = self._at.attempt
        return next((row for row in tried.attempts if row.number >= at), None)

    async def _news(self, tried: Tried, row: AttemptRow) -> AsyncIterator[ServerEvent]:
        """What was written and not yet told."""
        try:
            if self._at is None:
                self._at = await self._begin(tried, row)
            elif self._at.attempt != row.number:
                self._at = Position(row.number)
            self._all_read = dict.fromkeys(self._streams, False)
            for stream in self._streams:
                async for event in self._stream_news(tried, row, stream, self._at):
                    yield event
        except Unavailable:
            return  # the site or the database is silent: what is still to come is told when it answers

    async def _stream_news(
        self, tried: Tried, row: AttemptRow, stream: Stream, at: Position
    ) -> AsyncIterator[ServerEvent]:
        while True:
            piece = await read_attempt(self._platform, tried, row, stream, at.offsets[stream], _CHUNK)
            if self._most_behind is not None and piece.size - at.offsets[stream] > self._most_behind:
                at.offsets[stream] = piece.size - self._most_behind
                continue
            at_end = piece.complete and piece.end >= piece.size
            data = piece.data if at_end else piece.data[: whole_characters(piece.data)]
            if piece.complete and not data:
                data = piece.data  # the rest of this character was not kept
            if data:
                at.offsets[stream] = piece.offset + len(data)
                text = data.decode("utf-8", "replace")
                chunk = {"stream": stream, "attempt": row.number, "offset": piece.offset, "text": text}
                yield ServerEvent("chunk", chunk, str(at))
            if at_end:
                self._all_read[stream] = True
            if at_end or not data:
                return

    async def _begin(self, tried: Tried, row: AttemptRow) -> Position:
        """Where to begin in an attempt that was not followed before."""
        at = Position(row.number)
        if self._tail is not None:
            for stream in self._streams:
                piece = await read_attempt(self._platform, tried, row, stream, -LARGEST, LARGEST)
                at.offsets[stream] = _tail_offset(piece, self._tail)
        return at

    def _is_done(self) -> bool:
        return bool(self._all_read) and all(self._all_read.values())

    def _is_over(self, tried: Tried, row: AttemptRow | None) -> bool:
        if self._attempt is None and tried.found.state not in ENDED:
            return False
        return row is None or self._is_done()

    async def _wait(self, tried: Tried, row: AttemptRow | None) -> None:
        """Wait for news: of the job by its events, of what it writes by asking its site again, ever less often."""
        began = time.monotonic()
        is_live = row is not None and not tried.is_final(row)
        seconds = self._pause if is_live else _IDLE_SECONDS
        self._pause = min(2 * self._pause, _LIVE_SECONDS * 4)
        self._cursor = await self._platform.changes.wait(self._cursor, seconds)
        left = _LEAST_SECONDS - (time.monotonic() - began)
        if left > 0:
            await asyncio.sleep(left)  # on a busy platform something changes all the time


def _exit_code(tried: Tried, row: AttemptRow | None) -> int | None:
    code: int | None = None
    if row is not None:
        code = row.exit_code
    elif tried.found.row is not None:
        code = tried.found.row.exit_code
    return code


def _tail_offset(piece: Piece, lines: int) -> int:
    """Where the last `lines` lines of a piece that ends its stream begin."""
    place = len(piece.data)
    if piece.data.endswith(b"\n"):
        place -= 1
    for _ in range(lines):
        place = piece.data.rfind(b"\n", 0, place)
        if place < 0:
            return piece.offset
    return piece.offset + place + 1 if lines else piece.end
