"""`atoll site` against a running platform: sites come, are tried, drained and removed without a restart."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Conflict, Invalid
from tests.cli.conftest import Atoll

pytestmark = pytest.mark.timeout(120)


def until(condition: Callable[[], object]) -> None:
    """Wait for what no event tells a client of."""
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)


def shown(there: Atoll, site: str) -> Any:
    return json.loads(there("site", "show", site, "-o", "json").out)


def test_a_site_is_added_used_drained_and_removed_without_a_restart(there: Atoll, tmp_path: Path) -> None:
    file = tmp_path / "toy.yaml"
    file.write_text("name: toy\ndriver: fake\nidentity: shared\nconfig: {cpus: 4, runtime: 0.2}\n")
    assert there("site", "add", "-f", str(file)).out == "Added site toy.\n"
    until(lambda: shown(there, "toy")["health"] == "ok")
    assert there("run", "--site", "toy", "--", "true").code == 0
    assert "by one account" in there("site", "show", "toy").out
    # changed while it works
    file.write_text(
        "name: toy\ndriver: fake\nidentity: shared\nlabels: {region: eu}\nconfig: {cpus: 8}\nprice: {cpu: 0.5}\n"
    )
    assert there("site", "add", "-f", str(file)).out == "Site toy is now as the file says.\n"
    assert "0.5 an hour of a CPU, 0 of a GPU" in there("site", "show", "toy").out
    until(lambda: shown(there, "toy")["flavors"][0]["total"]["cpu"] in ("8", 8))
    assert there("site", "drain", "toy").code == 0
    job = there("submit", "-o", "name", "--site", "toy", "--", "true").out.strip()
    listed = {site["name"]: site["drained"] for site in json.loads(there("site", "ls", "-o", "json").out)}
    assert listed == {"local": False, "toy": True}
    until(lambda: "drained" in there("why", job).out)
    assert there("site", "resume", "toy").code == 0
    assert there("wait", job).code == 0
    assert there("site", "rm", "toy").out == "Removed site toy.\n"
    assert there("site", "rm", "toy").code != 0
    assert "toy" not in there("site", "ls", "-o", "name").out


def test_the_first_nodes_that_atoll_chooses_are_shown_and_how_many_more(there: Atoll, tmp_path: Path) -> None:
    file = tmp_path / "rack.yaml"
    file.write_text("name: rack\ndriver: fake\nidentity: shared\nconfig: {cpus: 4, nodes: 23, owned: true}\n")
    assert there("site", "add", "-f", str(file)).code == 0
    until(lambda: shown(there, "rack")["health"] == "ok")
    said = there("site", "show", "rack")
    assert sum(line.startswith("node-") for line in said.out.splitlines()) == 20
    assert "3 more nodes" in said.err
    assert len(shown(there, "rack")["nodes"]) == 23
    assert there("run", "--site", "rack", "--", "true").code == 0
    assert there("site", "rm", "rack").code == 0


def test_check_tries_everything_and_tells_each_step(there: Atoll) -> None:
    done = there("site", "check", "local")
    assert done.code == 0, done.out
    assert [line.split("  ")[0] for line in done.out.splitlines()] == ["ok"] * 5
    names = [step["name"] for step in json.loads(there("site", "check", "local", "-o", "json").out)]
    assert names[-1] == "cancels a running job"


def test_check_tells_what_does_not_work_and_fails(there: Atoll, tmp_path: Path) -> None:
    file = tmp_path / "liar.yaml"
    # a played site runs nothing: each job succeeds
    file.write_text("name: liar\ndriver: fake\nidentity: shared\nconfig: {runtime: 0.1}\n")
    assert there("site", "add", "-f", str(file)).code == 0
    until(lambda: shown(there, "liar")["health"] == "ok")
    done = there("site", "check", "liar")
    assert done.code == 1
    assert "a job that ends with exit code 3 is told as succeeded" in done.out
    there("site", "drain", "liar")
    assert "it is drained" in there("site", "check", "liar").out
    assert there("site", "rm", "liar").code == 0


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\ndriver: slrum\n", "Did you mean 'slurm'?"),
        ("name: a\ndriver: fake\nconfig: {cpsu: 4}\n", "cpsu"),
        ("name: a\ndriver: fake\nlabls: {}\n", "labels"),
        ("{", "site file"),
    ],
)
def test_a_wrong_file_is_refused_and_adds_nothing(there: Atoll, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "site.yaml"
    file.write_text(text)
    done = there("site", "add", "-f", str(file))
    assert done.code == Invalid.exit_code
    assert words in done.err
    assert "a" not in there("site", "ls", "-o", "name").out.split()


def test_a_file_that_is_not_there_and_the_local_site_are_told(there: Atoll) -> None:
    assert "cannot be read" in there("site", "add", "-f", "/no/such/file").err
    assert there("site", "rm", "local").code == Conflict.exit_code
