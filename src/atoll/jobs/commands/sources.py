"""What is to be submitted, read from a YAML file, a script or a command: documents, and the files that go with them."""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from atoll.core.errors import Invalid
from atoll.jobs.commands.options import Asked

if TYPE_CHECKING:
    from atoll.client.files import LocalFile
    from atoll.core.slurm.fields import Surroundings
    from atoll.core.spec import JobSpec

LARGEST_FILE = 64 * 1024 * 1024
"""Bytes of the largest file of jobs that is read."""


@dataclass(frozen=True)
class Order:
    """Jobs to be submitted together, the files they need, and what the command is to do besides."""

    specs: "tuple[JobSpec, ...]"
    files: "tuple[LocalFile, ...]"
    hold: bool = False
    client: frozenset[str] = frozenset()
    """sbatch's options for the command itself: parsable, quiet, test-only, verbose, wait."""
    warnings: tuple[str, ...] = ()


def read_order(words: list[str], *, is_command: bool, sbatch: list[str], asked: Asked) -> Order:
    """What the command line asks to be submitted. Raises Invalid, naming the file and the line or field."""
    options = [*sbatch, *asked.sbatch]
    wrapped = any(word == "--wrap" or word.startswith("--wrap=") for word in sbatch)
    if is_command or wrapped:
        if wrapped and words:
            raise Invalid("two_commands", "Give either a command or --wrap.", field="--wrap")
        if not words and not wrapped:
            raise Invalid("no_command", "There is no command after --; write for example: atoll submit -- echo hello.")
        return _from_command(words, options, asked)
    if not words:
        if sys.stdin.isatty():
            raise Invalid(
                "nothing_to_submit",
                "Say what to run: atoll submit FILE, or a command after --, as in: atoll submit -- echo hello.",
            )
        words = ["-"]
    name, text = _read_file(words[0], words)
    if _is_script(name, text):
        return _from_script(name, text, words[1:], options, asked)
    if len(words) > 1:
        what = f"options go before the file: atoll submit {words[1]} {words[0]}" if words[1].startswith("-") else (
            "a file of jobs takes no arguments; for a command put -- before it"
        )  # fmt: skip
        raise Invalid("too_many_words", f"{words[1]!r} after {words[0]}: {what}.")
    folder = Path.cwd() if words[0] == "-" else Path(words[0]).parent
    return _from_documents(name, text, folder, options, asked)


def _surroundings() -> "Surroundings":
    from atoll.core.slurm.fields import Surroundings

    return Surroundings(datetime.now(UTC), submit_dir=str(Path.cwd()), variables=os.environ)


def _from_command(words: list[str], options: list[str], asked: Asked) -> Order:
    from atoll.core.script import read_options
    from atoll.core.spec import read_spec

    request = read_options(options, _surroundings())
    document = {**request.spec, "command": words} if words else dict(request.spec)
    spec = read_spec(asked.over(document))
    return Order((spec,), asked.files, request.hold or asked.hold, request.client, request.warnings)


def _from_script(name: str, text: str, args: list[str], options: list[str], asked: Asked) -> Order:
    from atoll.core.script import read_script
    from atoll.core.spec import read_spec

    filename = None if name == "-" else Path(name).name
    try:
        request = read_script(text, _surroundings(), options=options, args=args, filename=filename)
        spec = read_spec(asked.over(request.spec))
    except Invalid as error:
        raise _at(name, error) from None
    return Order((spec,), asked.files, request.hold or asked.hold, request.client, request.warnings)


def _from_documents(name: str, text: str, folder: Path, options: list[str], asked: Asked) -> Order:
    from atoll.client.files import take_sources
    from atoll.core.script import merge, read_options
    from atoll.core.spec import read_spec

    request = read_options(options, _surroundings())
    specs: list[JobSpec] = []
    files: list[LocalFile] = list(asked.files)
    for place, document in _documents(name, text):
        try:
            ready, found = take_sources(document, folder)
            specs.append(read_spec(asked.over(merge(ready, request.spec))))
        except Invalid as error:
            raise _at(place.shown(error.field), error) from None
        files += found
    if not specs:
        raise Invalid("no_jobs", f"{name} holds no job; write at least: command: echo hello.", field="jobs")
    return Order(tuple(specs), tuple(files), request.hold or asked.hold, request.client, request.warnings)


def _at(place: str, error: Invalid) -> Invalid:
    """The same error, saying where it is."""
    shown = "standard input" + place[1:] if place == "-" or place.startswith("- ") else place
    return Invalid(error.code, f"{shown}: {error.sentence}", field=error.field, errors=error.errors)


@dataclass(frozen=True)
class _Place:
    """Where in a file a job is written."""

    name: str
    text: str
    path: tuple[str | int, ...] = ()

    def shown(self, field: str | None) -> str:
        """The file with the line of `field`, of the nearest thing around it where it is not written."""
        import yaml

        node = yaml.compose(self.text, Loader=yaml.SafeLoader)
        line = node.start_mark.line if node is not None else 0
        for step in (*self.path, *(field or "").split(".")):
            found = _step(node, str(step))
            if found is None:
                break
            line, node = found
        within = "".join(f"[{step}]" if isinstance(step, int) else step for step in self.path)
        return f"{self.name} line {line + 1}{', ' + within if within else ''}"


def _step(node: Any, step: str) -> tuple[int, Any] | None:
    """The line and the value of an entry of a YAML mapping or list."""
    if isinstance(node.value, list) and step.isdecimal() and int(step) < len(node.value):
        found = node.value[int(step)]
        return (found.start_mark.line, found) if not isinstance(found, tuple) else None
    pairs = [pair for pair in node.value if isinstance(pair, tuple)] if isinstance(node.value, list) else []
    return next(((key.start_mark.line, value) for key, value in pairs if key.value == step), None)


def _read_file(given: str, words: list[str]) -> tuple[str, str]:
    try:
        if given == "-":
            data = sys.stdin.buffer.read(LARGEST_FILE + 1)
        else:
            with Path(given).open("rb") as file:
                data = file.read(LARGEST_FILE + 1)
    except FileNotFoundError:
        import shlex

        raise Invalid(
            "no_such_file",
            f"There is no file {given!r} here; for a command put -- before it: atoll submit -- {shlex.join(words)}.",
            field="file",
        ) from None
    except OSError as error:
        raise Invalid("unreadable", f"{given} cannot be read: {error.strerror}.", field="file") from None
    if len(data) > LARGEST_FILE:
        raise Invalid(
            "too_large", f"{given} is larger than {LARGEST_FILE >> 20} MiB; send data with --in.", field="file"
        )
    try:
        return given, data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise Invalid(
            "not_text",
            f"{given} line {line}: This is no UTF-8 text; give a script or a YAML file, and for a program put -- "
            "before it.",
            field="file",
        ) from None


def _is_script(name: str, text: str) -> bool:
    """Whether the text is a script, and not a document."""
    if name.lower().endswith((".yaml", ".yml", ".json")):
        return False
    if text.startswith("#!"):
        return True
    if name.lower().endswith((".sh", ".bash", ".slurm", ".sbatch", ".py")):
        return True
    first = next((line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")), "")
    key, colon, _ = first.partition(":")
    return not (first.startswith(("---", "- ", "{", "[")) or (colon and key.strip().replace("_", "").isalnum()))


def _documents(name: str, text: str) -> Iterator[tuple[_Place, Mapping[str, Any]]]:
    """The job documents of a file, and where each is written. Raises Invalid."""
    from atoll.core.documents import read_yaml

    for part in _parts(text):
        try:
            whole = read_yaml(part)
        except Invalid as error:
            raise _at(name, error) from None
        if whole is None:
            continue
        place = _Place(name, part)
        if isinstance(whole, dict) and "jobs" in whole:
            if others := [str(key) for key in whole if key != "jobs"]:
                sentence = f"{others[0]}: Beside 'jobs' nothing else may stand; put it into each job."
                raise _at(place.shown(others[0]), Invalid("invalid_job", sentence, field=others[0]))
            if not isinstance(whole["jobs"], list):
                sentence = "jobs: Write a list of jobs, each beginning with '- '."
                raise _at(place.shown("jobs"), Invalid("invalid_job", sentence, field="jobs"))
            jobs = [(_Place(name, part, ("jobs", at)), job) for at, job in enumerate(whole["jobs"])]
        elif isinstance(whole, list):
            jobs = [(_Place(name, part, (at,)), job) for at, job in enumerate(whole)]
        else:
            jobs = [(place, whole)]
        for where, job in jobs:
            if not isinstance(job, dict):
                sentence = "A job is written as fields and values, as in: command: echo hello."
                raise _at(where.shown(None), Invalid("invalid_job", sentence))
            yield where, job


def _parts(text: str) -> Iterator[str]:
    """The documents of a YAML stream, each on the lines where it stands, so that errors name the right ones."""
    lines = text.split("\n")
    starts = [0, *(at for at, line in enumerate(lines) if line == "---" or line.startswith(("--- ", "---\t")))]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        body = [line.removeprefix("---") if at == 0 and start else line for at, line in enumerate(lines[start:end])]
        if start == 0 and body and body[0].startswith("---"):
            body[0] = body[0].removeprefix("---")
        if any(line.strip() and not line.lstrip().startswith("#") for line in body):
            yield "\n" * start + "\n".join(line for line in body if line != "...")
