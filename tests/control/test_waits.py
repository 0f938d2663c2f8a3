"""The usual wait of a site is learnt from what begins there, and forgotten where nothing does."""

from __future__ import annotations

from atoll.control.waits import Waits, is_another
from atoll.core.site import UsualWait
from atoll.core.spec import JobClass

MINUTE = 60_000_000
BATCH, SERVICE, INTERACTIVE = JobClass.BATCH, JobClass.SERVICE, JobClass.INTERACTIVE


def test_the_last_begins_count_most() -> None:
    waits = Waits()
    for number in range(30):
        waits.began("far", BATCH, number * MINUTE, (number + 10) * MINUTE)
    assert waits.of("far", 39 * MINUTE).all == 600
    for number in range(40, 60):
        waits.began("far", BATCH, number * MINUTE, (number + 30) * MINUTE)
    assert 1500 < waits.of("far", 89 * MINUTE).all < 1800
    assert waits.of("near", 0).all == 0


def test_the_time_of_a_hand_over_is_no_wait() -> None:
    waits = Waits()
    waits.began("here", BATCH, 0, 5_000_000)
    assert waits.of("here", 5_000_000).all == 0


def test_without_begins_half_is_forgotten_in_an_hour() -> None:
    waits = Waits()
    waits.began("far", BATCH, 0, 20 * MINUTE)
    assert [waits.of("far", moment * MINUTE).all for moment in (20, 80, 140, 1000)] == [1200, 600, 300, 0]


def test_what_was_known_before_holds_until_something_is_learnt() -> None:
    waits = Waits()
    waits.recall("far", UsualWait(1200), 0)
    assert waits.of("far", 0).all == 1200
    for number in range(60):
        waits.began("far", BATCH, number * MINUTE, (number + 2) * MINUTE)
    waits.recall("far", UsualWait(1200), 61 * MINUTE)
    assert waits.of("far", 61 * MINUTE).all == 120


def test_each_class_has_a_wait_of_its_own_and_others_that_of_all() -> None:
    waits = Waits()
    for number in range(30):
        waits.began("far", INTERACTIVE, number * MINUTE, (number + 2) * MINUTE)
        waits.began("far", BATCH, number * MINUTE, (number + 60) * MINUTE)
    usual = waits.of("far", 89 * MINUTE)
    assert usual.of(BATCH) == 3600
    assert 120 < usual.of(INTERACTIVE) < usual.of(SERVICE) == usual.all < usual.of(BATCH)
    again = Waits()
    again.recall("far", usual, 89 * MINUTE)
    assert again.of("far", 89 * MINUTE) == usual


def test_a_class_of_which_nothing_begins_comes_to_have_the_wait_of_all_and_not_none() -> None:
    waits = Waits()
    waits.began("far", INTERACTIVE, 0, 2 * MINUTE)
    for number in range(30):
        waits.began("far", BATCH, (10 * number) * MINUTE, (10 * number + 60) * MINUTE)
    usual = waits.of("far", 350 * MINUTE)
    assert usual.all > 3400
    assert usual.all * 0.9 < usual.of(INTERACTIVE) <= usual.all
    later = waits.of("far", 410 * MINUTE)
    assert abs(later.of(INTERACTIVE) - usual.of(INTERACTIVE) / 2) <= 60, "where nothing at all begins, it is forgotten"


def test_a_wait_that_has_changed_by_little_is_the_same() -> None:
    known = UsualWait(600, {BATCH: 900})
    assert not is_another(UsualWait(660, {BATCH: 960}), known)
    assert is_another(UsualWait(660, {BATCH: 1200}), known)
    assert is_another(UsualWait(600), known), "of batch jobs nothing else is known than of all"
    assert not is_another(UsualWait(), UsualWait())
