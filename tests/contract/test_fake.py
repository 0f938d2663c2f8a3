"""The fake driver passes those cases of the contract that can be played, without a process."""

import re
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.drivers.base import DriverSetup, Launch, StopReason
from atoll.drivers.contract import CASES, DriverContract, Harness
from atoll.drivers.fake import Engine, FakeDriver


def played(text: str) -> dict[str, str]:
    """The variables by which the fake plays a shell script of `echo`, `printf`, `sleep` and `exit`, or one that loops.

    Raises AssertionError for anything else, so that no case passes without having been played.
    """
    output, error_output, runtime, exit_code = "", "", 0.0, 0
    stop_time = 0.0
    for part in re.sub("while :; do sleep 0.1; done", "sleep 1000", text).split("; "):
        match shlex.split(part):
            case [":"] | ["true"]:
                continue
            case ["trap", "", "TERM"]:
                stop_time = 1000
            case ["echo", *words, ">&2"]:
                error_output += " ".join(words) + "\n"
            case ["echo", *words]:
                output += " ".join(words) + "\n"
            case ["printf", word]:
                output += word
            case ["sleep", seconds]:
                runtime += float(seconds)
            case ["exit", code]:
                exit_code = int(code)
            case _:
                raise AssertionError(f"the fake cannot play {part!r}")
    return {
        "FAKE_OUTPUT": output,
        "FAKE_ERROR_OUTPUT": error_output,
        "FAKE_RUNTIME": str(runtime),
        "FAKE_EXIT": str(exit_code),
        "FAKE_STOP_TIME": str(stop_time),
    }


class FakeHarness(Harness):
    """Plays the cases on the real clock."""

    interval = 0.02
    slack = 1.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.engine = Engine(Resources(64_000, 64 << 30))

    async def make_driver(self) -> FakeDriver:
        config = {"abilities": [Ability.SIGNAL], "queues": True}
        return FakeDriver(DriverSetup("toy", self.instance, self.folder, config, self.owner), self.engine)

    @asynccontextmanager
    async def nothing_begins(self) -> AsyncIterator[None]:
        """All CPUs are taken."""
        holder = self.launch({"command": ["sleep", "1000"]}, request=self.engine.node)
        await self.submit(holder)
        yield
        await self.stop(holder, StopReason.CANCELLED, 0)

    def launch(self, spec: dict[str, Any], **values: Any) -> Launch:
        match spec.get("command"):
            case ["/bin/sh", "-c", text]:
                spec = {**spec, "env": played(text)}
            case ["sleep", seconds]:
                spec = {**spec, "env": played(f"sleep {seconds}")}
        return super().launch(spec, **values)


PLAYED = frozenset(
    {
        "exit_code_is_told",
        "times_are_told",
        "running_attempt_is_seen",
        "streams_are_apart",
        "empty_output_is_empty",
        "output_is_read_by_offset",
        "output_is_read_while_it_is_written",
        "output_of_an_unknown_attempt_is_a_key_error",
        "walltime_ends_as_timed_out",
        "eviction_is_told_as_evicted",
        "recall_leaves_a_running_attempt_alone",
        "recall_takes_a_waiting_attempt_back",
        "job_that_ignores_the_signal_is_killed_after_its_grace",
        "stopping_again_does_not_prolong_the_grace",
        "stop_without_grace_kills_at_once",
        "stop_right_after_submit_leaves_nothing_running",
        "stop_of_unknown_or_ended_attempts_is_harmless",
        "two_hundred_attempts_at_once",
        "observation_is_complete_and_dated_before_the_question",
        "observation_holds_only_this_platforms_attempts",
        "nothing_submitted_nothing_observed",
        "running_attempt_is_not_forgotten",
        "attempts_are_found_after_a_restart_of_the_platform",
        "orphan_is_found_and_ended",
        "what_the_site_cannot_do_is_refused_by_name",
        "more_than_the_site_has_is_refused",
        "other_person_without_an_account_is_refused",
        "description_tells_what_there_is",
    }
)
"""The cases that need no process to be shown."""


class TestFake(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[FakeHarness]:
        harness = FakeHarness(tmp_path)
        await harness.start()
        yield harness
        await harness.tear_down()


for name in CASES.keys() - PLAYED:
    setattr(TestFake, f"test_{name}", None)  # pytest passes over what cannot be called


def test_every_played_case_is_one_of_the_contract() -> None:
    assert CASES.keys() >= PLAYED
