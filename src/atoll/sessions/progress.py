"""What people see while their session starts: sentences with a percentage, and the end of a start that failed."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from atoll.client.models import Estimate, Job, Why
from atoll.core.states import WAITING, JobState

_PERCENT = {
    JobState.HELD: 10, JobState.QUEUED: 10, JobState.PLACED: 40, JobState.STARTING: 60, JobState.RUNNING: 80,
}  # fmt: skip


class Story:
    """What was told so far, for any number of listeners, each of which hears it from the beginning."""

    def __init__(self) -> None:
        self._told: list[dict[str, Any]] = []
        self._changed = asyncio.Event()

    def begin(self) -> None:
        """Forget what was told of an earlier start."""
        self._told.clear()

    def tell(self, percent: int, message: str) -> None:
        """Go on; what was told last is not told twice."""
        event = {"progress": percent, "message": message}
        if not self._told or self._told[-1] != event:
            self._told.append(event)
            changed, self._changed = self._changed, asyncio.Event()
            changed.set()

    async def listen(self) -> AsyncIterator[dict[str, Any]]:
        """All that is told, without an end: JupyterHub ends it when the start is over."""
        heard = 0
        while True:
            changed = self._changed
            heard = min(heard, len(self._told))
            for event in self._told[heard:]:
                heard += 1
                yield dict(event)
            await changed.wait()


def step(job: Job, why: Why) -> tuple[int, str]:
    """How far a start is, in percent and in words: while it waits the reason, place and time; then the engine's."""
    percent = _PERCENT.get(JobState(job.state), 80) if job.state in list(JobState) else 80
    if job.state in WAITING:
        return percent, " ".join(part for part in (why.sentence, _expected(why.estimate)) if part)
    attempt = job.last_attempt
    words = [why.sentence]
    if attempt is not None and job.state in (JobState.PLACED, JobState.STARTING):
        said = [part for part in (attempt.native_state, attempt.message) if part]
        if said:
            words.append(f"Site {attempt.site} says: {': '.join(said)}.")
    return percent, " ".join(words)


def _expected(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    sentences = []
    if estimate.position is not None:
        of = f" of {estimate.waiting}" if estimate.waiting is not None else ""
        sentences.append(f"Place {estimate.position}{of} in the queue.")
    if estimate.start is not None:
        sentences.append(f"Expected to start at {_clock(estimate.start)}.")
    return " ".join(sentences)


def _clock(moment: datetime) -> str:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M %Z")


def ended(job: Job, why: Why, last_words: str) -> str:
    """Why a session ended before it answered: the platform's sentence, the engine's, and what was printed last."""
    attempt = job.last_attempt
    parts = [f"The session (job {job.id}) ended before it could be used: {why.sentence}"]
    if attempt is not None and attempt.message and attempt.message not in why.sentence:
        parts.append(attempt.message)
    if last_words:
        parts.append(f"It printed last: {last_words}")
    return " ".join(parts)
