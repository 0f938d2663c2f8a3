"""Event streams however they are cut, and when a waiter asks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.client.events import Event, EventParser, Waiter

STREAM = (
    "event: opened\r\ndata: {}\r\n\r\n"
    ": still here\n\n"
    "id: 7\nevent: chunk\ndata: {\"text\": \"gr\u00fc\u00dfe\"}\n\n"
    "data: one\ndata: two\n\n"
    "retry: 5\n\n"
).encode()  # fmt: skip
EVENTS = [
    Event("opened", "{}"), Event("heartbeat"), Event("chunk", '{"text": "gr\u00fc\u00dfe"}', "7"),
    Event("message", "one\ntwo"),
]  # fmt: skip


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_a_stream_gives_the_same_events_however_it_is_cut(cuts: list[int]) -> None:
    parser, found, last = EventParser(), list[Event](), 0
    for cut in [*sorted(cuts), len(STREAM)]:
        found += parser.feed(STREAM[last:cut])
        last = cut
    assert found == EVENTS


@given(st.binary(max_size=500))
def test_no_bytes_break_the_parser(data: bytes) -> None:
    for event in EventParser().feed(data):
        assert isinstance(event.json(), dict)


def test_an_event_without_end_is_refused() -> None:
    parser = EventParser()
    with pytest.raises(ValueError, match="larger"):
        list(parser.feed(b"x" * 40_000_000))


def told(state: str, task: int | None) -> Event:
    return Event("job", json.dumps({"job": 1, "task": task, "state": state}), "1")


def test_an_array_is_asked_about_after_as_many_ends_as_it_has_open_tasks() -> None:
    waiter = Waiter()
    waiter.asked(1000)
    asked = [number for number in range(1, 1001) if waiter.due(told("succeeded", number))]
    assert asked == [1000]


def test_an_array_that_says_it_ended_is_asked_about_at_once() -> None:
    waiter = Waiter()
    waiter.asked(1000)
    assert waiter.due(told("failed", None))


def test_one_task_is_asked_about_when_it_ended_and_not_when_others_did() -> None:
    waiter = Waiter(task=3)
    assert not waiter.due(told("succeeded", 2))
    assert not waiter.due(told("running", 3))
    assert waiter.due(told("succeeded", 3))


@pytest.mark.parametrize("name", ["connecting", "opened", "heartbeat"])
def test_signs_of_life_are_a_reason_to_ask(name: str) -> None:
    assert Waiter().due(Event(name))
