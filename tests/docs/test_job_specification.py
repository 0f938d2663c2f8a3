"""The page on the job specification names every field, and its examples are valid."""

from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from atoll.core.documents import read_yaml
from atoll.core.spec import JobSpec, read_spec
from tests.docs.pages import ROOT, Block, blocks

PAGE = ROOT / "docs" / "job-specification.md"
EXAMPLES = [block for block in blocks(PAGE) if block.language == "yaml"]


def example(block: Block) -> dict[str, Any]:
    document = read_yaml(block.body, f"example in line {block.line}")
    assert isinstance(document, dict)
    return document


def names(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def models_within(annotation: Any) -> set[type[BaseModel]]:
    """The models that a field's type is made of."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return {annotation} if issubclass(annotation, BaseModel) else set()
    return {model for part in get_args(annotation) for model in models_within(part)}


NESTED = {field.alias or name: models_within(field.annotation) for name, field in JobSpec.model_fields.items()}


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: f"line {block.line}")
def test_an_example_is_valid(block: Block) -> None:
    document = example(block)
    runs = document if {"command", "script"} & document.keys() else {**document, "command": "true"}
    spec = read_spec(runs)
    assert set(document) <= names(JobSpec)
    assert spec.document().keys() >= {name for name in document if runs[name]} - {"class", "offload"}


def test_every_field_has_a_heading_and_an_example() -> None:
    headings = "\n".join(line for line in PAGE.read_text().splitlines() if line.startswith("### "))
    shown = {name for block in EXAMPLES for name in example(block)}
    for name in names(JobSpec):
        assert f"`{name}`" in headings, f"{name} has no heading"
        assert name in shown, f"{name} has no example"


@pytest.mark.parametrize("name", [name for name, models in NESTED.items() if models])
def test_every_field_within_a_field_is_in_an_example_of_it(name: str) -> None:
    shown: set[str] = set()
    for block in EXAMPLES:
        value = example(block).get(name, [])
        for entry in value if isinstance(value, list) else [value]:
            shown |= set(entry) if isinstance(entry, dict) else set()
    for model in NESTED[name]:
        assert names(model) <= shown


def test_the_nested_fields_are_found() -> None:
    found = {name for name, models in NESTED.items() if models}
    assert found == {
        "environment", "dependencies", "checkpoint", "signal", "ports", "volumes", "secrets", "files_in"
    }  # fmt: skip
