"""Renders what the wrapper needs to start an attempt: the shell text `launch`, and the script where there is one.

Called by every driver whose engine starts attempts through the wrapper. Nothing of a job is trusted: each text is
quoted, and names that mean something to a shell reach the command through env(1) instead of the shell.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from atoll.core.errors import Invalid
from atoll.core.patterns import expand_pattern
from atoll.drivers.base import Launch
from atoll.drivers.wrapper.secrets import SHELLS_OWN, quote, secret_lines

WRAPPER = Path(__file__).with_name("wrapper.sh")
"""The wrapper's own text, to be laid where the site can read it."""
LAUNCH, SCRIPT, STDOUT, STDERR, FILES, SECRETS = "launch", "script", "stdout", "stderr", "files", "secrets"
"""Names in an attempt's folder."""

_SHEBANG = re.compile(r"#![ \t]*([^ \t\n]+)(?:[ \t]+([^\n]*?))?[ \t]*(?:\n|\Z)")


@dataclass(frozen=True)
class Place:
    """Where an attempt runs at its site, and what only the site knows of it. Paths are absolute, at the site."""

    folder: str
    """The attempt's own folder."""
    workdir: str
    account: str
    """Name of the account that the attempt runs as."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables below the job's own: PATH, HOME, ..."""
    site_environment: Mapping[str, str] = field(default_factory=dict)
    """Variables above the job's own: ATOLL_SCRATCH, ATOLL_CHECKPOINT_DIR, ATOLL_MASTER_ADDR, ..."""
    own_output: bool = True
    """Whether the wrapper itself writes `stdout` and `stderr` in the folder; else the engine collects them."""
    files: str | None = None
    """Folder whose content is copied into the working directory before the start."""
    secrets: str | None = None
    """Folder with what `secret_files` says; None where the attempt has no secrets, or gets them in another way."""
    conda: str | None = None
    """The site's conda program."""
    seen: str | None = None
    """The attempt's folder as its command sees it, where that is another path: in an image."""
    withheld: frozenset[str] = frozenset()
    """Variables that nobody may set here, because the engine sets them for each attempt."""


def script_command(script: str, path: str) -> list[str]:
    """The words that run the script at `path`: by its #! line as the kernel reads it, else by /bin/sh.

    So the file needs neither the executable bit nor a file system that allows it.
    """
    match = _SHEBANG.match(script)
    if match is None:
        return ["/bin/sh", path]
    return [match[1], *([match[2]] if match[2] else []), path]


def command_words(launch: Launch, folder: str) -> list[str]:
    """The words of the job's command; of a script, those that run `FOLDER/script` with its arguments.

    Raises Invalid for a script with DOS line breaks: no interpreter would be found by its first line.
    """
    spec = launch.spec
    if spec.script is not None:
        if "\r\n" in spec.script:
            raise Invalid(
                "bad_script",
                "script: The script has DOS line breaks (\\r\\n) instead of UNIX ones (\\n); convert it with: "
                "dos2unix FILE, or: sed -i 's/\\r$//' FILE.",
                field="script",
            )
        return [*script_command(spec.script, f"{folder}/{SCRIPT}"), *spec.args]
    return list(spec.command or ())


def _with_env(words: Sequence[str], variables: Mapping[str, str]) -> list[str]:
    """`words` behind env(1), for variables that the wrapper's shell must not see."""
    if not variables:
        return list(words)
    settings = [f"{name}={value}" for name, value in variables.items()]
    if "=" in words[0] or words[0].startswith("-"):
        words = ["/bin/sh", "-c", 'exec "$0" "$@"', *words]
    return ["/usr/bin/env", *settings, *words]


def environment_of(launch: Launch, place: Place) -> dict[str, str]:
    """All variables of the job: the site's base, the platform's, the job's own, and what the site insists on."""
    variables = {**place.environment, **launch.environment, **launch.spec.env, **place.site_environment}
    return {name: value for name, value in variables.items() if name not in place.withheld}


def output_file(pattern: str | None, launch: Launch) -> str | None:
    """The file name that `pattern` stands for in this attempt. Raises Invalid for a symbol that is not known."""
    if pattern is None:
        return None
    return expand_pattern(
        pattern,
        job_id=launch.job_id,
        task=launch.task,
        name=launch.spec.title,
        person=launch.person,
        restarts=launch.number - 1,
    )


def _output_lines(launch: Launch, place: Place) -> list[str]:
    spec = launch.spec
    out = output_file(spec.stdout, launch)
    error = output_file(spec.stderr, launch)
    # Both in one file: as in Slurm, one stream.
    together = error is not None and error == out
    lines = []
    if place.own_output:
        lines.append(f"exec >>{STDOUT} 3>&1" if together else f"exec >>{STDOUT} 3>>{STDERR}")
        if out is not None:
            lines.append(f"atoll_stdout_file={quote(_plain_path(out))}")
        if error is not None and not together:
            lines.append(f"atoll_stderr_file={quote(_plain_path(error))}")
    return lines


def _plain_path(path: str) -> str:
    """A path that no program takes for an option."""
    return f"./{path}" if path.startswith("-") else path


def render_launch(launch: Launch, place: Place) -> str:
    """The text of the file `launch`.

    Raises Invalid for a file name pattern that is not known, and for a script with DOS line breaks.
    """
    spec = launch.spec
    variables = environment_of(launch, place)
    own = {name: value for name, value in variables.items() if SHELLS_OWN.fullmatch(name)}
    lines = _output_lines(launch, place)
    plain = [f"{name}={quote(value)}" for name, value in variables.items() if name not in own]
    if plain:
        lines.append("export " + " ".join(plain))
    lines.append(f"atoll_workdir={quote(place.workdir)}")
    if place.files is not None:
        lines.append(f"atoll_files={quote(place.files)}")
    if place.secrets is not None:
        lines += secret_lines(launch, place.secrets, None if place.seen is None else f"{place.seen}/{SECRETS}")
    if spec.stdin is not None:
        lines.append(f"atoll_stdin={quote(_plain_path(spec.stdin))}")
    if spec.environment is not None and spec.environment.venv is not None:
        lines.append(f"atoll_venv={quote(_absolute(spec.environment.venv, place.workdir))}")
    if spec.environment is not None and spec.environment.conda is not None:
        lines.append(f"atoll_conda={quote(place.conda or 'conda')}")
        lines.append(f"atoll_environment={quote(spec.environment.conda)}")
    words = _with_env(command_words(launch, place.seen or place.folder), own)
    lines.append("set -- " + " ".join(map(quote, words)))
    return "\n".join(lines) + "\n"


def _absolute(path: str, base: str) -> str:
    return path if path.startswith("/") else f"{base}/{path}"
