"""What the page of a start shows."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from atoll.client.models import Job, Why
from atoll.core.errors import Invalid
from atoll.sessions.command import check_choices
from atoll.sessions.progress import Story, ended, step


def job(state: str, **attempt: Any) -> Job:
    attempts = [{"id": "a", "number": 1, "site": "alps", "state": state, **attempt}] if attempt else []
    return Job.model_validate({"id": "7", "job": 7, "state": state, "attempt_list": attempts})


def why(sentence: str, **estimate: Any) -> Why:
    return Why.model_validate(
        {"job": "7", "state": "queued", "code": "any", "sentence": sentence, "estimate": estimate or None}
    )


def test_what_waits_says_why_where_and_until_when() -> None:
    waits = why("All GPUs are in use.", position=3, waiting=9, start="2026-01-01T12:00:00Z")
    percent, words = step(job("queued"), waits)
    assert percent == 10
    assert words.startswith("All GPUs are in use. Place 3 of 9 in the queue. Expected to start at 2026-01-01 ")


def test_what_nobody_can_estimate_says_only_why() -> None:
    assert step(job("held"), why("It is held.")) == (10, "It is held.")


def test_then_the_engine_has_the_word() -> None:
    pulling = job("starting", native_state="Pending", message="pulling image")
    assert step(pulling, why("Starts.")) == (60, "Starts. Site alps says: Pending: pulling image.")


def test_a_state_of_a_newer_platform_is_shown_too() -> None:
    assert step(job("dreaming"), why("It dreams."))[1] == "It dreams."


def test_a_start_that_failed_has_the_platforms_the_engines_and_the_servers_words() -> None:
    failed = job("failed", message="ImagePullBackOff: no such image")
    words = ended(failed, why("The site refused it."), "sh: not found")
    assert words == (
        "The session (job 7) ended before it could be used: The site refused it. ImagePullBackOff: no such image "
        "It printed last: sh: not found"
    )


async def test_who_comes_late_hears_all_from_the_beginning_and_nothing_twice() -> None:
    story = Story()
    story.tell(10, "waits")
    story.tell(10, "waits")
    listening = story.listen()
    assert (await anext(listening))["message"] == "waits"
    coming = asyncio.ensure_future(anext(listening))
    await asyncio.sleep(0)
    assert not coming.done()
    story.tell(80, "runs")
    assert (await coming)["message"] == "runs"


def test_what_cannot_be_chosen_is_refused_with_what_can() -> None:
    assert check_choices({"gpu": "1", "project": ""}) == {"gpu": "1"}
    with pytest.raises(Invalid, match=r"'command' cannot be chosen.*cpu, memory, gpu"):
        check_choices({"command": "rm"})
