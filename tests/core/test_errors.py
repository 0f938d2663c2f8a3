"""Errors travel as problem documents and come out the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import (
    AtollError,
    Conflict,
    Denied,
    Exhausted,
    Internal,
    Invalid,
    NotFound,
    TooLarge,
    Unauthenticated,
    Unavailable,
    from_problem,
)

BRANCHES = (Denied, Unauthenticated, NotFound, Conflict, Internal)
LATER = (Exhausted, TooLarge, Unavailable)
words = st.text(min_size=1, max_size=20)


@given(st.sampled_from(BRANCHES), words, words, st.none() | words)
def test_an_error_is_the_same_after_its_journey(
    branch: type[AtollError], code: str, sentence: str, field: str | None
) -> None:
    came = from_problem(branch(code, sentence, field=field).problem())
    assert (type(came), came.code, came.sentence, came.field) == (branch, code, sentence, field)


@given(st.lists(st.tuples(words, words), max_size=4))
def test_all_wrong_fields_travel(errors: list[tuple[str, str]]) -> None:
    came = from_problem(Invalid("bad", "It is wrong.", errors=tuple(errors)).problem())
    assert isinstance(came, Invalid)
    assert came.errors == tuple(errors)


@pytest.mark.parametrize("branch", LATER)
@pytest.mark.parametrize("delay", [None, 2.5])
def test_the_time_to_wait_travels(branch: type[Exhausted], delay: float | None) -> None:
    came = from_problem(branch("full", "It is full.", retry_after=delay).problem())
    assert type(came) is branch
    assert came.retry_after == delay


def test_branches_are_told_apart_by_status() -> None:
    statuses = {branch.status for branch in (*BRANCHES, *LATER, Invalid)}
    assert len(statuses) == len(BRANCHES) + len(LATER) + 1
    assert all(400 <= status < 600 for status in statuses)


def test_an_answer_of_somebody_in_between_is_an_internal_error_with_a_sentence() -> None:
    came = from_problem({"status": 502})
    assert isinstance(came, Internal)
    assert came.sentence == "The platform answered 502."
