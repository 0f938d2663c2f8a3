"""Following a job's output to its end: over the waiting, over retries, from the site to the log store.

A follower is only a position, `attempt:stdout:stderr`, that travels as the id of each event; so it goes on after a
lost connection or a restart of the platform where it was.
"""

import asyncio
import re
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


@dataclass(slots=True)
class Follower:
    """One client that follows one job."""

    platform: Platform
    ref: JobRef
    who: Principal
    streams: tuple[Stream, ...]
    attempt: int | None
    """Only this attempt; None: from the current one through all that follow."""
    tail: int | None
    """Lines of each stream to begin with; None: all."""
    position: Position | None
    """Where an earlier connection was."""

    async def follow(self) -> AsyncIterator[ServerEvent]:
        """The events of the stream, see the API's description."""
        at = self.position
        told: tuple[Any, ...] = ()
        cursor = await self.platform.database.read(events.last_id)
        tried = await self._load()
        choose(tried, self.ref, self.attempt)
        yield ServerEvent("opened", {"job": str(self.ref)}, str(at) if at else None)
        while True:
            row = self._current(tried, at)
            short = tried.found.summary()
            state = (short["state"], short["reason"], tried.attempts[-1].number if tried.attempts else None)
            if state != told:
                told = state
                yield ServerEvent("state", {"state": state[0], "reason": state[1], "attempt": state[2]})
            finished = wrote = False
            if row is not None:
                if at is None or at.attempt != row.number:
                    at = await self._begin(tried, row)
                finished = True
                for stream in self.streams:
                    async for piece in self._new(tried, row, stream, at):
                        wrote = True
                        yield piece
                    finished = finished and self._all_read(tried, row)
            if finished and row is not None and self.attempt is None and row is not tried.attempts[-1]:
                at = Position(row.number + 1)
                continue
            if self._is_over(tried, row, finished):
                yield ServerEvent("end", {"state": short["state"], "exit_code": self._exit_code(tried, row)})
                return
            if not wrote:
                running = row is not None and not tried.is_final(row)
                cursor = await self._wait(cursor, _LIVE_SECONDS if running else _IDLE_SECONDS)
            tried = await self._load()
