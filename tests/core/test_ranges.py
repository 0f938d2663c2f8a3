"""Ranges behave as Python's sets do, and stay small."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.ranges import MAX_PARTS, MAX_TASK, ArraySpec, Ranges

pieces = st.builds(
    lambda start, count, step: range(start, start + count * step, step),
    st.integers(0, 60),
    st.integers(1, 15),
    st.integers(1, 7),
)
numbers = st.lists(pieces, max_size=6).map(lambda parts: {number for part in parts for number in part})


@st.composite
def ranges(draw: st.DrawFn) -> Ranges:
    """Sets in all the forms that they may have: made of numbers, read, and what is left of others."""
    made = Ranges.of(draw(numbers))
    cut = Ranges.of(draw(numbers))
    return draw(st.sampled_from([made, made.without(cut), made.union(cut), made.common(cut), made.take(5)[1]]))


def assert_sound(found: Ranges, expected: set[int]) -> None:
    assert list(found) == sorted(expected)
    assert len(found) == len(expected)
    assert all(found.parts)


@given(numbers)
def test_a_set_of_numbers_holds_these_numbers_in_order(wanted: set[int]) -> None:
    assert_sound(Ranges.of(wanted), wanted)


@given(numbers)
def test_membership_is_that_of_the_set(wanted: set[int]) -> None:
    found = Ranges.of(wanted)
    assert {number for number in range(200) if number in found} == wanted


@given(ranges().filter(len))
def test_text_of_a_set_is_read_back_as_the_same_set(some: Ranges) -> None:
    assert Ranges.parse(str(some)) == some
    assert str(Ranges.parse(str(some))) == str(some)


@given(ranges())
def test_stored_text_is_read_back_as_the_same_set_even_empty(some: Ranges) -> None:
    assert Ranges.stored(str(some)) == some


@given(st.lists(pieces, min_size=1, max_size=6))
def test_parts_may_be_written_in_any_order_and_overlap(parts: list[range]) -> None:
    text = ",".join(f"{part[0]}-{part[-1]}:{part.step}" for part in parts)
    assert_sound(Ranges.parse(text), {number for part in parts for number in part})


@given(ranges(), st.integers(-3, 200))
def test_taking_gives_the_first_numbers_and_the_rest(some: Ranges, count: int) -> None:
    taken, rest = some.take(count)
    everything = list(some)
    assert_sound(taken, set(everything[: max(count, 0)]))
    assert_sound(rest, set(everything[max(count, 0) :]))


@given(ranges(), ranges())
def test_without_common_and_union_are_those_of_sets(one: Ranges, two: Ranges) -> None:
    assert_sound(one.without(two), set(one) - set(two))
    assert_sound(one.common(two), set(one) & set(two))
    assert_sound(one.union(two), set(one) | set(two))


@given(ranges())
def test_taking_tasks_away_and_giving_them_back_restores_the_set(some: Ranges) -> None:
    taken, rest = some.take(4)
    assert_sound(rest.union(taken), set(some))


def test_a_million_tasks_are_one_part_and_cost_nothing() -> None:
    started = time.process_time()
    million = Ranges.parse("0-999999")
    even = million.without(Ranges.parse("1-999999:2"))
    assert even.parts == (range(0, 1_000_000, 2),)
    assert million.common(even) == even
    one_back = million.without(Ranges.of([500_000])).union(Ranges.of([500_000]))
    assert one_back == million
    assert len(million.without(Ranges.parse("0-999999:3"))) == 666_666
    assert time.process_time() - started < 5


def test_returning_tasks_one_by_one_ends_with_one_part() -> None:
    rest = Ranges.parse("0-99").take(50)[1]
    for number in range(49, -1, -1):
        rest = rest.union(Ranges.of([number]))
    assert rest == Ranges.parse("0-99")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is not a range"),
        ("1,", "is not a range"),
        ("a", "is not a range"),
        ("-1", "is not a range"),
        ("1-", "is not a range"),
        ("1:2", "is not a range"),
        ("1--2", "is not a range"),
        ("9-3", "write 3-9"),
        ("0-9:0", "step of 0"),
        (str(MAX_TASK + 1), "beyond the last task"),
        ("99999999999", "is not a range"),
        (",".join(["1"] * (MAX_PARTS + 1)), "more than the"),
        ("\u0661", "is not a range"),
        ("0-10000000,0-10000000", "too many tasks"),
    ],
)
def test_a_bad_range_is_named_with_what_would_be_right(text: str, said: str) -> None:
    with pytest.raises(Invalid, match=said) as caught:
        Ranges.parse(text, field="job")
    assert caught.value.field == "job"


@given(st.text(alphabet="0123456789-:,% a", max_size=12))
def test_any_text_is_an_array_or_invalid(text: str) -> None:
    try:
        array = ArraySpec.parse(text)
    except Invalid:
        return
    assert len(array.tasks) > 0
    assert ArraySpec.parse(str(array)) == array


def test_an_array_says_how_many_tasks_run_at_once() -> None:
    array = ArraySpec.parse("0-99:2%10")
    assert (len(array.tasks), array.width, str(array)) == (50, 10, "0-98:2%10")
    assert ArraySpec.parse("3").width is None


@pytest.mark.parametrize("text", ["0-9%", "0-9%0", "0-9%x", "0-9%1%2", "0-9%-1", "0-9%\u0661"])
def test_a_bad_number_of_tasks_at_once_is_named(text: str) -> None:
    with pytest.raises(Invalid, match="after %"):
        ArraySpec.parse(text)
