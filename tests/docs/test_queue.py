"""The page on the queue: each row of its tables is held by stories that there are, and no story is left untold."""

from __future__ import annotations

import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "queue.md").read_text()
STORIES = {path.stem for path in (ROOT / "tests" / "scheduler" / "golden").glob("*.yaml")}
OF_OTHER_PAGES = ("quota-", "borrowing-", "lending-", "array-", "begin-", "site-", "preempt-an-overdue-")
"""How the names of stories begin that tell rules of other pages, or details."""


def named_in(text: str) -> set[str]:
    """The stories that a text names: code in words joined by at least two hyphens."""
    return set(re.findall(r"`([a-z]+(?:-[a-z]+){2,})`", text))


def test_every_story_that_the_page_names_is_there() -> None:
    assert named_in(PAGE) <= STORIES


def test_every_row_of_a_table_names_a_story() -> None:
    tables = re.findall(r"^\|.* stories \|\n\|[-| ]*\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    rows = [row for table in tables for row in table.splitlines()]
    assert len(rows) > 40
    assert [row for row in rows if not named_in(row) & STORIES] == []


def test_every_story_of_the_queues_own_rules_is_named() -> None:
    assert {name for name in STORIES - named_in(PAGE) if not name.startswith(OF_OTHER_PAGES)} == set()
