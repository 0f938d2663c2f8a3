"""What a run is expected to take: its name's last two, else its person's like it, else what is usual."""

from __future__ import annotations

import numpy as np

from atoll.core.spec import JobClass
from atoll.scheduler.runtimes import Runtimes

HOUR = 3600


def learnt(*runs: tuple[str, str, int | None, int], most: int = 100) -> Runtimes:
    runtimes = Runtimes(most)
    for person, name, walltime, seconds in runs:
        runtimes.learn(person, name, JobClass.BATCH, walltime, seconds)
    return runtimes


def test_nobody_knows_before_anything_has_run() -> None:
    assert Runtimes().expected("ana", "train", HOUR) == 0


def test_the_last_two_runs_of_a_name_count_and_none_before() -> None:
    runtimes = learnt(("ana", "train", HOUR, 3000), ("ana", "train", HOUR, 100), ("ana", "train", HOUR, 200))
    assert runtimes.expected("ana", "train", HOUR) == 150


def test_another_name_goes_by_the_person_s_runs_of_a_like_walltime() -> None:
    runtimes = learnt(("ana", "train", HOUR, 600), ("ana", "sweep", 10 * HOUR, 9000))
    assert runtimes.expected("ana", "new", HOUR + 60) == 600
    assert runtimes.expected("ana", "new", 10 * HOUR) == 9000


def test_a_person_of_whom_nothing_is_known_gets_the_usual_share_of_the_walltime() -> None:
    runtimes = learnt(*[("ana", f"n{number}", HOUR, 900) for number in range(20)])
    assert runtimes.expected("ben", "first", 2 * HOUR) == HOUR // 2
    assert runtimes.expected("ben", "first", None) == 0


def test_never_more_than_the_walltime_and_never_nothing() -> None:
    assert learnt(("ana", "train", HOUR, 3000)).expected("ana", "train", 600) == 600
    assert learnt(("ana", "train", HOUR, 0)).expected("ana", "train", 600) == 1


def test_a_service_teaches_nothing() -> None:
    runtimes = Runtimes()
    runtimes.learn("ana", "web", JobClass.SERVICE, None, 10**6)
    assert runtimes.expected("ana", "web", None) == 0


def test_who_came_up_last_is_remembered_within_bounds() -> None:
    runtimes = learnt(("ana", "a", None, 10), ("ana", "b", None, 20), most=2)
    assert runtimes.expected("ana", "a", 60) == 10  # asking counts as well
    runtimes.learn("ana", "c", JobClass.BATCH, None, 30)
    assert runtimes.expected("ana", "a", 60) == 10
    assert runtimes.expected("ana", "b", 60) == 0


def test_how_runs_end_by_their_share_of_the_walltime_is_learnt() -> None:
    runtimes = learnt(*[("ana", "train", 1000, 500) for _ in range(3000)])
    ran, within = np.array([[400.0], [600.0]]), np.array([50.0, 200.0])
    soon, late = runtimes.ending(ran[:1], np.array([[1000.0]]), within)[0]
    assert soon < 0.1
    assert late > 0.9
    assert runtimes.ending(np.array([[1001.0]]), np.array([[1000.0]]), within)[0, 0] == 1
