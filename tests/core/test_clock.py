"""Time: exact to the microsecond, always with a zone."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.clock import ManualClock, from_micros, system_clock, to_micros

moments = st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=5, minutes=45))]))


@given(moments)
def test_a_time_is_the_same_after_the_store(moment: datetime) -> None:
    assert from_micros(to_micros(moment)) == moment


@given(moments, moments)
def test_times_in_the_store_sort_as_they_passed(one: datetime, two: datetime) -> None:
    assert (to_micros(one) < to_micros(two)) == (one < two)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a zone"):
        to_micros(datetime(2026, 1, 1))  # noqa: DTZ001


def test_the_system_clock_has_a_zone() -> None:
    assert system_clock().tzinfo is UTC


def test_a_manual_clock_moves_when_told() -> None:
    clock = ManualClock()
    before = clock()
    assert clock.advance(1.5) == clock() == before + timedelta(seconds=1.5)
    assert clock.advance(-2) < before
