"""The table of what holds room."""

from dataclasses import replace

import numpy as np
import pytest

from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.scheduler.holding import Holding
from atoll.scheduler.model import Running
from atoll.scheduler.room import ENDLESS

SECOND = 1_000_000
ONE = Running(
    "u", 1, "a", "cpu", Resources(2000), 2, 2, False, 1, False, "astro", "ada", 5, 6, 7, 60, 50, 30, 1, 9, 8,
    (NodeSpot("n1", ((0, 1000),)), NodeSpot("n2")),
)  # fmt: skip
OTHER = Running("v", 2, "a", "gpu", Resources(1000, 0, 1000))
WALLTIMES = (600, None, 600, 600)


def test_what_was_taken_is_read_back_as_it_was() -> None:
    held = Holding()
    rows = [held.take(ONE), held.take(OTHER)]
    assert [held.running("u"), held.running("v")] == [ONE, OTHER]
    assert dict(held.each()) == dict(zip(rows, (ONE, OTHER), strict=True))
    assert (held.attempt(rows[0]), held.owner_of(rows[0]), held.flavor_of(rows[1])) == ("u", ("astro", "ada"), "gpu")
    assert list(held.requests()) == [(Resources(2000), 2), (Resources(1000, 0, 1000), 1)]
    held.validate()


def test_what_was_given_back_holds_nothing() -> None:
    held = Holding()
    held.take(ONE)
    assert held.rows_at(("a", "cpu")).tolist() == [0]
    assert held.give("u") == ONE
    assert held.give("u") is None
    assert "u" not in held
    assert (held.rows_at(("a", "cpu")).tolist(), held.attempts, held.used) == ([], [], {})
    held.validate()


def test_an_attempt_has_left_by_its_walltime_and_grace_or_after_the_grace_where_it_is_asked_to() -> None:
    held, now = Holding(), 10 * SECOND
    begun = replace(ONE, started=4 * SECOND, walltime=60, grace=30)
    many = [
        begun,
        replace(begun, attempt_id="leaving", leaving=True),
        replace(begun, attempt_id="opportunistic", rank=3),
        replace(begun, attempt_id="service", rank=1, walltime=None),
        replace(begun, attempt_id="not begun", started=0),
    ]
    rows = np.array([held.take(each) for each in many], np.intp)
    ends = held.ends(rows, now, WALLTIMES).tolist()
    assert ends == [94 * SECOND, 40 * SECOND, 40 * SECOND, ENDLESS, 100 * SECOND]
    releases = held.releases(("a", "cpu"), now, WALLTIMES)
    assert releases.by(94 * SECOND) == Resources(4000 * 3)


def test_rows_that_are_no_longer_those_of_a_pool_are_found() -> None:
    held = Holding()
    held.take(ONE)
    held._rows_at["a", "cpu"] = np.zeros(0, np.intp)
    with pytest.raises(AssertionError, match="stale"):
        held.validate()
