"""Runs the commands of a page in one shell, as a reader would type them one after the other."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.docs.pages import ROOT, Command, matches
from tests.support.platform import RunningPlatform

COMMAND_SECONDS = 120.0


class Shell:
    """A shell in `folder`/clone, which looks like a clone of the repository; `atoll` and `python` are on its PATH.

    Variables and the current folder stay from command to command.
    """

    def __init__(self, folder: Path, platform: RunningPlatform) -> None:
        self._folder = folder
        self._clone = folder / "clone"
        self._platform = platform
        self._process: subprocess.Popen[str] | None = None
        self._status = -1
        self._count = 0

    def __enter__(self) -> Self:
        programs = self._folder / "programs"
        programs.mkdir()
        self._clone.mkdir(exist_ok=True)
        for name in ("examples", "requirements"):
            (self._clone / name).symlink_to(ROOT / name)
        (self._clone / ".venv").symlink_to(sys.prefix)
        for name, words in (("atoll", "-m atoll "), ("python", ""), ("python3", "")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec {sys.executable} {words}"$@"\n')
            program.chmod(0o755)
        environment = self._platform.environment()
        environment |= {"PATH": f"{programs}:{environment['PATH']}", "COLUMNS": "120", "NO_COLOR": "1"}
        self._status, theirs = os.pipe()
        self._process = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True,
            cwd=self._clone, env={**environment, "STATUS": str(theirs)}, pass_fds=[theirs], start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.communicate()
        os.close(self._status)

    def run(self, command: Command) -> tuple[int, str]:
        """Run one command; its exit code and what it printed, output and errors as they came."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._count += 1
        text = self._folder / f"command-{self._count}"
        output = self._folder / f"output-{self._count}"
        text.write_text(command.text)
        how = f"python {text}" if command.language == "python" else f". {text}"
        # the shell itself runs it, so that what it sets stays; it reads no input but the file
        self._process.stdin.write(f"{{ {how}; }} >{output} 2>&1 </dev/null; echo $? >&$STATUS\n")
        self._process.stdin.flush()
        deadline = time.monotonic() + COMMAND_SECONDS
        if not select.select([self._status], [], [], deadline - time.monotonic())[0]:
            raise AssertionError(f"no end after {COMMAND_SECONDS:.0f} s; it printed:\n{output.read_text()}")
        code = os.read(self._status, 100).decode().strip()
        if not code:
            raise AssertionError(f"the shell ended; it printed:\n{output.read_text()}")
        return int(code), output.read_text(errors="replace")

    def check(self, page: str, command: Command) -> None:
        """Run one command, and fail where the page promises something else."""
        where = f"{page} line {command.line}:\n{command.text}"
        if command.writes is not None:
            (self._clone / command.writes).write_text(command.text)
            return
        try:
            code, printed = self.run(command)
        except AssertionError as error:
            raise AssertionError(f"{where}\n{error}\n{self._platform.tail()}") from None
        assert code == command.exit_code, f"{where}\nended with {code}, not {command.exit_code}, and printed\n{printed}"
        if command.expected is not None:
            assert matches(command.expected, printed), f"{where}\nprinted\n{printed}\nand not\n{command.expected}"
