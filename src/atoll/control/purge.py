"""Removes what is old by the rules of the configuration, in small bites so that nobody waits for it."""

import asyncio
import logging
from dataclasses import dataclass

from sqlalchemy import Connection

from atoll.control.work import Tools
from atoll.store import devices, events, files, idempotency, logins, purge, spent, tries
from atoll.store.leases import Lease

log = logging.getLogger(__name__)

LEASE = "purge"
EVERY = 600.0
"""Seconds between two rounds."""
_BITE = 500
_DAY = 86_400 * 1_000_000
_HALF_LIVES = 12
"""After so many of them, what was used is forgotten."""


@dataclass(frozen=True)
class Ages:
    """For how many days things are kept."""

    jobs: float = 90
    """Ended jobs with their attempts and logs."""
    events: float = 14
    files: float = 14
    """Uploaded files that no job named meanwhile."""
    idempotency: float = 2
    login_idle: float = 0.5
    """Logins of browsers that were not used for so long."""
    login_longest: float = 30
    """Logins of browsers, used or not."""


async def step(tools: Tools, ages: Ages, lease: Lease) -> float | None:
    """One round; 0 where there is more."""
    now = tools.now()

    def bite(connection: Connection) -> tuple[int, list[str], list[str]]:
        old = purge.old_jobs(connection, now - int(ages.jobs * _DAY), 50)
        rows = purge.with_tasks(connection, old, _BITE) if old else []
        attempts = purge.remove_jobs(connection, rows)
        unused = files.unused(connection, now - int(ages.files * _DAY), _BITE)
        files.drop(connection, unused)
        count = events.purge(connection, now - int(ages.events * _DAY), 10 * _BITE)
        count += spent.purge(connection, now - _HALF_LIVES * tools.policy.half_life * 1_000_000)
        count += idempotency.purge(connection, now - int(ages.idempotency * _DAY), 10 * _BITE)
        count += logins.purge(connection, now - int(ages.login_idle * _DAY), now - int(ages.login_longest * _DAY))
        count += logins.purge_links(connection, now) + devices.purge(connection, now) + tries.purge(connection, now)
        return count + len(rows), attempts, unused

    count, attempts, unused = await tools.guarded(lease, bite)

    def remove() -> None:
        for attempt_id in attempts:
            tools.logs.remove(attempt_id)
        tools.files.sweep(now / 1_000_000 - 86_400)

    def remove_files(connection: Connection) -> None:
        # in a write of its own: what was sent again meanwhile is known again, and stays
        for sha256 in unused:
            if not files.is_known(connection, sha256):
                tools.files.remove(sha256)

    await asyncio.to_thread(remove)
    if unused:
        await tools.guarded(lease, remove_files)
    if count or unused:
        log.info("purged %d rows, %d logs, %d files", count, len(attempts), len(unused))
        return 1.0
    return EVERY
