"""A real cluster in trouble: jobs renamed, preempted, cut short in listings, daemons killed, platforms gone."""

import asyncio
import signal
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from atoll.core.ids import new_attempt_id
from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, DriverSetup, Launch, Phase, Refused, StopReason, Submitted, Unknown
from atoll.drivers.shell import LocalShell, Ran
from atoll.drivers.slurm import SlurmDriver, scripts, submitting
from atoll.drivers.slurm.config import read_config
from atoll.drivers.slurm.observing import Observer
from atoll.drivers.slurm.site import SlurmSite
from tests.contract.process_harness import until
from tests.contract.slurm_harness import SlurmHarness

FOREVER = "while :; do sleep 0.1; done"
WHOLE = Resources(4000, 64 << 20)


def native(harness: SlurmHarness, launch: Launch) -> str:
    return str(harness.held_as(launch).native_id)


async def test_job_that_somebody_renamed_is_found_by_what_it_runs(harness: SlurmHarness) -> None:
    launch = harness.script("sleep 300")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    await harness.slurm("scontrol", "update", f"JobId={native(harness, launch)}", "JobName=mine", "Comment=mine")
    await harness.restart()
    told = (await harness.driver.observe([])).states
    assert told[launch.attempt_id].phase is Phase.RUNNING


async def test_tasks_that_wait_are_told_although_slurm_cuts_their_list(harness: SlurmHarness) -> None:
    holders = [harness.script(FOREVER, request=WHOLE) for _ in range(2)]
    await harness.submit(*holders)
    await harness.wait(holders, Phase.RUNNING)
    crowd = [harness.script("true") for _ in range(120)]
    await harness.submit(*crowd)
    # at places that no step describes
    removed = [launch for place, launch in enumerate(crowd) if place * place % 7 == 2]
    rest = [launch for launch in crowd if launch not in removed]
    for launch in removed:
        await harness.slurm("scancel", native(harness, launch))
    listed = await harness.slurm("squeue", "--json")
    assert "..." in listed, "Slurm names them all, and this shows nothing"
    states = (await harness.driver.observe(harness.held())).states
    assert {states[launch.attempt_id].phase for launch in rest} == {Phase.STARTING}
    assert all(states[launch.attempt_id].message for launch in rest)


async def test_slurm_tells_when_it_expects_to_start_what_waits(harness: SlurmHarness) -> None:
    holders = [harness.script(FOREVER, request=WHOLE, walltime=600) for _ in range(2)]
    await harness.submit(*holders)
    began = [status.started_at for status in await harness.wait(holders, Phase.RUNNING)]
    behind = harness.script("true", walltime=60)
    await harness.submit(behind)
    expected: datetime | None = None
    async with asyncio.timeout(harness.patience):
        while expected is None:
            status = await harness.status(behind)
            expected = status.expected_at if status is not None else None
            await asyncio.sleep(0.1)
    walltimes = [expected - start for start in began if start is not None]
    assert min(walltimes) >= timedelta(seconds=600)
    assert min(walltimes) < timedelta(seconds=700)


async def test_task_that_somebody_takes_out_of_the_queue_is_cancelled(harness: SlurmHarness) -> None:
    """Slurm keeps no record of such a task."""
    holders = [harness.script(FOREVER, request=WHOLE) for _ in range(2)]
    await harness.submit(*holders)
    await harness.wait(holders, Phase.RUNNING)
    tasks = [harness.script("true") for _ in range(3)]
    await harness.submit(*tasks)
    await harness.slurm("scancel", native(harness, tasks[1]))
    states = (await harness.driver.observe(harness.held())).states
    assert states[tasks[1].attempt_id].outcome is Outcome.CANCELLED
    assert "cancelled at the cluster" in states[tasks[1].attempt_id].message
    assert {states[tasks[number].attempt_id].phase for number in (0, 2)} == {Phase.STARTING}


async def test_attempt_that_slurm_preempts_is_evicted(harness: SlurmHarness) -> None:
    victims = [harness.script(FOREVER, request=WHOLE) for _ in range(2)]
    await harness.submit(*victims)
    await harness.wait(victims, Phase.RUNNING)
    taker = harness.launch({"command": ["true"], "class": "interactive"}, request=WHOLE, nodes=1)
    await harness.submit(taker)
    (status,) = await harness.wait([taker])
    assert status.outcome is Outcome.SUCCEEDED
    told = (await harness.driver.observe(harness.held())).states
    evicted = [told[each.attempt_id] for each in victims if told[each.attempt_id].outcome is not None]
    assert [status.outcome for status in evicted] == [Outcome.EVICTED]
    assert "preempted" in evicted[0].message


async def test_attempt_whose_node_fails_is_told_so(harness: SlurmHarness) -> None:
    launch = harness.script(FOREVER)
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    node = (await harness.slurm("squeue", "--noheader", "--format=%N", f"--jobs={native(harness, launch)}")).strip()
    await harness.slurm("scontrol", "update", f"NodeName={node}", "State=DOWN", "Reason=test")
    try:
        (status,) = await harness.wait([launch])
    finally:
        await asyncio.to_thread(harness.cluster.mend)
    assert status.outcome is Outcome.NODE_FAILED
    assert status.message


async def test_slurmctld_that_loses_its_state_loses_no_end(own_harness: SlurmHarness) -> None:
    """After a power cut it thinks that the job still waits, starts it again, and cancels it."""
    harness = own_harness
    text = 'echo ran >>"$ATOLL_CHECKPOINT_DIR/runs"; sleep 2; exit 22'
    launch = harness.script(text, checkpoint_key="power")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    await asyncio.to_thread(harness.cluster.stop, "slurmctld", signal.SIGKILL)
    harness.cluster.start()
    await asyncio.to_thread(harness.cluster.until_answers)
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 22)
    runs = harness.folder_of(launch).parents[1] / "checkpoints" / "power" / "runs"
    assert runs.read_text() == "ran\n"


async def test_grace_and_walltime_hold_while_the_platform_is_away(harness: SlurmHarness) -> None:
    stopped = harness.script(f"trap '' TERM; echo up; {FOREVER}")
    timed = harness.launch({"command": ["/bin/sh", "-c", f"trap '' TERM; {FOREVER}"], "grace": 1}, walltime=2)
    await harness.submit(stopped, timed)
    await harness.wait_for_output(stopped, b"up")
    await harness.stop(stopped, StopReason.EVICTED, grace=1)
    await harness.driver.close()
    for launch in (stopped, timed):
        await until((harness.folder_of(launch) / "end").exists, within=20)
    await harness.start()
    first, second = await harness.wait([stopped, timed])
    assert (first.outcome, first.signal) == (Outcome.EVICTED, 9)
    assert (second.outcome, second.signal) == (Outcome.TIMED_OUT, 9)
    assert "walltime of 2s" in second.message


async def test_new_attempts_among_those_handed_over_before_are_taken(harness: SlurmHarness) -> None:
    known = [harness.script("sleep 60") for _ in range(3)]
    before = await harness.submit(*known)
    fresh = harness.script("exit 3")
    after = await harness.driver.submit([known[2], fresh, known[0]])
    assert [after[0], after[2]] == [before[2], before[0]]
    assert isinstance(after[1], Submitted)
    (status,) = await harness.wait([fresh])
    assert status.exit_code == 3


async def test_job_that_slurm_took_and_nobody_wrote_down_is_found_and_not_sent_again(harness: SlurmHarness) -> None:
    launches = [harness.script("sleep 60") for _ in range(2)]
    before = await harness.submit(*launches)
    for written in (harness.folder_of(launches[0]).parents[1] / "batches").glob("*/job"):
        written.unlink()
    await harness.restart()
    assert await harness.driver.submit(launches) == before
    listed = await harness.slurm("squeue", "--noheader", "--array", "--format=%j")
    assert listed.count(launches[0].attempt_id) == 2, "one job for each of the two, and no more"


async def test_attempt_that_was_laid_out_and_never_sent_is_sent(harness: SlurmHarness) -> None:
    launch = harness.script("exit 5")
    await harness.submit(launch)
    await harness.slurm("scancel", native(harness, launch))
    folder = harness.folder_of(launch)
    await until(lambda: not (folder / "start").exists() or (folder / "end").exists())
    if (folder / "start").exists():
        pytest.skip("it had begun before it could be cancelled")
    (folder.parents[1] / "batches" / launch.attempt_id / "job").unlink()
    await asyncio.to_thread(harness.cluster.forget_jobs)
    await asyncio.to_thread(harness.cluster.mend)
    await harness.restart()
    (status,) = [await harness.run(launch)]
    assert status.exit_code == 5


async def test_account_that_is_not_there_is_refused_and_others_are_taken(harness: SlurmHarness) -> None:
    missing = harness.script("true", person="ann", account="atoll-nobody-here")
    fine = harness.script("exit 4")
    refused, taken = await harness.driver.submit([missing, fine])
    assert isinstance(refused, Refused)
    assert refused.permanent
    assert "atoll-nobody-here" in refused.message
    assert isinstance(taken, Submitted)


async def test_partition_that_is_not_there_is_told_with_those_there_are(harness: SlurmHarness, tmp_path: Path) -> None:
    config = {**harness.config, "classes": {"batch": {"partition": "lnog"}}}
    driver = SlurmDriver(DriverSetup("slurm", harness.instance, tmp_path, config, harness.owner))
    with pytest.raises(DriverError, match=r"no partition 'lnog'; it has: high, low"):
        await driver.describe()
    await driver.close()


async def test_walltime_beyond_the_partitions_is_refused(harness: SlurmHarness) -> None:
    launch = harness.launch({"command": ["true"], "class": "interactive"}, walltime=7200)
    (answer,) = await harness.driver.submit([launch])
    assert isinstance(answer, Refused)
    assert "walltime" in answer.message


async def test_description_counts_what_others_use(harness: SlurmHarness) -> None:
    before = (await harness.driver.describe()).flavors[0]
    job = (
        await harness.slurm("sbatch", "--parsable", "--cpus-per-task=3", "--wrap=sleep 60", "--output=/dev/null")
    ).strip()

    async def running() -> bool:
        return (await harness.slurm("squeue", "--noheader", "--format=%t", f"--jobs={job}")).strip() == "R"

    async with asyncio.timeout(20):
        while not await running():  # noqa: ASYNC110  # nothing else tells
            await asyncio.sleep(0.1)
    report = await harness.driver.describe()
    await harness.slurm("scancel", job)
    flavor = report.flavors[0]
    assert before.free is not None
    assert flavor.free is not None
    assert before.free.cpu - flavor.free.cpu == 3000
    assert (flavor.total.cpu, flavor.node.cpu, flavor.nodes) == (8000, 4000, 2)
    assert report.queues
    assert report.labels["fast"] == "yes"


async def test_other_platforms_at_the_same_cluster_are_not_seen(harness: SlurmHarness) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    setup = DriverSetup("slurm", "zzzzz", harness.folder, harness.config, harness.owner)
    other = SlurmDriver(setup)
    assert not (await other.observe([])).states
    stranger = await other.submit([harness.script("true", attempt_id=new_attempt_id("yyyyy"))])
    assert isinstance(stranger[0], Refused)
    await other.close()


async def test_command_on_each_of_several_nodes_may_tidy_up_when_it_is_stopped(harness: SlurmHarness) -> None:
    """srun, which starts it there, would take the signal for the end."""
    words = "trap 'sleep 1; echo tidied; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
    launch = harness.launch({"command": ["/bin/sh", "-c", words], "nodes": 2, "launch": "each"})
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"ready\nready\n")
    await harness.stop(launch, StopReason.CANCELLED, 30)
    (status,) = await harness.wait([launch])
    assert (status.outcome, status.exit_code) == (Outcome.CANCELLED, 0)
    assert (await harness.read(launch)).count(b"tidied\n") == 2


async def test_account_that_hangs_holds_nobody_else_up_and_is_left_alone_for_a_while(
    harness: SlurmHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(submitting, "_ACCOUNT_WITHIN", 3.0)
    driver, asked, usual = harness.driver, [], SlurmSite.script

    async def hangs_for_nobody(self: SlurmSite, account: str | None, text: str, *arguments: str, **more: Any) -> Ran:
        if account == "nobody" and text == scripts.SUBMIT:
            asked.append(account)
            return await usual(self, account, "sleep 1000", *arguments)
        return await usual(self, account, text, *arguments, **more)

    monkeypatch.setattr(SlurmSite, "script", hangs_for_nobody)
    theirs, ours = harness.script("true", account="nobody"), harness.script("true")
    answers = await driver.submit([theirs, ours])
    assert [type(answer) for answer in answers] == [Unknown, Submitted]
    again = harness.script("true", account="nobody")
    (answer,) = await driver.submit([again])
    assert isinstance(answer, Unknown)
    assert "left alone" in answer.message
    assert asked == ["nobody"]


async def test_large_files_have_the_time_that_they_take(harness: SlurmHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submitting, "_ACCOUNT_WITHIN", 0.001)
    monkeypatch.setattr(submitting, "_LEFT_ALONE", 0.0)
    (answer,) = await harness.driver.submit([harness.script("true")])
    assert isinstance(answer, Unknown)
    large = harness.staged("large", b"x" * 20_000_000)
    (answer,) = await harness.driver.submit([harness.script("true", files=(large,))])
    assert isinstance(answer, Submitted)


async def test_account_that_cannot_be_asked_after_a_hint_says_nothing_of_the_site(
    harness: SlurmHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = harness.script("true")
    await harness.submit(launch)
    await harness.wait([launch])
    site = SlurmSite(DriverSetup("slurm", harness.instance, harness.folder), read_config(harness.config), LocalShell())
    told: dict[str | None, set[str]] = {None: {launch.attempt_id}}
    assert launch.attempt_id in (await Observer(site).follow_up(harness.held(), told)).states

    async def fails(*_: Any, **__: Any) -> Ran:
        raise DriverError("The account's shell ends at once.")

    monkeypatch.setattr(SlurmSite, "script", fails)
    observation = await Observer(site).follow_up(harness.held(), told)
    assert (observation.complete, observation.states) == (False, {})
