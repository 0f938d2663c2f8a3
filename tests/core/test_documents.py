"""YAML is read as people mean it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from tests.support.tried import tried


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on: ok", {"on": "ok"}),
        ("walltime: 1:30:00", {"walltime": "1:30:00"}),
        ("begin: 2026-05-01", {"begin": "2026-05-01"}),
        ("a: yes", {"a": "yes"}),
        ("a: 010", {"a": "010"}),
        ("a: 1_000", {"a": "1_000"}),
        ("a: 12", {"a": 12}),
        ("a: -0.5", {"a": -0.5}),
        ("a: true", {"a": True}),
        ("a:", {"a": None}),
        ("a: ~", {"a": None}),
        ('a: "12"', {"a": "12"}),
        ("a: [1, x]", {"a": [1, "x"]}),
        ('{"a": {"b": null}}', {"a": {"b": None}}),
        ("", None),
        (b"\xef\xbb\xbfa: \xc3\xa4", {"a": "ä"}),
    ],
)
def test_words_stay_words(text: str | bytes, value: Any) -> None:
    assert read_yaml(text) == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2", "line 2, column 1: 'a' is written twice"),
        ("a: b: c", "line 1, column 5"),
        ("a: [1", "line 1"),
        ("a: &x 1\nb: *x", "aliases"),
        ("? [1]\n: 2", "a key must be a word"),
        ("[" * 2000, "nested too deeply"),
        ("a: !!python/object/apply:os.system [true]", "could not determine a constructor"),
        ("a: \x07", "special characters are not allowed"),
        (b"\xff\xfe", "no YAML"),
        ("a: !!int x", "no YAML"),
        ("a: 1\n---\nb: 2", "single document"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(text: str | bytes, said: str) -> None:
    with pytest.raises(Invalid, match="The job file is no YAML") as caught:
        read_yaml(text, "job file")
    assert said in caught.value.sentence
    assert caught.value.sentence.endswith(".")


@given(
    st.one_of(
        st.text(max_size=40), st.text(alphabet="a:-[]{}&*!|>'\"%@\n \t?,#<1", max_size=25), st.binary(max_size=20)
    )
)
def test_any_text_is_data_or_invalid(text: str | bytes) -> None:
    found = tried(lambda: read_yaml(text), Invalid)
    assert not isinstance(found, Invalid) or found.code == "bad_yaml"
