"""Answers to questions on jobs that nobody has submitted, as if they waited now."""

import json
import logging
import time
from collections.abc import Iterable

from atoll.control.forecasting import Forecaster
from atoll.control.mirror import Mirror
from atoll.scheduler.explain import explain
from atoll.scheduler.model import JobGone, JobWaits
from atoll.scheduler.snapshot import Snapshot
from atoll.store.questions import Question

log = logging.getLogger(__name__)

AT_ONCE = 10
"""Questions that are looked up together."""
_SECONDS = 0.2
"""No further question is answered when so much time is spent: people with jobs wait meanwhile."""
_NOBODY = 2**62
"""The id of a job that there is not."""


def answers(
    asked: Iterable[Question], snapshot: Snapshot, mirror: Mirror, forecaster: Forecaster, now: int
) -> dict[str, str]:
    """The answers (JSON) by question: to one at least, and to others as far as there is time."""
    found: dict[str, str] = {}
    began = time.perf_counter()
    for question in asked:
        try:
            found[question.id] = json.dumps(_answer(question, snapshot, mirror, forecaster, now))
        except Exception:
            log.exception("a question cannot be answered")
            found[question.id] = "null"
        if time.perf_counter() - began > _SECONDS:
            break
    return found


def _answer(
    question: Question, snapshot: Snapshot, mirror: Mirror, forecaster: Forecaster, now: int
) -> dict[str, object] | None:
    waiting = mirror.hypothetical(_NOBODY, question.columns, now)
    if waiting is None:
        return None
    snapshot.apply([JobWaits(waiting)])
    try:
        explained = explain(snapshot, _NOBODY, now)
        expected = forecaster.forecast(snapshot, now).of(_NOBODY)
    finally:
        snapshot.apply([JobGone(_NOBODY)])
    if explained is None or expected is None:
        return None
    return {
        "code": explained.reason.code.value, "sentence": explained.reason.sentence, "facts": explained.facts,
        "position": expected.position, "waiting": expected.waiting, "start": expected.start,
        "earliest": expected.earliest, "latest": expected.latest, "at": now,
    }  # fmt: skip
