"""`atoll simulate` works without a platform, in every form of output, and says in a sentence what is wrong."""

from __future__ import annotations

import gzip
import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from atoll.core.errors import Invalid, NotFound, Unavailable
from atoll.faces.terminal.exits import USAGE
from atoll.scheduler.simulate.policies import POLICIES
from tests.cli.conftest import Atoll

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulate"
TRACE = str(EXAMPLES / "openb_pods.csv")
NODES = str(EXAMPLES / "openb_nodes.csv")
CLUSTER = str(EXAMPLES / "cluster.yaml")
SWF = str(EXAMPLES / "department.swf")


def test_json_has_what_tools_read(atoll: Atoll) -> None:
    done = atoll("simulate", "--trace", TRACE, "--cluster", NODES, "-o", "json")
    assert (done.code, done.err) == (0, "")
    document = json.loads(done.out)
    assert list(document) == ["trace", "cluster", "impossible", "policies"]
    assert document["cluster"]["quotas"] is False
    assert document["trace"] == {
        "file": TRACE, "format": "openb", "jobs": 50, "broken": 0, "problems": [], "notes": [],
    }  # fmt: skip
    assert (document["cluster"]["nodes"], document["cluster"]["gpu"]) == (7, 16.0)
    (found,) = document["policies"]
    assert list(found) == [
        "policy", "quotas", "denied", "jobs", "makespan", "allocation", "allocation_while_arriving", "utilisation",
        "waiting", "slowdown", "fairness", "projects", "evictions", "timeline",
    ]  # fmt: skip
    assert found["policy"] == "atoll"
    assert list(found["waiting"]) == ["all", "interactive", "batch", "opportunistic"]


def test_yaml_has_the_same_as_json_and_name_has_the_policies(atoll: Atoll) -> None:
    words = ("simulate", "--trace", SWF, "--cluster", CLUSTER, "--policy", "all", "-o")
    assert yaml.safe_load(atoll(*words, "yaml").out) == json.loads(atoll(*words, "json").out)
    assert atoll(*words, "name").out.split() == list(POLICIES)


def test_the_table_has_a_row_for_each_policy_and_each_class(atoll: Atoll) -> None:
    done = atoll("simulate", "--trace", SWF, "--cluster", CLUSTER, "--policy", "all")
    assert done.code == 0
    assert "49 jobs (swf)" in done.out
    rows = [line.split()[:2] for line in done.out.splitlines()]
    for policy in POLICIES:
        assert [policy, "all"] in rows
        assert [policy, "interactive"] in rows
    assert "Left out are rows of parts of jobs, or of jobs that never ran: 1." in done.err
    assert "simulated in" in done.err


def test_filling_tells_the_gpus_allocated_by_each_policy(atoll: Atoll) -> None:
    words = ("simulate", "--trace", TRACE, "--cluster", NODES, "--policy", "all", "--fill", "1.3", "--seed", "7")
    document = json.loads(atoll(*words, "-o", "json").out)
    assert (document["fill"]["share"], document["fill"]["seed"]) == (1.3, 7)
    assert [found["policy"] for found in document["policies"]] == list(POLICIES)
    for found in document["policies"]:
        assert found["gpus_allocated"] == pytest.approx(16 * found["gpu_allocation"], abs=1e-3)
    assert atoll(*words, "-o", "json").out == atoll(*words, "-o", "json").out
    assert "GPUS ALLOCATED" in atoll(*words).out


@pytest.mark.parametrize(
    ("more", "names"),
    [([], {"utilisation.svg", "waiting.svg", "policies.svg"}), (["--fill", "1.1"], {"fill.svg", "policies.svg"})],
)
def test_pictures_are_drawn_for_light_and_dark(atoll: Atoll, tmp_path: Path, more: list[str], names: set[str]) -> None:
    words = ("simulate", "--trace", TRACE, "--cluster", NODES, "--policy", "all", "--plot", "new/pictures", *more)
    assert atoll(*words).code == 0
    folder = tmp_path / "new" / "pictures"
    assert {file.name for file in folder.iterdir()} == names
    for file in folder.iterdir():
        picture = ElementTree.fromstring(file.read_text())
        texts = {element.text for element in picture.iter("{http://www.w3.org/2000/svg}text")}
        assert "first-fit" in texts or any(text and text.startswith("first-fit: ") for text in texts)
        assert "light-dark(" in file.read_text()
        assert "nan" not in file.read_text()


HISTORY = str(EXAMPLES / "history.jsonl")
QUOTAS = ("--quotas", str(EXAMPLES / "quotas.yaml"), "--quotas", str(EXAMPLES / "quotas-lent.yaml"))


def test_quotas_are_compared_side_by_side(atoll: Atoll) -> None:
    words = ("simulate", "--trace", HISTORY, "--cluster", CLUSTER, *QUOTAS)
    done = atoll(*words)
    assert done.code == 0, done.err
    rows = [line.split()[:3] for line in done.out.splitlines()]
    for name in ("quotas.yaml", "quotas-lent.yaml"):
        assert ["atoll,", name, "all"] in rows
        for project in ("physics", "climate", "biology"):
            assert [project, "atoll,", name] in rows
    document = json.loads(atoll(*words, "-o", "json").out)
    strict, lent = (found["projects"]["climate"]["waiting"]["mean"] for found in document["policies"])
    assert lent < strict
    assert [found["denied"] for found in document["policies"]] == [{"jobs": 0, "reasons": []}] * 2
    assert atoll(*words, "-o", "name").out.splitlines() == ["atoll, quotas.yaml", "atoll, quotas-lent.yaml"]
    assert atoll(*words, "--plot", "pictures").code == 0


def test_jobs_that_quotas_do_not_take_are_told(atoll: Atoll) -> None:
    done = atoll("simulate", "--trace", HISTORY, "--cluster", CLUSTER, "--quotas", "some.yaml")
    assert done.code == Invalid.exit_code
    Path("some.yaml").write_text("projects: {all: {}, physics: {parent: all}, climate: {parent: all}}")
    done = atoll("simulate", "--trace", HISTORY, "--cluster", CLUSTER, "--quotas", "some.yaml")
    assert "jobs that some.yaml does not take, which are left out: " in done.err
    assert "There is no project biology in the tree." in done.err


def test_a_compressed_trace_and_one_from_the_input_are_read(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "trace.swf.gz").write_bytes(gzip.compress(Path(SWF).read_bytes()))
    packed = json.loads(atoll("simulate", "--trace", "trace.swf.gz", "--cluster", CLUSTER, "-o", "json").out)
    piped = json.loads(
        atoll("simulate", "--trace", "-", "--cluster", CLUSTER, "-o", "json", stdin=Path(SWF).read_text()).out
    )
    assert packed["policies"] == piped["policies"]


def test_broken_rows_and_impossible_jobs_are_told_beside_the_result(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "pods.csv").write_text(Path(TRACE).read_text() + "broken\npod,1,2\n")
    done = atoll("simulate", "--trace", "pods.csv", "--cluster", CLUSTER)
    assert done.code == 0
    assert "broken rows of pods.csv, which are left out: 2" in done.err
    assert "line 52: there are 1 fields instead of 11" in done.err
    assert "jobs that can never run on this cluster, which are left out: 28" in done.err
    assert "No site has the flavor V100M16" in done.err
    document = json.loads(atoll("simulate", "--trace", "pods.csv", "--cluster", CLUSTER, "-o", "json").out)
    assert document["trace"]["problems"][1] == {"line": 53, "problem": "there are 3 fields instead of 11"}
    assert document["impossible"]["jobs"] == 28


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (["--trace", "gone.swf", "--cluster", CLUSTER], Invalid.exit_code, "gone.swf cannot be read: No such file"),
        (["--trace", SWF, "--cluster", "gone.yaml"], Invalid.exit_code, "gone.yaml cannot be read: No such file"),
        (["--trace", ".", "--cluster", CLUSTER], Invalid.exit_code, ". cannot be read: Is a directory"),
        (["--trace", SWF, "--cluster", "."], Invalid.exit_code, ". cannot be read: Is a directory"),
        (["--trace", "empty", "--cluster", CLUSTER], Invalid.exit_code, "The trace empty is empty"),
        (["--trace", SWF, "--cluster", "empty"], Invalid.exit_code, "The cluster file empty is empty"),
        (["--trace", CLUSTER, "--cluster", CLUSTER], Invalid.exit_code, "is no trace that is known here"),
        (["--trace", "noise", "--cluster", CLUSTER], Invalid.exit_code, "is no trace that is known here"),
        (["--trace", SWF, "--cluster", TRACE], Invalid.exit_code, "must be keys and values"),
        (["--trace", "noise.gz", "--cluster", CLUSTER], Invalid.exit_code, "noise.gz cannot be read: Not a gzipped"),
        (["--trace", SWF, "--cluster", CLUSTER, "--policy", "attol"], NotFound.exit_code, "Did you mean 'atoll'?"),
        (
            ["--trace", SWF, "--cluster", CLUSTER, "--policy", ""],
            NotFound.exit_code,
            "There are atoll, first-fit, all.",
        ),
        (["--trace", SWF, "--cluster", CLUSTER, "--fill", "0"], Invalid.exit_code, "--fill 0 must be a share above 0"),
        (["--trace", SWF, "--cluster", CLUSTER, "--fill", "nan"], Invalid.exit_code, "--fill nan must be a share"),
        (["--trace", SWF, "--cluster", CLUSTER, "--fill", "1"], Invalid.exit_code, "asks for a GPU"),
        (["--trace", SWF, "--cluster", CLUSTER, "--plot", "empty"], Invalid.exit_code, "empty cannot be made"),
        (["--trace", SWF, "--cluster", CLUSTER, *QUOTAS, "--fill", "1"], Invalid.exit_code, "replays nothing"),
        (["--trace", SWF, "--cluster", CLUSTER, *QUOTAS[:2], *QUOTAS[:2]], Invalid.exit_code, "have the name"),
        (["--trace", SWF, "--cluster", CLUSTER, *QUOTAS], Invalid.exit_code, "takes no job of the trace"),
        (["--trace", SWF], USAGE, "--cluster"),
        (["--trace", SWF, "--cluster", CLUSTER, "--polcy", "x"], USAGE, "Did you mean --policy?"),
        (["--trace", SWF, "--cluster", CLUSTER, "--seed", "x"], USAGE, "--seed"),
    ],
)
def test_what_is_wrong_is_one_line(atoll: Atoll, tmp_path: Path, words: list[str], code: int, sentence: str) -> None:
    (tmp_path / "empty").write_text("")
    (tmp_path / "noise").write_bytes(bytes(range(256)) * 4)
    shutil.copy(tmp_path / "noise", tmp_path / "noise.gz")
    done = atoll("simulate", *words)
    assert (done.code, done.out) == (code, "")
    assert sentence in done.err
    assert done.err.startswith("atoll: ")
    assert done.err.count("\n") == 1


def test_without_the_scheduler_it_says_what_to_install(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.cli.simulate.NEEDED", "not_installed_here")
    done = atoll("simulate", "--trace", SWF, "--cluster", CLUSTER)
    assert done.code == Unavailable.exit_code
    assert "pip install 'atoll[server]'" in done.err
