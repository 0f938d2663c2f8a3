"""The interLink driver passes those cases of the contract that a plugin's wire allows, with pods that really run."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from atoll.drivers.contract import CASES, DriverContract
from tests.contract.interlink_harness import InterlinkHarness
from tests.support.interlink import InterlinkPlugin

ONE_STREAM = "a plugin tells one stream"
NO_SIGNALS = "a plugin deletes a pod and sends no signal first"
WITHOUT = {
    "streams_are_apart": ONE_STREAM,
    "working_directory_that_is_missing_fails_the_attempt": ONE_STREAM,
    "output_goes_to_a_named_file_too": ONE_STREAM,
    "name_that_is_a_shell_command_is_only_a_name": ONE_STREAM,
    "unicode_is_kept_in_names_and_paths": ONE_STREAM,
    "output_is_followed_while_it_grows": ONE_STREAM,
    "signal_comes_before_the_walltime": ONE_STREAM,
    "memory_of_several_processes_counts_together": "container engines may end one process, and let the others go on",
    "cancelled_job_may_tidy_up": NO_SIGNALS,
    "job_that_ignores_the_signal_is_killed_after_its_grace": NO_SIGNALS,
    "orphan_is_found_and_ended": "a plugin lists no pods that it is not asked for",
    "end_is_right_although_the_engine_has_forgotten_it": "a pod has no folder that the platform could read",
}
"""Cases that no plugin can pass, and why."""


@pytest.fixture(scope="module")
def plugin() -> Iterator[InterlinkPlugin]:
    plugin = InterlinkPlugin()
    yield plugin
    plugin.stop()


class TestInterlink(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path, plugin: InterlinkPlugin) -> AsyncIterator[InterlinkHarness]:
        harness = InterlinkHarness(tmp_path, plugin)
        await harness.start()
        yield harness
        await harness.tear_down()


def _without(reason: str) -> Callable[[DriverContract], None]:
    def skipped(self: DriverContract) -> None:
        pytest.skip(reason)

    return skipped


for name, reason in WITHOUT.items():
    setattr(TestInterlink, f"test_{name}", _without(reason))


def test_every_case_that_is_left_out_is_one_of_the_contract() -> None:
    assert CASES.keys() >= WITHOUT.keys()
