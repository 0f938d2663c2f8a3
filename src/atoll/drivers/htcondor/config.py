"""What the site file of an HTCondor site may say under `config`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, ValidationError, model_validator

from atoll.core.resources import Seconds
from atoll.core.spec import Document, JobClass, Name, Text, explain_validation

Expression = Annotated[str, StringConstraints(min_length=1, max_length=2000, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A ClassAd expression, in one line; `$` is refused, because it begins a macro of the submit language."""
Attribute = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,99}$")]
Parameter = Annotated[str, StringConstraints(pattern=r"^[A-Z][A-Z0-9_.]{0,99}$")]
Host = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]<>?&=%@-]{1,512}$")]


def _absolute(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise ValueError(f"{path!r} must be an absolute path")
    return path.rstrip("/") or "/"


def _no_macro(text: str) -> str:
    if "$" in text:
        raise ValueError("a $ would begin a macro of the submit language")
    return text


def _accounts_apart(path: str) -> str:
    if path.count("{account}") != 1:
        raise ValueError("write {account} once, where the account's name belongs")
    return path


AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Plain = Annotated[Expression, AfterValidator(_no_macro)]


class Token(Document):
    """Where tokens are, never the tokens themselves: a file, or a folder of them as HTCondor has it."""

    file: AbsolutePath | None = None
    directory: AbsolutePath | None = None
    accounts: Annotated[
        Annotated[AbsolutePath, AfterValidator(_accounts_apart)] | None,
        Field(description="File of each account's token, as in /etc/atoll/tokens/{account}."),
    ] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.file is not None and self.directory is not None:
            raise ValueError("give one of file and directory")
        if self.file is None and self.directory is None and self.accounts is None:
            raise ValueError("give file, directory or accounts")
        return self


class ClassOptions(Document):
    """What jobs of one class get."""

    requirements: Plain | None = None
    accounting_group: Annotated[str | None, Field(pattern=r"^[A-Za-z0-9_.-]{1,200}$")] = None
    priority: Annotated[int | None, Field(ge=-1_000_000, le=1_000_000)] = None
    attributes: Annotated[dict[Attribute, Plain], Field(default_factory=dict, description="As MY.NAME = EXPRESSION.")]


class HtcondorConfig(Document):
    """How to reach a schedd, and what its jobs get."""

    collector: Annotated[Host | None, Field(description="The pool's central manager. Default: the local one.")] = None
    schedd: Annotated[Host | None, Field(description="Name of the schedd. Default: the local one.")] = None
    token: Token | None = None
    condor_config: Annotated[AbsolutePath | None, Field(description="HTCondor's own file. Default: none is read.")] = (
        None
    )
    parameters: Annotated[
        dict[Parameter, Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f]*$", max_length=2000)]],
        Field(default_factory=dict, description="Parameters of HTCondor, as in SEC_CLIENT_AUTHENTICATION_METHODS."),
    ]
    universe: Annotated[Literal["vanilla", "container"], Field(description="Of jobs that name no image.")] = "vanilla"
    image: Annotated[Text | None, Field(description="Image of jobs that name none, in the container universe.")] = None
    images: Annotated[bool, Field(description="Whether the pool runs container universe jobs.")] = True
    requirements: Annotated[Plain | None, Field(description="What every machine must meet.")] = None
    flavors: Annotated[
        dict[Name, Plain], Field(default_factory=dict, description="Kinds of machines, each by an expression.")
    ]
    classes: Annotated[dict[JobClass, ClassOptions], Field(default_factory=dict)]
    disk: Annotated[int, Field(ge=1, le=1 << 50, description="KiB of disk that a job gets where it asks for none.")] = (
        1 << 20
    )
    timeout: Annotated[Seconds, Field(ge=5, le=3600, description="Longest that one question may take.")] = 60
    keep_days: Annotated[float, Field(gt=0, le=365, description="How long an ended job waits in the queue for us.")] = (
        10
    )
    max_walltime: Annotated[Seconds | None, Field(ge=1)] = None
    max_jobs: Annotated[int | None, Field(ge=1, description="Most jobs of ours in the queue.")] = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.universe == "container" and self.image is None:
            raise ValueError("give image where universe is container")
        return self


_KNOWN = {
    "": list(HtcondorConfig.model_fields),
    "token": list(Token.model_fields),
    "classes": list(ClassOptions.model_fields),
}


def read_config(config: Mapping[str, Any]) -> HtcondorConfig:
    """The configuration that plain data says. Raises Invalid, naming the field."""
    try:
        return HtcondorConfig.model_validate(dict(config))
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "site", "config.") from None
