"""The HTTP application on a database of its own, without any loop; tests move jobs along by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from atoll.api.app import create_app
from atoll.control.pump import Pump
from atoll.core.clock import ManualClock, to_micros
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, SiteReport
from atoll.drivers.base import Driver
from atoll.faces.http.platform import Platform
from atoll.people import service as people
from atoll.store import settings, sites
from atoll.store.database import Database
from atoll.store.files import FileStore
from atoll.store.logs import LogStore

GIB = 1 << 30
Json = dict[str, Any]


@dataclass
class Served:
    """A platform and its application."""

    platform: Platform
    app: FastAPI
    clock: ManualClock
    drivers: dict[str, Driver]
    tokens: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Database:
        """The platform's database."""
        return self.platform.database

    async def do(self, work: Any) -> Any:
        """Run a transaction, as a loop would."""
        result = await self.database.write(work)
        self.platform.changed()
        return result

    def client(self, person: str | None = "anna", **headers: str) -> httpx2.AsyncClient:
        """A client with the token of a person ("root" is the administrator), or (None) without one."""
        if person is not None:
            headers = {"authorization": f"Bearer {self.tokens[person]}", **headers}
        transport = httpx2.ASGITransport(app=self.app, raise_app_exceptions=False)
        return httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1", headers=headers)

    async def submit(self, person: str = "anna", **spec: Any) -> int:
        """Submit a job; its id."""
        async with self.client(person) as client:
            answer = await client.post("/api/v1/jobs", json={"command": ["true"], **spec})
        assert answer.status_code == 201, answer.text
        return int(answer.json()["id"])

    async def add_site(
        self, name: str = "here", *, cpu: int = 8, memory: int = 16 * GIB, gpu: int = 0,
        abilities: frozenset[Ability] = frozenset({Ability.FILES, Ability.SIGNAL, Ability.OTHER_PERSONS}),
        **labels: str,
    ) -> None:  # fmt: skip
        """A site that has reported."""
        size = Resources(cpu * 1000, memory, gpu * 1000)
        report = SiteReport((Flavor("cpu", size, size),), abilities, labels)
        now = to_micros(self.clock())
        await self.database.write(lambda connection: sites.put(connection, name, "fake", {}, {}))
        await self.database.write(lambda connection: sites.set_report(connection, name, report, now))


@asynccontextmanager
async def serving(database_url: str, folder: Path) -> AsyncIterator[Served]:
    """The application on `database_url`, with members anna and bob and the administrator root."""
    database = await asyncio.to_thread(Database.open, database_url)
    clock, pump, drivers = ManualClock(), Pump(database), dict[str, Driver]()
    platform = Platform(
        database=database, files=FileStore(folder / "files"), logs=LogStore(folder / "logs"), changes=pump,
        instance=await database.write(settings.instance_id), version="1.2.3", clock=clock, changed=pump.poke,
        driver_for=drivers.get,
    )  # fmt: skip
    served = Served(platform, create_app(platform), clock, drivers)
    for person, role in (("anna", "member"), ("bob", "member"), ("root", "administrator")):

        def make(connection: Any, person: str = person, role: str = role) -> str:
            people.ensure_person(connection, person, role, 0)
            return people.issue_token(connection, person, "test", None, 0).text

        served.tokens[person] = await database.write(make)
    following = asyncio.create_task(pump.run())
    try:
        yield served
    finally:
        platform.stopping.set()
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        await asyncio.to_thread(database.close)
