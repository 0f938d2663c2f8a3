"""Ranges that hold as often as they should, learnt from what came, and kept over a restart."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest

from atoll.scheduler.calibration import PROMISED, Calibration
from atoll.scheduler.forecast import Forecast

SECOND = 1_000_000
BATCH = 2


def made(calibration: Calibration, jobs: list[int], wait: float, at: float = 0, kind: int = BATCH) -> Forecast:
    """A forecast that predicts one wait, in seconds, for some jobs."""
    waits = np.full(len(jobs), round(wait * SECOND), np.int64)
    kinds = np.full(len(jobs), kind, np.int8)
    now = round(at * SECOND)
    least, middle, most = (now + column for column in calibration.spread(kinds, waits))
    return Forecast(now, np.array(jobs, np.int64), middle, least, most, waits, kinds)


def told(calibration: Calibration, wait: float, kind: int = BATCH) -> tuple[float, float, float]:
    """The least, likely and greatest wait, in seconds, that is told for a predicted one."""
    found = calibration.spread(np.array([kind], np.int8), np.array([round(wait * SECOND)], np.int64))
    least, middle, most = (int(column[0]) / SECOND for column in found)
    return least, middle, most


def learn(calibration: Calibration, count: int, chance: random.Random, *, first: int = 0, factor: float = 1) -> float:
    """Predict 100 s for so many jobs that come after `factor` times 20 to 300 s; the part that came in its range."""
    inside = 0
    for number in range(first, first + count):
        forecast = made(calibration, [number], 100, at=1000 * number)
        came = forecast.at + round(factor * chance.uniform(20, 300) * SECOND)
        inside += int(forecast.earliest[0]) <= came <= int(forecast.latest[0])
        calibration.follow(forecast)
        calibration.started(number, came)
    return inside / count


def test_ranges_are_sane_before_anything_is_learnt() -> None:
    least, middle, most = told(Calibration(), 3600)
    assert 600 < least < middle < most < 6 * 3600
    assert middle == pytest.approx(3600, abs=1)
    assert told(Calibration(), 0)[0] == 0
    assert told(Calibration(), 30, BATCH + PROMISED)[2] < 60


def test_at_least_eight_in_ten_come_in_their_range_once_it_is_learnt() -> None:
    calibration, chance = Calibration(), random.Random(1)
    learn(calibration, 100, chance)
    assert 0.8 <= learn(calibration, 400, chance, first=100) <= 0.97


def test_ranges_follow_when_waits_become_other_ones() -> None:
    calibration, chance = Calibration(), random.Random(2)
    learn(calibration, 300, chance)
    learn(calibration, 150, chance, first=300, factor=5)
    assert learn(calibration, 300, chance, first=450, factor=5) >= 0.8


def test_the_middle_is_moved_by_what_all_are_wrong_by() -> None:
    calibration = Calibration()
    learn(calibration, 200, random.Random(3), factor=5)
    assert told(calibration, 100)[1] == pytest.approx(800, abs=150)


def test_what_was_predicted_alike_counts_and_other_kinds_do_not() -> None:
    calibration = Calibration()
    for number in range(200):
        wait = 10 if number % 2 else 10_000
        forecast = made(calibration, [number], wait, at=10**6 * number)
        calibration.follow(forecast)
        calibration.started(number, forecast.at + round(wait * SECOND * (1 if number % 2 else 2)))
    assert told(calibration, 10)[1] == pytest.approx(10, abs=1)
    assert told(calibration, 10_000)[1] == pytest.approx(20_000, rel=0.01)
    assert told(calibration, 10, BATCH + PROMISED) == told(Calibration(), 10, BATCH + PROMISED)


def test_what_waits_beyond_its_range_counts_at_once_and_once() -> None:
    calibration = Calibration()
    jobs = list(range(30))
    calibration.follow(made(calibration, jobs, 100))
    before = told(calibration, 100)
    calibration.overdue(200 * SECOND)
    assert told(calibration, 100) == before
    calibration.overdue(1000 * SECOND)
    assert told(calibration, 100)[1] == pytest.approx(1000, rel=0.01)
    for job_id in jobs:
        calibration.started(job_id, 5000 * SECOND)
    assert told(calibration, 100)[1] == pytest.approx(5000, rel=0.01)


def test_what_is_cancelled_says_nothing() -> None:
    calibration = Calibration()
    jobs = list(range(30))
    calibration.follow(made(calibration, jobs, 100))
    for job_id in jobs:
        calibration.gone(job_id)
        calibration.started(job_id, 5000 * SECOND)
    assert told(calibration, 100) == told(Calibration(), 100)


def test_of_a_long_queue_some_are_followed_from_all_its_length() -> None:
    calibration = Calibration()
    forecast = made(calibration, list(range(10_000)), 100)
    forecast = replace(forecast, starts=np.where(forecast.jobs < 9000, forecast.starts, -1))
    calibration.follow(forecast)
    for job_id in range(4000, 9000):
        calibration.started(job_id, 500 * SECOND)
    assert told(calibration, 100)[1] == pytest.approx(500, rel=0.01)


def test_it_survives_a_restart_in_less_than_100_kb() -> None:
    calibration, chance = Calibration(), random.Random(4)
    learn(calibration, 600, chance)
    calibration.follow(made(calibration, list(range(1000, 3000)), 100, at=10**7))
    text = calibration.to_json()
    assert len(text) < 100_000
    read = Calibration.from_json(text)
    assert read.to_json() == text
    for job_id in range(1000, 3000):
        calibration.started(job_id, 10**7 * SECOND + 400 * SECOND)
        read.started(job_id, 10**7 * SECOND + 400 * SECOND)
    assert told(read, 100) == pytest.approx(told(calibration, 100), rel=0.01)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"kinds": 3}', '{"kinds": {"2": [0.1, [[1]]]}, "followed": {}}'])
def test_a_state_that_cannot_be_read_is_forgotten(text: str) -> None:
    assert told(Calibration.from_json(text), 100) == told(Calibration(), 100)
