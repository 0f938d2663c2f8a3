"""The usual wait of a site is learnt from what begins there, and forgotten where nothing does."""

from __future__ import annotations

from atoll.control.waits import Waits

MINUTE = 60_000_000


def test_the_last_begins_count_most() -> None:
    waits = Waits()
    for number in range(30):
        waits.began("far", number * MINUTE, (number + 10) * MINUTE)
    assert waits.of("far", 39 * MINUTE) == 600
    for number in range(40, 60):
        waits.began("far", number * MINUTE, (number + 30) * MINUTE)
    assert 1500 < waits.of("far", 89 * MINUTE) < 1800
    assert waits.of("near", 0) == 0


def test_the_time_of_a_hand_over_is_no_wait() -> None:
    waits = Waits()
    waits.began("here", 0, 5_000_000)
    assert waits.of("here", 5_000_000) == 0


def test_without_begins_half_is_forgotten_in_an_hour() -> None:
    waits = Waits()
    waits.began("far", 0, 20 * MINUTE)
    assert [waits.of("far", moment * MINUTE) for moment in (20, 80, 140, 1000)] == [1200, 600, 300, 0]


def test_what_was_known_before_holds_until_something_is_learnt() -> None:
    waits = Waits()
    waits.recall("far", 1200, 0)
    assert waits.of("far", 0) == 1200
    for number in range(60):
        waits.began("far", number * MINUTE, (number + 2) * MINUTE)
    waits.recall("far", 1200, 61 * MINUTE)
    assert waits.of("far", 61 * MINUTE) == 120
