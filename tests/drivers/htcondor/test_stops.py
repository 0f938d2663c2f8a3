"""Stops, histories, strangers and broken hand-overs, at the stand-in for the schedd."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Held, Phase, Refused, StopReason, Submitted
from atoll.drivers.contract.harness import only
from tests.contract.htcondor_harness import StandInHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[StandInHarness]:
    harness = StandInHarness(tmp_path)
    await harness.start()
    yield harness
    await harness.tear_down()


@pytest.mark.parametrize("reason", [StopReason.CANCELLED, StopReason.EVICTED])
async def test_reason_of_a_stop_is_in_the_ad_before_the_removal(harness: StandInHarness, reason: StopReason) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    await harness.stand_in.started(launch.attempt_id)
    await harness.stop(launch, reason, grace=20)
    await harness.restart()
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome(reason.value)
    assert await harness.read(launch) == b""


async def test_job_that_ignores_the_signal_runs_until_its_grace_is_over(harness: StandInHarness) -> None:
    launch = harness.script("trap '' TERM; while :; do sleep 0.1; done")
    await harness.submit(launch)
    await harness.stand_in.started(launch.attempt_id)
    await asyncio.sleep(0.5)  # the trap is set
    begun = time.monotonic()
    await harness.stop(launch, StopReason.CANCELLED, grace=2)
    status = await harness.status(launch)
    assert status is not None
    assert status.phase is Phase.RUNNING
    await harness.stop(launch, StopReason.EVICTED, grace=60)
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.CANCELLED
    assert 1.8 < time.monotonic() - begun < 5


async def test_removal_by_hand_is_no_success(harness: StandInHarness) -> None:
    launch = harness.script("sleep 60")
    await harness.submit(launch)
    await harness.wait([launch], Phase.RUNNING)
    await harness.stand_in.remove_by_hand(launch.attempt_id)
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.LOST
    assert "via condor_rm (by user root)" in status.message


async def test_end_is_told_from_the_history_where_the_queue_has_forgotten_it(harness: StandInHarness) -> None:
    launch = harness.script("exit 25")
    await harness.run(launch)
    job = harness.stand_in.job_of(launch.attempt_id)
    harness.stand_in.history.append(harness.stand_in.jobs.pop(job))
    await harness.restart()
    status = await harness.status(launch)
    assert status is not None
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 25)


async def test_job_whose_files_never_came_is_sent_again(harness: StandInHarness) -> None:
    launch = harness.script("exit 3")
    await harness.submit(launch)
    first = harness.stand_in.job_of(launch.attempt_id)
    await harness.wait([launch])
    harness.stand_in.jobs[first] |= {"JobStatus": 5, "HoldReasonCode": 16}
    answer = only(await harness.submit(launch))
    assert isinstance(answer, Submitted)
    assert answer.native_id != first
    (status,) = await harness.wait([launch])
    assert status.exit_code == 3


async def test_the_job_that_control_knows_counts_where_somebody_forged_its_name(harness: StandInHarness) -> None:
    launch = harness.script("exit 9")
    status = await harness.run(launch)
    forged = {**harness.stand_in.jobs[status.native_id], "ClusterId": 99, "ExitCode": 0}
    harness.stand_in.jobs["99.0"] = forged
    await harness.restart()
    told = await harness.status(launch)
    assert told is not None
    assert (told.native_id, told.exit_code) == (status.native_id, 9)


async def test_batch_of_one_kind_is_one_cluster(harness: StandInHarness) -> None:
    plain = [harness.script("true") for _ in range(5)]
    timed = [harness.script("true", walltime=60) for _ in range(3)]
    answers = await harness.submit(*plain, *timed)
    natives = [answer.native_id for answer in answers if isinstance(answer, Submitted)]
    assert natives == ["1.0", "1.1", "1.2", "1.3", "1.4", "2.0", "2.1", "2.2"]
    assert len(harness.stand_in.descriptions) == 2


async def test_other_accounts_need_tokens_of_their_own(harness: StandInHarness) -> None:
    refused = only(await harness.driver.submit([harness.script("true", person="ada", account="ada")]))
    assert isinstance(refused, Refused)
    assert "'ada'" in refused.message
    harness.config["token"] = {"accounts": "/etc/atoll/tokens/{account}"}
    await harness.restart()
    await harness.submit(harness.script("true", person="ada", account="ada"))
    for account in ("../root", "a b", "a/b"):
        answer = only(await harness.driver.submit([harness.script("true", person="ada", account=account)]))
        assert isinstance(answer, Refused), account


async def test_exit_code_of_a_walltime_that_was_none_is_a_failure(harness: StandInHarness) -> None:
    status = await harness.run(harness.script("exit 124", walltime=3600))
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 124)


async def test_strangers_are_nobody(harness: StandInHarness) -> None:
    for name in ("../../etc", "bbbbb-0000000000000000"):
        with pytest.raises(KeyError):
            await harness.logs.read_log(Held(name, "1.0"), "stdout", 0, 10)
        with pytest.raises(KeyError):
            await harness.stage.take_out(Held(name, "1.0"), ["*"], harness.folder / "taken")
