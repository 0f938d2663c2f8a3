"""What the driver knows of its attempts between two observations: a cache, which a new driver does without."""

import asyncio
from collections.abc import Iterable, Sequence

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Held
from atoll.drivers.podman import states
from atoll.drivers.podman.container import ACCOUNT
from atoll.drivers.podman.containers import Containers
from atoll.drivers.podman.folders import Folders, Told
from atoll.drivers.podman.intake import Intake
from atoll.drivers.podman.states import Inspected, Listed


class View:
    """Makes states of attempts of what Podman lists and the folders say; reads each start and end once."""

    def __init__(self, containers: Containers, folders: Folders, intake: Intake) -> None:
        self._containers = containers
        self._folders = folders
        self._intake = intake
        self._ended: dict[str, AttemptStatus] = {}
        self._started: dict[str, AttemptStatus] = {}
        self.deadlines: dict[str, float] = {}
        """When an attempt that was told to stop is to be gone, in seconds since 1970."""

    def has_ended(self, attempt: str) -> bool:
        """Whether its end was read, or will never be another one."""
        return attempt in self._ended or attempt in self._intake.hopeless

    def forget(self, attempts: Iterable[str]) -> None:
        """Forget what was known of attempts."""
        for attempt in attempts:
            for known in (self._ended, self._started, self.deadlines, self._intake.hopeless, self._intake.why):
                known.pop(attempt, None)

    async def observe(
        self, listed: dict[str, Listed], waiting: Sequence[str], held: Iterable[Held]
    ) -> dict[str, AttemptStatus]:
        """The states of all attempts. Raises DriverError."""
        names = [each.attempt_id for each in held]
        told = await self._folders.tell(self._news(listed, waiting, names))
        await self._read_ends(listed, told)
        observed: dict[str, AttemptStatus] = {}
        for attempt, container in listed.items():
            observed[attempt] = self._state(attempt, container, told.get(attempt))
        waits = [attempt for attempt in waiting if attempt not in observed]
        stops = await self._folders.read_stops(waits) if waits else {}
        for attempt in waits:
            observed[attempt] = self._waits(attempt, stops.get(attempt, ""))
        for attempt in names:
            if attempt not in observed and (state := self._gone(attempt, told.get(attempt))) is not None:
                observed[attempt] = state
        known = {*self._ended, *self._started, *self._intake.hopeless, *self._intake.why}
        self.forget([attempt for attempt in known if attempt not in observed and not self._intake.is_busy(attempt)])
        return observed

    def _news(self, listed: dict[str, Listed], waiting: Iterable[str], held: Iterable[str]) -> list[str]:
        """Attempts of which the folders may say something that is not known yet."""
        news = []
        for attempt, container in listed.items():
            known = attempt in self._ended or (attempt in self._started and not container.ended)
            if not known and container.state not in states.BEGINNING:
                news.append(attempt)
        idle = {*listed, *waiting, *self._ended}
        return news + [attempt for attempt in held if attempt not in idle]

    async def _read_ends(self, listed: dict[str, Listed], told: dict[str, Told]) -> None:
        ends = [name for name, container in listed.items() if container.ended and name not in self._ended]
        read = await asyncio.gather(*(self._read_end(listed[name], told.get(name, Told())) for name in ends))
        for attempt, inspected in zip(ends, read, strict=True):
            found = told.get(attempt, Told())
            if not found.record.claimed:
                await self._folders.scrub(attempt)
            state = states.ended(attempt, listed[attempt], inspected, found)
            assert state is not None  # it has a container
            self._ended[attempt] = state
            self._started.pop(attempt, None)

    async def _read_end(self, container: Listed, told: Told) -> Inspected | None:
        """What inspect adds, where the wrapper came to no end."""
        return await self._containers.inspect(container.id) if not told.record.ended else None

    def _state(self, attempt: str, container: Listed, told: Told | None) -> AttemptStatus:
        if attempt in self._ended:
            return self._ended[attempt]
        if attempt in self._intake.hopeless:
            account = (container.labels or {}).get(ACCOUNT)
            return states.never_started(attempt, Outcome.REFUSED, self._intake.hopeless[attempt], account)
        if told is not None and (stop := states.read_stop(told.stop)) is not None:
            self.deadlines.setdefault(attempt, stop[1])
        known = self._started.get(attempt)
        if known is not None and known.native_state == container.state:
            return known
        state = states.alive(attempt, container, told)
        if told is not None and told.record.started_at is not None:
            self._started[attempt] = state
        return state

    def _waits(self, attempt: str, ordered: str) -> AttemptStatus:
        if attempt in self._ended:
            return self._ended[attempt]
        if attempt in self._intake.hopeless:
            return states.never_started(attempt, Outcome.REFUSED, self._intake.hopeless[attempt])
        stop = states.read_stop(ordered)
        if stop is None:
            return states.waits(attempt, self._intake.why.get(attempt, "it waits for its turn"))
        state = states.never_started(attempt, states.OUTCOMES[stop[0]], "It was stopped before it started.")
        self._ended[attempt] = state
        return state

    def _gone(self, attempt: str, told: Told | None) -> AttemptStatus | None:
        """An attempt whose container is gone: what was written of its end counts."""
        if attempt not in self._ended and told is not None and not self._intake.is_busy(attempt):
            state = states.ended(attempt, None, None, told)
            if state is not None:
                self._ended[attempt] = state
        return self._ended.get(attempt)
