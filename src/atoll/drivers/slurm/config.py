"""What the site file of a Slurm site may say under `config`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from atoll.core.errors import Invalid
from atoll.core.spec import Document, JobClass, Name, explain_validation
from atoll.drivers.shell.config import SshFields

_WORD = r"^[A-Za-z0-9_][A-Za-z0-9_.,:@+=/-]{0,254}$"
Word = Annotated[str, StringConstraints(pattern=_WORD)]
Variable = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,254}$")]


def _absolute(path: str) -> str:
    if not path.startswith("/") or any(not letter.isprintable() for letter in path) or len(path) > 1024:
        raise ValueError(f"{path[:80]!r} must be an absolute path")
    return path.rstrip("/") or "/"


AbsolutePath = Annotated[str, AfterValidator(_absolute)]

RUNNERS = {"apptainer": "apptainer", "singularity": "apptainer", "ch-run": "charliecloud", "oci.conf": "oci"}
"""What runs images, by the program (or file) that shows that a site has it; the first that is there is taken."""


def _runner(said: str) -> str:
    if said in {"none", *RUNNERS.values()}:
        return said
    programs = [name for name in RUNNERS if name != "oci.conf"]
    if said.startswith("/") and said.rpartition("/")[2] in programs:
        return _absolute(said)
    raise ValueError(
        f"{said[:80]!r} is none of {', '.join(dict.fromkeys(RUNNERS.values()))}, none, and no path of one of: "
        f"{', '.join(programs)}"
    )


class ClassOptions(Document):
    """How jobs of one class are handed to Slurm; what is left out is the cluster's own default."""

    partition: Annotated[Word | None, Field(description="Partition, or several with commas between them.")] = None
    qos: Annotated[Word | None, Field(description="Quality of service.")] = None
    account: Annotated[Word | None, Field(description="Slurm account that is charged.")] = None
    reservation: Annotated[Word | None, Field(description="Reservation to run in.")] = None
    constraint: Annotated[
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_&|*!()\[\],.:=-]{1,255}$")] | None,
        Field(description="Node features, as sbatch has them."),
    ] = None


class SlurmConfig(SshFields):
    """How the cluster is reached, and what Atoll may do there."""

    transport: Annotated[
        Literal["local", "ssh", "rest"], Field(description="Commands here, commands at a login node, or slurmrestd.")
    ] = "local"
    slurm_conf: Annotated[AbsolutePath | None, Field(description="slurm.conf, where it is not the default one.")] = None
    bin: Annotated[AbsolutePath | None, Field(description="Folder of Slurm's commands, where PATH has them not.")] = (
        None
    )
    classes: Annotated[
        dict[JobClass, ClassOptions],
        Field(default_factory=dict, description="Partition, qos, account of each class of jobs."),
    ]
    folder: Annotated[
        AbsolutePath | None,
        Field(
            description="Where attempts live at the site, on a file system that all nodes share; `{account}` stands "
            "for the account, which else is added at the end. Default: `.atoll` in the account's home."
        ),
    ] = None
    environment: Annotated[dict[Variable, str], Field(default_factory=dict, description="Variables that all jobs get.")]
    path: Annotated[str | None, Field(description="PATH of jobs.")] = None
    conda: Annotated[AbsolutePath | None, Field(description="The site's conda program.")] = None
    containers: Annotated[
        Annotated[str, AfterValidator(_runner)] | None,
        Field(
            description="What runs images: apptainer, charliecloud, oci (Slurm's own --container), the path of a "
            "program, or none. Default: the first of them that the site has."
        ),
    ] = None
    images: Annotated[
        AbsolutePath | None, Field(description="Folder at the site in which images are found by name.")
    ] = None
    volumes: Annotated[
        dict[Name, AbsolutePath],
        Field(default_factory=dict, description="Folder of each volume at the site; mounted into images only."),
    ]

    url: Annotated[str | None, Field(pattern=r"^(https?|unix)://", description="Of slurmrestd (rest).")] = None
    token: Annotated[str | None, Field(min_length=1, description="Its token (rest).")] = None

    def options(self, job_class: JobClass) -> ClassOptions:
        """How jobs of `job_class` are handed to Slurm."""
        return self.classes.get(job_class, ClassOptions())


def read_config(config: Mapping[str, Any]) -> SlurmConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        read = SlurmConfig.model_validate(dict(config))
    except ValidationError as error:
        known = {"": list(SlurmConfig.model_fields)}
        known |= {name: list(ClassOptions.model_fields) for name in JobClass}
        raise explain_validation(error, known, "site", "config.") from None
    if read.transport == "ssh":
        read.ssh()
    elif read.transport == "rest" and read.containers == "oci":
        sentence = "config.containers: With transport rest Slurm's own containers (oci) are not served."
        raise Invalid("invalid_site", sentence, field="config.containers")
    for name in ("url", "token"):
        if read.transport == "rest" and getattr(read, name) is None:
            sentence = f"config.{name}: This field is required where the transport is rest."
            raise Invalid("invalid_site", sentence, field=f"config.{name}")
    return read
