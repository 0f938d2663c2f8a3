"""Project files: the fixed shape is read, and every mistake names its project and field, all at once."""

from __future__ import annotations

import time
from datetime import date

import pytest

from atoll.core.errors import Invalid
from atoll.core.project import Limit, clearances
from atoll.core.project_file import read_project_file, read_projects, write_projects

TREE = b"""
projects:
  institute: {quotas: {gpu-a100: {gpu: 64, memory: 8Ti}}}
  physics: {parent: institute, weight: 2, quotas: {gpu-a100: {gpu: {nominal: 32, borrowing: 16, lending: 8}}}}
  astro: {parent: physics, people: [ben, ana, ben], managers: [ana], clearance: [internal], ends: 2030-01-31}
  chemistry:
    parent: institute
    quotas: {cpu: {cpu: 500m, memory: 1000}}
    description: Molecules
"""


def test_a_whole_tree_is_read_in_base_units() -> None:
    institute, physics, astro, chemistry = read_project_file(TREE, "file")
    assert institute.quotas == {("gpu-a100", "gpu"): Limit(64_000), ("gpu-a100", "memory"): Limit(8 * 2**40)}
    assert physics.quotas == {("gpu-a100", "gpu"): Limit(32_000, 16_000, 8_000)}
    assert (physics.parent, physics.weight) == ("institute", 2.0)
    assert (astro.people, astro.managers, astro.clearance) == (("ana", "ben"), ("ana",), ("internal",))
    assert astro.ends == date(2030, 1, 31)
    assert chemistry.quotas == {("cpu", "cpu"): Limit(500), ("cpu", "memory"): Limit(1000)}


def test_a_project_needs_the_words_of_those_above_it_too() -> None:
    nodes = read_projects(
        {
            "projects": {
                "institute": {},
                "medicine": {"parent": "institute", "clearance": ["internal"]},
                "trials": {"parent": "medicine", "clearance": ["patients"]},
                "astro": {"parent": "institute"},
            }
        }
    )
    assert clearances(nodes) == {"medicine": {"internal"}, "trials": {"internal", "patients"}}


def test_what_is_written_back_is_read_as_the_same() -> None:
    nodes = read_project_file(TREE, "file")
    written = write_projects(nodes)
    assert read_projects(written) == nodes
    assert written["projects"]["institute"] == {"quotas": {"gpu-a100": {"gpu": 64, "memory": "8Ti"}}}
    assert written["projects"]["physics"]["quotas"] == {
        "gpu-a100": {"gpu": {"nominal": 32, "borrowing": 16, "lending": 8}}
    }


def test_a_description_may_have_several_lines() -> None:
    [node] = read_projects({"projects": {"a": {"description": "Stars\n\tand \u00e9toiles\n"}}})
    assert node.description == "Stars\n\tand \u00e9toiles\n"


def test_no_projects_are_a_tree_that_nothing_is_in() -> None:
    assert read_project_file(b"projects: {}", "file") == []


def test_a_project_with_nothing_said_of_it_is_one() -> None:
    assert read_project_file(b"projects: {all: }", "file")[0].name == "all"


@pytest.mark.parametrize(
    ("text", "field", "words"),
    [
        (b"[]", "projects", "Write the tree"),
        (b"projects: [a]", "projects", "Write the tree"),
        (b"{projects: {a: }, project: {}}", "project", "no such field"),
        (b"projects: {a: {wheight: 2}}", "projects.a.wheight", "Did you mean 'weight'?"),
        (b'projects: {a: {description: "x\\0y"}}', "projects.a.description", "'\\x00' is not allowed"),
        (b'projects: {a: {description: "x\\ey"}}', "projects.a.description", "'\\x1b' is not allowed"),
        (b"projects: {a: {weight: 0}}", "projects.a.weight", "above 0"),
        (b"projects: {a: {quotas: {cpu: {gpus: 2}}}}", "projects.a.quotas.cpu.gpus", "Did you mean 'gpu'?"),
        (b"projects: {a: {quotas: {cpu: {gpu: -2}}}}", "projects.a.quotas.cpu.gpu.nominal", "from 0 up"),
        (b"projects: {a: {quotas: {cpu: {memory: 2X}}}}", "projects.a.quotas.cpu.memory.nominal", "is no size"),
        (b"projects: {a: , b: {parent: a, quotas: {cpu: {gpu: {nominal: 1, lending: 2}}}}}",
         "projects.b.quotas.cpu.gpu.lending", "cannot lend more"),
        (b"projects: {a b: }", "projects.a b", "cannot stand here"),
        (b"projects: {a: {people: ana}}", "projects.a.people", "Write a list"),
        (b"projects: {a: {ends: soon}}", "projects.a.ends", "date"),
        (b"projects: {a: {parent: b}, b: {parent: a}}", "projects", "no root"),
    ],
)  # fmt: skip
def test_each_mistake_names_its_project_and_field(text: bytes, field: str, words: str) -> None:
    with pytest.raises(Invalid) as refused:
        read_project_file(text, "file")
    assert refused.value.field == field
    assert words in refused.value.sentence


def test_mistakes_of_form_and_of_shape_are_told_together() -> None:
    text = b"projects: {a: {weight: much}, b: {parent: x}, c: {parent: a, quotas: {cpu: {gpu: no}}}}"
    with pytest.raises(Invalid) as refused:
        read_project_file(text, "file")
    fields = [field for field, _ in refused.value.errors]
    assert fields == ["projects.a.weight", "projects.c.quotas.cpu.gpu.nominal", "projects.b.parent"]


def test_a_document_full_of_mistakes_is_judged_in_time() -> None:
    """Each suggestion costs a look at every name."""
    tree = {"root": None} | {f"project{number}": {"parent": f"{number}project"} for number in range(2000)}
    began = time.perf_counter()
    with pytest.raises(Invalid) as refused:
        read_projects({"projects": tree})
    spent = time.perf_counter() - began
    assert len(refused.value.errors) == 2000
    assert "Did you mean" in refused.value.errors[0][1]
    assert sum("Did you mean" in sentence for _, sentence in refused.value.errors) <= 20
    assert spent < 10, f"{spent:.1f} s"
