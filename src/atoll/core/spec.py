"""What a person asks to run: the job specification.

YAML, JSON and Python give the same object. `JobSpec` says only what was asked; what a site can do of it is checked
where sites are known. Reading is strict: an unknown field is an error with a suggestion, see `read_spec`.
"""

import re
import shlex
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)  # fmt: skip

from atoll.core.errors import Invalid
from atoll.core.ids import JobRef
from atoll.core.patterns import check_pattern, check_wildcards
from atoll.core.ranges import ArraySpec
from atoll.core.resources import Bytes, Milli, Seconds

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff\u2028\u2029]")
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.+@=-]{0,62}$"
_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
_CONSTRAINT = r"^[A-Za-z0-9_][A-Za-z0-9_./-]{0,62}(!?=[A-Za-z0-9_][A-Za-z0-9_.,/ -]{0,254})?$"
_SIGNALS = r"^(HUP|INT|QUIT|USR1|USR2|TERM|CONT|ALRM)$"
_SHA256 = r"^[0-9a-f]{64}$"


def _printable(text: str) -> str:
    if match := _CONTROL.search(text):
        raise ValueError(f"the character {match[0]!a} is not allowed; use printable characters only")
    if text != text.strip():
        raise ValueError("leading or trailing white space is not allowed")
    return text


def printable_lines(text: str) -> str:
    """A text of several lines, for validators. Raises ValueError for control characters but tabs and ends of lines."""
    if match := _CONTROL.search(re.sub(r"[\t\n]", "", text)):
        raise ValueError(f"the character {match[0]!a} is not allowed; use printable characters and newlines only")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("the character '\\x00' is not allowed: no process can be given it")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("the text is not valid Unicode (it has a lone surrogate)")
    return text


def _inside(path: str) -> str:
    """A relative path that stays inside the folder it is relative to."""
    _printable(path)
    if path.startswith(("/", "~")) or ".." in path.split("/") or path.endswith("/"):
        raise ValueError(f"{path!r} must be a path inside the working directory, without '..'")
    return path


def _pattern(text: str) -> str:
    """A file name whose `%` symbols are all known."""
    try:
        return check_pattern(text)
    except Invalid as error:
        raise ValueError(error.sentence) from None


def _argv(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return shlex.split(value)
        except ValueError as error:
            raise ValueError(f"the command line cannot be split into words: {error}") from None
    return value


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | Mapping) else value


Name = Annotated[str, StringConstraints(pattern=_NAME)]
Text = Annotated[str, StringConstraints(min_length=1, max_length=255), AfterValidator(_printable)]
Argument = Annotated[str, StringConstraints(max_length=131_072), AfterValidator(_no_nul)]
InsidePath = Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_inside)]


class Document(BaseModel):
    """Base of everything that people write: strict about unknown fields, and never changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True, protected_namespaces=())


class JobClass(StrEnum):
    """Decides order, and who may evict whom."""

    INTERACTIVE = "interactive"
    SERVICE = "service"
    BATCH = "batch"
    OPPORTUNISTIC = "opportunistic"


class Environment(Document):
    """The software that a job finds: an image, a conda environment, a Python venv, or (none of them) the site's own."""

    image: Annotated[Text | None, Field(description="OCI image, as in docker.io/library/python:3.12.")] = None
    conda: Annotated[Text | None, Field(description="Name or folder of a conda environment at the site.")] = None
    venv: Annotated[Text | None, Field(description="Folder of a Python venv at the site.")] = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if sum(value is not None for value in (self.image, self.conda, self.venv)) > 1:
            raise ValueError("give one of image, conda and venv")
        return self


class DependencyKind(StrEnum):
    """Which end of the other job lets this one go on."""

    OK = "ok"
    ANY = "any"
    NOT_OK = "not_ok"


class Dependency(Document):
    """Wait until another job has ended: in success (`ok`), in any way (`any`), or not in success (`not_ok`)."""

    job: Annotated[
        str,
        StringConstraints(min_length=1, max_length=64),
        AfterValidator(_printable),
        Field(description="Id of the job, as in 12 or 12[3]; in a file of several jobs also another's name."),
    ]
    on: DependencyKind = DependencyKind.OK


class Checkpoint(Document):
    """The folder `ATOLL_CHECKPOINT_DIR` survives between the attempts of a job at a site."""

    folder: Annotated[
        Name | None, Field(description="Name of the folder, where jobs share one; else the job's own.")
    ] = None
    every: Annotated[Seconds | None, Field(description="How often the job writes a checkpoint.")] = None


class EndSignal(Document):
    """A signal that the job gets before its walltime is over."""

    name: Annotated[str, StringConstraints(pattern=_SIGNALS)] = "TERM"
    before: Annotated[Seconds, Field(description="How long before the end.")] = 60


class Port(Document):
    """A port that the job listens on."""

    name: Name = "http"
    port: Annotated[int, Field(ge=1, le=65535)]


class Volume(Document):
    """A named volume and where the job finds it."""

    name: Name
    path: Annotated[str, StringConstraints(pattern=r"^/[^\x00-\x1f\x7f]*$", max_length=1024)]
    read_only: bool = False


class Secret(Document):
    """A secret of the person's, given to the job as a variable or as a file."""

    name: Name
    env: Annotated[str, StringConstraints(pattern=_VARIABLE)] | None = None
    file: InsidePath | None = None


class InputFile(Document):
    """A file that was uploaded by its content hash and is laid into the working directory before the start."""

    path: InsidePath
    sha256: Annotated[str, StringConstraints(pattern=_SHA256)]
    executable: bool = False


def _check_array(text: str) -> str:
    try:
        return str(ArraySpec.parse(text))
    except Invalid as error:
        raise ValueError(error.sentence) from None


def _dependencies(value: Any) -> Any:
    """Accept `12`, `"12"`, `"ok:12"` and mappings, alone or in a list."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, str | list | tuple | Mapping):
        return value
    entries = []
    for entry in _listed(value):
        if isinstance(entry, int) and not isinstance(entry, bool):
            if entry.bit_length() > 63:
                raise ValueError("a job's number has 18 digits at most")
            entries.append({"job": str(entry)})
        elif isinstance(entry, str):
            on, colon, job = entry.rpartition(":")
            entries.append({"job": job, "on": on} if colon else {"job": entry})
        else:
            entries.append(entry)
    return entries


_DEPENDENCIES_SCHEMA = {
    "type": "array",
    "items": {"anyOf": [{"$ref": "#/components/schemas/Dependency"}, {"type": "string"}]},
}


class JobSpec(Document):
    """A job as a person asks for it."""

    # factories, and no literals: pydantic copies a literal for each of a million jobs, at half the cost of reading one

    name: Annotated[Text | None, Field(description="For people; not unique. Default: the command's name.")] = None
    project: Annotated[Name | None, Field(description="Who pays. Default: the person's own project.")] = None
    class_: Annotated[JobClass, Field(alias="class")] = JobClass.BATCH
    command: Annotated[
        Annotated[list[Argument], Field(min_length=1, max_length=10_000)] | None,
        BeforeValidator(_argv),
        Field(description="The words of the command; or one line, split as sh does."),
    ] = None
    script: Annotated[
        Argument | None, Field(min_length=1, description="A script to run instead of a command; #! is honoured.")
    ] = None
    args: Annotated[list[Argument], Field(max_length=10_000, description="Arguments of the script.")] = Field(
        default_factory=list
    )
    workdir: Annotated[
        Annotated[str, StringConstraints(min_length=1, max_length=1024), AfterValidator(_no_nul)] | None,
        Field(description="Working directory at the site. Default: a new folder for each attempt."),
    ] = None
    env: Annotated[
        dict[Annotated[str, StringConstraints(pattern=_VARIABLE)], Argument],
        Field(max_length=1000, description="Environment variables."),
    ] = Field(default_factory=dict)
    environment: Environment | None = None

    cpu: Annotated[Milli, Field(description="CPUs on each node: 2, 0.5, 500m.")] = 1000
    memory: Annotated[
        Bytes | None, Field(description="Memory on each node: 4G. Default: the platform's memory for each CPU.")
    ] = None
    gpu: Annotated[Milli, Field(description="GPUs on each node: 1, 0.5.")] = 0
    flavor: Annotated[
        list[Name],
        BeforeValidator(_listed),
        Field(max_length=100, description="Kinds of hardware that will do, the preferred first. Default: any."),
    ] = Field(default_factory=list)
    nodes: Annotated[int, Field(ge=1, le=100_000)] = 1
    launch: Annotated[
        Literal["once", "each"], Field(description="Run the command once on the first node, or on each.")
    ] = "once"
    scratch: Annotated[Bytes, Field(description="Scratch space on each node.")] = 0

    walltime: Annotated[Seconds | None, Field(description="Longest run: 90s, 1h30m, 2-00:00:00.")] = None
    begin: Annotated[AwareDatetime | None, Field(description="Not before this time.")] = None
    array: Annotated[
        Annotated[str, StringConstraints(max_length=100_000), AfterValidator(_check_array)] | None,
        Field(description="0-99, 1,3,7, 0-99:2, with %10 for at most ten at once."),
    ] = None
    dependencies: Annotated[
        list[Dependency], BeforeValidator(_dependencies), Field(max_length=1000, description="Jobs to wait for.")
    ] = Field(default_factory=list)
    retries: Annotated[int, Field(ge=0, le=100, description="How often a failure is tried again.")] = 0
    rerun: Annotated[bool, Field(description="Run again when the site lost the job and nobody knows its end.")] = False
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    signal: EndSignal | None = None
    grace: Annotated[Seconds, Field(le=86_400, description="Time between being asked to stop and being killed.")] = 30
    checkpoint: Checkpoint | None = None

    ports: Annotated[list[Port], Field(max_length=100)] = Field(default_factory=list)
    volumes: Annotated[list[Volume], Field(max_length=100)] = Field(default_factory=list)
    secrets: Annotated[list[Secret], Field(max_length=100)] = Field(default_factory=list)
    constraints: Annotated[
        list[Annotated[str, StringConstraints(pattern=_CONSTRAINT)]],
        BeforeValidator(_listed),
        Field(max_length=100, description="On a site's labels: region=eu, region=eu,us, engine!=slurm, fast."),
    ] = Field(default_factory=list)
    offload: Annotated[
        Literal["never", "allowed", "only"], Field(description="Whether the job may leave the local sites.")
    ] = "allowed"

    files_in: Annotated[list[InputFile], Field(max_length=10_000)] = Field(default_factory=list)
    files_out: Annotated[
        list[Annotated[InsidePath, AfterValidator(check_wildcards)]],
        Field(max_length=1000, description="Files of the working directory to keep: out/*.csv."),
    ] = Field(default_factory=list)
    stdin: Annotated[
        Annotated[InsidePath, AfterValidator(_pattern)] | None,
        Field(description="File of the working directory to read as input: in-%a.txt."),
    ] = None
    stdout: Annotated[
        Annotated[Text, AfterValidator(_pattern)] | None,
        Field(description="File that gets the output too: out-%j.log."),
    ] = None
    stderr: Annotated[
        Annotated[Text, AfterValidator(_pattern)] | None,
        Field(description="File that gets the error output too; may be the same as stdout."),
    ] = None
    slurm: Annotated[bool, Field(description="Whether the processes get SLURM_* variables too.")] = False
    labels: Annotated[dict[Name, Annotated[str, StringConstraints(max_length=255), AfterValidator(_no_nul)]], Field(
        max_length=100, description="Free-form, for people and their tools."
    )] = Field(default_factory=dict)  # fmt: skip

    @field_validator("dependencies")
    @classmethod
    def _no_twice(cls, value: list[Dependency]) -> list[Dependency]:
        if len({dependency.job for dependency in value}) < len(value):
            raise ValueError("the same job is named twice")
        return value

    @field_validator("command")
    @classmethod
    def _can_be_run(cls, value: list[str] | None) -> list[str] | None:
        if value is not None and not value[0]:
            raise ValueError("the command's first word is empty")
        return value

    @field_validator("cpu")
    @classmethod
    def _some_cpu(cls, value: int) -> int:
        if value < 1:
            raise ValueError("write at least 1m (a thousandth of a CPU)")
        return value

    @field_validator("gpu")
    @classmethod
    def _whole_or_part(cls, value: int) -> int:
        if value > 1000 and value % 1000:
            raise ValueError("write whole GPUs, or a part of one")
        return value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.command is None) == (self.script is None):
            raise ValueError("give either a command or a script")
        if self.args and self.script is None:
            raise ValueError("args are the arguments of a script; a command has its own")
        return self

    @property
    def title(self) -> str:
        """The name, or else one made of the command."""
        if self.name is not None:
            return self.name
        if self.command is None:
            return "script"
        base = _CONTROL.sub("", self.command[0].rsplit("/", 1)[-1]).strip()
        return base[:255] or "job"

    @property
    def array_spec(self) -> ArraySpec | None:
        """The array asked for, None where the job is a single one."""
        return ArraySpec.parse(self.array) if self.array is not None else None

    def document(self) -> dict[str, Any]:
        """The specification as plain data, without what is left at its default."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)

    def to_json(self) -> str:
        """`document` as JSON text."""
        return self.model_dump_json(by_alias=True, exclude_defaults=True)


class ConstraintTerm(BaseModel):
    """One constraint on site labels, taken apart."""

    model_config = ConfigDict(frozen=True)
    label: str
    values: frozenset[str] = frozenset()
    negated: bool = False

    @classmethod
    def parse(cls, text: str) -> "ConstraintTerm":
        """Take apart a constraint that matches the specification's pattern."""
        label, equals, values = text.partition("=")
        names = frozenset(value.strip() for value in values.split(",")) if equals else frozenset()
        return cls(label=label.removesuffix("!"), values=names, negated=label.endswith("!"))

    def allows(self, labels: Mapping[str, str]) -> bool:
        """Whether a site with `labels` will do."""
        if not self.values:
            return self.label in labels
        return (labels.get(self.label) in self.values) != self.negated


def suggestion(word: str, known: list[str]) -> str:
    """` Did you mean 'x'?`, or nothing where no known word is like `word`."""
    near = nearest(word, known)
    return "" if near is None else f" Did you mean {near!r}?"


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`; None where none is like it."""
    near = get_close_matches(word.lower(), list(known), n=1, cutoff=0.6)
    return near[0] if near else None


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


_NESTED: dict[str, type[BaseModel]] = {
    "environment": Environment, "dependencies": Dependency, "checkpoint": Checkpoint, "signal": EndSignal,
    "ports": Port, "volumes": Volume, "secrets": Secret, "files_in": InputFile,
}  # fmt: skip


_HINTS = {
    _NAME: "Write a name of at most 63 letters, digits and _ . + @ = -, beginning with a letter, digit or _.",
    _VARIABLE: "Write a name of letters, digits and _ that does not begin with a digit.",
    _CONSTRAINT: "Write LABEL, LABEL=VALUE, LABEL=VALUE,VALUE or LABEL!=VALUE.",
    _SHA256: "Write the SHA-256 of a file that was sent before: 64 digits 0-9a-f. `atoll submit` fills it in itself.",
    _SIGNALS: "Write one of HUP, INT, QUIT, USR1, USR2, TERM, CONT, ALRM.",
}
"""What would be right, by the pattern that was not met."""


_MOST_MISTAKES = 10_000
"""So many mistakes are looked at one by one; taking apart a million of them costs minutes and gigabytes."""
_MOST_LISTED = 100


def explain_validation(error: ValidationError, known: Mapping[str, list[str]], what: str, prefix: str = "") -> Invalid:
    """Turn pydantic's error into Atoll's: each wrong field with one sentence, unknown ones with a suggestion.

    `known` gives the fields that may stand at a place: "" for the document itself, "ports" for its ports.
    """
    if error.error_count() > _MOST_MISTAKES:
        sentence = f"There are {error.error_count()} mistakes in this; it is no {what}, or one that a program garbled."
        return Invalid(f"invalid_{what}", sentence, field=prefix.rstrip(".") or None)
    errors: list[tuple[str, str]] = []
    for item in error.errors(include_url=False, include_input=True)[:_MOST_LISTED]:
        path = [str(part) for part in item["loc"] if not str(part).startswith(("function-", "list[", "constrained-"))]
        place = prefix + ".".join(path)
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            holder = next((part for part in path[:-1] if not part.isdigit()), "")
            message = f"There is no field {path[-1]!r} here.{suggestion(path[-1], known.get(holder, []))}"
        elif item["type"] == "missing":
            message = "This field is required."
        elif item["type"] == "string_pattern_mismatch":
            hint = _HINTS.get(item["ctx"]["pattern"], "Other characters are allowed here.")
            message = f"{str(item['input'])[:80]!r} cannot stand here. {hint}"
        elif item["type"] == "string_type":
            message = "Write text here, in quotes where it looks like a number or a truth value."
        elif item["type"] == "list_type":
            message = "Write a list here, as in [a, b]; text that looks like a number or a truth value goes in quotes."
        elif item["type"] in ("model_type", "dict_type", "model_attributes_type"):
            message = "Write fields here, as in {name: value}."
        errors.append((place, message[:1].upper() + message[1:] + ("" if message.endswith((".", "?")) else ".")))
    field, message = errors[0]
    sentence = f"{field}: {message}" if field else message
    return Invalid(f"invalid_{what}", sentence, field=field or None, errors=tuple(errors))


_KNOWN = {"": _field_names(JobSpec)} | {place: _field_names(model) for place, model in _NESTED.items()}


def read_spec(document: Any, prefix: str = "") -> JobSpec:
    """The specification that plain data (a parsed YAML or JSON file, a dict) says. Raises Invalid."""
    try:
        return JobSpec.model_validate(document)
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "job", prefix) from None


def read_spec_json(text: bytes | str) -> JobSpec:
    """The specification that JSON text says; faster than parsing first. Raises Invalid."""
    try:
        return JobSpec.model_validate_json(text)
    except ValidationError as error:
        raise explain_validation(error, _KNOWN, "job") from None


def parse_begin(text: str, now: datetime) -> datetime:
    """A begin time from ISO 8601 or, as in Slurm, `now+1hour`, `now+90`. Raises Invalid."""
    match = re.fullmatch(r"now(?:\+(\d{1,8})(seconds?|minutes?|hours?|days?|weeks?)?)?", text.strip())
    try:
        if match:
            unit = (match[2] or "seconds").rstrip("s") + "s"
            return now + timedelta(**{unit: int(match[1] or 0)})
        moment = datetime.fromisoformat(text.strip())
        return moment if moment.tzinfo else moment.astimezone()
    except (ValueError, OverflowError):
        raise Invalid(
            "bad_begin", f"{text[:80]!r} is no time; write 2026-05-01T12:00 or now+1hour.", field="begin"
        ) from None


__all__ = [
    "Checkpoint", "ConstraintTerm", "Dependency", "DependencyKind", "EndSignal", "Environment", "InputFile",
    "JobClass", "JobRef", "JobSpec", "Port", "Secret", "Volume", "explain_validation", "parse_begin", "read_spec",
    "read_spec_json", "suggestion",
]  # fmt: skip
