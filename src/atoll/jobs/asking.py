"""What would become of a job (could it run, where, and when), and what would help one that waits?

Asked of the scheduler, which alone knows the queue.
"""

import asyncio
import json
import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any

from atoll.core.clock import to_micros
from atoll.core.errors import Conflict, Unavailable
from atoll.core.reasons import ReasonCode
from atoll.faces.http.platform import Platform
from atoll.faces.http.times import moment, moment_or_none
from atoll.jobs.estimates import BY_QUEUE
from atoll.store import questions
from atoll.store.questions import Question

SECONDS = 10.0
"""So long an answer is waited for."""
HELP_SECONDS = 5.0
"""So long is waited for what would help, without which there is an answer too."""
_LOOK_AGAIN = 1.0
_NOBODY_CAN_SAY: dict[str, Any] = {
    "code": ReasonCode.NONE.value, "sentence": "Nobody can say now when it would start; ask again later.",
    "estimate": None, "facts": [],
}  # fmt: skip


async def ask(platform: Platform, person: str, columns: Mapping[str, Any]) -> dict[str, Any]:
    """What would become of a job with these columns, if a person submitted it now.

    There is no estimate where the scheduler does not answer. Raises Unavailable, and Conflict where the person has
    asked again meanwhile.
    """
    answer = await _put(platform, person, Question(secrets.token_hex(16), columns), SECONDS)
    return _document(answer) if answer is not None else _NOBODY_CAN_SAY


async def what_helps(platform: Platform, person: str, job_id: int) -> list[dict[str, Any]] | None:
    """What would let a job start sooner that waits, the best first; None where the scheduler does not answer."""
    try:
        answer = await _put(platform, person, Question(secrets.token_hex(16), job=job_id), HELP_SECONDS)
    except (Conflict, Unavailable):
        return None
    return None if answer is None else [{**each, "start": moment(each["start"])} for each in answer["remedies"]]


async def _put(platform: Platform, person: str, question: Question, seconds: float) -> Any:
    """The answer to a question; None where there is none in time."""
    now = to_micros(platform.clock())
    await platform.database.write(partial(questions.ask, person=person, question=question, now=now))
    platform.changed()
    try:
        async with asyncio.timeout(seconds):
            return json.loads(await _answer(platform, question.id))
    except TimeoutError:
        return None
    finally:
        await platform.database.write(partial(questions.forget, question=question.id))


async def _answer(platform: Platform, question: str) -> str:
    seen = 0
    while not platform.stopping.is_set():
        try:
            text = await platform.database.read(partial(questions.answer_to, question=question))
        except KeyError:
            raise Conflict("asked_again", "You have asked something else meanwhile; ask again for this.") from None
        if text is not None:
            return text
        seen = await platform.changes.wait(seen, _LOOK_AGAIN)
    return "null"


def _document(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "code": answer["code"], "sentence": answer["sentence"], "facts": answer["facts"],
        "estimate": {
            "position": answer["position"], "waiting": answer["waiting"], "at": moment(answer["at"]),
            "by": BY_QUEUE, "site": None,
            **{name: moment_or_none(answer[name]) for name in ("start", "earliest", "latest")},
        },
    }  # fmt: skip
