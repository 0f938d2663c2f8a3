"""Hands placed attempts to their site.

Before the call its deadline is written down, and moved on for as long as the call goes on. Whatever happens to the
call or to us, the attempts then stay `submitting` until the engine says that it has them, or a complete observation
that began after the deadline says that it has not; only then are they handed over again.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from sqlalchemy import Connection

from atoll.control import launches
from atoll.control.work import SiteWork
from atoll.core.errors import AtollError
from atoll.core.states import Outcome
from atoll.drivers.base import Answer, DriverError, Launch, Refused, Submitted, Unknown, sending_seconds
from atoll.store import attempts
from atoll.store.attempts import AttemptRow, AttemptState, End
from atoll.store.leases import Lease

log = logging.getLogger(__name__)
BATCH = 500
"""Most attempts in one call."""
_BATCH_BYTES = 32 << 20
"""Most bytes of files in one call of several attempts."""
_LARGE = 8 << 20
"""Bytes of files beyond which an attempt has a call of its own, beside the others."""


class Submitter:
    """Hands over in batches, and what has large files one by one beside them, so that these hold up nobody else."""

    def __init__(self, work: SiteWork, on_large: Callable[[], None]) -> None:
        self._work = work
        self._on_large = on_large
        self._large: list[str] = []
        """Placed attempts with large files."""

    async def step(self, lease: Lease) -> float | None:
        """Hand over at most BATCH placed attempts; 0 where there may be more."""
        work, limit = self._work, BATCH + len(self._large)

        def read(connection: Connection) -> tuple[list[AttemptRow], dict[str, int]]:
            rows = attempts.at_site(connection, work.site, [AttemptState.PLACED], limit)
            return rows, launches.sizes(connection, rows, work.tools.files)

        placed, sizes = await work.tools.database.read(read)
        ids = [row.id for row in placed if row.stop_reason is None and row.id in sizes]
        # those that were tried go behind the others
        tried = {row.id: row.submit_began_at or 0 for row in placed}
        self._large = sorted((each for each in ids if sizes[each] > _LARGE), key=lambda each: (tried[each], each))
        if self._large:
            self._on_large()
        batch: list[str] = []
        total = 0
        for each in ids:
            if sizes[each] <= _LARGE and len(batch) < BATCH and total + sizes[each] <= _BATCH_BYTES:
                batch.append(each)
                total += sizes[each]
        await self._hand_over(batch, lease)
        return 0 if len(placed) == limit or len(batch) + len(self._large) < len(ids) else None

    async def step_large(self, lease: Lease) -> float | None:
        """Hand over one of those with large files; 0 where there are more."""
        if not self._large:
            return None
        await self._hand_over([self._large.pop(0)], lease)
        return 0

    async def _hand_over(self, ids: Sequence[str], lease: Lease) -> None:
        work, tools = self._work, self._work.tools
        if not ids:
            return

        def begin(connection: Connection) -> list[Launch]:
            now = tools.now()
            rows = attempts.begin_submitting(connection, ids, now, now + _micros(work))
            batch = launches.load(connection, rows, tools.files)
            accounts = {launch.attempt_id: launch.account for launch in batch if launch.account is not None}
            attempts.set_accounts(connection, accounts)
            return batch

        batch = await tools.guarded(lease, begin)
        if not batch:
            return
        tools.check(lease)
        call = asyncio.create_task(self._submit(batch))
        keeping = asyncio.create_task(self._keep_open([launch.attempt_id for launch in batch], lease))
        try:
            await asyncio.wait({call, keeping}, return_when=asyncio.FIRST_COMPLETED)
            if call.done():
                answers = call.result()
            else:
                keeping.result()  # raises where the lease is not ours any more
                answers = [Unknown(launch.attempt_id, "It was stopped while it was sent.") for launch in batch]
        finally:
            for task in (call, keeping):
                task.cancel()
            await asyncio.gather(call, keeping, return_exceptions=True)
        await tools.guarded(lease, lambda connection: _apply(connection, answers, tools.now()))

    async def _submit(self, batch: Sequence[Launch]) -> list[Answer]:
        work = self._work
        try:
            async with asyncio.timeout(work.call_seconds + sending_seconds(batch)):
                return await work.driver.submit(batch)
        except (DriverError, TimeoutError) as error:
            # it may have landed all the same: only an observation can tell
            words = str(error) or "the site did not answer in time"
            log.warning("site %s: %d attempts may or may not have been taken: %s", work.site, len(batch), words)
            return [Unknown(launch.attempt_id, words) for launch in batch]

    async def _keep_open(self, ids: Sequence[str], lease: Lease) -> None:
        """Move the deadline of a call on while it goes on; returns when all in it are to stop."""
        work, tools = self._work, self._work.tools

        def keep(connection: Connection) -> int:
            return attempts.keep_submitting(connection, ids, tools.now() + _micros(work))

        kept, left = time.monotonic(), len(ids)
        while left:
            await asyncio.sleep(work.call_seconds / 6)
            tools.check(lease)
            try:
                left = await tools.guarded(lease, keep)
                kept = time.monotonic()
            except AtollError:
                if time.monotonic() - kept > work.call_seconds / 2:
                    raise  # before the deadline that was written last


def _micros(work: SiteWork) -> int:
    """How far ahead of now the deadline of a call lies."""
    return int(work.call_seconds * 1_000_000)


def _apply(connection: Connection, answers: Sequence[Answer], now: int) -> None:
    native = {answer.attempt_id: answer.native_id for answer in answers if isinstance(answer, Submitted)}
    refused = [
        End(answer.attempt_id, Outcome.REFUSED, message=answer.message, permanent=answer.permanent)
        for answer in answers
        if isinstance(answer, Refused)
    ]
    if native:
        attempts.submitted(connection, native, now)
    if refused:
        attempts.ended(connection, refused, now)
