"""Engines that are slow, refuse, restart, vanish and forget, and a platform that dies at the wrong moment."""

import asyncio

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    DriverError,
    Held,
    Launch,
    Phase,
    Refused,
    StopReason,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.contract.harness import Harness, Hints, only

_RAN = 'echo ran >>"$ATOLL_CHECKPOINT_DIR/runs"'


class Trouble:
    """Whatever happens to engine or platform, each attempt runs once, and its end is told as it was."""

    async def test_acceptance_that_comes_too_late_runs_once(self, harness: Harness) -> None:
        """A submission that is not answered in time is not refused; repeated by the rules it runs once."""
        launch = harness.script(f"{_RAN}; sleep 0.5; exit 6", checkpoint_key="late")
        async with harness.slow_acceptance():
            answer = await _handed_over(harness, launch)
        assert isinstance(answer, Unknown), answer
        assert answer.message
        if await harness.status(launch) is None:
            # by the rules: only after a complete observation, begun later, that does not name it
            await harness.submit(launch)
        await _ran_once(harness, launch, "late", 6)

    async def test_attempt_runs_once_although_the_platform_died_before_it_wrote_that_down(
        self, harness: Harness
    ) -> None:
        """The engine took it, and nobody remembers: a new driver is handed it again, by its id alone."""
        launch = harness.script(f"{_RAN}; sleep 0.5; exit 6", checkpoint_key="crash")
        first = only(await harness.driver.submit([launch]))
        assert isinstance(first, Submitted)
        await harness.restart()
        observation = await harness.driver.observe([launch.held])
        assert observation.complete
        assert launch.attempt_id in observation.states
        again = only(await harness.submit(launch))
        assert isinstance(again, Submitted)
        await _ran_once(harness, launch, "crash", 6)

    async def test_orphan_is_found_and_ended(self, harness: Harness) -> None:
        """An attempt that control knows nothing of is told all the same, and can be stopped and forgotten."""
        launch = harness.script("sleep 300")
        await harness.submit(launch)
        await harness.wait([launch], Phase.RUNNING)
        await harness.restart()
        told = (await harness.driver.observe([])).states.get(launch.attempt_id)
        assert told is not None, "what nobody holds is not told"
        orphan = Held(told.attempt_id, told.native_id or None, told.account)
        await harness.driver.stop([StopRequest(orphan, StopReason.ORPHANED, 1)])
        (status,) = await harness.wait([launch])
        assert status.outcome is Outcome.CANCELLED
        await harness.driver.forget([orphan])
        assert launch.attempt_id not in (await harness.driver.observe([])).states

    async def test_attempts_outlive_a_restart_of_the_engine(self, harness: Harness) -> None:
        """One that ended before, and one that runs meanwhile: both have their right ends."""
        ended, runs = harness.script("exit 21"), harness.script(f"{_RAN}; sleep 3; exit 22", checkpoint_key="restart")
        await harness.submit(ended, runs)
        await harness.wait([ended])
        await harness.wait([runs], Phase.RUNNING)
        await harness.restart_engine()
        (status,) = await _well_again(harness, [ended])
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 21)
        await _ran_once(harness, runs, "restart", 22)

    async def test_engine_that_is_down_is_unreachable_and_then_caught_up(self, harness: Harness) -> None:
        """While it is down every question is a DriverError and nothing is refused for good; then ends are right."""
        ends, new = harness.script("sleep 1; exit 23"), harness.script(f"{_RAN}; exit 24", checkpoint_key="down")
        await harness.submit(ends)
        await harness.wait([ends], Phase.RUNNING)
        async with harness.engine_down():
            with pytest.raises(DriverError) as caught:
                await harness.driver.observe(harness.held())
            assert str(caught.value)
            with pytest.raises(DriverError):
                await harness.driver.stop([StopRequest(harness.held_as(ends), StopReason.CANCELLED, 1)])
            answer = await _handed_over(harness, new)
            assert isinstance(answer, Unknown) or (isinstance(answer, Refused) and not answer.permanent)
            await asyncio.sleep(1.5)  # it ends while nobody can be asked
        (status,) = await _well_again(harness, [ends])
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 23)
        if await harness.status(new) is None:
            await harness.submit(new)
        await _ran_once(harness, new, "down", 24)

    async def test_end_is_right_although_the_engine_has_forgotten_it(self, harness: Harness) -> None:
        """After an outage longer than the engine's memory: by what the wrapper wrote."""
        launch = harness.script("echo out; sleep 1; exit 25")
        await harness.submit(launch)
        await harness.wait([launch], Phase.RUNNING)
        await harness.outlast_memory(launch)  # meanwhile nobody asks
        (status,) = await harness.wait([launch])
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 25)
        assert await harness.read(launch) == b"out\n"

    async def test_attempt_that_was_removed_behind_our_back_never_succeeded(self, harness: Harness) -> None:
        """Two complete observations lack it, or it is told as ended, and not as succeeded."""
        launch = harness.script("echo up; sleep 300")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        await harness.remove_behind_our_back(launch)
        status = await _settled(harness, launch)
        assert status is None or status.outcome not in (None, Outcome.SUCCEEDED)

    async def test_engine_that_starts_an_attempt_again_does_not_run_it_twice(self, harness: Harness) -> None:
        """The wrapper's claim is taken: the command ran once, and what came of the second start is no success."""
        launch = harness.script(f"{_RAN}; echo up; sleep 2; exit 26", checkpoint_key="again")
        await harness.submit(launch)
        await harness.wait_for_output(launch, b"up")
        await harness.run_again(launch)
        status = await _settled(harness, launch)
        assert status is None or status.outcome not in (None, Outcome.SUCCEEDED)
        assert await _runs(harness, "again") == 1

    async def test_engines_refusal_is_told_in_its_own_words(self, harness: Harness) -> None:
        """What the engine does not take is Refused, with the engine's sentence, and nothing of it is left."""
        launch, words = harness.refused_by_engine()
        answer = only(await harness.driver.submit([launch]))
        assert isinstance(answer, Refused)
        assert words in answer.message
        assert await harness.status(launch) is None


async def _handed_over(harness: Harness, launch: Launch) -> Answer:
    """What control makes of the answer: an error leaves open whether the attempt landed."""
    try:
        return only(await harness.driver.submit([launch]))
    except DriverError as error:
        return Unknown(launch.attempt_id, str(error))


async def _runs(harness: Harness, key: str) -> int:
    """How many lines a command has written to `runs` in its checkpoint folder."""
    count = harness.script('cat "$ATOLL_CHECKPOINT_DIR/runs" 2>/dev/null | wc -l', checkpoint_key=key)
    return int(await harness.output(count))


async def _ran_once(harness: Harness, launch: Launch, key: str, code: int) -> None:
    (status,) = await harness.wait([launch], patience=2 * harness.patience)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, code)
    assert await _runs(harness, key) == 1


async def _well_again(harness: Harness, launches: list[Launch]) -> list[AttemptStatus]:
    """Wait for ends at an engine that may take a moment to answer again."""
    async with asyncio.timeout(2 * harness.patience):
        while True:
            try:
                return await harness.wait(launches)
            except DriverError:
                await asyncio.sleep(harness.interval)


async def _settled(harness: Harness, launch: Launch) -> AttemptStatus | None:
    """Its end, or None once two complete observations lack it."""
    hints, missing = Hints(harness.driver, harness.interval), 0
    try:
        async with asyncio.timeout(2 * harness.patience):
            while missing < 2:
                status = await harness.status(launch)
                if status is not None and status.phase is Phase.ENDED:
                    return status
                missing = missing + 1 if status is None else 0
                await hints.next()
            return None
    finally:
        await hints.close()
