"""The Podman driver: one container for each attempt, on one host, over Podman's REST API.

An attempt is taken on once its folders lie at the host. From then on the engine and the folders know all: a container
that was made and not started is started by the next observation, and an attempt that waits (for a GPU, or for its
image) has a note of that among the folders.
"""

import asyncio
import math
import os
import signal as signals
import time
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

from atoll.core.clock import system_clock
from atoll.core.ids import is_attempt_id
from atoll.core.site import SiteReport
from atoll.drivers.base import (
    Answer,
    AttemptStatus,
    Channel,
    DriverError,
    DriverSetup,
    Execution,
    Held,
    Launch,
    LogChunk,
    Observation,
    Phase,
    StopReason,
    StopRequest,
    Unknown,
)
from atoll.drivers.podman import execution, states
from atoll.drivers.podman.api import Engine
from atoll.drivers.podman.config import read_config
from atoll.drivers.podman.container import CHECKPOINT_KEY
from atoll.drivers.podman.containers import Containers
from atoll.drivers.podman.folders import Folders, LocalFolders, Order
from atoll.drivers.podman.host import Host
from atoll.drivers.podman.images import Images
from atoll.drivers.podman.intake import Intake
from atoll.drivers.podman.reach import reach
from atoll.drivers.podman.remote import RemoteFolders
from atoll.drivers.podman.states import Listed
from atoll.drivers.podman.taking import take_out
from atoll.drivers.podman.view import View
from atoll.drivers.shell import LocalShell, Shell, SshShell

_LATE = 5.0
"""Seconds after which Podman ends what the keeper should have ended."""
_TRAPPED = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "ALRM")
"""Signals that all processes of an attempt get; others are for the job's own, as they would end the wrapper too."""


class PodmanDriver:
    """A container host as a site. Has Logs, Signals, Watch, Stage, Connect and Exec."""

    def __init__(self, setup: DriverSetup) -> None:
        self._setup = setup
        self._config = config = read_config(setup.config)
        local = config.transport == "local"
        self._shell: Shell = LocalShell() if local else SshShell(config.ssh())
        self._engine = Engine(
            self._shell,
            config.socket,
            bridged=not local,
            seconds=config.seconds,
            connections=64 if local else config.sessions,
        )
        self._folders: Folders
        if local:
            self._folders = LocalFolders(Path(os.path.realpath(config.folder or setup.folder)))
        else:
            self._folders = RemoteFolders(self._shell, config.folder or "", config.seconds)
        self._containers = Containers(self._engine, setup.instance)
        self._images = Images(self._engine, config.pull_timeout)
        self._host = Host(self._engine, self._folders, config)
        self._intake = Intake(setup, config, self._containers, self._folders, self._images, self._host)
        self._view = View(self._containers, self._folders, self._intake)

    # -- Driver --------------------------------------------------------------------------------------------------

    async def describe(self) -> SiteReport:
        """What the host has."""
        return await self._host.report(self._setup)

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Lay the attempts' folders out, and make and start their containers."""
        if not attempts:
            return []
        try:
            await self._host.prepare()
        except DriverError as error:
            return [Unknown(launch.attempt_id, str(error)) for launch in attempts]
        each: dict[str, asyncio.Task[Answer]] = {}
        for launch in attempts:  # the same attempt twice in one call is one attempt
            if launch.attempt_id not in each:
                each[launch.attempt_id] = asyncio.create_task(self._intake.submit(launch))
        try:
            await asyncio.gather(*each.values())
        finally:
            for task in each.values():
                task.cancel()
        return [each[launch.attempt_id].result() for launch in attempts]

    async def observe(self, held: Sequence[Held]) -> Observation:
        """One list of all containers that are ours; the folders are read for what is new."""
        as_of = system_clock()
        await self._host.prepare()
        waiting = await self._intake.waiting()  # first: what gets its container meanwhile is in the list
        asked_at = time.monotonic()
        listed = await self._containers.find()
        ours = [each for each in held if self._is_ours(each)]
        observed = await self._view.observe(listed, waiting, ours, asked_at)
        made = [name for name, each in listed.items() if each.state in states.BEGINNING and _begins(observed[name])]
        waits = [each for each in waiting if each not in observed or _begins(observed[each])]
        self._intake.go_on(made, waits)
        self._end_overdue(listed)
        return Observation(complete=True, as_of=as_of, states=observed)

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Write the orders, which the attempts' keepers carry out; end at once what has no grace.

        None waits for room here, to be recalled.
        """
        ours = [each for each in attempts if self._is_ours(each.attempt) and each.reason is not StopReason.RECALLED]
        if not ours:
            return
        await self._host.prepare()
        listed = await self._containers.find()  # where Podman does not answer nothing is ordered
        before = await self._folders.read_stops([each.attempt.attempt_id for each in ours])
        orders = [
            self._order_stop(each, before[each.attempt.attempt_id])
            for each in ours
            if each.attempt.attempt_id in before
        ]
        await self._folders.order([order for order in orders if order is not None])
        now = time.time()
        over = [name for name in before if name in listed and self._view.deadlines.get(name, math.inf) <= now]
        await asyncio.gather(*(self._containers.kill(name) for name in over))

    def _order_stop(self, request: StopRequest, before: str) -> Order | None:
        """The order to stop, or to do so sooner than was ordered before; None for what has ended."""
        attempt = request.attempt.attempt_id
        if self._view.has_ended(attempt):
            return None
        seconds, now = math.ceil(max(0.0, request.grace)), time.time()
        known = states.read_stop(before)
        reason, deadline = (request.reason, math.inf) if known is None else known
        self._view.deadlines[attempt] = min(now + seconds, deadline)
        return Order(attempt, "stop", states.stop_text(reason, seconds, now) if now + seconds < deadline else "")

    def _end_overdue(self, listed: dict[str, Listed]) -> None:
        """Have Podman end what its keeper should have ended: a job may have got rid of that."""
        for attempt, deadline in list(self._view.deadlines.items()):
            if attempt not in listed or listed[attempt].ended:
                self._view.deadlines.pop(attempt)
            elif time.time() > deadline + _LATE:
                self._intake.in_background(f"kill {attempt}", self._end(attempt, listed[attempt]))

    async def _end(self, attempt: str, container: Listed) -> None:
        try:
            if container.state in states.BEGINNING:  # Podman kills only what it knows to run
                await self._containers.remove(attempt, force=True)
            else:
                await self._containers.kill(attempt)
        except DriverError:
            return  # the next observation tries again

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Remove the containers and folders of ended attempts; others are left alone."""
        ids = [each.attempt_id for each in attempts if self._is_ours(each)]
        if not ids:
            return
        await self._host.prepare()
        listed = await self._containers.find()
        waiting: set[str] = set()
        if any(name not in listed for name in ids):
            # in this order: what gets its container meanwhile is in either
            waiting = set(await self._intake.waiting())
            listed = await self._containers.find()
        over = [name for name in ids if name in listed and (listed[name].ended or self._view.has_ended(name))]
        removed = await asyncio.gather(*(self._containers.remove(name) for name in over))
        gone = [name for name, is_gone in zip(over, removed, strict=True) if is_gone]
        gone += [name for name in ids if name not in listed and (name not in waiting or self._view.has_ended(name))]
        if gone:
            await self._folders.remove(gone)
            self._view.forget(gone)
            await self._leave_checkpoints(listed, set(gone))

    async def _leave_checkpoints(self, listed: dict[str, Listed], gone: set[str]) -> None:
        """Drop checkpoint folders that are empty and that nobody here uses."""

        def key_of(attempt: str) -> str | None:
            return (listed[attempt].labels or {}).get(CHECKPOINT_KEY) if attempt in listed else None

        left = {key_of(attempt) for attempt in gone} - {key_of(attempt) for attempt in listed if attempt not in gone}
        keys = [key for key in left if key]
        # where somebody may be about to use one, there will be another time
        if keys and not self._intake.is_busy() and not await self._intake.waiting():
            await self._folders.leave_checkpoints(keys)

    async def close(self) -> None:
        """Let go of the engine. Attempts go on."""
        await self._intake.close()
        await self._images.close()
        await self._engine.close()
        await self._shell.close()

    # -- Logs, Signals, Watch, Stage, Connect, Exec --------------------------------------------------------------

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of output, from the attempt's folder. Raises KeyError for an attempt or stream that is not there."""
        await self._host.prepare()
        chunk = await self._folders.read_log(_checked(attempt), stream, offset, limit)
        if chunk is None:
            raise KeyError(attempt.attempt_id)
        return chunk

    async def signal(self, attempt: Held, signal: int) -> None:
        """Have the attempt's keeper send a signal. Raises KeyError where it does not run."""
        if signal not in signals.valid_signals():
            raise ValueError(f"{signal} is no signal")
        await self._containers.running(_checked(attempt))
        name = signals.Signals(signal).name.removeprefix("SIG")
        await self._folders.order([Order(attempt.attempt_id, f"kill {name if name in _TRAPPED else signal}")])

    def changes(self) -> AsyncGenerator[None]:
        """Yields when a container of ours started or ended. Raises DriverError where Podman tells no events."""
        return self._containers.changes()

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy files of the attempt's working directory. Raises KeyError where there is no such attempt."""
        await self._host.prepare()
        plan = await self._intake.plan(_checked(attempt))
        if plan is None:
            raise KeyError(attempt.attempt_id)
        return await take_out(self._engine, self._folders, attempt.attempt_id, plan.workdir, patterns, into)

    async def connect(self, attempt: Held, port: int) -> Channel:
        """A stream to a port of a running attempt. Raises KeyError where it does not run, DriverError otherwise."""
        container = await self._containers.running(_checked(attempt))
        inspected = await self._containers.inspect(container.id)
        if inspected is None:
            raise KeyError(attempt.attempt_id)
        return await reach(self._shell, inspected, self._config, port)

    async def execute(self, attempt: Held, command: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start a command in the attempt's container. Raises KeyError where it does not run."""
        container = await self._containers.running(_checked(attempt))
        return await execution.start(self._engine, container.id, command, terminal=terminal)

    def _is_ours(self, attempt: Held) -> bool:
        return is_attempt_id(attempt.attempt_id, self._setup.instance)


def _begins(status: AttemptStatus) -> bool:
    return status.phase is Phase.STARTING


def _checked(attempt: Held) -> str:
    """Its id, which is about to become part of a path. Raises KeyError for what is none."""
    if not is_attempt_id(attempt.attempt_id):
        raise KeyError(attempt.attempt_id)
    return attempt.attempt_id
