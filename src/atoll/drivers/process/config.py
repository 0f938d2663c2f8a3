"""What the site file of a process site may say under `config`."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationError

from atoll.core.resources import Bytes, Milli
from atoll.core.spec import Document, Name, explain_validation

AccountName = Annotated[str, Field(pattern=r"^[a-z_][a-z0-9_.-]{0,31}$")]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]


class VolumeConfig(Document):
    """A folder of this machine that jobs may ask for by a name."""

    path: Annotated[AbsolutePath, Field(description="The folder.")]
    read_only: Annotated[bool, Field(description="Whether jobs may only read it.")] = False


class ProcessConfig(Document):
    """Each field takes the place of what is found on this machine."""

    cpus: Annotated[
        Milli | None, Field(description="CPUs that jobs may take. Default: those this process may use.")
    ] = None
    memory: Annotated[Bytes | None, Field(description="Memory that jobs may take. Default: the machine's.")] = None
    gpus: Annotated[int | None, Field(ge=0, le=1024, description="GPUs that jobs may take. Default: all by NVML.")] = (
        None
    )
    gpu_model: Annotated[Name | None, Field(description="The GPUs' model, as in a100. Default: as NVML says.")] = None
    folder: Annotated[
        AbsolutePath | None, Field(description="Where attempts run. Default: in the platform's data folder.")
    ] = None
    accounts: Annotated[
        dict[Annotated[str, Field(min_length=1, max_length=255)], AccountName],
        Field(default_factory=dict, description="Unix account of each person other than the owner; needs root."),
    ]
    path: Annotated[str | None, Field(description="PATH of jobs.")] = None
    environment: Annotated[dict[Variable, str], Field(default_factory=dict, description="Variables that all jobs get.")]
    conda: Annotated[AbsolutePath | None, Field(description="The conda program. Default: the one on the PATH.")] = None
    volumes: Annotated[
        dict[Name, VolumeConfig],
        Field(default_factory=dict, description="Folders that jobs may ask for as volumes, by name."),
    ]
    memory_by: Annotated[
        Literal["auto", "sampling"],
        Field(description="How memory is enforced: by cgroup where permitted, or by looking at the processes."),
    ] = "auto"


def read_config(config: Mapping[str, Any]) -> ProcessConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        return ProcessConfig.model_validate(dict(config))
    except ValidationError as error:
        known = {"": list(ProcessConfig.model_fields), "volumes": list(VolumeConfig.model_fields)}
        raise explain_validation(error, known, "site", "config.") from None


def group_name(folder: Path) -> str:
    """A short name for the cgroup of the site in `folder`: the same after a restart, another for another site."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:12]
