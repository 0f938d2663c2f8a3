"""The commands against a running platform: what they print, and the exit codes that scripts go by."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from atoll.core.errors import Conflict, Denied, Invalid, NotFound
from atoll.faces.terminal.exits import CANCELLED, OUT_OF_MEMORY, TIMED_OUT
from tests.cli.conftest import Atoll
from tests.support.platform import RunningPlatform

pytestmark = pytest.mark.timeout(120)


def submit(atoll: Atoll, *words: str) -> str:
    done = atoll("submit", "-o", "name", *words)
    assert done.code == 0, done.err
    assert done.out.strip().isdecimal()
    assert done.out.count("\n") == 1
    return done.out.strip()


def test_run_gives_output_error_output_and_the_exit_code(there: Atoll) -> None:
    done = there("run", "--", "sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.code, done.out, done.err) == (3, "out\n", "err\n")


def test_run_takes_a_site_and_resources(there: Atoll) -> None:
    done = there("run", "--site", "local", "--cpu", "0.5", "--mem", "64M", "--", "sh", "-c", "echo $ATOLL_CPUS")
    assert done.code == 0, done.err
    assert done.out != ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--", "true"], 0),
        (["--", "sh", "-c", "exit 42"], 42),
        (["--", "sh", "-c", "kill -TERM $$"], 143),
        (["--time", "1s", "--grace", "1", "--", "sleep", "60"], TIMED_OUT),
        (["--mem", "64M", "--", "sh", "-c", "head -c 400M /dev/zero | tail"], OUT_OF_MEMORY),
    ],
    ids=["succeeds", "fails", "is killed", "takes too long", "takes too much memory"],
)
def test_wait_ends_as_the_job_did(there: Atoll, words: list[str], code: int) -> None:
    done = there("wait", submit(there, *words))
    assert (done.code, done.out) == (code, "")
    assert (done.err == "") == (code == 0)


def test_wait_for_several_ends_as_the_first_that_did_not_succeed(there: Atoll) -> None:
    jobs = [submit(there, "--", "sh", "-c", f"exit {code}") for code in (0, 5, 6)]
    assert there("wait", *jobs).code == 5


def test_wait_for_an_array_ends_as_its_first_task_that_failed(there: Atoll) -> None:
    array = submit(there, "--array", "0-3", "--", "sh", "-c", "test $ATOLL_TASK_ID != 2 || exit 7")
    assert there("wait", array).code == 7
    assert there("wait", f"{array}[2-3]").code == 7
    assert there("wait", f"{array}[0-1]").code == 0


def test_a_cancelled_job_has_a_code_of_its_own(there: Atoll) -> None:
    job = submit(there, "--begin", "now+1hour", "--", "true")
    assert there("cancel", job).out == f"Cancelled job {job}.\n"
    assert there("wait", job).code == CANCELLED


def test_submit_follows_and_waits_where_it_is_told_to(there: Atoll) -> None:
    done = there("submit", "--follow", "--", "sh", "-c", "echo hello; exit 4")
    assert done.code == 4
    assert done.out.endswith("hello\n")
    assert there("submit", "-W", "--parsable", "--", "sh", "-c", "exit 5").code == 5


def test_a_file_of_jobs_is_submitted_as_a_whole_with_names_as_dependencies(there: Atoll, tmp_path: Path) -> None:
    (tmp_path / "jobs.yaml").write_text(
        "jobs:\n- {name: first, command: 'true'}\n- {name: second, command: 'true', dependencies: first}\n"
    )
    done = there("submit", "-o", "json", "jobs.yaml")
    first, second = json.loads(done.out)
    assert (first["name"], second["name"]) == ("first", "second")
    assert there("wait", str(second["id"])).code == 0
    (tmp_path / "cycle.yaml").write_text(
        "- {name: a, command: x, dependencies: b}\n- {name: b, command: x, dependencies: a}\n"
    )
    before = there("ps", "--all", "-o", "name").out
    cycle = there("submit", "cycle.yaml")
    assert cycle.code == Invalid.exit_code
    assert there("ps", "--all", "-o", "name").out == before


def test_the_same_idempotency_key_submits_once(there: Atoll) -> None:
    jobs = {submit(there, "--idempotency-key", "only-one", "--", "true") for _ in range(2)}
    assert len(jobs) == 1


def test_ps_lists_what_has_not_ended_unless_told_otherwise(there: Atoll) -> None:
    ended = submit(there, "--name", "ended-one", "--", "true")
    there("wait", ended)
    held = submit(there, "--hold", "--name", "held-one", "--", "true")
    assert there("ps", "--name", "ended-one", "-o", "name").out == ""
    assert there("ps", "--all", "--name", "ended-one", "-o", "name").out == f"{ended}\n"
    assert there("ps", "--since", "1h", "--name", "ended-one", "-o", "name").out == f"{ended}\n"
    assert there("ps", "--since", "2020-01-01", "--state", "held", "-o", "name").out == f"{held}\n"
    listed = json.loads(there("ps", "-o", "json").out)
    assert [(job["id"], job["state"]) for job in listed if job["name"] == "held-one"] == [(held, "held")]
    assert yaml.safe_load(there("ps", "--state", "held", "-o", "yaml").out)[0]["job"] == int(held)
    table = there("ps").out.splitlines()
    assert table[0].split()[:3] == ["JOB", "NAME", "STATE"]
    assert any(line.split()[:3] == [held, "held-one", "held"] for line in table)
    assert "--limit" in there("ps", "--all", "--limit", "1").err
    there("cancel", held)


def test_explain_says_what_would_become_of_a_job_and_submits_nothing(there: Atoll) -> None:
    before = there("ps", "--all", "-o", "name").out
    told = there("explain", "--name", "what-if", "--", "true")
    assert (told.code, told.out.splitlines()[0]) == (0, "It could run, and would start at once.")
    assert "Site local could run it" in told.out
    later = there("explain", "--begin", "now+1hour", "--", "true")
    assert "expected to start at " in later.out
    answer = json.loads(there("explain", "--begin", "now+1hour", "-o", "json", "--", "true").out)
    assert (answer["code"], answer["estimate"]["position"]) == ("BeginTime", 1)
    impossible = there("explain", "--cpu", "9999", "--", "true")
    assert (impossible.code, impossible.out) == (Invalid.exit_code, "")
    assert "more than any site has" in impossible.err
    assert there("ps", "--all", "-o", "name").out == before


def test_what_waits_is_told_when_it_will_start(there: Atoll) -> None:
    job = submit(there, "--begin", "now+1hour", "--name", "later", "--", "true")
    deadline = time.monotonic() + 30
    while "expected to start" not in (told := there("why", job).out) and time.monotonic() < deadline:
        time.sleep(0.2)  # forecasts come by themselves
    assert re.search(r"It is number 1 of 1 in the queue, expected to start at .* \(in 59m \d+s\)", told)
    row = next(line for line in there("ps").out.splitlines() if line.split()[:1] == [job])
    assert re.search(r"~(59m \d+s|1h 0m)", row)
    assert json.loads(there("show", job, "-o", "json").out)["estimate"]["position"] == 1
    there("cancel", job)


def test_hold_release_and_set_change_what_waits(there: Atoll) -> None:
    job = submit(there, "--begin", "now+1hour", "--", "true")
    assert there("hold", job).out == f"Held job {job}.\n"
    assert json.loads(there("show", job, "-o", "json").out)["state"] == "held"
    assert there("set", job, "--priority", "7", "--time", "1h", "--label", "k=v").code == 0
    assert there("release", job).code == 0
    found = json.loads(there("show", job, "-o", "json").out)
    assert (found["state"], found["priority"], found["spec"]["walltime"]) == ("queued", 7, 3600)
    assert "begin time" in there("why", job).out
    there("cancel", job)
    ended = there("set", job, "--priority", "1")
    assert ended.code == Conflict.exit_code
    assert there("set", job).code == Invalid.exit_code


def test_requeue_runs_it_again_and_logs_keep_the_attempts_apart(there: Atoll) -> None:
    job = submit(there, "--", "sh", "-c", "echo $$")
    there("wait", job)
    first = there("logs", job).out
    assert there("requeue", job).code == 0
    there("wait", job)
    assert there("logs", "--attempt", "1", job).out == first
    second = there("logs", job).out
    assert there("logs", "--since", "1h", job).out == first + second
    assert there("logs", "--since", "0s", job).out == ""


def test_a_signal_reaches_the_job(there: Atoll) -> None:
    job = submit(there, "--", "sh", "-c", "trap 'echo got it; exit 9' USR1; echo ready; while :; do sleep 0.1; done")
    with_output = there("logs", "--tail", "1", job)
    while "ready" not in with_output.out:
        with_output = there("logs", "--tail", "1", job)
    assert there("signal", "USR1", job).code == 0
    assert there("wait", job).code == 9
    assert there("logs", job).out == "ready\ngot it\n"


def test_logs_gives_streams_tasks_and_tails(there: Atoll) -> None:
    job = submit(there, "--", "sh", "-c", "seq 1 50000; echo problem >&2")
    there("wait", job)
    every = "".join(f"{number}\n" for number in range(1, 50001))
    done = there("logs", job)
    assert (done.out, done.err) == (every, "problem\n")
    assert there("logs", "--tail", "3", "--stdout", job).out == "49998\n49999\n50000\n"
    assert there("logs", "--tail", "20000", "--stdout", job).out == every[every.index("30001\n") :]
    assert there("logs", "--stderr", job).out == "problem\n"
    followed = there("logs", "-f", job)
    assert (followed.out, followed.err) == (every, "problem\n")
    array = submit(there, "--array", "1-3", "--", "sh", "-c", "echo task $ATOLL_TASK_ID")
    there("wait", array)
    assert there("logs", "--task", "2", array).out == "task 2\n"
    assert there("logs", f"{array}[1,3]").out == "task 1\ntask 3\n"


def test_files_go_in_and_come_out(there: Atoll, tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "double.sh").write_text('#!/bin/sh\nmkdir -p out/deep; cat "$1" "$1" > out/deep/twice\n')
    (tmp_path / "code" / "double.sh").chmod(0o755)
    (tmp_path / "numbers").write_text("1 2 3\n")
    job = submit(there, "--in", "code", "--in", "numbers:data/numbers", "--out", "out/deep/*", "--",
                 "code/double.sh", "data/numbers")  # fmt: skip
    assert there("wait", job).code == 0, there("logs", job)
    done = there("fetch", job)
    assert done.out == f"job-{job}/out/deep/twice\n"
    assert (tmp_path / f"job-{job}" / "out" / "deep" / "twice").read_text() == "1 2 3\n1 2 3\n"
    (tmp_path / f"job-{job}" / "out" / "deep" / "twice").write_text("mine")
    refused = there("fetch", job)
    assert refused.code == Conflict.exit_code
    assert (tmp_path / f"job-{job}" / "out" / "deep" / "twice").read_text() == "mine"
    assert there("fetch", job, "--force").code == 0
    assert there("fetch", job, "nothing*").out == ""


def test_site_and_token_commands(there: Atoll, monkeypatch: pytest.MonkeyPatch, platform: RunningPlatform) -> None:
    assert there("site", "ls", "-o", "name").out == "local\n"
    assert json.loads(there("site", "show", "local", "-o", "json").out)["driver"] == "process"
    made = json.loads(there("token", "create", "ci", "--expires", "1d", "-o", "json").out)
    assert made["id"] in there("token", "ls", "-o", "name").out.split()
    assert made["token"] not in there("token", "ls").out
    monkeypatch.setenv("ATOLL_URL", platform.url)
    monkeypatch.setenv("ATOLL_TOKEN", made["token"])
    assert there("ps").code == 0
    assert there("token", "revoke", made["id"]).code == 0
    refused = there("ps")
    assert refused.code == Denied.exit_code
    assert made["token"] not in refused.err


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["show", "999999"], NotFound.exit_code),
        (["cancel", "twelve"], Invalid.exit_code),
        (["logs", "12[3-1]"], Invalid.exit_code),
        (["site", "show", "nowhere"], NotFound.exit_code),
        (["submit", "--mem", "100000T", "--", "true"], Invalid.exit_code),
        (["submit", "--after", "999999", "--", "true"], Invalid.exit_code),
        (["submit", "--site", "nowhere", "--", "true"], Invalid.exit_code),
    ],
)
def test_what_is_refused_has_one_sentence_and_the_code_of_its_kind(there: Atoll, words: list[str], code: int) -> None:
    done = there(*words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("atoll: ")
    assert done.err.count("\n") == 1


def test_several_jobs_are_all_tried_and_the_error_is_told(there: Atoll) -> None:
    jobs = [submit(there, "--hold", "--", "true") for _ in range(2)]
    done = there("cancel", jobs[0], "999999", jobs[1])
    assert done.code == NotFound.exit_code
    assert done.out == f"Cancelled job {jobs[0]}.\nCancelled job {jobs[1]}.\n"
    assert "999999" in done.err


def test_version_and_doctor_see_the_platform(there: Atoll, platform: RunningPlatform) -> None:
    assert json.loads(there("version", "-o", "json").out)["url"] == platform.url
    done = there("doctor", "-o", "json")
    findings = {finding["check"]: finding for finding in json.loads(done.out)}
    assert done.code == 0
    assert findings["platform"]["status"] == "ok"
    assert {"python", "data folder", "cpus", "memory", "gpus", "memory limits", "slurm"} <= findings.keys()


def test_doctor_fails_where_the_platform_that_is_named_does_not_answer(
    atoll: Atoll, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ATOLL_TOKEN", "t")
    done = atoll("doctor", "--timeout", "0.1")
    assert done.code != 0
    assert "fail" in done.out
