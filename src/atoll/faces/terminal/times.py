"""Times and durations as people read and write them on a terminal."""

from datetime import UTC, datetime, timedelta

from atoll.core.errors import Invalid
from atoll.core.resources import format_seconds, parse_seconds


def parse_moment(text: str, now: datetime, field: str) -> datetime:
    """A moment from an age (`2h`, `1d`, `90s`: so long before `now`) or an ISO 8601 time. Raises Invalid."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo else moment.astimezone()
    except ValueError:
        pass  # an age, then
    try:
        return now - timedelta(seconds=parse_seconds(text))
    except (ValueError, OverflowError):
        raise Invalid(
            "bad_time",
            f"{text!r} is no time; write an age as in 2h or 1d, or a time as in 2026-05-01T12:00.",
            field=field,
        ) from None


def age(moment: datetime | None, now: datetime) -> str:
    """How long ago `moment` was: `3m 5s`; empty where there is none."""
    return format_seconds(max(0.0, (now - moment).total_seconds())) if moment is not None else ""


def duration(start: datetime | None, end: datetime | None, now: datetime) -> str:
    """How long something takes or took; empty where it has not begun."""
    return age(start, end or now) if start is not None else ""


def local(moment: datetime | None) -> str:
    """The time by the reader's own clock, to the second: `2026-05-01 14:00:00 CEST`; empty where there is none."""
    if moment is None:
        return ""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def ahead(moment: datetime, now: datetime) -> str:
    """When something will be: `at 14:05:00 (in 12m)`, with the day unless that is today; `now` for what is due."""
    left = (moment - now).total_seconds()
    return f"at {_clock(moment, now)} (in {format_seconds(left)})" if left >= 1 else "now"


def between(first: datetime, last: datetime, now: datetime) -> str:
    """Two times, with their days unless those are today: `14:01:00 and 14:20:00`."""
    return f"{_clock(max(first, now), now)} and {_clock(max(last, now), now)}"


def _clock(moment: datetime, now: datetime) -> str:
    shown, today = moment.astimezone(), now.astimezone()
    return shown.strftime("%H:%M:%S" if shown.date() == today.date() else "%Y-%m-%d %H:%M")


def now() -> datetime:
    """The current time."""
    return datetime.now(UTC)
