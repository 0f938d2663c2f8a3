"""Recalls: what waits in the engine's queue is given back before it begins, and what has begun is left alone."""

import asyncio

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Phase, StopReason
from atoll.drivers.contract.harness import Harness


class Recalls:
    """A recall is a stop that counts only as long as the attempt has not begun."""

    async def test_recall_leaves_a_running_attempt_alone(self, harness: Harness) -> None:
        """It runs to its own end; to recall it once more then, or an attempt that nobody knows, is harmless."""
        launch = harness.script("echo up; sleep 2; exit 5")
        await harness.submit(launch)
        await harness.wait([launch], Phase.RUNNING)
        await harness.stop(launch, StopReason.RECALLED, grace=0)
        (status,) = await harness.wait([launch])
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 5)
        await harness.stop(launch, StopReason.RECALLED, grace=0)
        await harness.stop(harness.script(":"), StopReason.RECALLED, grace=0)
        again = await harness.status(launch)
        assert again is not None
        assert (again.outcome, again.exit_code) == (Outcome.FAILED, 5)

    async def test_recall_takes_a_waiting_attempt_back(self, harness: Harness) -> None:
        """It ends as recalled without having begun; others that wait go on to wait, and begin when there is room."""
        if not (await harness.driver.describe()).recalls:
            pytest.skip("nothing that waits at the site can be taken back")
        alone, one, other = (harness.script("exit 4") for _ in range(3))
        async with harness.nothing_begins():
            await harness.submit(alone)
            await harness.submit(one, other)
            for launch in (alone, one, other):
                waiting = await harness.status(launch)
                assert waiting is not None
                assert waiting.phase is Phase.STARTING
            for launch in (alone, one, alone):
                await harness.stop(launch, StopReason.RECALLED, grace=0)
            for status in await harness.wait([alone, one]):
                assert (status.outcome, status.exit_code) == (Outcome.RECALLED, None)
                assert status.started_at is None
            waiting = await harness.status(other)
            assert waiting is not None
            assert waiting.phase is Phase.STARTING
        (status,) = await harness.wait([other])
        assert (status.outcome, status.exit_code) == (Outcome.FAILED, 4)
        for launch in (alone, one):
            told = await harness.status(launch)
            assert told is not None
            assert told.outcome is Outcome.RECALLED
        await harness.forget(alone, one)
        assert await harness.status(alone) is None

    async def test_recall_at_the_start_is_whole_or_nothing(self, harness: Harness) -> None:
        """Each attempt that starts at the moment of its recall runs to its own end, or its command never begins."""
        key = "recalls"
        text = 'cd "$ATOLL_CHECKPOINT_DIR"; echo "begun {0}" >>marks; sleep 0.3; echo "whole {0}" >>marks'
        launches = [harness.script(text.format(number), checkpoint_key=key) for number in range(12)]
        await harness.submit(*launches)
        for launch in launches:
            await harness.stop(launch, StopReason.RECALLED, grace=0)
            await asyncio.sleep(harness.interval / 4)  # so that some are asked for before they start, and some after
        outcomes = [status.outcome for status in await harness.wait(launches)]
        look = harness.script('cd "$ATOLL_CHECKPOINT_DIR"; cat marks 2>/dev/null || :', checkpoint_key=key)
        marks = sorted((await harness.output(look)).splitlines())
        ran = [number for number, outcome in enumerate(outcomes) if outcome is not Outcome.RECALLED]
        assert {outcomes[number] for number in ran} <= {Outcome.SUCCEEDED}
        assert marks == sorted(f"{word} {number}" for number in ran for word in ("begun", "whole"))
