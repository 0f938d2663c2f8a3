"""File names with % symbols."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.errors import Invalid
from atoll.core.patterns import check_pattern, expand_pattern


@pytest.mark.parametrize(
    ("pattern", "task", "expected"),
    [
        ("slurm-%j.out", None, "slurm-128.out"),
        ("slurm-%j.out", 3, "slurm-128_3.out"),
        ("%A_%a", 3, "128_3"),
        ("%A_%a", None, "128_0"),
        ("%x.%u", None, "train.ada"),
        ("job%4j.out", None, "job0128.out"),
        ("%A-%3a", 7, "128-007"),
        ("%b", 37, "7"),
        ("%r", None, "2"),
        ("100%%", None, "100%"),
        ("%%j", None, "%j"),
        ("%9x", None, "train"),
        ("%99a", 1, "0000000001"),
        (r"raw\%j", None, "raw%j"),
        ("plain.txt", None, "plain.txt"),
    ],
)
def test_symbols_stand_for_the_job(pattern: str, task: int | None, expected: str) -> None:
    found = expand_pattern(pattern, job_id=128, task=task, name="train", person="ada", restarts=2)
    assert found == expected


@given(st.integers(0, 10**6), st.integers(0, 10**6))
def test_tasks_of_an_array_never_share_a_job_number(one: int, two: int) -> None:
    names = {expand_pattern("%j", job_id=12, task=task, name="n", person="p") for task in (one, two, None)}
    assert len(names) == len({one, two, None})


@pytest.mark.parametrize("name", ["../../etc/passwd", "..", ".", "a/b", "/x"])
def test_a_name_leads_into_no_other_folder(name: str) -> None:
    found = expand_pattern("out/%x/%u.txt", job_id=1, task=None, name=name, person=name)
    assert found.count("/") == 2
    assert ".." not in found.split("/")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("%N", "'%N' in a file name is not supported: the node's name"),
        ("%J", "no job steps"),
        ("%t", "%a for the task of an array"),
        ("%n", "not one for each node"),
        ("%s", "no job steps"),
        ("%S", "no such ids"),
        ("%q", "'%q' in a file name means nothing; known are %x %j %A %a %b %u %r and %%"),
        ("50%", "'%' in a file name means nothing"),
        ("%5", "'%5' in a file name means nothing"),
        ("%j-%2N", "'%2N'"),
    ],
)
def test_an_unknown_symbol_is_refused_by_name(pattern: str, said: str) -> None:
    with pytest.raises(Invalid) as caught:
        expand_pattern(pattern, job_id=1, task=None, name="n", person="p")
    assert said in caught.value.sentence
    with pytest.raises(Invalid) as caught:
        check_pattern(pattern, "stdout")
    assert caught.value.field == "stdout"


@given(st.text(alphabet="%%%xjAabur\\0149NJq/.", max_size=12))
def test_what_passes_the_check_can_be_expanded(pattern: str) -> None:
    try:
        assert check_pattern(pattern) == pattern
    except Invalid:
        return
    found = expand_pattern(pattern, job_id=128, task=3, name="train", person="ada")
    assert "%" not in found or re.search(r"%\d*%", pattern) or "\\" in pattern
