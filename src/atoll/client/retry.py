"""When something is tried again, and when it is given up: decided here, carried out by the clients."""

import random
import time
from collections.abc import Callable
from enum import Enum

import httpx2

from atoll.core.errors import AtollError, Unavailable

PATIENCE = 15.0
"""Seconds for which a platform that does not answer is tried again."""
WATCH_PATIENCE = 600.0
"""The same for those who wait and follow, once it has answered: a restart or an upgrade takes that long at most."""
RETRIED_STATUSES = frozenset({502, 503, 504})
_LONGEST_DELAY = 5.0


class Repeat(Enum):
    """Whether a request may be sent again when nobody knows whether it was carried out."""

    SAFE = "safe"
    """Twice is as good as once: it only asks, it sets something, or it has an idempotency key."""
    UNSENT = "unsent"
    """Only where it surely was not carried out."""


def describe(error: Exception) -> str:
    """What went wrong with a connection, in a few words for people."""
    if isinstance(error, httpx2.ConnectTimeout | httpx2.PoolTimeout):
        return "no connection in time"
    if isinstance(error, httpx2.TimeoutException):
        return "no answer in time"
    if isinstance(error, httpx2.ConnectError):
        words = str(error).lower()
        for part in ("connection refused", "name or service not known", "certificate", "no route to host"):
            if part in words:
                return part
        return "no connection"
    if isinstance(error, httpx2.ProtocolError | httpx2.DecodingError):
        return "the answer was cut off or is no HTTP"
    return "the connection broke"


def never_sent(error: Exception) -> bool:
    """Whether a request surely did not reach the platform."""
    return isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout | httpx2.PoolTimeout)


class Attempts:
    """The tries of one request or stream: counts failures in a row and says how long to wait before the next try.

    `limit` seconds after the first failure in a row it gives up. `on_trouble` is told, once for each outage, in one
    sentence. Times are of `clock`, in seconds.
    """

    def __init__(
        self,
        url: str,
        limit: float,
        on_trouble: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.url = url
        self.limit = limit
        self._on_trouble = on_trouble
        self._clock = clock
        self._failing_since: float | None = None
        self._failures = 0
        self._told = False

    def alive(self) -> None:
        """The platform answered: its time starts anew, the growing delays stay."""
        self._failing_since = None
        self._told = False

    def progress(self) -> None:
        """Something came through: all is well again."""
        self.alive()
        self._failures = 0

    def came(self, event: str) -> None:
        """An event came. A stream that only opens, and breaks again, is not progress."""
        if event == "opened":
            self.alive()
        else:
            self.progress()

    def delay(self, what: str, error: AtollError | None = None) -> float:
        """Seconds until the next try after the failure `what`. Raises `error`, or Unavailable, when it is enough."""
        now = self._clock()
        if self._failing_since is None:
            self._failing_since = now
        left = self._failing_since + self.limit - now
        if left <= 0:
            raise error or Unavailable(
                "platform_unreachable",
                f"The platform at {self.url} does not answer ({what}); start it with 'atoll up', or set ATOLL_URL or "
                "ATOLL_DATA to the one you mean.",
            )
        self._failures += 1
        asked = getattr(error, "retry_after", None)
        delay = min(_LONGEST_DELAY, 0.1 * 2 ** min(self._failures, 10)) * random.uniform(0.6, 1.0)
        if self._on_trouble is not None and not self._told and self._failures >= 3:
            self._told = True
            self._on_trouble(
                f"The platform at {self.url} does not answer ({what}); trying again for up to {self.limit:.0f} s."
            )
        return float(min(left, max(delay, min(asked or 0.0, _LONGEST_DELAY))))
