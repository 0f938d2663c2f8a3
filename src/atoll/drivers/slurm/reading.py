"""Output of attempts, read together where several are asked for at once: each script at the site costs processes."""

import asyncio
import re
import secrets
from dataclasses import dataclass, field

from atoll.drivers.base import DriverError, LogChunk
from atoll.drivers.slurm import scripts
from atoll.drivers.slurm.site import SlurmSite

_MOST = 4 << 20
"""Bytes of one output that are read at once."""
_MOST_TOGETHER = 16 << 20
_WITHIN = 0.01
"""Seconds for which others are waited for."""
_HEAD = re.compile(rb"([0-9a-f]{16}) (?:(missing|failed)|(\d{1,18}) (\d{1,18}) (\d{1,18}))\n")


@dataclass(frozen=True, eq=False)
class _Wanted:
    attempt_id: str
    stream: str
    offset: int
    limit: int
    answer: asyncio.Future[LogChunk] = field(default_factory=asyncio.Future)

    @property
    def line(self) -> str:
        return f"{self.attempt_id} {self.stream} {self.offset} {self.limit}\n"


class LogReader:
    """Reads output with the rights of the attempts' accounts."""

    def __init__(self, site: SlurmSite) -> None:
        self._site = site
        self._wanted: dict[str | None, list[_Wanted]] = {}
        self._reading: set[asyncio.Task[None]] = set()

    async def read(self, account: str | None, attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output; the id and the stream are words. Raises KeyError where there is no such attempt."""
        wanted = _Wanted(attempt_id, stream, offset, max(0, min(limit, _MOST)))
        others = self._wanted.setdefault(account, [])
        others.append(wanted)
        if len(others) == 1:
            task = asyncio.create_task(self._soon(account), name=f"output of {account}")
            self._reading.add(task)
            task.add_done_callback(self._reading.discard)
        return await wanted.answer

    async def _soon(self, account: str | None) -> None:
        await asyncio.sleep(_WITHIN)
        waiting = self._wanted.pop(account)
        while waiting:
            count, room = 1, _MOST_TOGETHER - waiting[0].limit
            while count < len(waiting) and waiting[count].limit <= room:
                room -= waiting[count].limit
                count += 1
            await self._read(account, waiting[:count])
            del waiting[:count]

    async def _read(self, account: str | None, together: list[_Wanted]) -> None:
        try:
            answers = await self._ask(account, together)
        except Exception as error:
            answers = [error] * len(together)
        for wanted, answer in zip(together, answers, strict=True):
            if wanted.answer.done():
                continue  # nobody waits for it any more
            if isinstance(answer, Exception):
                wanted.answer.set_exception(answer)
            else:
                wanted.answer.set_result(answer)

    async def _ask(self, account: str | None, together: list[_Wanted]) -> list[LogChunk | Exception]:
        root, token = (await self._site.home(account)).root, secrets.token_hex(8)
        lines = "".join(each.line for each in together)
        ran = await self._site.script(account, scripts.LOG, root, token, stdin=lines.encode())
        answers = _split(ran.out, token.encode(), len(together))
        if answers is not None:
            return answers
        if len(together) == 1:
            raise DriverError(f"The site's answer about the output cannot be read: {ran.out[:80]!r}.")
        # one became shorter meanwhile, so that nobody can tell whose the bytes are
        alone: list[LogChunk | Exception] = []
        for each in together:
            alone += await self._ask(account, [each])
        return alone


def _split(text: bytes, token: bytes, count: int) -> list[LogChunk | Exception] | None:
    """The answers of LOG; None where they are not as many as were asked for, or not whole."""
    answers: list[LogChunk | Exception] = []
    position = 0
    while position < len(text):
        match = _HEAD.match(text, position)
        if match is None or match[1] != token:
            return None
        position = match.end()
        if match[2] is not None:
            missing = match[2] == b"missing"
            answers.append(KeyError("no such attempt") if missing else DriverError("The output cannot be read."))
            continue
        size, start, length = (int(match[group]) for group in (3, 4, 5))
        data = text[position : position + length]
        if count > 1 and (len(data) < length or token in data):
            return None
        answers.append(LogChunk(start, data, size))
        position += length
    return answers if len(answers) == count else None
