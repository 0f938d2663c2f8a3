"""What the site file of an interLink site may say under `config`."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, field_validator, model_validator

from atoll.core.resources import Bytes, Milli, Resources, Seconds
from atoll.core.spec import Document, JobClass, Name, Text, explain_validation
from atoll.drivers.base import DriverError

_URL = re.compile(r"https?://[A-Za-z0-9.\-\[\]:]+(?::\d{1,5})?(?:/[A-Za-z0-9._~/-]*)?|unix:///[^\x00-\x1f]+")
_FLAG = r"^--?[A-Za-z][A-Za-z0-9-]*(=[A-Za-z0-9_.,:+%/@\[\]*-]*)?$"
_LONGEST_TOKEN = 16384


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return path.rstrip("/") or "/"


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
DnsName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
Annotation = Annotated[str, StringConstraints(max_length=4096, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f]*$")]
AnnotationName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9./_-]{0,250}[A-Za-z0-9])?$")]


class Reference(Document):
    """Where a secret is: never the secret itself."""

    file: AbsolutePath | None = None
    env: Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.file is None) == (self.env is None):
            raise ValueError("give either file or env")
        return self

    def read(self) -> str:
        """The secret, as it is now. Raises DriverError, naming the place and never the content."""
        if self.env is not None:
            text = os.environ.get(self.env, "")
            where = f"the variable {self.env}"
        else:
            where = f"the file {self.file}"
            try:
                with Path(self.file or "").open("rb") as file:
                    text = file.read(_LONGEST_TOKEN + 1).decode("ascii").strip()
            except OSError as error:
                raise DriverError(f"The plugin's token cannot be read from {where}: {error.strerror}.") from None
            except UnicodeDecodeError:
                text = ""
        if not text.isascii() or not text.isprintable() or not 0 < len(text) <= _LONGEST_TOKEN:
            raise DriverError(f"There is no token in {where}.")
        return text


class Amounts(Document):
    """So much of each resource."""

    cpus: Milli
    memory: Bytes
    gpus: Annotated[int, Field(ge=0, le=1_000_000)] = 0

    @property
    def resources(self) -> Resources:
        """The same as the rest of Atoll counts it."""
        return Resources(self.cpus, self.memory, self.gpus * 1000)


class ClassOptions(Document):
    """What pods of one class of jobs get."""

    flags: Annotated[
        list[Annotated[str, StringConstraints(pattern=_FLAG)]],
        Field(default_factory=list, description="Options of the batch system, for slurm-job.vk.io/flags."),
    ]
    annotations: Annotated[dict[AnnotationName, Annotation], Field(default_factory=dict)]


class InterlinkConfig(Document):
    """How to reach a plugin, and what it has."""

    url: Annotated[str, Field(description="http://HOST:PORT, https://HOST:PORT or unix:///PATH.")]
    token: Annotated[Reference | None, Field(description="Bearer token, by file or environment variable.")] = None
    ca: Annotated[AbsolutePath | None, Field(description="Certificate of the authority that signed the plugin's.")] = (
        None
    )
    certificate: Annotated[AbsolutePath | None, Field(description="Client certificate.")] = None
    key: Annotated[AbsolutePath | None, Field(description="Key of the client certificate.")] = None
    timeout: Annotated[Seconds, Field(ge=1, le=600, description="Longest that one call may take.")] = 15
    submit_seconds: Annotated[Seconds, Field(ge=1, le=600, description="Longest that one batch may take.")] = 20
    at_once: Annotated[int, Field(ge=1, le=64, description="Calls that the plugin is given at once.")] = 1
    create: Annotated[
        Literal["auto", "object", "list"], Field(description="What POST /create is sent. auto: learnt.")
    ] = "auto"
    namespace: DnsName = "atoll"
    image: Annotated[Text | None, Field(description="Image of jobs that name none. Default: they are refused.")] = None
    total: Annotated[Amounts | None, Field(description="What the site has. Default: as the plugin tells.")] = None
    node: Annotated[Amounts | None, Field(description="The largest node. Default: as total.")] = None
    nodes: Annotated[int, Field(ge=1, le=1_000_000)] = 1
    flavor: Annotated[Name | None, Field(description="Name of the kind of hardware. Default: cpu, or gpu.")] = None
    gpu_resource: AnnotationName = "nvidia.com/gpu"
    max_jobs: Annotated[int | None, Field(ge=1, description="Most pods of ours at once.")] = None
    max_walltime: Annotated[Seconds | None, Field(ge=1)] = None
    annotations: Annotated[dict[AnnotationName, Annotation], Field(default_factory=dict)]
    classes: Annotated[dict[JobClass, ClassOptions], Field(default_factory=dict)]
    folder: Annotated[AbsolutePath, Field(description="Where attempts work inside their pods.")] = "/tmp"  # noqa: S108
    mount: Annotated[AbsolutePath, Field(description="Where pods find what is sent beside them.")] = "/mnt/atoll"
    checkpoints: Annotated[
        AbsolutePath | None, Field(description="A folder that all pods see. Default: checkpoints are not kept.")
    ] = None
    pod_data: Annotated[bool, Field(description="Whether the plugin mounts config maps and secrets.")] = True
    run_as_user: Annotated[bool, Field(description="Whether the plugin honours securityContext.runAsUser.")] = False
    answer_age: Annotated[
        Seconds, Field(le=3600, description="How old the plugin's answers may be: some answer from memory for a while.")
    ] = 12
    status_chunk: Annotated[int, Field(ge=1, le=100_000, description="Pods in one question.")] = 1000
    answer_limit: Annotated[Bytes, Field(ge=4096, le=1 << 30, description="Longest answer that is read.")] = 32 << 20
    log_limit: Annotated[Bytes, Field(ge=4096, le=1 << 30, description="Most output of one pod that is read.")] = (
        64 << 20
    )

    @field_validator("url")
    @classmethod
    def _reachable(cls, value: str) -> str:
        if not _URL.fullmatch(value):
            raise ValueError(f"{value[:80]!r} must be http://HOST:PORT, https://HOST:PORT or unix:///PATH")
        return value.rstrip("/")

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("give certificate and key together")
        if (self.ca or self.certificate) and not self.url.startswith("https://"):
            raise ValueError("ca, certificate and key are for https only")
        if self.node is not None and self.total is None:
            raise ValueError("give total where node is given")
        if self.node is not None and self.total is not None and not self.node.resources.fits(self.total.resources):
            raise ValueError("node has more than total")
        return self


_KNOWN = {
    "": list(InterlinkConfig.model_fields),
    "token": list(Reference.model_fields),
    "total": list(Amounts.model_fields),
    "node": list(Amounts.model_fields),
    "classes": list(ClassOptions.model_fields),
    **{each.value: list(ClassOptions.model_fields) for each in JobClass},
}


def read_config(config: Mapping[str, Any]) -> InterlinkConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        return InterlinkConfig.model_validate(dict(config))
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "site", "config.") from None
