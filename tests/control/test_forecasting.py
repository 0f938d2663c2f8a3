"""The queue is forecast as it changes, and the forecasts learn from how it really went."""

from __future__ import annotations

import json
from typing import Any

import pytest

from atoll.control import forecasting
from atoll.scheduler.forecast import Expected, Forecast
from atoll.store import forecasts
from tests.control.harness import SlowMotion

SECOND = 1_000_000


def job(seconds: int, **rest: Any) -> dict[str, Any]:
    """A job of all CPUs that runs for so long, and may run for an hour."""
    return {"env": {"FAKE_RUNTIME": str(seconds)}, "memory": "1M", "cpu": 4, "walltime": "1h", **rest}


async def forecast(motion: SlowMotion) -> Forecast:
    """The forecast that the next round makes."""
    motion.clock.advance(2)
    await motion.dispatch()
    kept = await motion.database.read(forecasts.read)
    assert kept is not None
    return Forecast.from_bytes(kept.data)


async def expected(motion: SlowMotion, job_id: int) -> tuple[Expected, int]:
    """What is expected of a job, and in how many seconds its start is."""
    made = await forecast(motion)
    found = made.of(job_id)
    assert found is not None
    assert found.start is not None
    return found, (found.start - made.at) // SECOND


async def ran(motion: SlowMotion, *documents: dict[str, Any], owner: str = "ada") -> None:
    for document in documents:
        await motion.insert(document, owner=owner)
        await motion.settle(seconds=100)


async def test_what_waits_is_expected_to_start_by_the_time_that_what_runs_must_end(motion: SlowMotion) -> None:
    await motion.insert(job(600))
    await motion.round()
    await motion.step("observe")
    [first, second] = await motion.insert(job(600, name="a"), job(600, name="b"))
    found, seconds = await expected(motion, first)
    assert (found.position, found.waiting) == (1, 2)
    assert 600 <= seconds <= 3700
    _, later = await expected(motion, second)
    assert later >= seconds + 600, "one after the other"


async def test_runs_of_the_same_name_tell_how_long_the_next_will_take(motion: SlowMotion) -> None:
    await ran(motion, job(300, name="train"), job(300, name="train"))
    await motion.insert(job(300, name="train"))
    await motion.round()
    await motion.step("observe")
    [waits] = await motion.insert(job(300, name="eval"))
    assert (await expected(motion, waits))[1] <= 400, "nobody needs to know of the hour that it might take"


async def test_what_waits_already_profits_from_what_is_learnt(motion: SlowMotion) -> None:
    ids = await motion.insert(*[job(300, name="sweep", walltime="2h")] * 3)
    await motion.round()
    await motion.step("observe")
    _, before = await expected(motion, ids[2])
    motion.clock.advance(310)
    for _ in range(3):
        await motion.step("observe", "finish")
        await motion.dispatch()
    await motion.step("submit", "observe")
    assert (await motion.job(ids[1])).state == "running"
    _, after = await expected(motion, ids[2])
    assert before > 3600
    assert after <= 600


async def test_where_nothing_waits_and_that_is_known_nothing_is_forecast(motion: SlowMotion) -> None:
    assert not len((await forecast(motion)).jobs)
    before = await motion.database.read(forecasts.made_at)
    motion.clock.advance(100)
    await motion.dispatch()
    assert await motion.database.read(forecasts.made_at) == before


async def test_what_was_learnt_outlives_the_replica(motion: SlowMotion) -> None:
    await motion.insert(job(100))
    await motion.round()
    await motion.step("observe")
    await motion.insert(*[job(100)] * 3)
    await forecast(motion)
    motion.clock.advance(40)
    await forecast(motion)
    kept = await motion.database.read(forecasts.read)
    assert kept is not None
    assert len(json.loads(kept.learnt or "{}")["followed"]) == 3
    await motion.crash()
    await motion.dispatch()
    assert len(json.loads(motion.dispatcher._forecaster._calibration.to_json())["followed"]) == 3


async def test_a_forecast_that_fails_keeps_no_job_from_starting(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: Any, **__: Any) -> Forecast:
        raise ZeroDivisionError

    monkeypatch.setattr(forecasting, "forecast", fails)
    await ran(motion, job(10))
    assert "the queue cannot be forecast" in caplog.text
    assert await motion.database.read(forecasts.read) is None
