"""What the site file of a Podman site may say under `config`."""

import posixpath
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from atoll.core.resources import Bytes, Milli, Seconds
from atoll.core.spec import Document, Name, Text, explain_validation
from atoll.drivers.shell.config import AccountName, SshFields

Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]
Device = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}$")]


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path or "\n" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return posixpath.normpath(path)


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class HostVolume(Document):
    """A folder of the host that jobs may ask for by name."""

    path: Annotated[AbsolutePath, Field(description="The folder at the host.")]
    read_only: Annotated[bool, Field(description="Whether no job may write to it.")] = False


class PodmanConfig(SshFields):
    """How the host is reached, and what its containers get."""

    transport: Annotated[Literal["local", "ssh"], Field(description="Podman on this machine, or behind SSH.")] = "local"
    socket: Annotated[AbsolutePath, Field(description="Podman's unix socket at the host.")] = "/run/podman/podman.sock"
    seconds: Annotated[
        float, Field(gt=0, le=600, description="Longest wait for an answer of Podman to anything but a pull.")
    ] = 30.0
    at_once: Annotated[int, Field(ge=1, le=64, description="Most containers that are made at the same time.")] = 4

    folder: Annotated[
        AbsolutePath | None,
        Field(description="Folder at the host for attempts. Default: in the platform's data folder; needed for ssh."),
    ] = None
    account: Annotated[
        AccountName | None, Field(description="The site's own account, for jobs without one. Default: the platform's.")
    ] = None

    cpus: Annotated[Milli | None, Field(description="CPUs that jobs may take. Default: the host's.")] = None
    memory: Annotated[Bytes | None, Field(description="Memory that jobs may take. Default: the host's.")] = None
    cpu_limit: Annotated[
        Literal["quota", "weight"], Field(description="Whether a job may never, or may, use CPUs that others leave.")
    ] = "quota"
    processes: Annotated[int, Field(ge=16, le=4_194_304, description="Most processes and threads of a job.")] = 4096
    gpus: Annotated[
        list[Device] | None,
        Field(max_length=1024, description="CDI names of GPUs. Default: those of the host's files."),
    ] = None
    gpu_kind: Annotated[
        str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*/[A-Za-z0-9][A-Za-z0-9_-]*$", description="CDI kind of the GPUs.")
    ] = "nvidia.com/gpu"
    gpu_model: Annotated[Name | None, Field(description="The GPUs' model, as in a100; names the flavor.")] = None

    image: Annotated[Text | None, Field(description="Image of jobs that name none. Default: they are refused.")] = None
    pull: Annotated[Literal["missing", "always", "never"], Field(description="When images are pulled.")] = "missing"
    pull_timeout: Annotated[Seconds, Field(description="Longest time for pulling an image.")] = 3600
    network: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"),
        Field(description="bridge, none, host, or the name of a network of Podman's."),
    ] = "bridge"  # fmt: skip
    userns: Annotated[Literal["host", "keep-id"], Field(description="User namespace of the containers.")] = "host"
    capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^CAP_[A-Z_]{1,30}$")]],
        Field(default_factory=list, max_length=64, description="Capabilities to leave to jobs. Default: none."),
    ]
    volumes: Annotated[
        dict[Name, HostVolume], Field(default_factory=dict, description="Folders that jobs may ask for by name.")
    ]
    environment: Annotated[dict[Variable, str], Field(default_factory=dict, description="Variables that all jobs get.")]

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.transport == "ssh":
            if self.folder is None:
                raise ValueError("folder: transport ssh needs the folder at the host in which attempts may run")
        elif given := [name for name in SshFields.model_fields if name in self.model_fields_set]:
            raise ValueError(f"{', '.join(given)} mean something with transport ssh only")
        if self.keys or self.impersonate:
            raise ValueError("keys and impersonate mean nothing to Podman: its containers run as any account")
        if any(volume.path == "/" for volume in self.volumes.values()):
            raise ValueError("a volume cannot be the whole host, /")
        return self


def read_config(config: Mapping[str, Any]) -> PodmanConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        return PodmanConfig.model_validate(dict(config))
    except ValidationError as error:
        known = {"": list(PodmanConfig.model_fields), "volumes": list(HostVolume.model_fields)}
        raise explain_validation(error, known, "site", "config.") from None
