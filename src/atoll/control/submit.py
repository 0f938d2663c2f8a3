"""Hands placed attempts to their site.

Before the call its deadline is written down. Whatever happens to the call or to us, the attempts then stay
`submitting` until the engine says that it has them, or a complete observation that began after the deadline says
that it has not; only then are they handed over again.
"""

import asyncio
import logging
from collections.abc import Sequence

from sqlalchemy import Connection

from atoll.control import launches
from atoll.control.work import SiteWork
from atoll.core.states import Outcome
from atoll.drivers.base import Answer, DriverError, Launch, Refused, Submitted, Unknown
from atoll.store import attempts
from atoll.store.attempts import AttemptState, End
from atoll.store.leases import Lease

log = logging.getLogger(__name__)
BATCH = 500
"""Most attempts in one call."""


async def step(work: SiteWork, lease: Lease) -> float | None:
    """Hand over at most BATCH placed attempts; 0 where there may be more."""
    tools = work.tools
    placed = await tools.database.read(
        lambda connection: attempts.at_site(connection, work.site, [AttemptState.PLACED], BATCH)
    )
    ids = [row.id for row in placed if row.stop_reason is None]
    if not ids:
        return None
    began = tools.now()
    deadline = began + int(work.call_seconds * 1_000_000)

    def begin(connection: Connection) -> list[Launch]:
        rows = attempts.begin_submitting(connection, ids, began, deadline)
        batch = launches.load(connection, rows, tools.files)
        accounts = {launch.attempt_id: launch.account for launch in batch if launch.account is not None}
        attempts.set_accounts(connection, accounts)
        return batch

    batch = await tools.guarded(lease, begin)
    if not batch:
        return None
    tools.check(lease)
    answers = await _submit(work, batch)
    await tools.guarded(lease, lambda connection: _apply(connection, answers, tools.now()))
    return 0 if len(placed) == BATCH else None


async def _submit(work: SiteWork, batch: Sequence[Launch]) -> list[Answer]:
    try:
        async with asyncio.timeout(work.call_seconds):
            return await work.driver.submit(batch)
    except (DriverError, TimeoutError) as error:
        # it may have landed all the same: only an observation can tell
        words = str(error) or "the site did not answer in time"
        log.warning("site %s: %d attempts may or may not have been taken: %s", work.site, len(batch), words)
        return [Unknown(launch.attempt_id, words) for launch in batch]


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
