"""What attempts write of their begin and end: followed without asking Slurm, and believed as far as it may be."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import replace

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Launch, Observation, Phase, Watch
from atoll.drivers.slurm import observing
from tests.contract.process_harness import until
from tests.contract.slurm_harness import SlurmHarness


@asynccontextmanager
async def hinted(
    harness: SlurmHarness, listing: Observation
) -> AsyncIterator[Callable[[], "asyncio.Future[Observation]"]]:
    """Gives what is known after the next hint; `listing` was read before, and is as good as new."""
    driver = harness.driver
    assert isinstance(driver, Watch)
    stirred = asyncio.Event()
    states = dict(listing.states)

    async def listen() -> None:
        async with aclosing(driver.changes()) as changes:  # type: ignore[type-var]  # a generator, behind a wider type
            async for _ in changes:
                stirred.set()

    async def answer() -> Observation:
        async with asyncio.timeout(harness.patience):
            await stirred.wait()
        stirred.clear()
        observation = await driver.observe(harness.held())
        states.update(observation.states)
        return replace(observation, states=dict(states))

    listening = asyncio.create_task(listen())
    try:
        yield lambda: asyncio.ensure_future(answer())
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)


async def followed(harness: SlurmHarness, news: Callable[[], "asyncio.Future[Observation]"]) -> None:
    """Return once hints come: what is written before somebody follows is never told."""
    told = False
    while not told:
        sample = harness.script("true")
        await harness.submit(sample)
        with suppress(TimeoutError):
            async with asyncio.timeout(5):
                while not told:
                    told = sample.attempt_id in (await news()).states


def of(observation: Observation, launch: Launch) -> AttemptStatus:
    return observation.states[launch.attempt_id]


@pytest.fixture(autouse=True)
def one_listing_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(observing, "_LIST_EVERY", 3600.0)


async def test_begin_and_end_are_known_without_another_listing(harness: SlurmHarness) -> None:
    go = harness.folder / "go"
    go.parent.chmod(0o755)
    launch = harness.script(f"until [ -e {go} ]; do sleep 0.1; done; exit 3")
    listing = await harness.driver.observe(harness.held())
    async with hinted(harness, listing) as news:
        await followed(harness, news)
        harness.cluster.reset_questions()
        await harness.submit(launch)
        while launch.attempt_id not in (observation := await news()).states:
            assert not observation.complete
        assert of(observation, launch).phase is Phase.RUNNING
        assert of(observation, launch).started_at is not None
        go.touch()
        while (observation := await news()).states[launch.attempt_id].phase is Phase.RUNNING:
            assert not observation.complete
    end = of(observation, launch)
    assert (end.phase, end.outcome, end.exit_code) == (Phase.ENDED, Outcome.FAILED, 3)
    assert end.native_id == harness.held_as(launch).native_id
    assert not [kind for kind in harness.cluster.questions() if kind.startswith("REQUEST_JOB_INFO")]
    # the next listing, in which Slurm may still have the job, tells the same
    assert of(await harness.driver.observe(harness.held()), launch) == end


async def test_end_that_slurm_had_a_part_in_is_left_to_the_listing(harness: SlurmHarness) -> None:
    """What ends well when it is told to go was not done."""
    launch = harness.script("trap 'sleep 1; exit 0' TERM; echo up; while :; do sleep 0.1; done")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up\n")
    listing = await harness.driver.observe(harness.held())
    await harness.slurm("scancel", str(harness.held_as(launch).native_id))
    end = harness.folder_of(launch) / "end"
    await until(end.exists)
    async with hinted(harness, listing) as news:
        await followed(harness, news)
        other = harness.script("true")
        await harness.submit(other)
        while (observation := await news()).states.get(other.attempt_id) is None:
            pass
        assert of(observation, launch).phase is Phase.RUNNING
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.CANCELLED


async def test_account_cannot_tell_of_anothers_attempts(harness: SlurmHarness) -> None:
    ours = harness.script("echo up; while :; do sleep 0.1; done")
    await harness.submit(ours)
    await harness.wait_for_output(ours, b"up\n")
    listing = await harness.driver.observe(harness.held())
    theirs = harness.script(
        f"cd {harness.sites}/nobody/{harness.instance} && echo {ours.attempt_id} >>news && echo nonsense >>news; true",
        account="nobody",
    )
    async with hinted(harness, listing) as news:
        await followed(harness, news)
        await harness.submit(theirs)
        while (observation := await news()).states.get(theirs.attempt_id) is None:
            pass
        while of(observation, theirs).phase is not Phase.ENDED:
            observation = await news()
    assert of(observation, ours).phase is Phase.RUNNING
