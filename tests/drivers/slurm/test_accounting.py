"""What slurmdbd remembers: ends that slurmctld has forgotten, and the limits of accounts and qualities of service."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Phase, Refused, Submitted
from atoll.drivers.slurm.accounting import question, read_records
from tests.contract.slurm_harness import SlurmHarness
from tests.drivers.slurm.test_jobs import number
from tests.support.slurm import SlurmCluster, need_slurm


def old(**fields: Any) -> dict[str, Any]:
    """A record as 22.05 writes it."""
    return {
        "job_id": 7, "array": {"job_id": 0, "task": None, "task_id": None}, "name": "x", "nodes": "n1", "user": "ann",
        "state": {"current": "FAILED", "reason": "None"}, "exit_code": {"status": "SUCCESS", "return_code": 0},
        "time": {"start": 10, "end": 20}, "steps": [], **fields,
    }  # fmt: skip


def new(**fields: Any) -> dict[str, Any]:
    """A record as 23.11 and later write it."""
    code = {"status": ["ERROR"], "return_code": number(3), "signal": {"id": number(None), "name": ""}}
    return {
        "job_id": 7, "array": {"job_id": 0, "task": "", "task_id": number(None)}, "name": "x", "nodes": "n1",
        "user": "ann", "state": {"current": ["FAILED"], "reason": "None"}, "exit_code": code,
        "time": {"start": 10, "end": 20}, "steps": [], **fields,
    }  # fmt: skip


def test_ends_are_read_in_old_and_new_shapes() -> None:
    records = [
        old(), old(job_id=9, array={"job_id": 8, "task_id": 1}, state={"current": "NODE_FAIL", "reason": "None"}),
        new(job_id=11), new(job_id=13, array={"job_id": 12, "task_id": number(0)}, state={"current": ["TIMEOUT"]}),
        old(job_id=14, state={"current": "RUNNING", "reason": "None"}),
    ]  # fmt: skip
    told = read_records(json.dumps({"jobs": records, "errors": []}).encode())
    assert {native: (job.state, job.exit_code) for native, job in told.items()} == {
        "7": ("FAILED", None), "8_1": ("NODE_FAIL", 0), "11": ("FAILED", 3), "12_0": ("TIMEOUT", 3),
    }  # fmt: skip
    assert (told["7"].started, told["7"].ended, told["7"].user) == (10, 20, "ann")


def test_garbage_is_an_error() -> None:
    with pytest.raises(DriverError):
        read_records(b"sacct: error")


def test_question_names_the_jobs_alone() -> None:
    assert question(["7", "8_1"])[-1] == "--jobs=7,8_1"


@pytest.fixture
async def accounted(tmp_path: Path) -> AsyncIterator[SlurmHarness]:
    """A cluster with slurmdbd that holds everybody to accounts and qualities of service."""
    need_slurm(accounting=True)
    with SlurmCluster(
        nodes=1, cpus=8, accounting=True, extra=("AccountingStorageEnforce=associations,limits,qos",)
    ) as cluster:
        cluster.run("sacctmgr", "--immediate", "add", "account", "tight", "MaxSubmitJobs=1")
        cluster.run("sacctmgr", "--immediate", "add", "user", "root", "account=tight")
        cluster.run("sacctmgr", "--immediate", "add", "qos", "brief", "MaxWall=00:10:00")
        classes = {
            "interactive": {"account": "tight"}, "service": {"qos": "no-such"}, "batch": {"account": "root"},
            "opportunistic": {"qos": "brief"},
        }  # fmt: skip
        harness = SlurmHarness(tmp_path, cluster, config={"classes": classes})
        await harness.start()
        yield harness
        await harness.tear_down()


async def test_accounts_limits_and_forgotten_ends_with_slurmdbd(accounted: SlurmHarness) -> None:
    """One story, because slurmdbd and its database take seconds to start."""
    harness = accounted
    # what slurmdbd knows is found out: a walltime of a class, and a quality of service that is not there
    report = await harness.driver.describe()
    assert any("classes.service.qos" in note and "no-such" in note and "brief" in note for note in report.notes)
    assert not any("account" in note for note in report.notes)
    (answer,) = await harness.driver.submit(
        [harness.launch({"command": ["true"], "class": "opportunistic", "walltime": 601})]
    )
    assert isinstance(answer, Refused)
    assert "walltime" in answer.message
    launch = harness.script("trap '' TERM; echo up; while :; do sleep 0.1; done")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    # a quality of service that is not there is refused for good, a full account only for now
    wrong = harness.launch({"command": ["true"], "class": "service"})
    (answer,) = await harness.driver.submit([wrong])
    assert isinstance(answer, Refused)
    assert answer.permanent
    assert "qos" in answer.message.lower()
    first, second = (harness.launch({"command": ["sleep", "60"], "class": "interactive"}) for _ in range(2))
    await harness.submit(first)
    (answer,) = await harness.driver.submit([second])
    assert isinstance(answer, Refused)
    assert not answer.permanent
    # killed with all its processes, the wrapper mostly before it can say so, and then forgotten by slurmctld
    await harness.slurm("scancel", "--signal=KILL", "--full", str(harness.held_as(launch).native_id))
    async with asyncio.timeout(90):
        while "CANCELLED" not in await harness.slurm(  # noqa: ASYNC110  # nothing else tells
            "sacct", "--noheader", "--allocations", "--format=State", f"--jobs={harness.held_as(launch).native_id}"
        ):
            await asyncio.sleep(0.3)
    await asyncio.to_thread(harness.cluster.forget_jobs)
    await asyncio.to_thread(harness.cluster.mend)
    await harness.restart()
    status = await harness.status(launch)
    assert status is not None
    assert (status.outcome, status.native_state) == (Outcome.CANCELLED, "CANCELLED")
    assert isinstance((await harness.driver.submit([harness.script("true")]))[0], Submitted)
    # without slurmdbd nothing that slurmctld does not know may be called lost
    await harness.restart()
    harness.cluster.stop("slurmdbd")
    assert not (await harness.driver.observe([harness.held_as(launch)])).complete
