"""The driver's own logic and its shell text, at a stand-in for the schedd that runs jobs on this machine.

This proves nothing of HTCondor itself: that is what `tests/contract/test_htcondor.py` is for, where there is a pool.
"""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from atoll.drivers.contract import CASES, DriverContract
from tests.contract.htcondor_harness import StandInHarness

NOTHING_WHILE_IT_RUNS = "nothing can be read of a job while it runs"
NO_CHECKPOINTS = "a job's checkpoint folder ends with it"
STAND_IN = "the stand-in enforces nothing"
REMOVED = "of a job that was removed nothing comes back"
WITHOUT = {
    "output_is_read_while_it_is_written": NOTHING_WHILE_IT_RUNS,
    "output_is_followed_while_it_grows": NOTHING_WHILE_IT_RUNS,
    "single_task_of_an_array_is_stopped_alone": NOTHING_WHILE_IT_RUNS,
    "cancelled_job_may_tidy_up": REMOVED,
    "eviction_is_told_as_evicted": NOTHING_WHILE_IT_RUNS,
    "job_that_ignores_the_signal_is_killed_after_its_grace": NOTHING_WHILE_IT_RUNS,
    "stopping_again_does_not_prolong_the_grace": NOTHING_WHILE_IT_RUNS,
    "stop_without_grace_kills_at_once": NOTHING_WHILE_IT_RUNS,
    "attempt_that_was_removed_behind_our_back_never_succeeded": NOTHING_WHILE_IT_RUNS,
    "signal_reaches_a_running_job": "the driver sends no signals",
    "memory_ends_as_out_of_memory": STAND_IN,
    "memory_of_several_processes_counts_together": STAND_IN,
    "more_than_the_site_has_is_refused": "a pool's machines come and go: what fits none now waits",
    "background_process_ends_with_the_job": NO_CHECKPOINTS,
    "daemon_ends_with_the_job": NO_CHECKPOINTS,
    "daemon_ends_when_the_job_is_killed": NO_CHECKPOINTS,
    "checkpoint_folder_survives_attempts_and_forgetting": NO_CHECKPOINTS,
    "attempt_runs_once_however_often_it_is_submitted": NO_CHECKPOINTS,
    "attempt_runs_once_although_the_platform_died_before_it_wrote_that_down": NO_CHECKPOINTS,
    "engine_that_is_down_is_unreachable_and_then_caught_up": NO_CHECKPOINTS,
    "venv_is_entered": NO_CHECKPOINTS,
    "recall_at_the_start_is_whole_or_nothing": NO_CHECKPOINTS,
    "link_in_the_place_of_output_is_not_followed": "the output is a file that came back",
}


class TestStandIn(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[StandInHarness]:
        harness = StandInHarness(tmp_path)
        await harness.start()
        yield harness
        await harness.tear_down()


def _without(reason: str) -> Callable[[DriverContract], None]:
    def skipped(self: DriverContract) -> None:
        pytest.skip(reason)

    return skipped


for name, reason in WITHOUT.items():
    setattr(TestStandIn, f"test_{name}", _without(reason))


def test_every_case_that_is_left_out_is_one_of_the_contract() -> None:
    assert CASES.keys() >= WITHOUT.keys()
