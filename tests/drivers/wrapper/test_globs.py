"""Patterns of files match as in shells, and cost little whatever they are."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.drivers.wrapper.globs import Glob


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "out/a.csv", False),
        ("out/*", "out/a", True),
        ("out/*", "out/b/a", False),
        ("**", "a/b/c", True),
        ("**/a", "a", True),
        ("**/a", "x/y/a", True),
        ("x/**/a", "x/a", True),
        ("x/**", "y/a", False),
        ("./x", "x", True),
        ("a?c", "abc", True),
        ("[a-c]x", "bx", True),
        ("[!a-c]x", "bx", False),
        ("[^a-c]x", "dx", True),
        ("[z-a]", "[z-a]", True),
        ("[]", "[]", True),
        ("a[", "a[", True),
        ("\\d", "\\d", True),
    ],
)
def test_patterns_match_as_in_a_shell(pattern: str, path: str, expected: bool) -> None:
    assert Glob(pattern).matches(path) is expected


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=8))
def test_stars_and_question_marks_mean_what_a_regular_expression_says(pattern: str, name: str) -> None:
    meaning = "".join({"*": ".*", "?": "."}.get(letter, letter) for letter in pattern)
    if pattern and pattern != "**" and name:
        assert Glob(pattern).matches(name) is (re.fullmatch(meaning, name) is not None)


def test_a_pattern_made_to_be_slow_is_not() -> None:
    began = time.process_time()
    assert not Glob("*a" * 100 + "b").matches("a" * 250)
    assert not Glob("**/*a/" * 50 + "b").matches("/".join(["a"] * 200))
    assert time.process_time() - began < 5
