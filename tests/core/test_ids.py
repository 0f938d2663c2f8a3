"""Names: attempts that sort by time and are told apart by platform, and jobs as people write them."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.clock import ManualClock
from atoll.core.errors import Invalid
from atoll.core.ids import JobRef, is_attempt_id, new_attempt_id, new_instance_id, task_name
from atoll.core.ranges import Ranges
from tests.support.tried import tried


def test_attempt_ids_are_unique_and_of_their_platform() -> None:
    mine, other = new_instance_id(), "zzzzz"
    ids = {new_attempt_id(mine, ManualClock()) for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_attempt_id(attempt, mine) for attempt in ids)
    assert not any(is_attempt_id(attempt, other) for attempt in ids)


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2900, 1, 1)),  # noqa: DTZ001
    st.integers(1, 10**9),
)
def test_attempt_ids_sort_by_time(start: datetime, millis: int) -> None:
    early = start.replace(tzinfo=UTC)
    late = early + timedelta(milliseconds=millis)
    assert new_attempt_id("abcde", lambda: early)[:15] < new_attempt_id("abcde", lambda: late)[:15]


@pytest.mark.parametrize("text", ["", "abcde", "abcde-", "ABCDE-0123456789abcdef", "abcde-0123456789abcdef\n"])
def test_other_text_is_no_attempt_id(text: str) -> None:
    assert not is_attempt_id(text)


@given(st.integers(1, 10**18 - 1), st.none() | st.frozensets(st.integers(0, 1000), min_size=1, max_size=20))
def test_a_reference_is_read_back_as_written(job: int, tasks: frozenset[int] | None) -> None:
    reference = JobRef(job, Ranges.of(tasks) if tasks is not None else None)
    assert JobRef.parse(str(reference)) == reference


def test_slurms_way_to_write_a_task_is_understood() -> None:
    assert JobRef.parse(" 12_3 ") == JobRef.parse(task_name(12, 3)) == JobRef(12, Ranges.of([3]))
    assert JobRef.parse(task_name(12, None)) == JobRef(12)


@pytest.mark.parametrize(
    "text",
    ["", "0", "-1", "x", "1.5", "12[]", "12[a]", "12[3", "12[9-3]", "12_", "12[1]_3", "1" * 19, "\u0661", "1" * 5000],
)
def test_what_is_no_reference_is_named_shortly(text: str) -> None:
    with pytest.raises(Invalid) as caught:
        JobRef.parse(text)
    assert caught.value.field == "job"
    assert len(caught.value.sentence) < 250


@given(st.text(max_size=15))
def test_any_text_is_a_reference_or_invalid(text: str) -> None:
    found = tried(lambda: JobRef.parse(text), Invalid)
    assert found.field == "job" if isinstance(found, Invalid) else found.job > 0
