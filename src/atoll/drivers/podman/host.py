"""The host as Podman tells of it: what it has, what it can do, and what it can never run."""

import asyncio
import time

import msgspec

from atoll.core.resources import Resources, format_bytes, format_milli
from atoll.core.site import Ability, Flavor, SiteReport
from atoll.drivers.base import DriverError, DriverSetup, Launch
from atoll.drivers.podman.api import Complaint, Engine
from atoll.drivers.podman.config import PodmanConfig
from atoll.drivers.podman.container import HostFacts, image_of
from atoll.drivers.podman.folders import Folders
from atoll.drivers.podman.gpus import SPEC_FILES, WHOLE, devices_in

_KNOWN_FOR = 60.0
"""Seconds for which the host is believed not to have changed."""


class _Runtime(msgspec.Struct, frozen=True):
    name: str = ""


class _Security(msgspec.Struct, frozen=True):
    rootless: bool = False


class _HostInfo(msgspec.Struct, frozen=True):
    cpus: int
    memory: int = msgspec.field(name="memTotal")
    arch: str = ""
    hostname: str = ""
    controllers: list[str] | None = msgspec.field(name="cgroupControllers", default=None)
    runtime: _Runtime = msgspec.field(name="ociRuntime", default_factory=_Runtime)
    security: _Security = msgspec.field(default_factory=_Security)


class _Version(msgspec.Struct, frozen=True):
    version: str = msgspec.field(name="Version", default="")


class _Info(msgspec.Struct, frozen=True):
    host: _HostInfo
    version: _Version = msgspec.field(default_factory=_Version)


_INFO: msgspec.json.Decoder[_Info] = msgspec.json.Decoder(_Info)


class Host:
    """What is known of the host, asked again once a minute."""

    def __init__(self, engine: Engine, folders: Folders, config: PodmanConfig) -> None:
        self._engine = engine
        self._folders = folders
        self._config = config
        self._facts: tuple[float, HostFacts] | None = None
        self._gpus: tuple[float, list[str]] | None = None
        self._prepared = False
        self._lock = asyncio.Lock()

    async def prepare(self) -> None:
        """Have the site's folders made, once. Raises DriverError."""
        async with self._lock:
            if not self._prepared:
                await self._folders.prepare()
                self._prepared = True

    async def facts(self) -> HostFacts:
        """What Podman says of its host. Raises DriverError."""
        async with self._lock:
            if self._facts is None or self._facts[0] + _KNOWN_FOR < time.monotonic():
                self._facts = (time.monotonic(), await self._ask())
            return self._facts[1]

    async def _ask(self) -> HostFacts:
        await self._engine.check_version()
        try:
            info: _Info = await self._engine.ask_as(_INFO, "/info")
        except Complaint as complaint:
            raise DriverError(f"Podman does not tell of its host: {complaint}.") from None
        host, config = info.host, self._config
        return HostFacts(
            cpus=config.cpus if config.cpus is not None else host.cpus * 1000,
            memory=config.memory if config.memory is not None else host.memory,
            rootless=host.security.rootless,
            controllers=frozenset(host.controllers or ()),
            version=info.version.version,
            arch=host.arch,
            runtime=host.runtime.name,
            hostname=host.hostname,
        )

    async def gpus(self) -> list[str]:
        """The CDI names of the host's GPUs. Raises DriverError."""
        if self._config.gpus is not None:
            return self._config.gpus
        async with self._lock:
            if self._gpus is None or self._gpus[0] + _KNOWN_FOR < time.monotonic():
                files = await self._folders.read_host(SPEC_FILES)
                self._gpus = (time.monotonic(), devices_in(files, self._config.gpu_kind))
            return self._gpus[1]

    async def report(self, setup: DriverSetup) -> SiteReport:
        """The site. Raises DriverError."""
        await self.prepare()
        facts, gpus, config = await self.facts(), await self.gpus(), self._config
        platform = await self._folders.owner(None)
        total = Resources(facts.cpus, facts.memory, len(gpus) * WHOLE)
        name = f"gpu-{config.gpu_model or 'cdi'}" if gpus else "cpu"
        abilities = {Ability.IMAGE, Ability.SIGNAL, Ability.FILES, Ability.SCRATCH, Ability.SECRETS}
        if config.image is not None:
            abilities.add(Ability.VENV)  # one in that image, or on a volume
        if config.volumes:
            abilities.add(Ability.VOLUMES)
        if config.network != "none":
            abilities.add(Ability.CONNECT)
        if setup.shared or (platform.uid == 0 and not facts.rootless):
            abilities.add(Ability.OTHER_PERSONS)
        return SiteReport(
            flavors=(Flavor(name, total=total, node=total),),
            abilities=frozenset(abilities),
            labels={"arch": facts.arch} if facts.arch else {},
            owner=setup.owner or None,
            volumes=frozenset(config.volumes),
            notes=tuple(_notes(facts, config)),
        )


def _notes(facts: HostFacts, config: PodmanConfig) -> list[str]:
    runtime = f" with {facts.runtime}" if facts.runtime else ""
    kind = "without root" if facts.rootless else "as root"
    notes = [f"Podman {facts.version}{runtime} {kind}."]
    for controller, words in (
        ("memory", "Memory is not held to what was asked, as Podman has no memory controller here."),
        ("cpu", "CPUs are not held to what was asked, as Podman has no cpu controller here."),
        ("pids", "The number of processes is not limited, as Podman has no pids controller here."),
    ):
        if controller not in facts.controllers:
            notes.append(words)
    if config.network == "host":
        notes.append("Jobs share the host's network: they reach what it reaches, and each other's ports.")
    notes.append("Scratch space is not held to what was asked.")
    return notes


def cannot(launch: Launch, config: PodmanConfig, facts: HostFacts, gpus: list[str]) -> str | None:
    """Why this host can never run the attempt, the field named; None where it can."""
    spec, asked = launch.spec, launch.request
    environment = spec.environment
    room = len(gpus) * WHOLE
    reasons = {
        "environment.image": image_of(launch, config) is None
        and "this site runs container images only, and has none of its own; name one",
        "environment.conda": environment is not None and environment.conda is not None
        and "this site runs container images, and has no conda",
        "nodes": launch.nodes > 1 and f"this site is one host, and {launch.nodes} nodes were asked for",
        "cpu": asked.cpu > facts.cpus
        and f"{format_milli(asked.cpu)} CPUs were asked for and this host has {format_milli(facts.cpus)}",
        "memory": asked.memory > facts.memory
        and f"{format_bytes(asked.memory)} were asked for and this host has {format_bytes(facts.memory)}",
        "gpu": asked.gpu > room
        and f"{format_milli(asked.gpu)} GPUs were asked for and this host has {format_milli(room)}",
    }  # fmt: skip
    return next((f"{field}: {reason}." for field, reason in reasons.items() if reason), None)
