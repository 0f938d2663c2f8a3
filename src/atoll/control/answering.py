"""Answers to questions: what would become of a job that nobody has submitted, and what would help one that waits."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from atoll.control.forecasting import Forecaster
from atoll.control.mirror import Mirror
from atoll.scheduler.explain import explain
from atoll.scheduler.model import JobGone, JobWaits
from atoll.scheduler.quota import Tree
from atoll.scheduler.remedies import Remedy, best_first, remedies
from atoll.scheduler.snapshot import Snapshot
from atoll.store.questions import Question

log = logging.getLogger(__name__)

AT_ONCE = 10
"""Questions that are looked up together."""
_SECONDS = 0.2
"""No further simulation is begun when so much time is spent: people with jobs wait meanwhile."""
_NOBODY = 2**62
"""The id of a job that there is not."""


class Answerer:
    """Answers what is asked, and keeps in mind what it has found of answers that take several simulations."""

    def __init__(self) -> None:
        self._begun: dict[str, _Begun] = {}

    def answers(
        self, asked: Sequence[Question], snapshot: Snapshot, mirror: Mirror, forecaster: Forecaster, now: int
    ) -> dict[str, str]:
        """The answers (JSON) by question that are ready: as far as there is time, but always a bit further."""
        found: dict[str, str] = {}
        self._begun = {question.id: self._begun[question.id] for question in asked if question.id in self._begun}
        began = time.perf_counter()
        while open_ones := [question for question in asked if question.id not in found]:
            for question in open_ones:
                try:
                    answer = self._further(question, snapshot, mirror, forecaster, now)
                except Exception:
                    log.exception("a question cannot be answered")
                    answer = "null"
                if answer is not None:
                    found[question.id] = answer
                if time.perf_counter() - began > _SECONDS:
                    return found
        return found

    def _further(
        self, question: Question, snapshot: Snapshot, mirror: Mirror, forecaster: Forecaster, now: int
    ) -> str | None:
        """The answer, after one simulation more; None while there is none yet."""
        if question.job is None:
            return json.dumps(_answer(question, snapshot, mirror, forecaster, now))
        begun = self._begun.get(question.id)
        if begun is None:
            begun = self._begun[question.id] = _Begun(_search(snapshot, question.job, now, forecaster), now)
        try:
            remedy = next(begun.search)
        except StopIteration:
            del self._begun[question.id]
            told = [
                {"kind": each.kind, "sentence": each.sentence, "start": each.start} for each in best_first(begun.found)
            ]
            return json.dumps({"remedies": told, "at": begun.at})
        if remedy is not None:
            begun.found.append(remedy)
        return None


@dataclass
class _Begun:
    """A search for what would help a job."""

    search: Iterator[Remedy | None]
    at: int
    found: list[Remedy] = field(default_factory=list)


def _search(snapshot: Snapshot, job_id: int, now: int, forecaster: Forecaster) -> Iterator[Remedy | None]:
    def likely(snapshot: Snapshot, job_id: int, tree: Tree | None) -> int | None:
        return forecaster.likely_start(snapshot, job_id, now, tree)

    return remedies(snapshot, job_id, now, likely)


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
