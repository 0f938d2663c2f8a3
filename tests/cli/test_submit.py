"""What `submit` makes of files, scripts, commands and options: all of it can be seen with --dry-run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atoll.core.errors import Invalid
from atoll.faces.terminal.exits import USAGE
from tests.cli.conftest import Atoll

SCRIPT = """#!/bin/sh
#SBATCH --job-name=slurm
#SBATCH -n 8
#SBATCH --time=10
#ATOLL name: ours
#ATOLL labels: {from: script, kept: yes}
echo hi
"""


def spec(atoll: Atoll, *words: str, stdin: str = "") -> Any:
    done = atoll("submit", "--dry-run", "-o", "json", *words, stdin=stdin)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "job.sh").write_text(SCRIPT)
    return "job.sh"


def test_a_command_is_what_stands_after_two_dashes(atoll: Atoll) -> None:
    assert spec(atoll, "--", "echo", "-n", "--cpu", "a b") == {"command": ["echo", "-n", "--cpu", "a b"]}


def test_our_options_become_fields(atoll: Atoll) -> None:
    found = spec(
        atoll, "--name", "n", "--class", "opportunistic", "--project", "p", "--cpu", "0.5", "--mem", "2G", "--gpu", "1",
        "--flavor", "gpu-a", "--flavor", "gpu-b", "--nodes", "2", "--launch", "each", "--scratch", "1G",
        "--array", "0-9%2", "--after", "3", "--after", "any:4", "--env", "A=b=c",
        "--site", "local", "--constraint", "region=eu,us",
        "--offload", "never", "--venv", "/venv", "--retries", "2", "--rerun", "--priority", "-5",
        "--grace", "90", "--out", "*.csv", "--stdout", "out-%j", "--stderr", "err", "--label", "k=v", "--", "true",
    )  # fmt: skip
    assert found == {
        "name": "n", "class": "opportunistic", "project": "p", "cpu": "500m", "memory": 2 * 1024**3, "gpu": "1",
        "flavor": ["gpu-a", "gpu-b"], "nodes": 2, "launch": "each", "scratch": 1024**3, "array": "0-9%2",
        "dependencies": [{"job": "3"}, {"job": "4", "on": "any"}], "env": {"A": "b=c"},
        "constraints": ["region=eu,us", "site=local"], "offload": "never", "environment": {"venv": "/venv"},
        "retries": 2, "rerun": True, "priority": -5, "grace": 90, "files_out": ["*.csv"], "stdout": "out-%j",
        "stderr": "err", "labels": {"k": "v"}, "command": ["true"],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 5400), ("1:30", 120), ("90s", 90), ("1h30m", 5400), ("2-12", 216_000), ("0:10:00", 600)],
)
def test_a_time_is_slurms_where_it_has_no_unit(atoll: Atoll, text: str, seconds: int) -> None:
    assert spec(atoll, "--time", text, "--", "true")["walltime"] == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("4000", 4000 << 20), ("4G", 4 << 30), ("1.5GiB", 3 << 29), ("100TB", 100 << 40)]
)
def test_a_size_is_in_mb_where_it_has_no_unit(atoll: Atoll, text: str, size: int) -> None:
    assert spec(atoll, "--mem", text, "--", "true")["memory"] == size


def test_slurms_short_options_may_stand_anywhere_and_together(atoll: Atoll) -> None:
    found = spec(atoll, "-Jname", "-n4", "--name", "later", "-c", "2", "-Qt", "5", "-A", "acct", "-a0-3", "--", "true")
    assert (found["name"], found["cpu"], found["walltime"], found["project"], found["array"]) == (
        "later", "8", 300, "acct", "0-3",
    )  # fmt: skip


def test_the_command_line_wins_over_atoll_lines_and_these_over_sbatch_lines(atoll: Atoll, script: str) -> None:
    assert spec(atoll, script)["name"] == "ours"
    found = spec(atoll, "-c", "2", "--name", "mine", "--label", "from=me", "--time", "20", script)
    assert (found["name"], found["cpu"], found["walltime"]) == ("mine", "16", 1200)
    assert found["labels"] == {"from": "me", "kept": "yes"}


def test_what_follows_a_script_is_its_own(atoll: Atoll, script: str) -> None:
    assert spec(atoll, script, "--name", "x", "--")["args"] == ["--name", "x", "--"]


def test_a_script_is_read_from_standard_input_too(atoll: Atoll) -> None:
    assert spec(atoll, stdin=SCRIPT)["script"] == SCRIPT
    assert spec(atoll, "-", "arg", stdin=SCRIPT)["args"] == ["arg"]


@pytest.mark.parametrize(
    "text",
    [
        "command: echo a\n",
        '{"command": ["echo", "a"]}\n',
        "---\ncommand: echo a\n...\n",
        "# what it does\ncommand: [echo, a]\n",
    ],
)
def test_one_job_is_written_as_yaml_or_json(atoll: Atoll, text: str) -> None:
    assert spec(atoll, "-", stdin=text) == {"command": ["echo", "a"]}


@pytest.mark.parametrize(
    "text",
    [
        "jobs:\n- {command: a}\n- {command: b}\n",
        "- {command: a}\n- {command: b}\n",
        "command: a\n---\ncommand: b\n",
        "---\ncommand: a\n---\n# nothing\n---\njobs: [{command: b}]\n",
    ],
)
def test_several_jobs_are_a_list_or_several_documents(atoll: Atoll, text: str) -> None:
    assert [job["command"] for job in spec(atoll, "-", stdin=text)] == [["a"], ["b"]]


def test_options_go_over_every_job_of_a_file(atoll: Atoll) -> None:
    found = spec(
        atoll,
        "--site",
        "s",
        "-n",
        "2",
        "-",
        stdin="- {command: a, cpu: 9, constraints: [site=x, fast]}\n- command: b\n",
    )
    assert [(job["cpu"], job["constraints"]) for job in found] == [("2", ["fast", "site=s"]), ("2", ["site=s"])]


def test_files_go_up_by_content_and_their_names_stay_here(atoll: Atoll, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "train.py").write_text("print(1)\n")
    (folder / "job.yaml").write_text("command: python t.py\nfiles_in:\n- {path: t.py, source: ./train.py}\n")
    (tmp_path / "data").write_text("1 2 3\n")
    found = spec(atoll, "--in", "data:input/numbers", "project/job.yaml")
    assert [entry["path"] for entry in found["files_in"]] == ["t.py", "input/numbers"]
    assert all(len(entry["sha256"]) == 64 and "source" not in entry for entry in found["files_in"])


def test_a_variable_without_value_is_taken_from_here(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERE", "yes")
    assert spec(atoll, "--env", "HERE", "--", "true")["env"] == {"HERE": "yes"}
    done = atoll("submit", "--env", "NOT_HERE", "--", "true")
    assert "NOT_HERE=VALUE" in done.err


def test_wrap_is_taken_as_sbatch_takes_it(atoll: Atoll) -> None:
    assert "echo hi" in spec(atoll, "--wrap", "echo hi")["script"]


def test_dry_run_prints_what_can_be_submitted_again(atoll: Atoll, script: str, tmp_path: Path) -> None:
    done = atoll("submit", "--dry-run", script)
    (tmp_path / "again.yaml").write_text(done.out)
    assert spec(atoll, "again.yaml") == spec(atoll, script)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.yaml", "name: x\ncomand: echo\n", ["a.yaml line 2", "'comand'", "Did you mean 'command'?"]),
        ("a.yaml", "command: x\n---\ncommand: x\ncpu: -1\n", ["a.yaml line 4", "cpu"]),
        ("a.yaml", "jobs:\n- command: x\n- command: x\n  array: 5-1\n", ["a.yaml line 4", "jobs[1]", "write 1-5"]),
        ("a.yaml", "command: [a\nb: c\n", ["a.yaml", "line 2"]),
        ("a.yaml", "command: a\ncommand: b\n", ["a.yaml", "line 2", "written twice"]),
        ("a.yaml", "hello\n", ["a.yaml line 1", "command: echo hello"]),
        ("a.yaml", "", ["a.yaml", "no job"]),
        ("a.yaml", "name: x\njobs: []\n", ["a.yaml line 1", "name"]),
        ("a.yaml", "command: x\nname: \"a\\x07b\"\n", ["a.yaml line 2", "name"]),
        ("a.yaml", "command: x\nfiles_in:\n- source: gone.py\n", ["a.yaml line 3", "gone.py", "not there"]),
        ("a.sh", "#!/bin/sh\n#SBATCH --mem=lots\n", ["a.sh", "line 2", "--mem"]),
        ("a.sh", "echo hi\n", ["a.sh", "#!/bin/sh"]),
        ("a.sh", "#!/bin/sh\n#ATOLL cpus: 2\n", ["a.sh", "line 2", "cpus"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_its_name_its_line_and_what_would_be_right(
    atoll: Atoll, tmp_path: Path, name: str, text: str, told: list[str]
) -> None:
    (tmp_path / name).write_text(text)
    done = atoll("submit", name)
    assert done.code == Invalid.exit_code
    assert "Traceback" not in done.err
    for word in told:
        assert word in done.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["python", "train.py"], "atoll submit -- python train.py"),
        (["."], "directory"),
        (["--"], "atoll submit -- echo hello"),
        (["--mem", "4Q", "--", "true"], "--mem"),
        (["--cpu", "many", "--", "true"], "--cpu"),
        (["--gpu", "a100:x", "--", "true"], "--gpu"),
        (["--time", "soon", "--", "true"], "--time"),
        (["--begin", "someday", "--", "true"], "--begin"),
        (["--array", "9-1", "--", "true"], "write 1-9"),
        (["--after", "afterwhat:1", "--", "true"], "--after"),
        (["--env", "=x", "--", "true"], "--env"),
        (["--label", "x", "--", "true"], "--label"),
        (["--image", "a", "--venv", "b", "--", "true"], "--image"),
        (["--in", "gone.py", "--", "true"], "gone.py"),
        (["--in", "x.py:../../etc/passwd", "--", "true"], "files_in"),
        (["--mail-user", "me", "--", "true"], "Atoll sends no mail"),
        (["--name", "a\tb", "--", "true"], "name"),
    ],
)
def test_a_wrong_request_is_told_with_its_option(atoll: Atoll, tmp_path: Path, words: list[str], told: str) -> None:
    (tmp_path / "x.py").write_text("")
    done = atoll("submit", *words)
    assert done.code == Invalid.exit_code
    assert told in done.err
    assert "Traceback" not in done.err


def test_options_after_a_yaml_file_are_told_where_they_go(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_text("command: x\n")
    assert "atoll submit --wait job.yaml" in atoll("submit", "job.yaml", "--wait").err


def test_slurms_o_is_explained_where_it_is_given_a_file(atoll: Atoll) -> None:
    done = atoll("submit", "-o", "out-%j.log", "--", "true")
    assert done.code == USAGE
    assert "--stdout FILE" in done.err


@pytest.mark.parametrize("words", [["--array", "0-3"], ["--hold"]])
def test_run_takes_what_can_be_followed_to_its_end(atoll: Atoll, words: list[str]) -> None:
    done = atoll("run", *words, "--", "true")
    assert done.code == Invalid.exit_code
    assert "atoll submit" in done.err


def test_a_program_is_no_script(atoll: Atoll, tmp_path: Path) -> None:
    (tmp_path / "program").write_bytes(b"\x7fELF\xff\xfe")
    assert "no UTF-8 text" in atoll("submit", "program").err
