"""Finds the job's own output in what a plugin gives as a pod's log."""

from collections import OrderedDict

from atoll.drivers.base import LogChunk
from atoll.drivers.interlink.script import begin_mark


def own_output(log: bytes, attempt_id: str, *, ended: bool) -> bytes:
    """What follows the line by which our script begins.

    A log without that line is the plugin's own words; they are shown once the pod has ended, because then they are all
    there is to tell why it did not start.
    """
    mark = begin_mark(attempt_id)
    place = log.find(mark)
    if place < 0:
        return log if ended else b""
    return log[place + len(mark) :]


def cut(output: bytes, offset: int, limit: int) -> LogChunk:
    """The piece of `output` that is asked for; a negative offset counts from the end."""
    size = len(output)
    start = max(0, size + offset) if offset < 0 else min(offset, size)
    return LogChunk(start, output[start : start + max(0, limit)], size)


class OutputCache:
    """The outputs of a few ended pods: who reads one piece of it soon reads the next."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._outputs: OrderedDict[str, bytes] = OrderedDict()
        self._size = 0

    def get(self, attempt_id: str) -> bytes | None:
        """The output, where it is here."""
        if attempt_id in self._outputs:
            self._outputs.move_to_end(attempt_id)
        return self._outputs.get(attempt_id)

    def put(self, attempt_id: str, output: bytes) -> None:
        """Keep it, in place of what was read longest ago."""
        self.drop(attempt_id)
        self._outputs[attempt_id] = output
        self._size += len(output)
        while self._size > self._limit and self._outputs:
            self._size -= len(self._outputs.popitem(last=False)[1])

    def drop(self, attempt_id: str) -> None:
        """Let it go."""
        self._size -= len(self._outputs.pop(attempt_id, b""))
