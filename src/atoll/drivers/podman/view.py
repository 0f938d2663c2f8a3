"""What the driver knows of its attempts between two observations: a cache, which a new driver does without."""

import asyncio
import time
from collections.abc import Collection, Iterable, Sequence

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Held
from atoll.drivers.podman import states
from atoll.drivers.podman.container import ACCOUNT
from atoll.drivers.podman.containers import Containers
from atoll.drivers.podman.folders import Folders, Told
from atoll.drivers.podman.intake import Intake
from atoll.drivers.podman.states import Inspected, Listed

_REMOVED_WITHIN = 10.0
"""Seconds that Podman may take from the kill of a container's processes to its removal, which is one command."""


class View:
    """Makes states of attempts of what Podman lists and the folders say; reads each start and end once."""

    def __init__(self, containers: Containers, folders: Folders, intake: Intake) -> None:
        self._containers = containers
        self._folders = folders
        self._intake = intake
        self._ended: dict[str, AttemptStatus] = {}
        self._started: dict[str, AttemptStatus] = {}
        self._broken: dict[str, float] = {}
        """Attempts whose container was ended from outside, as it seems, and since when, by the monotonic clock."""
        self.deadlines: dict[str, float] = {}
        """When an attempt that was told to stop is to be gone, in seconds since 1970."""

    def has_ended(self, attempt: str) -> bool:
        """Whether its end was read, which will never be another one."""
        return attempt in self._ended

    def forget(self, attempts: Iterable[str]) -> None:
        """Forget what was known of attempts."""
        for attempt in attempts:
            for known in (self._ended, self._started, self._broken, self.deadlines):
                known.pop(attempt, None)
            self._intake.forget(attempt)

    async def observe(
        self, listed: dict[str, Listed], waiting: Sequence[str], held: Iterable[Held], asked_at: float
    ) -> dict[str, AttemptStatus]:
        """The states of all attempts; `listed` was asked for at `asked_at`, by the monotonic clock.

        Raises DriverError.
        """
        names = [each.attempt_id for each in held]
        told = await self._folders.tell(self._news(listed, waiting, names))
        listed = {
            name: each
            for name, each in listed.items()
            if name in self._ended or not states.came_too_late(each, told.get(name, Told()))
        }
        await self._read_ends(listed, told, asked_at)
        observed: dict[str, AttemptStatus] = {}
        for attempt, container in listed.items():
            observed[attempt] = self._state(attempt, container, told.get(attempt))
        noted = frozenset(waiting)
        for attempt in (*waiting, *names):
            if attempt not in observed and (state := await self._without(attempt, told.get(attempt), noted)):
                observed[attempt] = state
        known = {*self._ended, *self._started, *self._broken, *self._intake.why}
        self.forget([attempt for attempt in known if attempt not in observed and not self._intake.is_busy(attempt)])
        return observed

    def _news(self, listed: dict[str, Listed], waiting: Iterable[str], held: Iterable[str]) -> list[str]:
        """Attempts of which the folders may say something that is not known yet."""
        news = []
        for attempt, container in listed.items():
            if attempt not in self._ended and (attempt not in self._started or container.state != "running"):
                news.append(attempt)
        return news + [name for name in {*waiting, *held} if name not in listed and name not in self._ended]

    async def _read_ends(self, listed: dict[str, Listed], told: dict[str, Told], asked_at: float) -> None:
        ends = [name for name, each in listed.items() if name not in self._ended and _is_over(each, told.get(name))]
        read = await asyncio.gather(*(self._read_end(listed[name], told.get(name, Told())) for name in ends))
        for attempt, inspected in zip(ends, read, strict=True):
            found = told.get(attempt, Told())
            if not found.record.claimed:
                await self._folders.scrub(attempt)
            if found.refused:
                state = self._refused(attempt, found, listed[attempt])
            else:
                ended = states.ended(attempt, listed[attempt], inspected, found)
                assert ended is not None  # it has a container
                if found.record.claimed and ended.outcome is Outcome.NODE_FAILED and not self._stays(attempt, asked_at):
                    continue
                state = ended
            self._ended[attempt] = state
            self._started.pop(attempt, None)

    def _stays(self, attempt: str, asked_at: float) -> bool:
        """Whether a container that was ended from outside is there so long after that nobody is removing it.

        Podman removes what runs by killing it first. Where an observation fell into that moment, an attempt that is
        lost would count as one that its node broke, and run again.
        """
        since = self._broken.setdefault(attempt, time.monotonic())
        return asked_at - since >= _REMOVED_WITHIN

    async def _read_end(self, container: Listed, told: Told) -> Inspected | None:
        """What inspect adds, where the wrapper came to no end."""
        return await self._containers.inspect(container.id) if not told.record.ended else None

    def _state(self, attempt: str, container: Listed, told: Told | None) -> AttemptStatus:
        if attempt in self._ended:
            return self._ended[attempt]
        if told is not None and told.refused:
            return self._refused(attempt, told, container)
        if told is not None and (stop := states.read_stop(told.stop)) is not None:
            self.deadlines.setdefault(attempt, stop[1])
        known = self._started.get(attempt)
        if known is not None and known.native_state == container.state:
            return known
        state = states.alive(attempt, container, told)
        if told is not None and told.record.started_at is not None:
            self._started[attempt] = state
        return state

    def _waits(self, attempt: str, told: Told) -> AttemptStatus:
        stop = states.read_stop(told.stop)
        if stop is None:
            return states.waits(attempt, self._intake.why.get(attempt, "it waits for its turn"))
        state = states.never_started(attempt, states.OUTCOMES[stop[0]], "It was stopped before it started.")
        self._ended[attempt] = state
        return state

    async def _without(self, attempt: str, told: Told | None, waiting: Collection[str]) -> AttemptStatus | None:
        """An attempt without a container: what was written of its end counts, and one that never began waits."""
        if attempt in self._ended or told is None:
            return self._ended.get(attempt)
        if told.refused:
            return self._refused(attempt, told)
        if self._intake.is_busy(attempt):  # handed over now, or about to have a container, the first or another one
            return self._waits(attempt, told) if attempt in waiting or attempt in self._intake.why else None
        if not told.record.claimed:
            if attempt not in waiting:
                await self._intake.give_another(attempt)
            return self._waits(attempt, told)
        state = states.ended(attempt, None, None, told)
        if state is not None:
            self._ended[attempt] = state
        return state

    def _refused(self, attempt: str, told: Told, container: Listed | None = None) -> AttemptStatus:
        """An attempt that was withdrawn before it began."""
        account = (container.labels or {}).get(ACCOUNT) if container is not None else None
        state = states.never_started(attempt, Outcome.REFUSED, told.refused, account)
        self._ended[attempt] = state
        return state


def _is_over(container: Listed, told: Told | None) -> bool:
    """Whether an attempt has ended; Podman that was killed in the midst of its start never learns of that."""
    unknown = container.state in states.BEGINNING and told is not None and told.record.ended
    return container.ended or unknown
