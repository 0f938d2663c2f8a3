"""Taking attempts on: their folders, image, GPUs and container, now or when it is their turn."""

import asyncio
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
from atoll.drivers.podman.folders import Folders
from atoll.drivers.podman.gpus import add_devices, choose
from atoll.drivers.podman.host import Host, cannot
from atoll.drivers.podman.images import Images, NoImage
from atoll.drivers.podman.layout import Plan, checkpoint_key, contents

_PULL_PATIENCE = 10.0
"""Seconds that a submission waits for an image; a longer pull goes on while the attempt waits."""
_HOPELESS = ("command was not found", "executable file", "no such file or directory", "exec format error")
"""Words of a runtime on an image in which nothing can be started: another try would end the same."""
_FOR_GPU = "it waits for a free GPU"


class Intake:
    """Begins attempts, each once, however often it is asked to."""

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
        self.hopeless: dict[str, str] = {}
        """Why an attempt that was taken on can never start."""
        self.why: dict[str, str] = {}
        """What an attempt waits for."""

    def is_busy(self, attempt: str | None = None) -> bool:
        """Whether this attempt, or any, is being begun now."""
        return bool(self._busy) if attempt is None else attempt in self._busy

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
            laid = await self._lay_out(launch)
            if isinstance(laid, Refused):
                return laid
            plan = laid or await self.plan(attempt)
            if plan is None:
                return Unknown(attempt, "Its folders were removed while it was handed over.")
            async with self._making:
                return await self._begin(attempt, plan, fresh=laid is not None, patience=_PULL_PATIENCE)
        except (Unmapped, ValueError, Invalid) as error:
            return Refused(attempt, f"{str(error).rstrip('.')}.")
        except NoImage as error:
            return await self._refuse(attempt, str(error), permanent=error.permanent)
        except Complaint as error:
            said = str(error).lower()
            # "statfs": of the site's own folders, and none of the job's doing
            hopeless = error.status == 400 or ("statfs" not in said and any(words in said for words in _HOPELESS))
            return await self._refuse(attempt, f"Podman refused it: {error}.", permanent=hopeless)
        except DriverError as error:
            return Unknown(attempt, str(error))  # where it was made after all, the next observation starts it
        finally:
            self._busy.discard(attempt)

    async def _lay_out(self, launch: Launch) -> Plan | Refused | None:
        """The plan of an attempt whose folders were made now; None where they were there."""
        config, facts = self._config, await self._host.facts()
        refusal = cannot(launch, config, facts, await self._host.gpus())
        if refusal is not None:
            return Refused(launch.attempt_id, refusal)
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
        if not fresh and (await self._folders.read_stops([attempt])).get(attempt):
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
                return await self._containers.create(plan.body)
            async with self._gpu_lock:
                used, holders = await self._containers.gpus_in_use()
                if name_of(attempt) in holders:
                    return Made.BEFORE
                chosen = choose(plan.gpu, await self._host.gpus(), used)
                if chosen is None or await self._others_first(attempt):
                    return Made.NOT_NOW
                return await self._containers.create(add_devices(plan.body, chosen, self._config.gpu_kind))
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
        """Leave nothing of it behind."""
        try:
            await self._containers.remove(attempt, force=True)
            await self._folders.remove([attempt])
        except DriverError as error:
            return Unknown(attempt, f"{message} {error}")
        self.why.pop(attempt, None)
        return Refused(attempt, message, permanent=permanent)

    # -- what an observation brings to light -----------------------------------------------------------------------

    def go_on(self, made: Iterable[str], waiting: Sequence[str]) -> None:
        """Start containers that were made and never started, and give attempts that wait their turn."""
        for attempt in made:
            if attempt not in self.hopeless:
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
                self.hopeless[attempt] = f"Podman could not start it: {complaint}."
        except DriverError:
            return  # the next observation tries again

    async def _give_turns(self, waiting: Sequence[str]) -> None:
        """Begin attempts that wait, the oldest first. Their folders stay, so that their end can be told."""
        try:
            still = set(await self.waiting())  # some may have had their turn since the observation
        except DriverError:
            return
        for attempt in waiting:
            if attempt not in still or attempt in self._busy or attempt in self.hopeless:
                continue
            self._busy.add(attempt)
            try:
                plan = await self.plan(attempt)
                if plan is None:
                    await self._folders.wait_no_more(attempt)
                    continue
                async with self._making:
                    await self._begin(attempt, plan, fresh=False, patience=0.0)
            except NoImage as error:
                self.hopeless[attempt] = str(error)
            except Complaint as complaint:
                self.hopeless[attempt] = f"Podman refused it: {complaint}."
            except DriverError:
                return  # the next observation tries again
            finally:
                self._busy.discard(attempt)
