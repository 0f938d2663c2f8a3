"""The page on states and reasons says what the code does: every state, change, outcome and reason."""

from __future__ import annotations

import re

from atoll.core.reasons import ReasonCode, general_sentence
from atoll.core.states import MAX_FAULTS, TRANSITIONS, JobState, Outcome
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "states-and-reasons.md").read_text()


def section(heading: str) -> str:
    """The text below a heading, up to the next one of any level."""
    _, found, rest = PAGE.partition(f"{heading}\n")
    assert found, f"there is no heading {heading!r}"
    return re.split(r"^#", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """The cells of the rows whose first cell is a code."""
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:3] == "| `"]
    return [[cells[0].strip("`"), *cells[1:]] for cells in cells]


def words(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_table_of_states_is_the_table_of_transitions() -> None:
    table = rows(section("## The states of a job"))
    told = {state: set(words(targets)) for state, _, targets in table}
    assert told == {str(state): {str(after) for after in targets} for state, targets in TRANSITIONS.items()}
    assert [row[0] for row in table] == [str(state) for state in JobState]


def test_every_outcome_of_an_attempt_is_explained() -> None:
    table = rows(section("## How an attempt ends"))
    assert {row[0] for row in table} == {str(outcome) for outcome in Outcome}
    for outcome, _, becomes in table:
        if "times at most" in becomes:
            assert f"{MAX_FAULTS} times" in becomes, outcome


def test_every_reason_has_its_sentence_and_what_to_do() -> None:
    table = [row for part in ("While it waits", "On its way", "At its end") for row in rows(section(f"### {part}"))]
    assert {code: sentence for code, sentence, _ in table} == {str(code): general_sentence(code) for code in ReasonCode}
    assert len(table) == len(ReasonCode), "a code stands there twice"
    assert all(what_to_do for _, _, what_to_do in table)
