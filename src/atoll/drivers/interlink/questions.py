"""Asks a plugin for the states of pods, whatever habits it has.

A plugin is asked for all pods at once. Real ones have habits that must not cost a job its life: one fails the whole
question because of one pod that it does not know, and one answers from memory for ten seconds, also if it is asked for
other pods than before.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.drivers.base import DriverError
from atoll.drivers.interlink.config import InterlinkConfig
from atoll.drivers.interlink.pods import PodName
from atoll.drivers.interlink.states import read_statuses
from atoll.drivers.interlink.wire import Answered, Wire, parsed

_MOST_CALLS = 40
"""Calls that looking for the pod which spoils a question may cost."""


@dataclass
class Answers:
    """What a plugin said."""

    pods: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By uid."""
    unknown: set[str] = field(default_factory=set)
    """Pods of which it says itself that it does not know them."""
    silent: set[str] = field(default_factory=set)
    """Pods of which this time nothing could be learnt: their absence from `pods` means nothing."""
    words: str = ""
    """Why it was silent."""


class Questions:
    """Asks one plugin."""

    def __init__(self, wire: Wire, config: InterlinkConfig) -> None:
        self._wire = wire
        self._chunk = config.status_chunk
        self._backwards = False

    async def ping(self) -> Any:
        """What the plugin says to an empty question. Raises DriverError, and Answered for a code other than 200."""
        return await self._wire.status([])

    async def ask(self, pods: Sequence[PodName]) -> Answers:
        """The states of `pods`. Raises DriverError where the plugin answers nothing at all."""
        answers = Answers()
        # each time from the other end: so what is answered from memory is not always the same part
        self._backwards = not self._backwards
        waiting = [list(pods[start : start + self._chunk]) for start in range(0, len(pods), self._chunk)]
        calls = 0
        most = len(waiting) + _MOST_CALLS
        while waiting:
            part = waiting.pop(-1 if self._backwards else 0)
            if calls >= most:
                answers.silent |= {pod.uid for pod in part}
                continue
            calls += 1
            try:
                self._sort(part, await self._wire.status([pod.pod() for pod in part]), answers)
            except Answered as error:
                answers.words = str(error)
                if len(part) > 1:
                    if calls == 1:
                        await self._must_answer(error)
                    half = len(part) // 2
                    halves = [part[:half], part[half:]]
                    waiting = [*waiting, *halves] if self._backwards else [*halves, *waiting]
                elif error.code == 404:
                    answers.unknown.add(part[0].uid)
                else:
                    answers.silent.add(part[0].uid)
        if answers.words and len(answers.silent) == len(pods):
            raise DriverError(answers.words)
        return answers

    async def _must_answer(self, error: Answered) -> None:
        """Raise DriverError where the plugin does not even answer an empty question."""
        try:
            await self.ping()
        except Answered:
            raise DriverError(str(error)) from None

    @staticmethod
    def _sort(part: Sequence[PodName], body: bytes, answers: Answers) -> None:
        told = read_statuses(parsed(body, "GET /status"))
        asked = {pod.uid for pod in part}
        answers.pods |= {uid: pod for uid, pod in told.items() if uid in asked}
        if told.keys() - asked:
            # the answer to another question
            answers.silent |= asked - told.keys()
