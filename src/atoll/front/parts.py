"""A part of the platform that runs as a process of its own, and is started again when it ends."""

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

log = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1
_prctl = ctypes.CDLL(None, use_errno=True).prctl
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 15.0
"""Seconds before a part that ended is started again: at first, and when it ends each time."""
_STEADY = 30.0
"""A part that ran for so many seconds was well: the next end counts as its first."""


@dataclass(frozen=True)
class Part:
    """How a part is started and ended."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its environment has besides this process's."""
    descriptors: Sequence[int] = ()
    """Open files that it inherits under the same numbers: sockets that are listened on whether it runs or not."""
    first: bool = False
    """Whether nothing works without it: where it ends before it was ever ready, the platform cannot start."""
    last_words: float = 10.0
    """Seconds that it has to end when asked to."""


class PartFailed(Exception):
    """A part that all else needs could not be started; it has said why."""

    def __init__(self, name: str, code: int) -> None:
        super().__init__(f"{name} ended with {code}")
        self.code = code


class Runner:
    """Keeps one part running until it is told to end."""

    def __init__(self, part: Part, ready: Callable[[], bool] = lambda: True) -> None:
        """`ready` says whether the part has been ready since it was started first."""
        self.part = part
        self._ready = ready
        self._process: asyncio.subprocess.Process | None = None
        self._ending = False

    @property
    def is_ending(self) -> bool:
        """Whether it was told to end."""
        return self._ending

    @property
    def pid(self) -> int | None:
        """Of its process, None while there is none."""
        return self._process.pid if self._process is not None and self._process.returncode is None else None

    async def run(self) -> None:
        """Start it, and again whenever it ends, until `end`. Raises PartFailed."""
        pause = _FIRST_PAUSE
        while True:
            began = time.monotonic()
            code = await self._once()
            if self.is_ending:
                return
            if self.part.first and not self._ready():
                raise PartFailed(self.part.name, code)
            pause = _FIRST_PAUSE if time.monotonic() - began > _STEADY else min(_LONGEST_PAUSE, 2 * pause)
            log.warning("%s ended with %d and is started again in %.1f s", self.part.name, code, pause)
            await asyncio.sleep(pause)

    async def _once(self) -> int:
        """Run it once; its exit code, below 0 for a signal."""
        part = self.part
        try:
            self._process = await asyncio.create_subprocess_exec(
                *part.command, env={**os.environ, **part.environment}, stdin=asyncio.subprocess.DEVNULL,
                pass_fds=tuple(part.descriptors), start_new_session=True, preexec_fn=_end_with_parent,
            )  # fmt: skip
        except OSError as error:
            log.error("%s cannot be started: %s", part.name, error)
            return 127
        if self.is_ending:  # told to while it was being started
            self.send(signal.SIGTERM)
        return await self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal, if it runs."""
        if self.pid is not None and self._process is not None:
            self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ask it to end, and do not start it again."""
        self._ending = True
        self.send(number)

    async def ended(self, seconds: float | None) -> None:
        """Wait until its process has ended; after `seconds` it is killed."""
        if self._process is None or self._process.returncode is not None:
            return
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            log.warning("%s did not end within %.0f s and is killed", self.part.name, seconds)
            self.send(signal.SIGKILL)
            await self._process.wait()


def _end_with_parent() -> None:
    """In the child: be killed when the supervisor dies, however it does. Every part takes that well."""
    _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() == 1:  # it died before this line
        os._exit(1)
