"""The dispatcher answers what would help a waiting job, a bit at a time where that takes long."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from atoll.control import answering
from atoll.store import questions
from atoll.store.questions import Question
from tests.control.harness import SlowMotion


def job(cpu: int, walltime: str, **rest: Any) -> dict[str, Any]:
    return {"env": {"FAKE_RUNTIME": "99999"}, "memory": "1M", "cpu": cpu, "walltime": walltime, **rest}


async def ask(motion: SlowMotion, job_id: int) -> None:
    question = Question("q", job=job_id)
    await motion.database.write(partial(questions.ask, person="ada", question=question, now=motion.tools.now()))


async def answer(motion: SlowMotion) -> Any:
    text = await motion.database.read(partial(questions.answer_to, question="q"))
    return None if text is None else json.loads(text)


async def waiting(motion: SlowMotion) -> int:
    """A job that would delay the first in line, which waits for six hours, and so waits itself for what is free."""
    await motion.insert(job(3, "6h"))
    await motion.round()
    await motion.insert(job(4, "1h"))
    [last] = await motion.insert(job(1, "24h"))
    await motion.round()
    return last


async def test_what_would_help_is_answered(motion: SlowMotion) -> None:
    last = await waiting(motion)
    await ask(motion, last)
    await motion.dispatch()
    [remedy] = (await answer(motion))["remedies"]
    assert (remedy["kind"], "a walltime of 4h instead of the 1d" in remedy["sentence"]) == ("walltime", True)
    assert remedy["start"] < motion.tools.now() + 60_000_000


async def test_an_answer_that_takes_long_is_found_bit_by_bit(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = await waiting(motion)
    monkeypatch.setattr(answering, "_SECONDS", 0)
    await ask(motion, last)
    rounds = 0
    while (found := await answer(motion)) is None:
        await motion.dispatch()
        rounds += 1
        assert rounds < 20
    assert (rounds > 2, len(found["remedies"])) == (True, 1)


async def test_of_a_job_that_does_not_wait_there_is_nothing_to_say(motion: SlowMotion) -> None:
    await ask(motion, 77)
    await motion.dispatch()
    assert (await answer(motion))["remedies"] == []
