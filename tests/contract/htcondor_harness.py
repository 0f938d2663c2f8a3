"""The HTCondor driver for the contract: at a real pool, or at the stand-in for a schedd."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.contract import Harness
from atoll.drivers.htcondor import HtcondorDriver
from tests.support.htcondor import StandIn


class _Bringing(Harness):
    """Jobs that have their working directories brought back: HTCondor wants to know that when they are submitted."""

    def launch(self, spec: dict[str, Any], **values: Any) -> Launch:
        return super().launch({"files_out": ["*"], **spec}, **values)


class PoolHarness(_Bringing):
    """A real pool, as this machine's configuration names it."""

    patience = 180.0
    interval = 2.0
    slack = 30.0

    def __init__(self, folder: Path, **config: Any) -> None:
        super().__init__(folder)
        self.config = config

    async def make_driver(self) -> HtcondorDriver:
        return HtcondorDriver(DriverSetup("pool", self.instance, self.folder / "site", self.config, self.owner))


class StandInDriver(HtcondorDriver):
    """The driver with the stand-in in the place of its workers."""

    def __init__(self, setup: DriverSetup, stand_in: StandIn) -> None:
        super().__init__(setup)
        self._stand_in = stand_in

    def _link(self, account: str | None, *, large: bool = False) -> Any:
        return self._stand_in


class StandInHarness(_Bringing):
    """The stand-in, which is ended with the case."""

    interval = 0.1
    crowd = 200  # each of them is a process here

    def __init__(self, folder: Path, **config: Any) -> None:
        super().__init__(folder)
        self.stand_in = StandIn()
        self.config = config
        self.asked = 0

    async def make_driver(self) -> HtcondorDriver:
        setup = DriverSetup("pool", self.instance, self.folder / "site", self.config, self.owner)
        return StandInDriver(setup, self.stand_in)

    async def tear_down(self) -> None:
        await self.stand_in.stop()
        await super().tear_down()

    # -- hooks ---------------------------------------------------------------------------------------------------

    async def questions(self) -> int:
        return self.stand_in.questions

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        self.stand_in.down = True
        try:
            yield
        finally:
            self.stand_in.down = False

    @asynccontextmanager
    async def nothing_begins(self) -> AsyncIterator[None]:
        self.stand_in.idle = True
        yield
        await self.stand_in.negotiate()

    async def remove_behind_our_back(self, launch: Launch) -> None:
        await self.stand_in.remove_by_hand(launch.attempt_id)

    def refused_by_engine(self) -> tuple[Launch, str]:
        self.stand_in.refuse = "SUBMIT_REQUIREMENT_Memory evaluated to non-true: ask for less memory"
        return self.script("true"), "ask for less memory"
