"""The page on simulating names every policy, every field of the history, and every field of the result."""

from __future__ import annotations

import re
from typing import Any

import pytest

from atoll.scheduler.simulate import policies, study
from atoll.scheduler.simulate.cluster import ClusterFile, read_cluster
from atoll.scheduler.simulate.policies import POLICIES
from atoll.scheduler.traces import FORMATS, history, read_trace
from tests.docs.pages import ROOT, blocks

FILE = ROOT / "docs" / "simulate.md"
PAGE = FILE.read_text()
EXAMPLES = ROOT / "examples" / "simulate"


def section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    _, found, rest = PAGE.partition(f"## {heading}\n")
    assert found, f"there is no heading {heading!r}"
    return rest.partition("\n## ")[0]


def first_cells(text: str) -> list[str]:
    return re.findall(r"^\| (.+?) \|", text, re.MULTILINE)


def told(share: float | None) -> dict[str, Any]:
    trace = read_trace((EXAMPLES / "openb_pods.csv").read_text(), "trace")
    cluster = read_cluster((EXAMPLES / "openb_nodes.csv").read_text(), "cluster")
    chosen = policies.named("atoll")
    found = study.replay(trace, cluster, chosen) if share is None else study.fill(trace, cluster, chosen, share, 0)
    return found.document


def test_policies_and_formats_are_those_of_the_code() -> None:
    assert [cell.strip("`") for cell in first_cells(section("Policies"))[2:]] == list(POLICIES)
    assert first_cells(section("Traces"))[2:] == list(FORMATS)


def test_the_history_has_the_fields_that_are_read() -> None:
    cells = first_cells(section("The history of a platform"))[2:]
    assert re.findall(r"`(\w+)`", " ".join(cells)) == list(history.FIELDS)


@pytest.mark.parametrize("share", [None, 1.3])
def test_every_field_of_a_result_is_explained(share: float | None) -> None:
    text = section("What is told")
    document = told(share)
    (policy,) = document["policies"]
    fields = {*document, *document["trace"], *document["cluster"], *document["impossible"], *policy, *policy["jobs"]}
    assert {field for field in fields if f"`{field}`" not in text} == set()


def test_the_cluster_file_is_one() -> None:
    (text,) = [block.body for block in blocks(FILE) if block.writes == "cluster.yaml"]
    cluster = read_cluster(text, "cluster.yaml")
    assert len(cluster.nodes) == 10
    assert all(f"\n{field}:" in f"\n{text}" for field in ClusterFile.model_fields)
