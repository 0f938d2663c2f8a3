"""Handing over what has large files: apart from the others, and for as long as it takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.control.submit import Submitter
from atoll.core.errors import Unavailable
from atoll.core.site import Ability
from atoll.drivers.base import Answer, DriverError, Launch, sending_seconds
from atoll.store import attempts
from atoll.store.attempts import AttemptState
from atoll.store.leases import StaleLease
from tests.control.harness import SlowMotion

MB = 1 << 20


@pytest.fixture
def played() -> dict[str, Any]:
    return {"cpus": 20, "abilities": sorted(Ability)}


async def insert(motion: SlowMotion, *sizes: int) -> list[int]:
    """Jobs with one file each of so many bytes."""
    documents = []
    for number, size in enumerate(sizes):
        source = motion.folder / f"file-{number}"
        source.write_bytes(number.to_bytes(4, "big"))
        with source.open("r+b") as file:
            file.truncate(size)  # sparse
        sha256, _ = motion.tools.files.take(source)
        documents.append({"files_in": [{"path": "data", "sha256": sha256}]})
    jobs = await motion.insert(*documents)
    await motion.step("describe")
    await motion.dispatch()
    return jobs


async def states(motion: SlowMotion, jobs: Sequence[int]) -> list[str]:
    return [(await motion.attempts(job))[0].state for job in jobs]


async def test_large_files_hold_up_nobody_else(motion: SlowMotion) -> None:
    jobs = await insert(motion, 9 * MB, 10, 9 * MB, MB)
    woken: list[None] = []
    submitter = Submitter(motion.work, lambda: woken.append(None))
    await submitter.step(motion.lease())
    placed, starting = AttemptState.PLACED, AttemptState.STARTING
    assert await states(motion, jobs) == [placed, starting, placed, starting]
    assert woken
    assert await submitter.step_large(motion.lease()) == 0, "there is another one"
    assert await states(motion, jobs) == [starting, starting, placed, starting]
    await submitter.step_large(motion.lease())
    assert await states(motion, jobs) == [starting] * 4
    assert await submitter.step_large(motion.lease()) is None


async def test_one_call_has_so_much_to_send_as_it_has_time_for(motion: SlowMotion) -> None:
    jobs = await insert(motion, *[7 * MB] * 6)
    submitter = Submitter(motion.work, lambda: None)
    assert await submitter.step(motion.lease()) == 0, "there are more"
    assert (await states(motion, jobs)).count(AttemptState.STARTING) == 4
    assert await submitter.step(motion.lease()) is None
    assert await states(motion, jobs) == [AttemptState.STARTING] * 6


async def test_call_may_take_longer_the_more_it_sends_and_its_deadline_moves_on(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = await insert(motion, 50 * MB)
    work = replace(motion.work, call_seconds=0.3)
    deadlines: list[int] = []

    async def slowly(launches: Sequence[Launch]) -> list[Answer]:
        assert 50 < sending_seconds(launches) < 60
        async with asyncio.timeout(20):
            while len(set(deadlines)) < 3:
                motion.clock.advance(0.01)
                await asyncio.sleep(0.05)
                deadlines.append((await motion.attempts(job))[0].submit_deadline)
        return await type(motion.driver).submit(motion.driver, launches)

    monkeypatch.setattr(motion.driver, "submit", slowly)
    submitter = Submitter(work, lambda: None)
    await submitter.step(motion.lease())
    await submitter.step_large(motion.lease())
    assert deadlines == sorted(deadlines)
    assert await states(motion, [job]) == [AttemptState.STARTING]


async def test_large_ones_that_were_tried_go_behind_the_others(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = await insert(motion, 9 * MB, 9 * MB)
    submitter = Submitter(motion.work, lambda: None)
    await submitter.step(motion.lease())
    asked: list[str] = []

    async def fails(launches: Sequence[Launch]) -> list[Answer]:
        asked.extend(launch.attempt_id for launch in launches)
        raise DriverError("It hangs.")

    monkeypatch.setattr(motion.driver, "submit", fails)
    first, second = [(await motion.attempts(job))[0].id for job in jobs]
    await submitter.step_large(motion.lease())
    await motion.database.write(lambda connection: attempts.not_landed(connection, [first], motion.tools.now()))
    await submitter.step(motion.lease())
    await submitter.step_large(motion.lease())
    assert asked == [first, second]


async def test_call_goes_on_while_the_database_is_away_for_a_moment_and_ends_when_its_job_is_cancelled(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job] = await insert(motion, 50 * MB)
    usual, tries, ended, third = attempts.keep_submitting, [], asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def keep(connection: Connection, ids: Sequence[str], deadline: int) -> int:
        tries.append(deadline)
        if len(tries) == 2:
            raise Unavailable("database", "The database is away.")
        if len(tries) == 3:
            loop.call_soon_threadsafe(third.set)
        return usual(connection, ids, deadline)

    async def hangs(_: Sequence[Launch]) -> list[Answer]:
        try:
            async with asyncio.timeout(20):
                await third.wait()
            await motion.database.write(
                lambda connection: attempts.ask_to_stop(connection, [job], "cancelled", {job: 5}, motion.tools.now())
            )
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr(attempts, "keep_submitting", keep)
    monkeypatch.setattr(motion.driver, "submit", hangs)
    submitter = Submitter(replace(motion.work, call_seconds=1.0), lambda: None)
    await submitter.step(motion.lease())
    await submitter.step_large(motion.lease())
    assert ended.is_set()
    assert await states(motion, [job]) == [AttemptState.SUBMITTING], "it may have landed"


async def test_call_ends_with_the_lease(motion: SlowMotion, monkeypatch: pytest.MonkeyPatch) -> None:
    [job] = await insert(motion, 50 * MB)
    ended = asyncio.Event()

    async def hangs(_: Sequence[Launch]) -> list[Answer]:
        motion.clock.advance(60)  # the lease runs out
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        raise AssertionError

    monkeypatch.setattr(motion.driver, "submit", hangs)
    submitter = Submitter(replace(motion.work, call_seconds=0.3), lambda: None)
    await submitter.step(motion.lease())
    with pytest.raises(StaleLease):
        await submitter.step_large(motion.lease())
    assert ended.is_set()
    assert await states(motion, [job]) == [AttemptState.SUBMITTING]


async def test_attempt_that_was_stopped_meanwhile_is_not_sent(motion: SlowMotion) -> None:
    [job] = await insert(motion, 9 * MB)
    submitter = Submitter(motion.work, lambda: None)
    await submitter.step(motion.lease())
    [attempt] = await motion.attempts(job)
    await motion.database.write(
        lambda connection: attempts.ask_to_stop(connection, [job], "cancelled", {job: 5}, motion.tools.now())
    )
    await submitter.step_large(motion.lease())
    assert attempt.id not in motion.engine.starts
    assert await states(motion, [job]) == [AttemptState.PLACED]
