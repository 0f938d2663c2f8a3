"""Output of attempts: from the log store once they have ended, from their site while they run."""

import asyncio
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import Connection

from atoll.control.work import held
from atoll.core.errors import Invalid, NotFound, Unavailable
from atoll.core.ids import JobRef
from atoll.core.states import ENDED, JobState
from atoll.drivers.base import DriverError, Logs
from atoll.faces.http.platform import Platform
from atoll.jobs.service import Found, find
from atoll.store import arrays, attempts, logs
from atoll.store.attempts import AttemptRow, AttemptState
from atoll.store.logs import StoredLog
from atoll.store.people import Principal

Stream = Literal["stdout", "stderr"]
LARGEST = 1 << 20
"""Bytes in one answer."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a stream: bytes and where they begin, how much was written so far, whether that is all."""

    offset: int
    data: bytes
    size: int
    complete: bool
    omitted: int = 0
    """Bytes between head and tail that were not kept."""

    @property
    def end(self) -> int:
        """Where the next piece begins."""
        return self.offset + len(self.data)


_NOTHING = Piece(0, b"", 0, complete=False)


@dataclass(frozen=True, slots=True)
class Tried:
    """A job and its attempts, as they were a moment ago."""

    found: Found
    attempts: list[AttemptRow]

    def is_final(self, row: AttemptRow) -> bool:
        """Whether the attempt's output has been brought home, so that the log store has all there will be."""
        job = self.found.row
        if row.state != AttemptState.ENDED:
            return False
        collecting = job is not None and job.attempt_id == row.id and job.state == JobState.FINISHING
        return not collecting


def load(connection: Connection, ref: JobRef, who: Principal) -> Tried:
    """A job or one task, with its attempts. Raises NotFound, and Invalid for a whole array."""
    found = find(connection, ref, who)
    if found.task is None and arrays.is_array(found.whole):
        raise Invalid(
            "name_a_task", f"Job {ref.job} is an array, and each task has output of its own; name one: {ref.job}[0].",
            field="id",
        )  # fmt: skip
    return Tried(found, attempts.of_job(connection, found.row.id) if found.row is not None else [])


def choose(tried: Tried, ref: JobRef, number: int | None) -> AttemptRow | None:
    """The attempt of a number, by default the last; None where there is none yet. Raises NotFound."""
    if number is None:
        return tried.attempts[-1] if tried.attempts else None
    for row in tried.attempts:
        if row.number == number:
            return row
    raise NotFound("no_such_attempt", f"Job {ref} has had no attempt {number}.", field="attempt")


async def read(
    platform: Platform, ref: JobRef, who: Principal, stream: Stream, number: int | None, offset: int, limit: int
) -> Piece:
    """At most `limit` bytes of a stream from `offset` (negative: from the end)."""
    tried = await platform.database.read(lambda connection: load(connection, ref, who))
    row = choose(tried, ref, number)
    if row is None:
        ended = tried.found.state in ENDED
        return Piece(0, b"", 0, complete=ended)
    return await read_attempt(platform, tried, row, stream, offset, limit)


async def read_attempt(
    platform: Platform, tried: Tried, row: AttemptRow, stream: Stream, offset: int, limit: int
) -> Piece:
    """As `read`, of one attempt. Raises Unavailable where only its site has the output, and does not answer."""
    stored = await platform.database.read(lambda connection: logs.find(connection, row.id, stream))
    if stored is not None:
        return await _from_store(platform, stored, offset, limit)
    if tried.is_final(row):
        # nothing was written, or what was has been purged
        return Piece(0, b"", 0, complete=True)
    live = await _from_site(platform, row, stream, offset, limit)
    if live is not None:
        return live
    # the site does not know it: not yet, or no longer, because its output came home just now
    stored = await platform.database.read(lambda connection: logs.find(connection, row.id, stream))
    return await _from_store(platform, stored, offset, limit) if stored is not None else _NOTHING


async def _from_store(platform: Platform, stored: StoredLog, offset: int, limit: int) -> Piece:
    try:
        start, data = await asyncio.to_thread(platform.logs.read, stored, offset, limit)
    except OSError as error:
        raise Unavailable("log_store", f"The log store cannot be read ({error.strerror}).", retry_after=30) from error
    return Piece(start, data, stored.size, complete=True, omitted=stored.omitted)


async def _from_site(platform: Platform, row: AttemptRow, stream: Stream, offset: int, limit: int) -> Piece | None:
    if row.submit_began_at is None:
        return _NOTHING
    driver = platform.driver_for(row.site)
    if driver is None:
        raise Unavailable(
            "site_elsewhere",
            f"The output is still at site {row.site}, which cannot be reached from this part of the platform now.",
            retry_after=5,
        )
    if not isinstance(driver, Logs):
        return _NOTHING  # it comes with the attempt's end
    try:
        chunk = await driver.read_log(held(row), stream, offset, limit)
    except KeyError:
        return None
    except DriverError as error:
        raise Unavailable(
            "site_silent", f"The output is still at site {row.site}, which does not answer: {error}", retry_after=10
        ) from error
    return Piece(chunk.offset, chunk.data, chunk.size, complete=False)
