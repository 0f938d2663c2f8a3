"""What the contract's cases need of a driver under test; a third party writes one subclass of `Harness`."""

import asyncio
import hashlib
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from atoll.core.ids import new_attempt_id, new_instance_id
from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.core.spec import JobSpec
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    Connect,
    Driver,
    Exec,
    Held,
    Launch,
    Logs,
    Phase,
    Signals,
    Stage,
    StagedFile,
    StopReason,
    StopRequest,
    Submitted,
    Watch,
)
from atoll.drivers.contract.hooks import Hooks

MIB = 1 << 20


class Harness(Hooks, ABC):
    """A driver at a real engine, and the few things that the cases do with it again and again.

    What only some engines can do for a test is in `Hooks`: a harness overrides what its engine can.
    """

    owner = "contract-owner"
    """The person as whom the cases run their jobs."""
    account: str | None = None
    """That person's account at the site."""
    python = "/usr/bin/python3"
    """A Python at the site."""
    memory = 256 * MIB
    """Memory that the cases ask for; enough for a small Python."""
    patience = 30.0
    """Seconds within which the engine starts and ends a trivial job."""
    interval = 0.5
    """Seconds between two questions to the engine where the driver gives no hints."""
    slack = 3.0
    """Seconds by which the engine may be late in enforcing a limit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        """A folder of the control plane's, for files to stage and to take out."""
        self.instance = new_instance_id()
        self._driver: Driver | None = None
        self._jobs = 0
        self._held: dict[str, Held] = {}

    @abstractmethod
    async def make_driver(self) -> Driver:
        """A new driver for the same site: called at the beginning and by `restart`."""

    async def tear_down(self) -> None:
        """End everything that the cases left at the site, then close the driver."""
        await self.driver.close()

    @property
    def driver(self) -> Driver:
        """The driver under test."""
        assert self._driver is not None, "call start first"
        return self._driver

    async def start(self) -> None:
        """Make the driver."""
        self._driver = await self.make_driver()

    async def restart(self) -> None:
        """What a restart of the control plane is to a driver: it is closed, and made anew."""
        await self.driver.close()
        await self.start()

    # -- optional abilities: a case that needs one is skipped where the driver lacks it ------------------------

    async def need(self, *abilities: Ability) -> None:
        """Skip the case where the site lacks an ability."""
        missing = set(abilities) - (await self.driver.describe()).abilities
        if missing:
            pytest.skip(f"the site does not have: {', '.join(sorted(missing))}")

    @property
    def logs(self) -> Logs:
        """The driver as a reader of output."""
        if not isinstance(self.driver, Logs):
            pytest.skip("the driver does not read output")
        return self.driver

    @property
    def signals(self) -> Signals:
        """The driver as a sender of signals."""
        if not isinstance(self.driver, Signals):
            pytest.skip("the driver sends no signals")
        return self.driver

    @property
    def stage(self) -> Stage:
        """The driver as a carrier of files."""
        if not isinstance(self.driver, Stage):
            pytest.skip("the driver carries no files")
        return self.driver

    @property
    def connections(self) -> Connect:
        """The driver as a way to ports inside attempts."""
        if not isinstance(self.driver, Connect):
            pytest.skip("the driver reaches no ports")
        return self.driver

    @property
    def executor(self) -> Exec:
        """The driver as a starter of commands inside attempts."""
        if not isinstance(self.driver, Exec):
            pytest.skip("the driver starts no commands inside attempts")
        return self.driver

    # -- attempts --------------------------------------------------------------------------------------------

    def launch(self, spec: dict[str, Any], **values: Any) -> Launch:
        """An attempt of a new job; `values` take the place of what is usual."""
        self._jobs += 1
        job = JobSpec.model_validate(spec)
        usual: dict[str, Any] = {
            "attempt_id": new_attempt_id(self.instance),
            "job_id": self._jobs,
            "task": None,
            "task_count": 1,
            "number": 1,
            "checkpoint_key": f"{self.instance}-{self._jobs}",
            "person": self.owner,
            "project": "contract",
            "account": self.account,
            "spec": job,
            "request": Resources(cpu=100, memory=self.memory, gpu=job.gpu),
            "nodes": job.nodes,
            "walltime": job.walltime,
            "environment": {"ATOLL_JOB_ID": str(self._jobs), "ATOLL_TASK_COUNT": "1"},
        }
        return Launch(**(usual | values))

    def script(self, text: str, **values: Any) -> Launch:
        """An attempt that runs `text` with the site's shell."""
        return self.launch({"command": ["/bin/sh", "-c", text]}, **values)

    def staged(self, path: str, content: bytes, *, executable: bool = False) -> StagedFile:
        """A file of the control plane's that is to be laid at `path`."""
        source = self.folder / f"staged-{secrets.token_hex(8)}"
        source.write_bytes(content)
        return StagedFile(path, source, executable, source.stat().st_size)

    async def submit(self, *launches: Launch) -> list[Answer]:
        """Submit, and require that each is taken."""
        answers = await self.driver.submit(launches)
        assert [answer.attempt_id for answer in answers] == [launch.attempt_id for launch in launches]
        refused = [answer for answer in answers if not isinstance(answer, Submitted)]
        assert not refused, f"not taken: {refused}"
        for launch, answer in zip(launches, answers, strict=True):
            assert isinstance(answer, Submitted)
            self._held[launch.attempt_id] = replace(launch.held, native_id=answer.native_id)
        return answers

    def held_as(self, launch: Launch) -> Held:
        """The attempt as control would tell the driver of it."""
        return self._held.get(launch.attempt_id, launch.held)

    def held(self) -> list[Held]:
        """All attempts that control would believe to be at the site."""
        return list(self._held.values())

    async def forget(self, *launches: Launch) -> None:
        """Have the site forget attempts; control goes on to hold those that it refuses to forget."""
        await self.driver.forget([self.held_as(launch) for launch in launches])

    async def status(self, launch: Launch) -> AttemptStatus | None:
        """What the site says of an attempt now."""
        observation = await self.driver.observe(self.held())
        assert observation.complete
        return observation.states.get(launch.attempt_id)

    async def wait(
        self, launches: Iterable[Launch], phase: Phase = Phase.ENDED, patience: float | None = None
    ) -> list[AttemptStatus]:
        """Wait until all have come to `phase` (or are past it); fails the case after `patience` seconds."""
        names = [launch.attempt_id for launch in launches]
        enough = {Phase.ENDED} if phase is Phase.ENDED else {phase, Phase.ENDED}
        hints = Hints(self.driver, self.interval)
        observed: dict[str, AttemptStatus] = {}
        try:
            async with asyncio.timeout(patience or self.patience):
                while True:
                    observation = await self.driver.observe(self.held())
                    observed = {**({} if observation.complete else observed), **observation.states}
                    if all(name in observed and observed[name].phase in enough for name in names):
                        return [observed[name] for name in names]
                    await hints.next()
        except TimeoutError:
            late = {name: observed.get(name) for name in names}
            pytest.fail(f"not {phase} after {patience or self.patience} s: {late}")
        finally:
            await hints.close()

    async def run(self, launch: Launch, patience: float | None = None) -> AttemptStatus:
        """Submit and wait for the end."""
        await self.submit(launch)
        return (await self.wait([launch], patience=patience))[0]

    async def read(self, launch: Launch, stream: str = "stdout") -> bytes:
        """All output of an attempt, piece by piece."""
        pieces: list[bytes] = []
        offset = 0
        while True:
            chunk = await self.logs.read_log(self.held_as(launch), stream, offset, 1 << 20)
            assert chunk.offset == offset or not chunk.data
            if not chunk.data:
                return b"".join(pieces)
            pieces.append(chunk.data)
            offset += len(chunk.data)

    async def output(self, launch: Launch) -> str:
        """Run, require success, and return what was written."""
        status = await self.run(launch)
        assert status.exit_code == 0, (status, await self.read(launch, "stderr"))
        return (await self.read(launch)).decode()

    async def wait_for_output(self, launch: Launch, text: bytes) -> None:
        """Wait until the output of a running attempt holds `text`; only reading again tells."""
        async with asyncio.timeout(self.patience):
            while text not in await self.read(launch):  # noqa: ASYNC110  # nothing else tells
                await asyncio.sleep(0.05)

    async def stop(self, launch: Launch, reason: StopReason, grace: float) -> None:
        """Begin to stop an attempt."""
        await self.driver.stop([StopRequest(self.held_as(launch), reason, grace)])


class Hints:
    """Waits for a hint of the driver, or for the interval where it gives none."""

    def __init__(self, driver: Driver, interval: float) -> None:
        self._interval = interval
        self._event = asyncio.Event()
        self._task = asyncio.create_task(self._listen(driver)) if isinstance(driver, Watch) else None

    async def _listen(self, driver: Watch) -> None:
        async for _ in driver.changes():
            self._event.set()

    async def next(self) -> None:
        """Return after the next hint, and after the interval at the latest."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), self._interval)
        self._event.clear()

    async def close(self) -> None:
        """Stop listening."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task


def digest(content: bytes) -> str:
    """SHA-256 in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def only(items: Sequence[Answer]) -> Answer:
    """The one answer."""
    assert len(items) == 1
    return items[0]
