"""How long the command line takes to come up."""

from __future__ import annotations

import compileall
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import atoll
from bench.figures import Row, Target


def compile_bytecode() -> None:
    """Have bytecode as an installed package has it; PYTHONDONTWRITEBYTECODE would keep Python from keeping any."""
    compileall.compile_dir(Path(atoll.__file__).parent, quiet=2)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Milliseconds of `atoll --help` and, for comparison, of a Python that does nothing."""
    del folder
    command = Path(sys.executable).with_name("atoll")
    note = f"Wall time of {command.name} as installed beside this Python, with bytecode."
    runs = 3 if small else 10
    _once([str(command), "--help"])
    helped = [_once([str(command), "--help"]) for _ in range(runs)]
    nothing = [_once([sys.executable, "-c", "pass"]) for _ in range(runs)]
    yield Row("atoll --help", "ms", helped, Target("under", 300), note=note)
    yield Row("python -c pass", "ms", nothing)


def _once(command: list[str]) -> float:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("ATOLL_", "PYTHON"))}
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL, env=environment)
    return 1000 * (time.perf_counter() - began)
