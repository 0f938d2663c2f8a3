"""The process driver for the contract and for its own tests: this machine, in a temporary folder."""

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil

from atoll.drivers.base import DriverSetup, Held, Phase, StopReason, StopRequest
from atoll.drivers.contract import Harness
from atoll.drivers.process import ProcessDriver


class ProcessHarness(Harness):
    """Runs the cases as the account that runs the tests."""

    interval = 0.2

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        super().__init__(folder)
        self.config = config or {}
        self.site = folder / "site"
        self.pids: set[int] = set()

    @property
    def process_driver(self) -> ProcessDriver:
        assert isinstance(self.driver, ProcessDriver)
        return self.driver

    async def make_driver(self) -> ProcessDriver:
        setup = DriverSetup("local", self.instance, self.site, self.config, self.owner)
        return ProcessDriver(setup)

    async def tear_down(self) -> None:
        """Everything ends, the supervisor too, and it leaves no process behind."""
        supervisor = await self.supervisor()
        states = (await self.driver.observe([])).states
        running = [name for name, status in states.items() if status.phase is not Phase.ENDED]
        await self.driver.stop([StopRequest(Held(name), StopReason.ORPHANED, 0) for name in running])
        async with aclosing(self.process_driver.changes()) as changes:
            while any(each.phase is not Phase.ENDED for each in (await self.driver.observe([])).states.values()):
                async with asyncio.timeout(10):
                    await anext(changes)
        descendants = supervisor.children(recursive=True)
        assert await self.process_driver.shutdown()
        await self.driver.close()
        for process in (supervisor, *descendants):
            await ended(process)

    async def supervisor(self) -> psutil.Process:
        """The supervisor of the site."""
        await self.driver.describe()
        pid = self.process_driver.supervisor_pid
        assert pid != os.getpid()
        return psutil.Process(pid)

    def folder_of(self, attempt_id: str) -> Path:
        return self.site / "attempts" / attempt_id


async def ended(process: psutil.Process) -> None:
    """Wait until a process runs no more; a zombie that its parent has not collected yet counts."""
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for what only looking again tells."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
