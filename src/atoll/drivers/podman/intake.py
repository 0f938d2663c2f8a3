"""Taking attempts on: their folders, image, GPUs and container, now or when it is their turn."""

import asyncio
import re
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec

from atoll.core.errors import Invalid
from atoll.core.ids import is_attempt_id
from atoll.drivers.base import Answer, DriverError, DriverSetup, Launch, Refused, Submitted, Unknown
from atoll.drivers.podman.accounts import Unmapped, account_for
from atoll.drivers.podman.api import Complaint
from atoll.drivers.podman.config import PodmanConfig
from atoll.drivers.podman.container import body_of, image_of, name_of, place_of
from atoll.drivers.podman.containers import Containers, Made
from atoll.drivers.podman.folders import Folders, Told
from atoll.drivers.podman.gpus import add_devices, choose
from atoll.drivers.podman.host import Host, cannot
from atoll.drivers.podman.images import Images, NoImage
from atoll.drivers.podman.layout import Plan, checkpoint_key, contents
from atoll.drivers.podman.states import BEGINNING

_PULL_PATIENCE = 10.0
"""Seconds that a submission waits for an image; a longer pull goes on while the attempt waits."""
_HOPELESS = ("command was not found", "executable file", "no such file or directory", "exec format error")
"""Words of a runtime on an image in which nothing can be started: another try would end the same."""
_HALF_MADE = re.compile(r"\bcontainer\b.{0,200}already exists")
"""What a runtime says where Podman was killed while it made a container: Podman itself does not know of that."""
_FOR_GPU = "it waits for a free GPU"


class _Refusal(Exception):
    """Why the site cannot run an attempt. The message is a sentence."""


class Intake:
    """Begins attempts, each once, however often it is asked to.

    Podman may be killed at any moment, and then need not know what runs: a container that it calls created can have
    run, and one that it cannot start can be running. So before an attempt is refused its claim is taken from it, and
    one that was claimed before has begun, whatever Podman says.
    """

    def __init__(
        self, setup: DriverSetup, config: PodmanConfig, containers: Containers, folders: Folders, images: Images,
        host: Host,
    ) -> None:  # fmt: skip
        self._setup = setup
        self._config = config
        self._containers = containers
        self._folders = folders
        self._images = images
        self._host = host
        self._making = asyncio.Semaphore(config.at_once)
        self._gpu_lock = asyncio.Lock()
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.why: dict[str, str] = {}
        """What an attempt waits for."""
        self._doubted: set[str] = set()
        """Attempts that could not be started once."""

    def is_busy(self, attempt: str | None = None) -> bool:
        """Whether this attempt, or any, is being begun now."""
        return bool(self._busy) if attempt is None else attempt in self._busy

    def forget(self, attempt: str) -> None:
        """Forget what was known of an attempt."""
        self.why.pop(attempt, None)
        self._doubted.discard(attempt)

    async def close(self) -> None:
        """Leave everything as it is."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def plan(self, attempt: str) -> Plan | None:
        """The plan of an attempt, None where the site has no folders of it. Raises DriverError."""
        text = await self._folders.plan(attempt)
        try:
            return msgspec.json.decode(text, type=Plan) if text is not None else None
        except msgspec.DecodeError as error:
            raise DriverError(f"The plan of {attempt} in {self._folders.root} cannot be read: {error}.") from error

    async def waiting(self) -> list[str]:
        """Attempts of ours that were taken on and have no container yet, the oldest first."""
        return [attempt for attempt in await self._folders.waiting() if is_attempt_id(attempt, self._setup.instance)]

    async def submit(self, launch: Launch) -> Answer:
        """Begin an attempt, or say why not."""
        attempt = launch.attempt_id
        if not is_attempt_id(attempt, self._setup.instance):
            return Refused(attempt, f"attempt: {attempt!r} is not an attempt of this platform.")
        if attempt in self._busy:
            return Unknown(attempt, "An earlier call is still making its container.")
        self._busy.add(attempt)
        try:
            try:
                laid = await self._lay_out(launch)
            except (Unmapped, ValueError, Invalid, _Refusal) as error:
                laid = None
                if not await self._folders.tell([attempt]):  # else it was taken on before, when nothing was against it
                    return Refused(attempt, f"{str(error).rstrip('.')}.")
            plan = laid or await self.plan(attempt)
            if plan is None:
                return Unknown(attempt, "Its folders were removed while it was handed over.")
            return await self._hand_over(attempt, plan, fresh=laid is not None)
        except DriverError as error:
            return Unknown(attempt, str(error))  # where it was made after all, the next observation starts it
        finally:
            self._busy.discard(attempt)

    async def _hand_over(self, attempt: str, plan: Plan, *, fresh: bool) -> Answer:
        try:
            async with self._making:
                return await self._begin(attempt, plan, fresh=fresh, patience=_PULL_PATIENCE)
        except NoImage as error:
            return await self._refuse(attempt, str(error), permanent=error.permanent)
        except Complaint as error:
            if not fresh:  # an earlier call may have begun it: an observation tells
                return Submitted(attempt, name_of(attempt))
            said = str(error).lower()
            # "statfs": of the site's own folders, and none of the job's doing
            hopeless = error.status == 400 or ("statfs" not in said and any(words in said for words in _HOPELESS))
            return await self._refuse(attempt, f"Podman refused it: {error}.", permanent=hopeless)

    async def _lay_out(self, launch: Launch) -> Plan | None:
        """The plan of an attempt whose folders were made now; None where they were there."""
        config, facts = self._config, await self._host.facts()
        refusal = cannot(launch, config, facts, await self._host.gpus())
        if refusal is not None:
            raise _Refusal(refusal)
        owner = await account_for(launch, self._setup, config, facts, self._folders)
        place = place_of(launch, owner, config)
        body = body_of(launch, owner, config, facts, self._folders.root, self._setup.instance)
        plan = Plan(body, image_of(launch, config) or "", launch.request.gpu, place.workdir, config.pull)
        made = await self._folders.lay_out(
            launch.attempt_id, owner, contents(launch, place), msgspec.json.encode(plan), checkpoint_key(launch)
        )
        return plan if made else None

    async def _begin(self, attempt: str, plan: Plan, *, fresh: bool, patience: float) -> Answer:
        """Make and start the container now, or note that the attempt waits. `fresh`: nobody can have stopped it yet.

        Raises NoImage, Complaint, DriverError.
        """
        taken = Submitted(attempt, name_of(attempt))
        if not fresh:
            told = (await self._folders.tell([attempt])).get(attempt, Told())
            if told.record.claimed and not told.refused:
                # it has begun: where its container is gone it is lost, and another one would find nothing to run
                self.why.pop(attempt, None)
                await self._folders.wait_no_more(attempt)
                return taken
            if told.refused or told.stop:
                await self._folders.wait(attempt)  # it ends without ever having had a container
                return taken
        why, made = None, Made.NOT_NOW
        if not await self._images.ready(plan.image, plan.pull, patience):
            why = f"its image {plan.image} is being pulled"
        elif (made := await self._make(attempt, plan)) is Made.NOT_NOW:
            why = _FOR_GPU
        if why is not None:
            self.why[attempt] = why
            await self._folders.wait(attempt)
            return taken
        self.why.pop(attempt, None)
        if not fresh:
            await self._folders.wait_no_more(attempt)
        await self._containers.start(attempt, made)
        return taken

    async def _make(self, attempt: str, plan: Plan) -> Made:
        """Make the container, with GPUs that nobody has where it asks for some."""
        try:
            if not plan.gpu:
                return await self._containers.create(attempt, plan.body)
            async with self._gpu_lock:
                used, holders = await self._containers.gpus_in_use()
                if name_of(attempt) in holders:
                    return Made.BEFORE
                chosen = choose(plan.gpu, await self._host.gpus(), used)
                if chosen is None or await self._others_first(attempt):
                    return Made.NOT_NOW
                return await self._containers.create(attempt, add_devices(plan.body, chosen, self._config.gpu_kind))
        except Complaint as complaint:
            if "image not known" in str(complaint):
                self._images.doubt(plan.image)
            raise

    async def _others_first(self, attempt: str) -> bool:
        """Whether another attempt has waited longer for a GPU."""
        for other in await self.waiting():
            if other == attempt:
                return False
            if self.why.get(other) == _FOR_GPU:
                return True
        return False

    async def _refuse(self, attempt: str, message: str, *, permanent: bool) -> Answer:
        """Leave nothing of it behind, unless it has begun."""
        try:
            if not await self._folders.withdraw(attempt, message):
                return Submitted(attempt, name_of(attempt))
            if not await self._containers.remove(attempt, force=True):
                return Unknown(attempt, message)  # its folders tell that it was refused
            await self._folders.remove([attempt])
        except DriverError as error:
            return Unknown(attempt, f"{message} {error}")
        self.why.pop(attempt, None)
        return Refused(attempt, message, permanent=permanent)

    async def give_another(self, attempt: str) -> None:
        """Let an attempt whose container went before it began wait for another one."""
        self.why[attempt] = "its container was gone before it began"
        await self._folders.wait(attempt)

    # -- what an observation brings to light -----------------------------------------------------------------------

    def go_on(self, made: Iterable[str], waiting: Sequence[str]) -> None:
        """Start containers that were made and never started, and give attempts that wait their turn."""
        for attempt in made:
            self.in_background(attempt, self._start_late(attempt))
        if waiting:
            self.in_background("turns", self._give_turns(waiting))

    def in_background(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Do some work, unless the same is being done."""
        if what in self._busy:
            work.close()
            return
        self._busy.add(what)
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def over(done: asyncio.Task[None]) -> None:
            self._busy.discard(what)
            self._tasks.discard(done)

        task.add_done_callback(over)

    async def _start_late(self, attempt: str) -> None:
        try:
            async with self._making:
                await self._containers.start(attempt)
        except Complaint as complaint:
            if complaint.status != 404:
                await self._give_up(attempt, complaint)
        except DriverError:
            return  # the next observation tries again

    async def _give_up(self, attempt: str, reason: Complaint | NoImage) -> None:
        """Do something about an attempt that was taken on, and cannot be started.

        Not the first time: then it may be running, and Podman not know of it. Its folders stay, to tell of its end.
        """
        try:
            told = (await self._folders.tell([attempt])).get(attempt)
            if told is None:
                await self._containers.remove(attempt, force=True)  # its folders are gone
            elif isinstance(reason, NoImage):
                await self._folders.withdraw(attempt, str(reason))
            elif attempt not in self._doubted:
                self._doubted.add(attempt)
            elif told.record.claimed:
                await self._remove_dead(attempt)
            elif _HALF_MADE.search(str(reason)):
                self.why[attempt] = "Podman was killed while it made its container"
                await self._folders.wait(attempt)
                await self._containers.remove(attempt, force=True)
            else:
                await self._folders.withdraw(attempt, f"Podman refused it: {reason}.")
        except DriverError:
            return  # the next observation tries again

    async def _remove_dead(self, attempt: str) -> None:
        """Remove the container of an attempt that has begun, and that Podman knows to be not running."""
        found = (await self._containers.find(attempt)).get(attempt)
        if found is not None and found.state in BEGINNING - {"initialized"}:
            await self._containers.remove(attempt, force=True)

    async def _give_turns(self, waiting: Sequence[str]) -> None:
        """Begin attempts that wait, the oldest first."""
        try:
            still = set(await self.waiting())  # some may have had their turn since the observation
        except DriverError:
            return
        for attempt in waiting:
            if attempt not in still or attempt in self._busy:
                continue
            self._busy.add(attempt)
            try:
                plan = await self.plan(attempt)
                if plan is None:
                    await self._folders.wait_no_more(attempt)
                    continue
                async with self._making:
                    await self._begin(attempt, plan, fresh=False, patience=0.0)
            except (NoImage, Complaint) as error:
                await self._give_up(attempt, error)
            except DriverError:
                return  # the next observation tries again
            finally:
                self._busy.discard(attempt)
