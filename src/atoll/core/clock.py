"""Time as Atoll tells it: aware datetimes in UTC outside, integer microseconds in the store.

Whoever needs the time is given a `Clock`, so that tests and the simulator can turn it.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]
"""A function that returns the current time as an aware datetime in UTC."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def system_clock() -> datetime:
    """The machine's own time."""
    return datetime.now(UTC)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970-01-01 UTC. Raises ValueError for a datetime without a zone."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a zone, for example 2026-05-01T12:00:00+02:00")
    return (moment - _EPOCH) // _MICROSECOND


def from_micros(micros: int) -> datetime:
    """The aware UTC datetime of `micros` microseconds since 1970-01-01 UTC."""
    return _EPOCH + timedelta(microseconds=micros)


class ManualClock:
    """A clock that stands still until it is told to move; for tests and simulation."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self.now = start

    def __call__(self) -> datetime:
        """The time that it shows."""
        return self.now

    def advance(self, seconds: float) -> datetime:
        """Move on by `seconds` (negative: a clock that jumped back) and return the new time."""
        self.now += timedelta(seconds=seconds)
        return self.now
