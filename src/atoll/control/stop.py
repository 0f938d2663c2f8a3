"""Stops attempts that are to be stopped, and says it again until they have ended.

Those that are to be pulled back out of a site's queue too: their drivers leave alone what has begun.
"""

from sqlalchemy import Connection

from atoll.control.work import SiteWork, held
from atoll.drivers.base import StopReason, StopRequest
from atoll.store import attempts
from atoll.store.attempts import AttemptState
from atoll.store.leases import Lease

REPEAT = 10.0
"""Seconds after which a site that still runs an attempt is told again."""


async def step(work: SiteWork, lease: Lease) -> float | None:
    """Stop what shall stop: at once where the site has not heard of it yet, else by the driver."""
    tools = work.tools
    now = tools.now()
    rows = await tools.database.read(
        lambda connection: attempts.to_stop(connection, work.site, now - int(REPEAT * 1_000_000))
    )
    if not rows:
        return None
    unsubmitted = [row.id for row in rows if row.state == AttemptState.PLACED]
    if unsubmitted:
        await tools.guarded(lease, lambda connection: attempts.end_unsubmitted(connection, unsubmitted, tools.now()))
    live = [row for row in rows if row.state != AttemptState.PLACED]
    if live:
        tools.check(lease)
        await work.driver.stop(
            [StopRequest(held(row), StopReason(row.stop_reason), float(row.grace or 0)) for row in live]
        )

        def note(connection: Connection) -> None:
            attempts.stop_sent(connection, {row.id: row.stop_reason for row in live}, tools.now())

        await tools.guarded(lease, note)
    return REPEAT
