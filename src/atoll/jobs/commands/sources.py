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
    try:
        for prefix, document in _documents(text):
            ready, found = take_sources(document, folder)
            specs.append(read_spec(asked.over(merge(ready, request.spec)), prefix))
            files += found
    except Invalid as error:
        raise _at(name, error) from None
    if not specs:
        raise Invalid("no_jobs", f"{name} holds no job; write at least: command: echo hello.", field="jobs")
    return Order(tuple(specs), tuple(files), request.hold or asked.hold, request.client, request.warnings)


def _at(name: str, error: Invalid) -> Invalid:
    """The same error, naming the file that it is in."""
    shown = "standard input" if name == "-" else name
    return Invalid(error.code, f"{shown}: {error.sentence}", field=error.field, errors=error.errors)


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
        raise Invalid("too_large", f"{given} is larger than {LARGEST_FILE >> 20} MiB; send data with --in.", field="file")
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
    return not (first.startswith(("---", "{", "[")) or (colon and key.strip().replace("_", "").isalnum()))


def _documents(text: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The job documents of a file, each with the beginning of its field names in errors."""
    from atoll.core.documents import read_yaml

    parts = list(_parts(text))
    for place, part in enumerate(parts):
        whole = read_yaml(part)
        if whole is None:
            continue
        prefix = f"document {place + 1}: " if len(parts) > 1 else ""
        if isinstance(whole, list):
            whole = {"jobs": whole}
        if not isinstance(whole, dict):
            raise Invalid("invalid_job", f"{prefix}A job is written as fields and values, as in: command: echo hello.")
        if "jobs" not in whole:
            yield prefix, whole
            continue
        if others := [key for key in whole if key != "jobs"]:
            raise Invalid(
                "invalid_job", f"{prefix}{others[0]}: Beside 'jobs' nothing else may stand; put it into each job.",
                field=str(others[0]),
            )  # fmt: skip
        yield from _listed_jobs(whole["jobs"], prefix)


def _listed_jobs(jobs: Any, prefix: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if not isinstance(jobs, list):
        raise Invalid("invalid_job", f"{prefix}jobs: Write a list of jobs, each beginning with '- '.", field="jobs")
    for place, job in enumerate(jobs):
        if not isinstance(job, dict):
            raise Invalid("invalid_job", f"{prefix}jobs.{place}: A job is written as fields and values.", field="jobs")
        yield f"{prefix}jobs.{place}.", job


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
