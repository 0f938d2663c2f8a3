"""The control plane follows the configured sites: begins, changes and ends to work with them as it runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.control.drivers import Drivers
from atoll.control.leases import LeaseKeeper
from atoll.control.plane import ControlPlane
from atoll.control.pump import Pump
from atoll.control.work import SiteWork, Tools
from atoll.core.clock import system_clock
from atoll.core.errors import Invalid
from atoll.core.ids import new_instance_id
from atoll.core.site import Health
from atoll.core.site_file import Identity
from atoll.drivers.base import DriverSetup
from atoll.drivers.fake import FakeDriver
from atoll.store import leases, sites
from atoll.store.database import Database
from atoll.store.files import FileStore
from atoll.store.logs import LogStore
from atoll.store.sites import Configured


class Replica:
    """A control plane, and what it was asked to open."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.instance = new_instance_id()
        self.folder = folder
        self.pump = Pump(database)
        self.tools = Tools(
            database, system_clock, LeaseKeeper(database, time.monotonic), self.pump, FileStore(folder / "files"),
            LogStore(folder / "logs"), self.instance,
        )  # fmt: skip
        self.opened: list[tuple[str, int]] = []
        self.plane = ControlPlane(self.tools, {}, open_site=self.open_site)

    def open_site(self, site: Configured) -> SiteWork:
        self.opened.append((site.name, site.revision))
        driver = Drivers().make(site.driver, DriverSetup(site.name, self.instance, self.folder, site.config, "ada"))
        return SiteWork(self.tools, site.name, driver)

    async def put(self, name: str, driver: str = "fake", **config: Any) -> None:
        def write(connection: Connection) -> None:
            sites.put(connection, name, driver, {}, config, identity=Identity(shared=True))
            sites.tell(connection, name, "configured", "", self.tools.now())

        await self.tools.database.write(write)
        self.pump.poke()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(15):
            while not condition():  # noqa: ASYNC110  # what another task does in its own time
                await asyncio.sleep(0.02)

    async def health(self, name: str) -> Health | None:
        return await self.tools.database.read(lambda connection: sites.get_health(connection, name))


@pytest.fixture
async def replica(database_url: str, tmp_path: Path) -> AsyncIterator[Replica]:
    database = await asyncio.to_thread(Database.open, database_url)
    made = Replica(database, tmp_path)
    running = asyncio.create_task(made.plane.run())
    yield made
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await asyncio.to_thread(database.close)


async def test_sites_come_change_and_go_while_the_plane_runs(replica: Replica) -> None:
    await replica.put("a", cpus="2")
    await replica.until(lambda: replica.plane.sites == ["a"])
    first = replica.plane.driver_for("a")
    await replica.put("b")
    await replica.until(lambda: sorted(replica.plane.sites) == ["a", "b"])
    assert replica.plane.driver_for("a") is first, "a site that did not change is left alone"
    await replica.put("a", cpus="4")
    await replica.until(lambda: ("a", 2) in replica.opened)
    await replica.tools.database.write(lambda connection: sites.remove(connection, "b"))
    await replica.tools.database.write(lambda connection: sites.tell(connection, "b", "removed", "", 1))
    replica.pump.poke()
    await replica.until(lambda: replica.plane.sites == ["a"])
    assert replica.plane.driver_for("b") is None
    assert replica.opened == [("a", 1), ("b", 1), ("a", 2)]


async def test_a_site_whose_driver_cannot_be_made_says_why_and_holds_up_no_other(replica: Replica) -> None:
    await replica.put("broken", driver="no-such-driver")
    await replica.put("well")
    await replica.until(lambda: replica.plane.sites == ["well"])
    async with asyncio.timeout(15):
        while await replica.health("well") is not Health.OK:
            await replica.pump.wait(replica.pump.cursor, 0.2)
    assert await replica.health("broken") is Health.UNREACHABLE
    [told] = [site for site in await replica.tools.database.read(sites.load) if site.name == "broken"]
    assert "no driver 'no-such-driver'" in told.message
    assert not await replica.tools.database.read(lambda connection: leases.is_held(connection, "site:broken"))


def test_a_third_partys_driver_must_be_enabled_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import EntryPoint

    from atoll.control import drivers

    theirs = EntryPoint("theirs", "atoll.drivers.fake:FakeDriver", "atoll.drivers")
    monkeypatch.setattr(drivers, "_points", lambda: {"theirs": theirs})
    setup = DriverSetup("a", "aaaaa", tmp_path)
    assert Drivers().names() == []
    with pytest.raises(Invalid, match=r"drivers: \[theirs\]"):
        Drivers().make("theirs", setup)
    assert isinstance(Drivers(["theirs"]).make("theirs", setup), FakeDriver)


def test_a_driver_whose_parts_are_missing_is_told_as_such(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from importlib.metadata import EntryPoint

    from atoll.control import drivers

    broken = EntryPoint("broken", "no_such_module:Driver", "atoll.drivers")
    monkeypatch.setattr(drivers, "_points", lambda: {"broken": broken})
    with pytest.raises(Invalid, match="no_such_module"):
        Drivers(["broken"]).make("broken", DriverSetup("a", "aaaaa", tmp_path))
