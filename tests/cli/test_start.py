"""The command line starts quickly, helps, suggests, and never shows a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from atoll.cli.group import SECTIONS
from atoll.core.errors import Internal, Unavailable
from atoll.faces.terminal.exits import INTERRUPTED, READER_GONE, USAGE
from tests.cli.conftest import Atoll

ATOLL = [sys.executable, "-m", "atoll"]
HEAVY = ("pydantic", "httpx2", "yaml", "rich", "asyncio", "sqlalchemy", "numpy", "fastapi")
COMMANDS = [name for commands in SECTIONS.values() for name in commands]


def test_help_takes_less_than_300_ms() -> None:
    times = []
    for _ in range(7):
        start = time.perf_counter()
        subprocess.run([*ATOLL, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.3, f"the fastest of {len(times)} took {min(times):.3f} s"


@pytest.mark.parametrize(
    "module", ["atoll", "atoll.cli.main", "atoll.jobs.commands", "atoll.cli.platform", "atoll.cli.simulate"]
)
def test_nothing_heavy_is_imported_before_it_is_needed(module: str) -> None:
    code = f"import sys, {module}; print(*[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_package_gives_the_typed_client() -> None:
    import atoll as package

    assert {name for name in package.__all__ if getattr(package, name, None) is None} == set()
    assert set(package.__all__) <= set(dir(package))
    with pytest.raises(AttributeError, match="Cleint"):
        package.Cleint  # noqa: B018  (looked up for its error)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_help_is_there_and_helps(atoll: Atoll, command: str) -> None:
    assert f"  {command} " in atoll("--help").out
    done = atoll(command, "--help")
    assert done.code == 0
    assert f"Usage: atoll {command}" in done.out


@pytest.mark.parametrize(
    ("words", "suggestion"),
    [
        (["sumbit"], "'submit'"),
        (["ps", "--sitee", "x"], "--site"),
        (["submit", "--nmae", "x", "--", "true"], "--name"),
        (["submit", "--ntask", "--", "true"], "--ntasks"),
        (["site", "lss"], "'ls'"),
        (["ps", "--state", "runing"], "'running'"),
    ],
)
def test_a_slip_is_answered_with_what_may_have_been_meant(
    atoll: Atoll, words: list[str], suggestion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATOLL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ATOLL_TOKEN", "t")
    done = atoll(*words)
    assert done.code != 0
    assert "Did you mean" in done.err
    assert suggestion in done.err
    assert done.err.startswith("atoll: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", [["nothing"], ["ps", "--no-such"], ["show"], ["ps", "-n", "x"], ["ps", "-o", "xml"]])
def test_a_wrong_command_line_ends_with_2_and_one_line(atoll: Atoll, words: list[str]) -> None:
    done = atoll(*words)
    assert (done.code, done.out) == (USAGE, "")
    assert done.err.startswith("atoll: ")
    assert "--help" in done.err
    assert done.err.count("\n") == 1


def test_without_a_platform_it_says_what_to_do(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = atoll("ps")
    monkeypatch.setenv("ATOLL_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("ATOLL_TOKEN", "t")
    away = atoll("ps", "--timeout", "0.1")
    for done in (nowhere, away):
        assert done.code == Unavailable.exit_code
        assert "atoll up" in done.err
        assert "Traceback" not in done.err


def test_a_fault_of_ours_is_one_line_that_asks_for_a_report(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise ZeroDivisionError("secret of the universe")

    monkeypatch.setattr("atoll.faces.terminal.command.connect", broken)
    done = atoll("ps")
    assert done.code == Internal.exit_code
    assert "please report it" in done.err
    assert "Traceback" not in done.err


@pytest.mark.parametrize("words", [["--help"], ["submit", "--dry-run", "--", "true"]])
def test_a_reader_that_goes_away_ends_it_quietly(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*ATOLL, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == READER_GONE
    assert done.stderr == ""


@pytest.mark.parametrize("words", [["--help"], ["submit", "--dry-run", "--", "true"], ["--version"]])
def test_a_full_disk_is_told_in_one_line(words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run([*ATOLL, *words], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == Internal.exit_code
    assert done.stderr.count("\n") == 1
    assert "No space left" in done.stderr


def test_ctrl_c_ends_it_with_130(tmp_path: Path) -> None:
    import signal

    environment = {**os.environ, "ATOLL_URL": "http://127.0.0.1:9", "ATOLL_TOKEN": "t", "ATOLL_TIMEOUT": "60"}
    with subprocess.Popen([*ATOLL, "ps"], env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert "trying again" in process.stderr.readline()  # it is in the middle of it now
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read()
        assert process.wait(10) == INTERRUPTED
    assert "Traceback" not in rest


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_the_commands(shell: str) -> None:
    environment = {
        **os.environ, "_ATOLL_COMPLETE": f"complete_{shell}", "COMP_WORDS": "atoll re", "COMP_CWORD": "1",
        "_TYPER_COMPLETE_ARGS": "atoll re", "_TYPER_COMPLETE_FISH_ACTION": "get-args",
    }  # fmt: skip
    done = subprocess.run(ATOLL, env=environment, capture_output=True, text=True)
    assert "requeue" in done.stdout
    assert "release" in done.stdout


def test_completion_knows_the_options_of_a_command() -> None:
    environment = {
        **os.environ, "_ATOLL_COMPLETE": "complete_bash", "COMP_WORDS": "atoll submit --dry", "COMP_CWORD": "2",
    }  # fmt: skip
    done = subprocess.run(ATOLL, env=environment, capture_output=True, text=True)
    assert done.stdout.split() == ["--dry-run"]


def test_completion_can_be_installed(tmp_path: Path) -> None:
    done = subprocess.run(
        [*ATOLL, "--show-completion", "bash"], env={**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert "_ATOLL_COMPLETE" in done.stdout


def test_up_without_the_servers_parts_says_how_to_install_them(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("atoll.cli.platform.NEEDED", ("sys", "not_installed_here"))
    done = atoll("up", "--data", "here")
    assert done.code == Unavailable.exit_code
    assert "pip install 'atoll[server]'" in done.err


def test_up_becomes_the_server_with_the_flags_that_were_given(atoll: Atoll, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda program, words: started.append([program, *words]))
    atoll("up", "--data", "here", "--port", "0", "--host", "::1", "--config", "c.yaml", "--stop-jobs")
    assert started == [
        [sys.executable, sys.executable, "-m", "atoll.front.main", "--data", "here", "--port", "0", "--host", "::1",
         "--config", "c.yaml", "--stop-jobs"]
    ]  # fmt: skip
