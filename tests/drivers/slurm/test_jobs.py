"""Slurm's answers about its jobs are read in the shapes of every version from 22.05 to 25.05."""

import json
import time
from typing import Any

import pytest

from atoll.drivers.base import DriverError
from atoll.drivers.slurm.jobs import SlurmJob, read_jobs, read_tasks


def number(value: int | None) -> dict[str, Any]:
    """A number as Slurm writes it since 23.02."""
    return {"set": value is not None, "infinite": False, "number": value or 0}


def old(**fields: Any) -> dict[str, Any]:
    """A job as 22.05 writes it."""
    usual = {
        "account": "", "job_id": 12, "array_job_id": 0, "array_task_id": None, "array_task_string": "",
        "name": "atoll-abcde-0123456789abcdef", "command": "/r/keeper.sh /r b w", "job_state": "RUNNING",
        "state_reason": "None", "state_description": "", "exit_code": 0, "start_time": 1000, "end_time": 2000,
        "user_name": "ann", "nodes": "n1", "batch_host": "n1", "restart_cnt": 0, "gres_detail": [],
    }  # fmt: skip
    return {**usual, **fields}


def new(version: str, **fields: Any) -> dict[str, Any]:
    """A job as 23.11, 24.11 or 25.05 write it."""
    signal = {"id": number(None), "name": ""}
    code = {"status": ["SUCCESS"], "return_code": number(0), "signal": signal}
    if version == "23.11":
        code = {"status": "SUCCESS", "return_code": number(0), "signal": {"signal_id": number(None), "name": None}}
    usual = {
        "job_id": 12, "array_job_id": number(0), "array_task_id": number(None), "array_task_string": "",
        "name": "atoll-abcde-0123456789abcdef", "command": "/r/keeper.sh /r b w", "job_state": ["RUNNING"],
        "state_reason": "None", "state_description": "", "exit_code": code, "start_time": number(1000),
        "end_time": number(2000), "user_name": "ann", "nodes": "n1", "batch_host": "n1", "restart_cnt": 0,
        "job_resources": {"nodes": {"count": 1}},
    }  # fmt: skip
    return {**usual, **fields}


def read(*jobs: dict[str, Any], **answer: Any) -> list[SlurmJob]:
    return read_jobs(json.dumps({"meta": {"Slurm": {}}, "errors": [], "jobs": jobs, **answer}).encode())


NEW = ["23.11", "24.11", "25.05"]


@pytest.mark.parametrize(("status", "code", "signal"), [(768, 3, None), (0, 0, None), (9, 137, 9), (15, 143, 15)])
def test_raw_wait_status_of_22_05_is_an_exit_code_or_a_signal(status: int, code: int, signal: int | None) -> None:
    (job,) = read(old(job_state="FAILED", exit_code=status))
    assert (job.exit_code, job.signal) == (code, signal)


@pytest.mark.parametrize("version", NEW)
def test_exit_code_of_later_versions_is_read(version: str) -> None:
    key = "signal_id" if version == "23.11" else "id"
    code = {"status": ["ERROR"], "return_code": number(3), "signal": {key: number(None), "name": ""}}
    killed = {"status": ["SIGNALED"], "return_code": number(0), "signal": {key: number(9), "name": "KILL"}}
    failed, dead = read(
        new(version, job_state=["FAILED"], exit_code=code), new(version, job_state=["FAILED"], exit_code=killed)
    )
    assert (failed.exit_code, failed.signal) == (3, None)
    assert (dead.exit_code, dead.signal) == (137, 9)


@pytest.mark.parametrize("version", ["22.05", *NEW])
def test_running_job_is_read_in_every_version(version: str) -> None:
    (job,) = read(old() if version == "22.05" else new(version))
    assert (job.state, job.native, job.started, job.ended, job.user, job.node) == (
        "RUNNING",
        "12",
        1000,
        None,
        "ann",
        "n1",
    )
    assert not job.over
    assert job.exit_code is None


@pytest.mark.parametrize("version", ["22.05", *NEW])
def test_tasks_of_an_array_are_named_as_scancel_names_them(version: str) -> None:
    if version == "22.05":
        waits = old(array_job_id=12, array_task_string="3-5,9%2", job_state="PENDING", state_reason="Resources")
        runs = old(job_id=13, array_job_id=12, array_task_id=0)
    else:
        waits = new(version, array_job_id=number(12), array_task_string="3-5,9%2", job_state=["PENDING"])
        runs = new(version, job_id=13, array_job_id=number(12), array_task_id=number(0))
    waiting, running = read(waits, runs)
    assert [native for _, native in waiting.natives()] == ["12_3", "12_4", "12_5", "12_9"]
    assert waiting.started is None
    assert (running.native, running.job_id) == ("12_0", 13)


@pytest.mark.parametrize("version", ["22.05", *NEW])
def test_what_waits_has_an_expected_start_where_slurm_has_worked_it_out(version: str) -> None:
    def waits(start: int) -> dict[str, Any]:
        if version == "22.05":
            return old(job_state="PENDING", start_time=start)
        return new(version, job_state=["PENDING"], start_time=number(start))

    planned, unplanned = read(waits(1795465035), waits(0))
    assert (planned.expected, planned.started) == (1795465035, None)
    assert unplanned.expected is None
    (running,) = read(old())
    assert running.expected is None


@pytest.mark.parametrize(
    ("states", "state", "over"),
    [
        (["COMPLETED"], "COMPLETED", True),
        (["CANCELLED", "COMPLETING"], "CANCELLED", False),
        (["RUNNING", "COMPLETING"], "RUNNING", False),
        (["PENDING", "REQUEUE_HOLD"], "PENDING", False),
        ("COMPLETING", "RUNNING", False),
        ("SPECIAL_EXIT", "PENDING", False),
        ("OUT_OF_MEMORY", "OUT_OF_MEMORY", True),
    ],
)
def test_flags_beside_a_state_are_not_the_state(states: Any, state: str, over: bool) -> None:
    (job,) = read(old(job_state=states))
    assert (job.state, job.over) == (state, over)


def test_infinite_numbers_and_missing_fields_are_nothing() -> None:
    (job,) = read({"job_id": 5, "start_time": {"set": True, "infinite": True, "number": 0}, "job_state": ["RUNNING"]})
    assert (job.job_id, job.started, job.name, job.task) == (5, None, "", None)


@pytest.mark.parametrize(
    ("text", "tasks", "cut"),
    [
        ("0-3", [0, 1, 2, 3], False),
        ("1,3,...", [1, 3], True),
        ("1,3,12...", [1, 3], True),
        ("", [], False),
        ("4%1", [4], False),
    ],
)
def test_tasks_that_slurm_cuts_short_are_known_to_be_cut(text: str, tasks: list[int], cut: bool) -> None:
    ranges, said = read_tasks(text)
    assert (list(ranges or ()), said) == (tasks, cut)


@pytest.mark.parametrize("text", [b"", b"no json", b"[]", b'{"jobs": 5}', b'{"jobs": [{"job_id": "x"}]}', b"\xff\xfe"])
def test_garbage_is_an_error_in_one_sentence(text: bytes) -> None:
    with pytest.raises(DriverError) as caught:
        read_jobs(text)
    assert "\n" not in str(caught.value)


def test_slurms_own_complaint_is_told() -> None:
    error = {"description": "Failed while looking for jobs", "error": "Unable to contact slurm controller"}
    with pytest.raises(DriverError, match="Unable to contact slurm controller"):
        read(errors=[error])


def test_ten_thousand_jobs_are_read_in_less_than_a_second_of_cpu() -> None:
    filler = {f"field_{number}": "x" * 20 for number in range(60)}
    jobs = [old(job_id=n, array_job_id=1, array_task_id=n, job_state="COMPLETED", **filler) for n in range(10_000)]
    text = json.dumps({"meta": {}, "errors": [], "jobs": jobs}, indent=2).encode()
    assert len(text) > 25_000_000
    begun = time.process_time()
    assert len(read_jobs(text)) == 10_000
    assert time.process_time() - begun < 1.0
