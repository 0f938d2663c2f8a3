"""The platform's configuration: a file, the environment and flags, in that order of growing weight.

Read by `atoll up`. Unknown keys are errors with a suggestion; nothing is guessed.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, ValidationError

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.resources import Bytes, Milli, Seconds
from atoll.core.spec import Document, Name, Text, explain_validation

DEFAULT_PORT = 8470
DEFAULT_DATA = "atoll-data"
CONFIG_FILE = "atoll.yaml"
"""Name of the configuration file that is looked for in the data folder."""


class LocalSite(Document):
    """The site that is this machine."""

    enabled: bool = True
    name: Name = "local"
    cpus: Annotated[
        Milli | None, Field(description="CPUs to give to jobs. Default: all that this process may use.")
    ] = None
    memory: Annotated[Bytes | None, Field(description="Memory to give to jobs. Default: what the machine has.")] = None
    gpus: Annotated[int | None, Field(ge=0, le=1024, description="GPUs to give to jobs. Default: all.")] = None
    accounts: Annotated[
        dict[str, Name],
        Field(default_factory=dict, description="Unix account of each person whose jobs run here too; needs root."),
    ]
    clearance: Annotated[
        list[Text],
        Field(default_factory=list, max_length=100, description="The words of projects whose data may be here."),
    ]


class KeepDays(Document):
    """For how many days things are kept before they are purged."""

    jobs: Annotated[float, Field(gt=0)] = 90
    events: Annotated[float, Field(gt=0)] = 14
    files: Annotated[float, Field(gt=0)] = 14
    idempotency_keys: Annotated[float, Field(gt=0)] = 2


class MinimumRuns(Document):
    """How long an attempt of each class runs at least before it is evicted."""

    interactive: Seconds = 0
    service: Seconds = 0
    batch: Seconds = 60
    opportunistic: Seconds = 0


class UsualWalltimes(Document):
    """How long jobs of each class that do not say it are taken to run at most; none: for ever."""

    interactive: Annotated[Seconds, Field(gt=0)] | None = 8 * 3600
    service: Annotated[Seconds, Field(gt=0)] | None = None
    batch: Annotated[Seconds, Field(gt=0)] | None = 24 * 3600
    opportunistic: Annotated[Seconds, Field(gt=0)] | None = 24 * 3600


class WeightsConfig(Document):
    """What counts how much where a job could go to several places: in time that one would rather wait."""

    wait: Annotated[float, Field(ge=0, le=1e6)] = 1
    remote: Seconds = 3600
    waste: Seconds = 600
    data: Seconds = 86400
    price: Seconds = 60
    energy: Seconds = 1
    spread: Seconds = 60


class QueueConfig(Document):
    """How the queue works."""

    half_life: Annotated[Seconds, Field(ge=60, description="After so long, use counts half in the fair share.")] = (
        7 * 86400
    )
    max_wait: Annotated[
        Seconds, Field(gt=0, description="What waits longer, within its quota, starts next: nothing passes it.")
    ] = 24 * 3600
    notice: Annotated[
        Seconds, Field(description="How long before, interactive jobs and services are told of an eviction.")
    ] = 15 * 60
    minimum_run: Annotated[MinimumRuns, Field(default_factory=MinimumRuns)]
    most_evictions: Annotated[
        int, Field(ge=0, le=1000, description="A job is evicted no more after so many times, but opportunistic ones.")
    ] = 3
    walltimes: Annotated[UsualWalltimes, Field(default_factory=UsualWalltimes)]
    weights: Annotated[WeightsConfig, Field(default_factory=WeightsConfig)]


class Tls(Document):
    """The files by which the platform proves who it is; they must cover people's names below its own, too."""

    certificate: Annotated[str, Field(min_length=1, description="File with the certificate and those above it, PEM.")]
    key: Annotated[str, Field(min_length=1, description="File with its private key, PEM.")]


class LoginConfig(Document):
    """How long people stay logged in in a browser."""

    idle: Annotated[Seconds, Field(ge=60, description="After so long without any request a login ends.")] = 12 * 3600
    longest: Annotated[Seconds, Field(ge=60, description="After so long a login ends in any case.")] = 30 * 86400


def _address(text: str) -> str:
    """An origin as browsers write it. Raises ValueError."""
    match = re.fullmatch(r"(https?)://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[0-9]{1,5})?/?", text.lower())
    if match is None:
        raise ValueError("write scheme and host, and a port where it is not the usual one: https://atoll.example.org")
    usual = {"http": ":80", "https": ":443"}[match[1]]
    return f"{match[1]}://{match[2]}{match[3] if match[3] and match[3] != usual else ''}"


class RelayConfig(Document):
    """The relay, which carries streams between people and what runs inside jobs."""

    port: Annotated[
        int | None,
        Field(
            ge=1, le=65535, description="Port of all jobs' loopback addresses. Default: the one after the platform's."
        ),
    ] = None
    target: Annotated[
        Text | None, Field(description="HOST:PORT that jobs reach through it; none: they reach nothing.")
    ] = None


class PlatformConfig(Document):
    """All that `atoll up` can be told."""

    data: Annotated[str, StringConstraints(min_length=1), Field(description="Folder for all that is kept.")] = (
        DEFAULT_DATA
    )
    host: Annotated[str, Field(description="Address to listen on.")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="Port to listen on; 0 takes a free one.")] = DEFAULT_PORT
    address: Annotated[
        Annotated[str, AfterValidator(_address)] | None,
        Field(description="Address under which browsers reach the platform, where that is not where it listens."),
    ] = None
    tls: Tls | None = None
    database: Annotated[
        str | None, Field(description="URL of the database. Default: a SQLite file in the data folder.")
    ] = None
    memory_per_cpu: Annotated[
        Bytes, Field(gt=0, description="Memory that a job gets for each CPU where it asks for none.")
    ] = 1024**3
    log_limit: Annotated[Bytes, Field(ge=4096, description="Bytes kept of each output stream: head and tail.")] = (
        2 * 1024**2
    )
    store: Annotated[
        str | None, Field(description="Folder for logs and files, which replicas share. Default: the data folder.")
    ] = None
    file_limit: Annotated[Bytes, Field(gt=0, description="Largest file that may be sent.")] = 10 * 1024**3
    drivers: Annotated[
        list[str], Field(default_factory=list, description="Third parties' drivers that sites may use, by name.")
    ]
    local: Annotated[LocalSite, Field(default_factory=LocalSite)]
    keep_days: KeepDays = KeepDays()
    queue: Annotated[QueueConfig, Field(default_factory=QueueConfig)]
    login: Annotated[LoginConfig, Field(default_factory=LoginConfig)]
    relay: RelayConfig = RelayConfig()

    @property
    def public_host(self) -> str:
        """The name under which people find the platform; those of their own servers are below it."""
        return (urlsplit(self.address).hostname if self.address else None) or "localhost"

    @property
    def relay_port(self) -> int:
        """The port of the relay."""
        return self.relay.port or (self.port or DEFAULT_PORT) % 65535 + 1

    @property
    def data_folder(self) -> Path:
        """The data folder, absolute."""
        return Path(self.data).expanduser().absolute()

    @property
    def store_folder(self) -> Path:
        """The folder for logs and files, absolute."""
        return Path(self.store).expanduser().absolute() if self.store else self.data_folder

    @property
    def database_url(self) -> str:
        """Where the state is."""
        return self.database or f"sqlite:///{self.data_folder / 'state' / 'atoll.db'}"


def _names(model: type[BaseModel]) -> list[str]:
    return list(model.model_fields)


_KNOWN = {
    "": _names(PlatformConfig), "local": _names(LocalSite), "keep_days": _names(KeepDays), "tls": _names(Tls),
    "queue": _names(QueueConfig), "queue.minimum_run": _names(MinimumRuns), "queue.walltimes": _names(UsualWalltimes),
    "queue.weights": _names(WeightsConfig), "login": _names(LoginConfig), "relay": _names(RelayConfig),
}  # fmt: skip
_FROM_ENVIRONMENT = ("host", "port", "address", "database", "store", "memory_per_cpu", "log_limit", "file_limit")
"""Settings that a variable ATOLL_NAME gives."""


def read_config(file: Path | None, environment: Mapping[str, str], flags: Mapping[str, Any]) -> PlatformConfig:
    """Put the configuration together; flags that are None were not given.

    Raises Invalid, naming the file and the key, for what cannot be read or is not known.
    """
    folder = flags.get("data") or environment.get("ATOLL_DATA") or DEFAULT_DATA
    if file is None:
        default = Path(folder).expanduser() / CONFIG_FILE
        file = default if default.is_file() else None
    document: dict[str, Any] = _read_file(file) if file is not None else {}
    document.update({
        name: value for name in _FROM_ENVIRONMENT if (value := environment.get(f"ATOLL_{name.upper()}"))
    })  # fmt: skip
    if environment.get("ATOLL_DATA"):
        document["data"] = environment["ATOLL_DATA"]
    document.update({name: value for name, value in flags.items() if value is not None})
    try:
        return PlatformConfig.model_validate(document)
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "configuration", f"{file}: " if file else "") from None


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_bytes()
    except OSError as error:
        raise Invalid(
            "bad_configuration", f"The configuration {file} cannot be read: {error.strerror}.", field="config"
        ) from None
    document = read_yaml(text, f"configuration {file}")
    if document is None:
        return {}
    if not isinstance(document, dict):
        sentence = f"The configuration {file} must hold keys and values, as in port: 8470."
        raise Invalid("bad_configuration", sentence, field="config")
    return document
