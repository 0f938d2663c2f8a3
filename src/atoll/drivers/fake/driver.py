"""The driver of the fake site: what control talks to, honest or not as the engine's behaviour says."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field, ValidationError

from atoll.core.errors import Exhausted, Invalid
from atoll.core.resources import Bytes, Milli, Resources, Seconds
from atoll.core.site import Ability, Flavor, Node, SiteReport
from atoll.core.spec import Document, Name, explain_validation
from atoll.drivers.base import (
    Answer,
    DriverError,
    DriverSetup,
    Held,
    Launch,
    LogChunk,
    Observation,
    Refused,
    StopRequest,
    Submitted,
    Unknown,
)
from atoll.drivers.fake.behaviour import HONEST, Behaviour, Outage
from atoll.drivers.fake.engine import Engine

_ABILITIES = frozenset(Ability) - {Ability.CONNECT, Ability.FILES}

Sleep = Callable[[float], Awaitable[None]]


class FakeConfig(Document):
    """The `config` of a fake site. Sizes are those of one node."""

    cpus: Milli = 4000
    memory: Bytes = 8 * 2**30
    gpus: Milli = 0
    nodes: Annotated[int, Field(ge=1)] = 1
    flavor: Name | None = None
    abilities: frozenset[Ability] = _ABILITIES
    max_walltime: Seconds | None = None
    max_jobs: Annotated[int, Field(ge=0)] | None = None
    queues: bool = False
    """Whether it says that attempts may wait in its queue, and be pulled back from there."""
    owned: bool = False
    """Whether it lists its nodes (`node-0` and so on), so that Atoll chooses among them."""
    runtime: Annotated[float, Field(ge=0)] = 1.0
    """Seconds that an attempt runs which does not say how long."""
    behaviour: Behaviour = HONEST
    outage: Outage | None = None
    """When it does not answer for a while, what runs there going on."""


def read_config(config: Mapping[str, Any]) -> FakeConfig:
    """The configuration that a site file says. Raises Invalid."""
    try:
        return FakeConfig.model_validate(dict(config))
    except ValidationError as error:
        known = {"": list(FakeConfig.model_fields), "behaviour": list(Behaviour.model_fields),
                 "outage": list(Outage.model_fields)}  # fmt: skip
        raise explain_validation(error, known, "site", "config.") from None


class FakeDriver:
    """A site that is only played. Has the abilities of `Logs` and `Signals` beside those of a `Driver`.

    Without an `engine` it makes one of its configuration, on the real clock.
    """

    def __init__(self, setup: DriverSetup, engine: Engine | None = None, sleep: Sleep = asyncio.sleep) -> None:
        self.setup = setup
        self.config = config = read_config(setup.config)
        self._sleep = sleep
        self.engine = engine or Engine(
            Resources(config.cpus, config.memory, config.gpus),
            config.nodes,
            runtime=config.runtime,
            max_jobs=config.max_jobs,
            behaviour=config.behaviour,
        )
        self._began = self.engine.clock()

    async def _answered(self) -> Behaviour:
        """Take the time that a call takes. Raises DriverError where the site does not answer."""
        behaviour = self.engine.behaviour
        if behaviour.delay:
            await self._sleep(behaviour.delay)
        if self.engine.behaviour.vanished is not None:
            raise DriverError(self.engine.behaviour.vanished)
        outage, age = self.config.outage, self.engine.clock() - self._began
        if outage is not None and outage.is_on(age.total_seconds()):
            raise DriverError(outage.message)
        return self.engine.behaviour

    async def describe(self) -> SiteReport:
        """What the site has and can do."""
        await self._answered()
        engine, config = self.engine, self.config
        name = config.flavor or ("gpu" if engine.node.gpu else "cpu")
        nodes = (Node(f"node-{number}", name, engine.node) for number in range(engine.nodes if config.owned else 0))
        return SiteReport(
            (Flavor(name, engine.total, engine.node, engine.nodes, engine.free),),
            config.abilities,
            {"engine": "fake"},
            config.max_walltime,
            engine.max_jobs,
            None if Ability.OTHER_PERSONS in config.abilities else self.setup.owner or None,
            queues=config.queues,
            recalls=config.queues,
            nodes=tuple(nodes),
            notes=("This site is only played: nothing runs there.",),
        )

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Hand attempts to the engine, as far as its behaviour lets them through."""
        behaviour = await self._answered()
        return [self._submit(launch, behaviour) for launch in attempts]

    def _submit(self, launch: Launch, behaviour: Behaviour) -> Answer:
        if behaviour.refuses is not None:
            return Refused(launch.attempt_id, behaviour.refuses, behaviour.refuses_for_good)
        if (cannot := self._cannot(launch)) is not None:
            return Refused(launch.attempt_id, cannot)
        try:
            if not behaviour.answers:
                if behaviour.lands_after is not None:
                    self.engine.accept_later(launch, behaviour.lands_after)
                return Unknown(launch.attempt_id, "The engine did not answer in time.")
            return Submitted(launch.attempt_id, self.engine.accept(launch))
        except Exhausted as error:
            return Refused(launch.attempt_id, error.sentence, permanent=False)
        except Invalid as error:
            return Refused(launch.attempt_id, error.sentence)

    def _cannot(self, launch: Launch) -> str | None:
        """Why the site, as it is configured, never runs this; None where it does."""
        abilities, spec, owner = self.config.abilities, launch.spec, self.setup.owner
        asked = {
            Ability.IMAGE: ("environment.image", spec.environment and spec.environment.image),
            Ability.CONDA: ("environment.conda", spec.environment and spec.environment.conda),
            Ability.VENV: ("environment.venv", spec.environment and spec.environment.venv),
            Ability.VOLUMES: ("volumes", spec.volumes),
            Ability.SECRETS: ("secrets", spec.secrets),
            Ability.MULTINODE: ("nodes", launch.nodes > 1),
        }
        for ability, (field, wanted) in asked.items():
            if wanted and ability not in abilities:
                return f"{field}: this site has no ability {ability}."
        if owner and launch.person != owner and Ability.OTHER_PERSONS not in abilities:
            return f"{launch.person} has no account here; only {owner}'s jobs run."
        return None

    async def observe(self, held: Sequence[Held]) -> Observation:
        """All attempts of this platform that the engine knows, or what it lets be seen of them."""
        as_of = self.engine.clock()
        behaviour = await self._answered()
        states = self.engine.statuses(self.setup.instance)
        if behaviour.sees_all:
            return Observation(True, as_of, states)
        return Observation(False, as_of, dict(list(states.items())[::2]))

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Begin to stop attempts; those that the engine does not know are passed over."""
        await self._answered()
        for request in attempts:
            self.engine.stop(request)

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Let the engine drop ended attempts."""
        await self._answered()
        self.engine.forget([attempt.attempt_id for attempt in attempts])

    async def close(self) -> None:
        """There is nothing to let go of; what is played goes on in the engine."""

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """Output as the attempt's script says. Raises KeyError for an attempt that is not known."""
        await self._answered()
        return self.engine.read(attempt.attempt_id, stream, offset, limit)

    async def signal(self, attempt: Held, signal: int) -> None:
        """Send a signal. Raises KeyError where the attempt does not run."""
        await self._answered()
        self.engine.signal(attempt.attempt_id, signal)
