"""What many look at and is costly to find out: found out once for all who ask within some seconds."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Recent(Generic[T]):
    """The last answer of `read`, at most `seconds` old; those who ask meanwhile wait for the same reading."""

    def __init__(self, read: Callable[[], Awaitable[T]], seconds: float) -> None:
        self._read, self._seconds = read, seconds
        self._answer: asyncio.Task[T] | None = None
        self._began = float("-inf")

    async def get(self) -> T:
        """The answer. Raises what `read` raises, to all who waited for it."""
        if self._answer is None or _has_failed(self._answer) or time.monotonic() - self._began > self._seconds:
            self._began = time.monotonic()
            self._answer = asyncio.create_task(self._answering(), name="recent")
        # whoever goes away does not take the reading along that others wait for
        return await asyncio.shield(self._answer)

    async def _answering(self) -> T:
        return await self._read()


def _has_failed(answer: "asyncio.Task[T]") -> bool:
    return answer.done() and (answer.cancelled() or answer.exception() is not None)
