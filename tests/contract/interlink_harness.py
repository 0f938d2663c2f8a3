"""The interLink driver for the contract and for its own tests: with a plugin that runs pods on this machine."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverSetup, Held, Launch
from atoll.drivers.contract import Harness
from atoll.drivers.interlink import InterlinkDriver
from atoll.drivers.interlink.pods import uid_of
from tests.support.interlink import InterlinkPlugin


class InterlinkHarness(Harness):
    """One plugin, which is emptied after each case."""

    interval = 0.15
    crowd = 200  # each of them is several processes here

    def __init__(self, folder: Path, plugin: InterlinkPlugin, **config: Any) -> None:
        super().__init__(folder)
        self.plugin = plugin
        self.shared = False
        self.asked = 0
        self.config = {
            "url": plugin.url,
            "image": "localhost/base:1",
            "total": {"cpus": 64, "memory": "64G"},
            "checkpoints": str(folder / "checkpoints"),
            "folder": str(folder),
            "answer_age": 1,
            "timeout": 5,
            "submit_seconds": 120,
            **config,
        }

    async def make_driver(self) -> InterlinkDriver:
        setup = DriverSetup("grid", self.instance, self.folder / "site", self.config, self.owner, self.shared)
        return InterlinkDriver(setup)

    async def tear_down(self) -> None:
        self.plugin.modes()
        self.plugin.forget()
        await super().tear_down()

    async def read(self, launch: Launch, stream: str = "stdout") -> bytes:
        """A plugin has one stream: what a case looks for in the error output is in the output."""
        return await super().read(launch, "stdout")

    def held_without_id(self, launch: Launch) -> Held:
        """The attempt as control holds it before anybody answered."""
        return launch.held

    def uid(self, launch: Launch) -> str:
        """The pod's uid."""
        return uid_of(launch.attempt_id)

    async def remove_behind_our_back(self, launch: Launch) -> None:
        self.plugin.forget(self.uid(launch))

    @asynccontextmanager
    async def slow_acceptance(self) -> AsyncIterator[None]:
        self.plugin.modes("slow-create")
        try:
            yield
        finally:
            self.plugin.modes()

    def refused_by_engine(self) -> tuple[Launch, str]:
        self.plugin.modes("refuses")
        return self.script("true"), "Invalid partition name specified"

    async def questions(self) -> int:
        self.asked += sum(path == "/status" for path, _ in self.plugin.calls())
        return self.asked

    # -- hooks ---------------------------------------------------------------------------------------------------

    async def restart_engine(self) -> None:
        self.plugin.kill()
        self.plugin.start()

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        self.plugin.kill()
        try:
            yield
        finally:
            self.plugin.start()
