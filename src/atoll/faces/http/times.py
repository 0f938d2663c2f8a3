"""Times as the API writes and reads them: RFC 3339 in UTC with microseconds."""

from datetime import UTC, datetime, timedelta

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def moment(micros: int) -> str:
    """`2026-05-01T12:00:00.000000Z` for microseconds since 1970 UTC."""
    shown = _EPOCH + timedelta(microseconds=micros)
    return shown.strftime("%Y-%m-%dT%H:%M:%S.%fZ") if shown.year >= 1000 else shown.isoformat()


def moment_or_none(micros: int | None) -> str | None:
    """As `moment`; None for None."""
    return None if micros is None else moment(micros)
