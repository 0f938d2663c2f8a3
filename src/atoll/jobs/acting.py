"""Carrying an action out, bite by bite, and sending signals: what the routes call."""

import asyncio
from signal import Signals as Number
from typing import Any

from sqlalchemy import Connection

from atoll.control.work import held
from atoll.core.clock import to_micros
from atoll.core.errors import Conflict, Unavailable
from atoll.core.ids import JobRef
from atoll.drivers.base import DriverError, Signals
from atoll.faces.http.platform import Platform
from atoll.jobs import service, view
from atoll.jobs.actions import BITE, Action, Target, running_attempts
from atoll.store.attempts import AttemptRow
from atoll.store.people import Principal

Document = dict[str, Any]
_AT_ONCE = 8


async def act(platform: Platform, action: Action, ref: JobRef, who: Principal) -> Document:
    """Carry out an action: how many jobs and tasks it changed, and the job as it is then."""
    changed = 0
    rest: Target | None = Target(ref)
    while rest is not None:
        at, now = rest, to_micros(platform.clock())
        bite = await platform.database.write(lambda connection, at=at, now=now: action(connection, at, who, now))  # type: ignore[misc]  # mypy and defaults of lambdas
        changed += bite.changed
        rest = bite.rest
        platform.changed()
    return await _answer(platform, ref, who, changed)


async def _answer(platform: Platform, ref: JobRef, who: Principal, changed: int) -> Document:
    def read(connection: Connection) -> Document:
        if ref.tasks is not None and len(ref.tasks) == 1:
            return service.find(connection, ref, who).summary()
        return view.summary(service.find_whole(connection, ref, who))

    return {"changed": changed, "job": await platform.database.read(read)}


async def send_signal(platform: Platform, ref: JobRef, who: Principal, name: str) -> Document:
    """Send a signal to what runs of a job. Raises Conflict where nothing does, Unavailable where its site is silent."""
    attempts = await platform.database.read(lambda connection: running_attempts(connection, ref, who, BITE))
    number = Number[f"SIG{name}"].value
    limit = asyncio.Semaphore(_AT_ONCE)

    async def send(attempt: AttemptRow) -> bool:
        async with limit:
            return await _send(platform, attempt, number)

    sent = await asyncio.gather(*(send(attempt) for attempt in attempts))
    if not any(sent):
        raise Conflict("not_running", f"Job {ref} has just ended, so that nothing got the signal.", field="id")
    return await _answer(platform, ref, who, sum(sent))


async def _send(platform: Platform, attempt: AttemptRow, number: int) -> bool:
    """Send to one attempt; False where it does not run any more."""
    driver = platform.driver_for(attempt.site)
    if driver is None:
        raise Unavailable(
            "site_elsewhere", f"Site {attempt.site} cannot be reached from this part of the platform now; try again.",
            retry_after=5,
        )  # fmt: skip
    if not isinstance(driver, Signals):
        raise Conflict("no_signals", f"Site {attempt.site} cannot send signals to jobs.", field="id")
    try:
        await driver.signal(held(attempt), number)
    except KeyError:
        return False
    except DriverError as error:
        raise Unavailable("site_silent", f"Site {attempt.site} does not answer: {error}", retry_after=10) from error
    return True
