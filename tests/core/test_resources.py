"""Amounts: what people write is counted exactly, and written back as it was meant."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import (
    MAX_AMOUNT,
    Resources,
    format_bytes,
    format_milli,
    format_seconds,
    parse_bytes,
    parse_milli,
    parse_seconds,
)
from tests.support.tried import tried

amounts = st.builds(Resources, st.integers(0, 10**9), st.integers(0, 2**50), st.integers(0, 10**6))


@given(st.integers(0, MAX_AMOUNT))
def test_thousandths_are_read_back_as_written(milli: int) -> None:
    assert parse_milli(format_milli(milli)) == milli


@given(st.integers(0, 10**6), st.integers(0, 999))
def test_decimals_and_thousandths_are_the_same_amount(whole: int, part: int) -> None:
    assert parse_milli(f"{whole}.{part:03}") == parse_milli(f"{whole * 1000 + part}m") == whole * 1000 + part


@given(st.integers(0, 2**20), st.sampled_from(["", "K", "M", "G", "T"]), st.sampled_from(["", "B", "iB"]))
def test_units_of_size_are_powers_of_1024(count: int, unit: str, ending: str) -> None:
    assert parse_bytes(f"{count}{unit}{ending if unit else ''}") == count * 1024 ** " KMGT".index(unit or " ")


@given(st.integers(0, 365), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59))
def test_durations_mean_the_same_in_each_notation(days: int, hours: int, minutes: int, seconds: int) -> None:
    expected = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    assert parse_seconds(expected) == expected
    assert parse_seconds(str(expected)) == expected
    assert parse_seconds(f"{expected}s") == expected
    assert parse_seconds(f"{days}d{hours}h{minutes}m{seconds}s") == expected
    assert parse_seconds(f"{days}-{hours}:{minutes:02}:{seconds:02}") == expected
    assert parse_seconds(f"{days * 24 + hours}:{minutes:02}:{seconds:02}") == expected


@pytest.mark.parametrize(
    ("text", "seconds"), [("5:00", 300), ("1-0", 86400), ("2-12", 216_000), ("1-1:30", 91_800), ("1h30m", 5400)]
)
def test_short_durations_are_read_as_slurm_and_people_do(text: str, seconds: int) -> None:
    assert parse_seconds(text) == seconds


@given(
    st.one_of(
        st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.none(), st.lists(st.integers()),
        st.from_regex(r"[0-9]{0,40}(e[0-9]{1,9})?[.:dhmsKMGT-]{0,3}[0-9]{0,6}", fullmatch=True),
        st.sampled_from(["1e999999", "1e-999999", "nan", "-inf", "9" * 5000, "1" * 5000 + "d", 10**5000, "-1", "²"]),
    )
)  # fmt: skip
def test_anything_else_is_a_value_error_in_one_short_sentence(value: Any) -> None:
    for parse in (parse_milli, parse_bytes, parse_seconds):
        found = tried(lambda: parse(value), ValueError)  # noqa: B023  (called at once)
        if isinstance(found, ValueError):
            assert len(str(found)) < 200
            assert "digits" not in str(found)
        else:
            assert isinstance(found, int)
            assert 0 <= found <= MAX_AMOUNT


@given(amounts, amounts)
def test_taking_away_what_was_added_leaves_what_was(one: Resources, two: Resources) -> None:
    assert one + two - two == one
    assert one.fits(one + two)
    assert one + one + one == one * 3


@given(amounts, amounts)
def test_what_fits_leaves_nothing_negative(one: Resources, room: Resources) -> None:
    rest = room - one
    assert one.fits(room) == (min(rest.cpu, rest.memory, rest.gpu) >= 0)


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (17, "17 B"), (1536, "1.5 KiB"), (4 * 2**30, "4 GiB"), (2**60, "1024 PiB")]
)
def test_sizes_are_shown_in_the_unit_that_fits(size: int, text: str) -> None:
    assert format_bytes(size) == text


@pytest.mark.parametrize(("seconds", "text"), [(42.9, "42s"), (185, "3m 5s"), (7800, "2h 10m"), (442_800, "5d 3h")])
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_resources_are_shown_without_gpus_that_are_not_there() -> None:
    assert str(Resources(1500, 2**30, 0)) == "1500m CPU, 1 GiB"
    assert str(Resources(2000, 2**30, 1000)) == "2 CPU, 1 GiB, 1 GPU"
