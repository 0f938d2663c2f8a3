"""From a request to jobs: judged by what is known here, and anew where sites or the project tree have changed."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from atoll.core.errors import Denied, Invalid
from atoll.jobs.prepare import SitesView
from atoll.jobs.submit import Accepted, Submission, Submitter, TreeChanged
from atoll.store.people import Principal

Result = TypeVar("Result")
_TRIES = 4
_BY_WHAT_IS_KNOWN = frozenset({
    "impossible", "not_a_member", "project_ended", "no_project", "no_such_project", "not_a_leaf", "beyond_quota",
})  # fmt: skip
"""Codes of what is refused because of sites or the project tree; another replica may have changed them just now."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A request for jobs: how it is prepared and submitted, its idempotency key, and the digest of what was sent."""

    who: Principal
    prepare: Callable[[], Awaitable[Submission]]
    submit: Callable[[Submission], Awaitable[Accepted]]
    key: str | None = None
    digest: bytes = b""


async def accept(wanted: Wanted, view: SitesView, submitter: Submitter) -> Accepted:
    """Make the jobs of a request. Raises what is wrong with it, and Unavailable."""
    try:
        return await judged(lambda: _once(wanted), view)
    except (Invalid, Denied):
        # what was accepted before is there, whatever has changed since
        if wanted.key is None:
            raise
        before = await submitter.answered(wanted.who, wanted.key, wanted.digest)
        if before is None:
            raise
        return before


async def _once(wanted: Wanted) -> Accepted:
    return await wanted.submit(await wanted.prepare())


async def judged(work: Callable[[], Awaitable[Result]], view: SitesView) -> Result:
    """Do what `view` decides about, and again by a newer view where something has changed without its notice.

    Raises what `work` raises by the tree as it is, and TreeChanged where that changes all the time.
    """
    asked = time.monotonic()
    await view.refresh()
    for _ in range(_TRIES):
        try:
            return await work()
        except TreeChanged:
            await view.refresh(time.monotonic())
        except (Invalid, Denied) as error:
            if error.code not in _BY_WHAT_IS_KNOWN or view.read_at >= asked:
                raise
            await view.refresh(asked)
    return await work()
