"""docs/command-line.md has every command, every option of each, and the exit codes that the code has."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from atoll.cli.group import SECTIONS
from atoll.cli.main import app
from atoll.core import errors
from atoll.faces.terminal import exits

PAGE = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
EVERYWHERE = {"--url", "--timeout", "--format", "-o"}


def commands() -> Iterator[tuple[str, Any]]:
    group: Any = typer.main.get_command(app)
    for section in SECTIONS.values():
        for name in section:
            found = group.get_command(None, name)
            if hasattr(found, "commands"):
                yield from ((f"{name} {inner}", command) for inner, command in found.commands.items())
            else:
                yield name, found


COMMANDS = dict(commands())


def section(title: str) -> str:
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_with_all_its_options(name: str) -> None:
    text = section(name)
    assert f"`atoll {name}" in text
    if name in ("explain", "run"):  # what submit takes
        return
    options = {
        option
        for param in COMMANDS[name].params
        if hasattr(param, "is_flag")
        for option in (*param.opts, *param.secondary_opts)
    }
    assert {option for option in options - EVERYWHERE if not re.search(rf"`[^`]*(?<![\w-]){option}\b", text)} == set()


def test_explain_and_run_take_what_submit_takes() -> None:
    def options(name: str) -> set[str]:
        return {option for param in COMMANDS[name].params for option in getattr(param, "opts", ())}

    missing = options("submit") - options("run")
    assert missing == {"--idempotency-key", "--dry-run", "--wait", "-W", "--follow", "-o", "--format"}
    missing = options("submit") - options("explain")
    assert missing == {"--idempotency-key", "--dry-run", "--wait", "-W", "--follow"}


def test_no_command_is_described_that_is_not_there() -> None:
    described = re.findall(r"^### (.+)$", PAGE, re.MULTILINE)
    assert described == list(COMMANDS)


def codes(title: str) -> dict[int, str]:
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", section("Exit codes"), re.MULTILINE)
    return {int(code): text for code, text in rows}


def test_the_exit_codes_are_those_of_the_code() -> None:
    told = codes("Exit codes")
    of_jobs = {0, exits.NO_EXIT_CODE, exits.TIMED_OUT, exits.CANCELLED, exits.OUT_OF_MEMORY}
    branches = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.AtollError)
    ]
    of_errors = {kind.exit_code for kind in branches}
    assert told.keys() == of_jobs | of_errors | {exits.USAGE, exits.INTERRUPTED, exits.READER_GONE}
    assert f"{exits.SIGNALLED} + N" in PAGE
    for code, word in (
        (exits.NO_EXIT_CODE, "without an exit code"), (exits.TIMED_OUT, "walltime"), (exits.CANCELLED, "cancelled"),
        (exits.OUT_OF_MEMORY, "memory"), (exits.USAGE, "command line"), (exits.INTERRUPTED, "Ctrl-C"),
        (errors.Invalid.exit_code, "not valid"), (errors.NotFound.exit_code, "no such thing"),
        (errors.Unavailable.exit_code, "does not answer"), (errors.Internal.exit_code, "fault of Atoll"),
        (errors.Conflict.exit_code, "state"), (errors.Exhausted.exit_code, "limit"),
        (errors.Denied.exit_code, "may not"), (exits.READER_GONE, "went away"),
    ):  # fmt: skip
        assert word in told[code], code
