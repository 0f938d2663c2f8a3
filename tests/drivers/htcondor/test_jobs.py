"""Submit descriptions say what is meant, as HTCondor's own parser reads them, and nothing that a person writes."""

import tarfile
from pathlib import Path
from typing import Any

import classad2
import htcondor2
import pytest

from atoll.core.errors import Invalid
from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import DriverError, Launch, StagedFile
from atoll.drivers.htcondor import jobs
from atoll.drivers.htcondor.config import HtcondorConfig, read_config

FOLDER = Path("/srv/atoll/attempts/a")
NASTY = 'x $(attempt) $ENV(HOME) "quoted" \\ \nqueue 100\nexecutable = /bin/evil'


def make_launch(spec: dict[str, Any] | None = None, **values: Any) -> Launch:
    job = JobSpec.model_validate({"command": ["echo", "hi"], **(spec or {})})
    usual: dict[str, Any] = {
        "attempt_id": new_attempt_id("aaaaa"), "job_id": 7, "task": None, "task_count": 1, "number": 1,
        "checkpoint_key": "job-7", "person": "owner", "project": "p", "account": None, "spec": job,
        "request": Resources(cpu=1500, memory=(256 << 20) + 1, gpu=job.gpu), "nodes": 1, "walltime": job.walltime,
    }  # fmt: skip
    return Launch(**(usual | values))


def submitted(launch: Launch, config: HtcondorConfig) -> htcondor2.Submit:
    """The description with one attempt's line, as the bindings hold it."""
    submit = htcondor2.Submit(jobs.description(jobs.kind_of(launch, config), "aaaaa", config))
    for name, value in jobs.item(launch, config, FOLDER).items():
        submit[name] = value
    return submit


def test_description_says_what_the_attempt_asks_for() -> None:
    launch = make_launch({"gpu": 2, "walltime": "10m", "grace": 40, "scratch": "3G", "files_out": ["a"]})
    submit = submitted(launch, read_config({}))
    expected = {
        "universe": "vanilla", "executable": str(jobs.EXECUTABLE), "initialdir": str(FOLDER), "request_cpus": "2",
        "request_memory": "257", "request_disk": str(3 << 20), "request_gpus": "2", "job_max_vacate_time": "40",
        "allowed_execute_duration": str(600 + 40 + 120), "MY.AtollAttempt": f'"{launch.attempt_id}"',
        "MY.AtollInstance": '"aaaaa"', "transfer_input_files": "wrapper.sh,launch,script,job.env",
        "transfer_output_files": "stdout,stderr,shell,start,end,over,work.tar", "batch_name": "atoll-7",
        "should_transfer_files": "YES", "when_to_transfer_output": "ON_EXIT", "notification": "never",
    }  # fmt: skip
    assert {name: submit.expand(name) for name in expected} == expected


def test_what_is_not_asked_for_is_absent() -> None:
    submit = submitted(make_launch(), read_config({}))
    assert not {"request_gpus", "allowed_execute_duration", "container_image", "accounting_group"} & set(submit)
    assert submit.expand("request_disk") == str(1 << 20)


def test_image_is_run_in_the_container_universe() -> None:
    launch = make_launch({"environment": {"image": "example.org/own:2"}})
    submit = submitted(launch, read_config({}))
    assert (submit.expand("universe"), submit.expand("container_image")) == ("container", "docker://example.org/own:2")
    plain = submitted(make_launch(), read_config({"universe": "container", "image": "/cvmfs/base.sif"}))
    assert plain.expand("container_image") == "/cvmfs/base.sif"


def test_requirements_are_an_expression_and_hold_the_job_to_one_start() -> None:
    config = read_config(
        {
            "requirements": 'TARGET.OpSys == "LINUX"',
            "flavors": {"big": "TARGET.Memory > 100", "gpu": "TARGET.GPUs > 0"},
            "classes": {"batch": {"requirements": "TARGET.Slow || true", "attributes": {"WantFlocking": "true"}}},
        }
    )  # fmt: skip
    launch = make_launch({"flavor": ["gpu", "big"]})
    submit = submitted(launch, config)
    expression = classad2.ExprTree(submit.expand("requirements"))
    machine = classad2.ClassAd({"OpSys": "LINUX", "Memory": 200, "GPUs": 0, "Slow": False})
    for starts, wanted in ((None, True), (0, True), (1, False)):
        job = classad2.ClassAd({} if starts is None else {"NumJobStarts": starts})
        job["Requirements"] = expression
        assert machine.matches(job) is wanted, starts
    machine["OpSys"] = "WINDOWS"
    job = classad2.ClassAd()
    job["Requirements"] = expression
    assert machine.matches(job) is False
    assert submit.expand("MY.WantFlocking") == "true"


@pytest.mark.parametrize(
    ("status", "since", "stays"), [(4, 10, True), (3, 10, True), (2, 10, False), (4, 900_000, False)]
)
def test_ended_job_stays_in_the_queue_for_a_bounded_time(status: int, since: int, stays: bool) -> None:
    submit = submitted(make_launch(), read_config({}))
    ad = classad2.ClassAd({"JobStatus": status})
    ad["EnteredCurrentStatus"] = classad2.ExprTree(f"time() - {since}")
    assert classad2.ExprTree(submit.expand("leave_in_queue")).eval(ad) is stays


@pytest.mark.parametrize(("ad", "removed"), [({}, False), ({"NumJobStarts": 0}, False), ({"NumJobStarts": 1}, True)])
def test_job_that_was_put_back_is_removed(ad: dict[str, int], removed: bool) -> None:
    submit = submitted(make_launch(), read_config({}))
    expression = classad2.ExprTree(submit.expand("periodic_remove"))
    assert (expression.eval(classad2.ClassAd({"JobStatus": 1, **ad})) is True) is removed
    assert expression.eval(classad2.ClassAd({"JobStatus": 2, **ad})) is False


def test_nothing_that_a_person_writes_is_in_the_description() -> None:
    config = read_config({})
    launch = make_launch(
        {
            "command": ["echo", NASTY], "name": "$(x)", "env": {"A": NASTY}, "labels": {"l": NASTY},
            "workdir": "$(x)/y z", "stdout": "$(x).log", "script": None,
        },
        environment={"ATOLL_JOB_NAME": NASTY},
    )  # fmt: skip
    text = jobs.description(jobs.kind_of(launch, config), "aaaaa", config) + str(jobs.item(launch, config, FOLDER))
    for word in ("ENV(HOME)", "quoted", "queue 100", "evil", "$(x)", "y z"):
        assert word not in text


@pytest.mark.parametrize(
    ("spec", "config", "words"),
    [
        ({"environment": {"image": "/etc/shadow"}}, {}, "environment.image"),
        ({"environment": {"image": "../x.sif"}}, {}, "environment.image"),
        ({"environment": {"image": "a$(b)"}}, {}, "environment.image"),
        ({"environment": {"image": "debian"}}, {"images": False}, "environment.image"),
        ({"environment": {"conda": "base"}}, {}, "environment.conda"),
        ({"nodes": 2}, {}, "nodes"),
        ({"volumes": [{"name": "v", "path": "/v"}]}, {}, "volumes"),
        ({"ports": [{"port": 80}]}, {}, "ports"),
        ({"gpu": 0.5}, {}, "gpu"),
        ({"flavor": ["other"]}, {"flavors": {"cpu": "true"}}, "flavor"),
        ({"walltime": "2h"}, {"max_walltime": "1h"}, "walltime"),
    ],
)
def test_what_no_job_can_be_is_told_by_name(spec: dict[str, Any], config: dict[str, Any], words: str) -> None:
    launch = make_launch(spec)
    launch = make_launch(spec, nodes=launch.spec.nodes)
    with pytest.raises(jobs.CannotRun) as caught:
        jobs.check(launch, read_config(config))
    assert str(caught.value).startswith(f"{words}: ")


def test_files_that_are_laid_out_are_those_that_the_line_names(tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"content")
    spec = {"script": "#!/bin/sh\n", "command": None, "secrets": [{"name": "key", "file": "k"}]}
    files = (StagedFile("in/$(x) y.bin", tmp_path / "source", executable=True),)
    launch = make_launch(spec, files=files, secrets={"key": b"\0secret"})
    folder = tmp_path / "attempt"
    jobs.lay_out(launch, folder)
    named = jobs.item(launch, read_config({}), folder)["inputs"].split(",")
    assert sorted(named) == sorted(path.name for path in folder.iterdir())
    assert (folder / "secrets.tar").stat().st_mode & 0o077 == 0
    with tarfile.open(folder / "files.tar") as archive:
        (member,) = archive.getmembers()
        assert (member.name, member.mode, member.uname) == ("in/$(x) y.bin", 0o755, "")
    jobs.clear(folder)
    assert list(folder.iterdir()) == []


def test_secret_without_a_value_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="'key' has no value"):
        jobs.lay_out(make_launch({"secrets": [{"name": "key", "env": "KEY"}]}), tmp_path / "a")


def test_folder_that_no_description_can_name_is_an_error() -> None:
    with pytest.raises(DriverError, match="cannot be named"):
        jobs.item(make_launch(), read_config({}), Path("/srv/my folder/$(x)"))
