"""Podman's containers as the driver works with them: ours, by the attempt that each is for."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from enum import Enum
from typing import Any

from atoll.core.ids import is_attempt_id
from atoll.drivers.base import DriverError
from atoll.drivers.podman.api import Complaint, Engine, filters
from atoll.drivers.podman.container import INSTANCE, name_of
from atoll.drivers.podman.gpus import LABEL, held_by
from atoll.drivers.podman.states import BEGINNING, INSPECTED, LISTING, Inspected, Listed

_EVENTS_SILENCE = 3600.0
_AT_ONCE = 8
"""Most questions of one kind at the same time."""


class Made(Enum):
    """What came of making a container."""

    NOW = "now"
    BEFORE = "before"
    NOT_NOW = "not now"
    """There is no GPU free for it."""


class Containers:
    """The containers of one platform at one host. Raises DriverError, and Complaint where that is said."""

    def __init__(self, engine: Engine, instance: str) -> None:
        self._engine = engine
        self._instance = instance
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._named: set[str] = set()
        """Attempts whose name was in use, and whose container was not listed, once."""

    async def find(self, attempt: str | None = None) -> dict[str, Listed]:
        """Our containers by attempt, all or one."""
        wanted: dict[str, list[str]] = {"label": [f"{INSTANCE}={self._instance}"]}
        if attempt is not None:
            wanted["name"] = [f"^{name_of(attempt)}$"]
        named = {
            name.removeprefix("atoll-"): container
            for container in await self._ask(wanted)
            for name in container.names
            if (container.labels or {}).get(INSTANCE) == self._instance
        }
        return {name: container for name, container in named.items() if is_attempt_id(name, self._instance)}

    async def gpus_in_use(self) -> tuple[dict[str, int], set[str]]:
        """What living containers hold of each GPU, whoever's they are, and the names of all that ever held one."""
        holders = await self._ask({"label": [LABEL]})
        used: dict[str, int] = {}
        for holder in holders:
            if not holder.ended:
                for device, milli in held_by(holder.labels).items():
                    used[device] = used.get(device, 0) + milli
        return used, {name for holder in holders for name in holder.names}

    async def _ask(self, wanted: dict[str, list[str]]) -> Iterable[Listed]:
        try:
            found: Iterable[Listed] = await self._engine.ask_as(
                LISTING, "/containers/json", {"all": "true", "filters": filters(**wanted)}
            )
        except Complaint as complaint:
            raise DriverError(f"Podman does not list its containers: {complaint}.") from None
        return found

    async def running(self, attempt: str) -> Listed:
        """The container of a running attempt. Raises KeyError where it does not run."""
        container = (await self.find(attempt)).get(attempt)
        if container is None or container.state != "running":
            raise KeyError(attempt)
        return container

    async def inspect(self, container: str) -> Inspected | None:
        """All that is known of one; None where it is gone."""
        async with self._turns:
            try:
                inspected: Inspected = await self._engine.ask_as(INSPECTED, f"/containers/{container}/json")
            except Complaint as complaint:
                # it is no 404 where the container goes while Podman reads of it
                if complaint.status == 404 or "no such container" in str(complaint):
                    return None
                raise DriverError(f"Podman does not tell of a container: {complaint}.") from None
            return inspected

    async def create(self, attempt: str, body: dict[str, Any]) -> Made:
        """Make a container; one of that name is the same. Raises Complaint."""
        try:
            await self._engine.ask("POST", "/containers/create", body=body)
        except Complaint as complaint:
            if "already in use" not in str(complaint):
                raise
            if attempt in await self.find(attempt):
                return Made.BEFORE
            if attempt not in self._named:  # Podman may be making it at this moment
                self._named.add(attempt)
                raise DriverError("Podman has the name of its container in use, and does not list it.") from None
            # Podman was killed while it made it: its storage has the name, and nothing else knows of it
            await self.remove(attempt, force=True)
            await self._engine.ask("POST", "/containers/create", body=body)
        self._named.discard(attempt)
        return Made.NOW

    async def start(self, attempt: str, made: Made = Made.BEFORE) -> None:
        """Start a container if it has never run. Raises Complaint."""
        if made is Made.BEFORE:
            found = (await self.find(attempt)).get(attempt)
            if found is None or found.state not in BEGINNING:
                return
        await self._engine.ask("POST", f"/containers/{name_of(attempt)}/start")

    async def kill(self, attempt: str) -> None:
        """End all processes of a container at once; one that does not run is let be."""
        async with self._turns:
            try:
                await self._engine.ask("POST", f"/containers/{name_of(attempt)}/kill", params={"signal": "KILL"})
            except Complaint:
                return  # not yet running: then it finds the order to stop; or no more

    async def remove(self, attempt: str, *, force: bool = False) -> bool:
        """Remove a container that does not run (or any, by force); whether it is gone."""
        params = {"v": "true", **({"force": "true"} if force else {})}
        async with self._turns:
            try:
                await self._engine.ask("DELETE", f"/containers/{name_of(attempt)}", params=params)
            except Complaint as complaint:
                return complaint.status == 404
            return True

    async def changes(self) -> AsyncGenerator[None]:
        """Yields when one started or ended."""
        label = f"{INSTANCE}={self._instance}"
        wanted = filters(type=["container"], event=["start", "died", "remove"], label=[label])
        params = {"stream": "true", "filters": wanted}
        try:
            async for _ in self._engine.lines("GET", "/events", params=params, seconds=_EVENTS_SILENCE):
                yield
        except Complaint as complaint:
            raise DriverError(f"Podman tells no events: {complaint}.") from None
