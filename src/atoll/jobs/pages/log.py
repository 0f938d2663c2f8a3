"""Output of a job on its page: the end of it, what came before by link, a search, and what is written meanwhile.

However long a log is, only pieces of it are read, by their place. What a terminal would obey is taken out or made
visible, so that output can neither hide anything nor pretend to be something else.
"""

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from fastapi import Request

from atoll.core.errors import NotFound, Unavailable
from atoll.core.ids import JobRef
from atoll.core.states import ENDED
from atoll.faces.http.platform import Platform
from atoll.faces.http.sse import ServerEvent
from atoll.jobs.follow import Follower, Position
from atoll.jobs.logs import LARGEST, Stream, Tried, choose, load, read_attempt
from atoll.store.attempts import AttemptRow
from atoll.store.people import Principal

LINES = 500
"""Most lines on a page; a browser keeps as many."""
_WINDOW = 128 * 1024
_LONGEST_LINE = 4_000
_SEARCHED = 16
"""Pieces of LARGEST bytes that one search looks through."""
_MOST_FOUND = 200
_BEHIND = 1 << 20
"""Who is so many bytes behind what a job writes goes on at its end."""
_PACE_SECONDS = 0.1

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\-_])")
"""Sequences that colour text, move the cursor or name the window of a terminal (ECMA-48)."""
_VISIBLE = {code: 0x2400 + code for code in range(32) if chr(code) not in "\t\n\r"} | {0x7F: 0x2421}
# direction marks and invisible letters, which make a line read otherwise than it is
_HIDDEN = dict.fromkeys([*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F], 0xFFFD)
_HARMLESS = _VISIBLE | _HIDDEN


def harmless(text: str) -> str:
    """Output without what would act on a terminal or a reader's eye; tabs and line ends stay."""
    return _ESCAPES.sub("", text).translate(_HARMLESS)


@dataclass(frozen=True, slots=True)
class Line:
    """One line: where it begins, in bytes, and what it says."""

    offset: int
    text: str


@dataclass(frozen=True)
class LogView:
    """What is shown of a job's output."""

    stream: Stream = "stdout"
    attempt: int | None = None
    """Its number; None: there is none yet."""
    lines: tuple[Line, ...] = ()
    earlier: int | None = None
    """Where the lines begin, if there are earlier ones."""
    end: int = 0
    """Where what is shown ends."""
    position: str = ""
    """Where to follow from; empty: what is shown is not the end."""
    size: int = 0
    omitted: int = 0
    find: str = ""
    further: int | None = None
    """From where on the search goes back further; None: all was searched."""
    problem: str = ""
    """Why it cannot be read now."""


@dataclass(frozen=True)
class Wanted:
    """What of the output is asked for."""

    stream: Stream = "stdout"
    attempt: int | None = None
    before: int | None = None
    find: str = ""


async def view(platform: Platform, ref: JobRef, who: Principal, wanted: Wanted) -> LogView:
    """Read what is wanted. Raises NotFound, and Invalid for a whole array."""
    tried = await platform.database.read(lambda connection: load(connection, ref, who))
    row = choose(tried, ref, wanted.attempt)
    empty = LogView(wanted.stream, row.number if row else None, find=wanted.find)
    if row is None:
        return empty if tried.found.state in ENDED else replace(empty, position=str(Position()))
    try:
        if wanted.find:
            return await _search(platform, tried, row, wanted, empty)
        return await _tail(platform, tried, row, wanted, empty)
    except Unavailable as error:
        return replace(empty, problem=error.sentence)


async def _tail(platform: Platform, tried: Tried, row: AttemptRow, wanted: Wanted, empty: LogView) -> LogView:
    """The last lines, or those before a place."""
    if wanted.before is None:
        piece = await read_attempt(platform, tried, row, wanted.stream, -_WINDOW, _WINDOW)
    else:
        start = max(0, wanted.before - _WINDOW)
        piece = await read_attempt(platform, tried, row, wanted.stream, start, wanted.before - start)
    lines = _lines(piece.offset, piece.data)
    if piece.offset and len(lines) > 1:
        lines = lines[1:]  # it began somewhere before
    lines = lines[-LINES:]
    follows = wanted.before is None and row is tried.attempts[-1] and tried.found.state not in ENDED
    position = await _position(platform, tried, row, wanted.stream, piece.end) if follows else ""
    first = lines[0].offset if lines else 0
    return replace(
        empty, lines=tuple(lines), earlier=first or None, end=piece.end, position=position, size=piece.size,
        omitted=piece.omitted,
    )  # fmt: skip


async def _position(platform: Platform, tried: Tried, row: AttemptRow, stream: Stream, end: int) -> str:
    """Where to follow from: the other stream from its end too, which is read when it is looked at."""
    other: Stream = "stderr" if stream == "stdout" else "stdout"
    beside = await read_attempt(platform, tried, row, other, -1, 1)
    return str(Position(row.number, {stream: end, other: beside.size}))


def _lines(offset: int, data: bytes) -> list[Line]:
    """Lines with their places. Of what overwrote itself, as bars of progress do, the last is shown."""
    found = []
    for part in data.split(b"\n"):
        text = part[: 4 * _LONGEST_LINE].rstrip(b"\r").rpartition(b"\r")[2].decode("utf-8", "replace")
        found.append(Line(offset, _shortened(harmless(text))))
        offset += len(part) + 1
    return found[:-1] if data.endswith(b"\n") or not data else found


def _shortened(text: str) -> str:
    return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + " …"


async def _search(platform: Platform, tried: Tried, row: AttemptRow, wanted: Wanted, empty: LogView) -> LogView:
    """The last lines that have the text, in letters of any size, before a place or the end."""
    needle = wanted.find.casefold()
    found: list[Line] = []
    piece = await read_attempt(platform, tried, row, wanted.stream, -1, 1)
    place, size = piece.size if wanted.before is None else wanted.before, piece.size
    for _ in range(_SEARCHED):
        if place <= 0 or len(found) >= _MOST_FOUND:
            break
        start = max(0, place - LARGEST)
        piece = await read_attempt(platform, tried, row, wanted.stream, start, place - start)
        lines = await asyncio.to_thread(_lines, piece.offset, piece.data)
        cut = piece.offset > 0 and len(lines) > 1
        found = [line for line in lines[cut:] if needle in line.text.casefold()] + found
        # the line that was cut belongs to the piece before; where the middle was not kept, on goes the head
        place = min(lines[cut].offset if lines else start, start + LARGEST - 1) if piece.data else start
    found = found[-_MOST_FOUND:]
    further = (found[0].offset if len(found) == _MOST_FOUND else place) if place > 0 else None
    return replace(empty, lines=tuple(found), size=size, omitted=piece.omitted, further=further)


async def follow(request: Request, name: str, who: Principal) -> AsyncIterator[ServerEvent]:
    """The topic `log`: what a job writes, from the place `at` in the address on. Raises NotFound and Invalid."""
    platform: Platform = request.app.state.platform
    position = Position.parse(request.headers.get("last-event-id") or request.query_params.get("at"))
    if position is None:
        raise NotFound("no_position", "Say where to follow the log from.", field="at")
    follower = Follower(
        platform, JobRef.parse(name), who, ("stdout", "stderr"), position=position, most_behind=_BEHIND
    )  # fmt: skip
    return _made_harmless(follower, await follower.start())


async def _made_harmless(follower: Follower, tried: Tried) -> AsyncIterator[ServerEvent]:
    async for event in follower.follow(tried):
        if event.name == "chunk":
            yield ServerEvent("log", _chunk(event), event.id)
            # nobody reads faster; and what is too far behind is left out
            await asyncio.sleep(_PACE_SECONDS)


def _chunk(event: ServerEvent) -> dict[str, Any]:
    end = Position.parse(event.id)
    assert end is not None
    chunk: dict[str, Any] = event.data
    return {**chunk, "end": end.offsets[chunk["stream"]], "text": harmless(chunk["text"])}
