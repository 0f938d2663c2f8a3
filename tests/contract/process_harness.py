"""The process driver for the contract and for its own tests: this machine, in a temporary folder."""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from atoll.core.site import Ability
from atoll.drivers.base import DriverSetup, Held, Launch, Phase, StopReason, StopRequest
from atoll.drivers.contract import Harness
from atoll.drivers.process import ProcessDriver, link
from tests.support.engines import skip_without


class ProcessHarness(Harness):
    """Runs the cases as the account that runs the tests."""

    interval = 0.2
    platform_owner = ""
    """The person to whom the platform belongs, where it is another than the one whose jobs run."""
    shared = False

    def __init__(self, folder: Path, config: dict[str, Any] | None = None) -> None:
        super().__init__(folder)
        self.config = config or {}
        self.gpus = self.config.get("gpus", 0)
        if "data" in self.config.get("volumes", {}):
            self.volume = "data"
        self.site = folder / "site"
        self.pids: set[int] = set()
        self.asked = 0

    @property
    def process_driver(self) -> ProcessDriver:
        assert isinstance(self.driver, ProcessDriver)
        return self.driver

    async def make_driver(self) -> ProcessDriver:
        owner = self.platform_owner or self.owner
        setup = DriverSetup("local", self.instance, self.site, self.config, owner, shared=self.shared)
        return _Counted(setup, self)

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

    async def need(self, *abilities: Ability) -> None:
        """Skip the case; where this machine lets nobody make mounts, that is why."""
        if Ability.VOLUMES in abilities and Ability.VOLUMES not in (await self.driver.describe()).abilities:
            skip_without("mount namespaces", "this machine permits none, neither to root nor by a user namespace")
        await super().need(*abilities)

    async def supervisor(self) -> psutil.Process:
        """The supervisor of the site."""
        await self.driver.describe()
        pid = self.process_driver.supervisor_pid
        assert pid != os.getpid()
        return psutil.Process(pid)

    def folder_of(self, attempt_id: str) -> Path:
        return self.site / "attempts" / attempt_id

    def volume_folder(self) -> Path:
        return Path(self.config["volumes"]["data"]["path"])

    # -- hooks ---------------------------------------------------------------------------------------------------

    async def listings(self) -> str:
        """What `ps` shows to everybody, and the names of all that the site keeps."""
        done = await asyncio.to_thread(
            subprocess.run, ["ps", "axww", "-o", "user,pid,args"], capture_output=True, check=True
        )
        names = "\n".join(map(str, self.site.rglob("*")))
        return done.stdout.decode("utf-8", "replace") + names

    async def left_behind(self, launch: Launch) -> bytes:
        """The attempt's folder with all files, and what the supervisor wrote down."""
        files = [path for path in self.folder_of(launch.attempt_id).rglob("*") if path.is_file()]
        files += [self.site / "supervisor" / "journal", self.site / "supervisor" / "log"]
        return b"\n".join(str(path).encode() + b"\n" + path.read_bytes() for path in files)

    @asynccontextmanager
    async def slow_acceptance(self) -> AsyncIterator[None]:
        """The supervisor is held up for longer than the driver waits."""
        supervisor = await self.supervisor()
        usual = link._ANSWER_WITHIN
        link._ANSWER_WITHIN = 0.5
        supervisor.suspend()
        try:
            yield
        finally:
            link._ANSWER_WITHIN = usual
            supervisor.resume()

    async def kill_supervisor(self) -> psutil.Process:
        """SIGKILL, and nobody restarts it until the driver asks again."""
        supervisor = await self.supervisor()
        supervisor.kill()
        await ended(supervisor)
        return supervisor

    async def restart_engine(self) -> None:
        """The supervisor is killed; the driver starts another one when it asks."""
        old = await self.kill_supervisor()
        assert (await self.supervisor()).pid != old.pid

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        """The supervisor is killed, and none can be started."""
        await self.kill_supervisor()
        state = self.site / "supervisor"
        aside = state.rename(self.site / "aside")
        state.write_text("in the way")
        try:
            yield
        finally:
            state.unlink()
            aside.rename(state)

    async def outlast_memory(self, launch: Launch) -> None:
        """The supervisor is gone, and with it all that it wrote down."""
        await self.kill_supervisor()
        await until((self.folder_of(launch.attempt_id) / "end").exists)
        (self.site / "supervisor" / "journal").unlink()

    async def wrapper_of(self, launch: Launch) -> psutil.Process:
        """The wrapper of a running attempt."""
        record = (self.folder_of(launch.attempt_id) / "start").read_text()
        return psutil.Process(int(record.split()[0]))

    async def remove_behind_our_back(self, launch: Launch) -> None:
        """Somebody kills the wrapper, and with it the record of the end."""
        wrapper = await self.wrapper_of(launch)
        for process in (wrapper, *wrapper.children(recursive=True)):
            with suppress(psutil.NoSuchProcess):  # the supervisor kills what the wrapper leaves
                process.send_signal(signal.SIGKILL)

    async def run_again(self, launch: Launch) -> None:
        """The wrapper is started a second time."""
        words = ["/bin/sh", str(self.site / "wrapper.sh"), str(self.folder_of(launch.attempt_id))]
        done = await asyncio.to_thread(subprocess.run, words, capture_output=True, check=True)
        assert not done.stderr

    def refused_by_engine(self) -> tuple[Launch, str]:
        """An account that this machine does not have."""
        words = "no account 'atoll-nobody-here'" if os.geteuid() == 0 else "not as root"
        return self.script("true", person="ann", account="atoll-nobody-here"), words

    async def questions(self) -> int:
        """Questions for all attempts that went to the supervisor."""
        return self.asked


class _Counted(ProcessDriver):
    """The driver, counting its questions on their way to the supervisor."""

    def __init__(self, setup: DriverSetup, harness: ProcessHarness) -> None:
        super().__init__(setup)
        self._harness = harness

    async def _ask(self, question: str, **values: Any) -> dict[str, Any]:
        self._harness.asked += question == "observe"
        return await super()._ask(question, **values)


async def ended(process: psutil.Process) -> None:
    """Wait until a process runs no more; a zombie that its parent has not collected yet counts."""
    await until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)


async def until(condition: Callable[[], object], within: float = 10.0) -> None:
    """Wait for what only looking again tells."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
