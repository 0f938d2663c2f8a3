"""The variables that every process finds."""

from typing import Any

import pytest

from atoll.core.environ import attempt_environment
from atoll.core.resources import Resources
from atoll.core.spec import read_spec

REQUEST = Resources(cpu=4000, memory=8 * 2**30, gpu=0)


def variables(document: dict[str, Any], **changes: Any) -> dict[str, str]:
    arguments: dict[str, Any] = {"job_id": 12, "task": None, "number": 1, "request": REQUEST, "person": "ada"}
    return attempt_environment(read_spec({"command": "true", **document}), **(arguments | changes))


def test_a_single_job_is_task_0_of_1_on_one_node() -> None:
    assert variables({}) == {
        "ATOLL_JOB_ID": "12",
        "ATOLL_TASK_ID": "0",
        "ATOLL_TASK_COUNT": "1",
        "ATOLL_NODE_RANK": "0",
        "ATOLL_NODES": "1",
        "ATOLL_MASTER_ADDR": "127.0.0.1",
        "ATOLL_CPUS": "4",
        "ATOLL_ATTEMPT": "1",
    }


def test_a_task_knows_its_number_and_how_many_there_are() -> None:
    found = variables({"array": "10-28:2%3"}, task=14)
    assert (found["ATOLL_JOB_ID"], found["ATOLL_TASK_ID"], found["ATOLL_TASK_COUNT"]) == ("12", "14", "10")


def test_a_node_knows_its_rank_and_the_first_one() -> None:
    found = variables({"nodes": 4, "launch": "each"}, node_rank=2, master_addr="n1")
    assert (found["ATOLL_NODES"], found["ATOLL_NODE_RANK"], found["ATOLL_MASTER_ADDR"]) == ("4", "2", "n1")


@pytest.mark.parametrize(("milli", "cpus"), [(1, "1"), (500, "1"), (1000, "1"), (1001, "2"), (2500, "3")])
def test_cpus_are_whole_and_at_least_one(milli: int, cpus: str) -> None:
    assert variables({}, request=Resources(cpu=milli, memory=1))["ATOLL_CPUS"] == cpus


def test_slurm_variables_are_there_only_where_asked_for() -> None:
    assert not any(name.startswith("SLURM") for name in variables({"array": "0-9"}, task=1))
    assert variables({"slurm": True})["SLURM_JOB_ID"] == "12"


def test_a_slurm_script_finds_its_size() -> None:
    counts = {"SLURM_NTASKS": "4", "SLURM_NTASKS_PER_NODE": "2", "SLURM_SUBMIT_DIR": "/home/ada"}
    document = {"slurm": True, "nodes": 2, "name": "train", "class": "batch", "env": counts}
    found = variables(document, project="physics", site="island", request=Resources(8000, 4 * 2**30, 2000))
    expected = {
        "SLURM_JOB_ID": "12",
        "SLURM_JOBID": "12",
        "SLURM_JOB_NAME": "train",
        "SLURM_JOB_USER": "ada",
        "SLURM_JOB_ACCOUNT": "physics",
        "SLURM_JOB_QOS": "batch",
        "SLURM_CLUSTER_NAME": "island",
        "SLURM_SUBMIT_DIR": "/home/ada",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NTASKS": "4",
        "SLURM_NPROCS": "4",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_TASKS_PER_NODE": "2(x2)",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_CPUS_ON_NODE": "8",
        "SLURM_JOB_CPUS_PER_NODE": "8(x2)",
        "SLURM_MEM_PER_NODE": "4096",
        "SLURM_GPUS": "4",
        "SLURM_GPUS_PER_NODE": "2",
        "SLURM_GPUS_ON_NODE": "2",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
    }
    assert {name: value for name, value in found.items() if name.startswith("SLURM")} == expected


@pytest.mark.parametrize(
    ("array", "task", "expected"),
    [
        ("0-9", 3, ("10", "0", "9", "1")),
        ("1-21:5%2", 6, ("5", "1", "21", "5")),
        ("7,1,3", 7, ("3", "1", "7", "1")),
    ],
)
def test_a_slurm_array_task_finds_its_array(array: str, task: int, expected: tuple[str, ...]) -> None:
    found = variables({"slurm": True, "array": array}, task=task)
    assert (found["SLURM_ARRAY_JOB_ID"], found["SLURM_ARRAY_TASK_ID"]) == ("12", str(task))
    names = ("COUNT", "MIN", "MAX", "STEP")
    assert tuple(found[f"SLURM_ARRAY_TASK_{name}"] for name in names) == expected
    assert found["SLURM_JOB_ID"] == f"12_{task}"  # unique for each task, as scripts count on


def test_a_second_attempt_is_told_as_a_restart() -> None:
    assert "SLURM_RESTART_COUNT" not in variables({"slurm": True})
    found = variables({"slurm": True}, number=3)
    assert (found["SLURM_RESTART_COUNT"], found["ATOLL_ATTEMPT"]) == ("2", "3")


@pytest.mark.parametrize("count", ["0", "x", "-3", "", "9" * 30])
def test_a_wrong_count_of_tasks_in_the_variables_is_not_believed(count: str) -> None:
    found = variables({"slurm": True, "env": {"SLURM_NTASKS_PER_NODE": count}})
    assert (found["SLURM_NTASKS"], found["SLURM_CPUS_PER_TASK"]) == ("1", "4")


def test_part_of_a_gpu_counts_as_one() -> None:
    found = variables({"slurm": True}, request=Resources(1000, 2**20, 500))
    assert found["SLURM_GPUS"] == "1"
