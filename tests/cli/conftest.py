"""Running the command line in this process, where a test needs no process of its own."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.cli.main import run
from tests.support.platform import RunningPlatform


@dataclass(frozen=True)
class Done:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


Atoll = Callable[..., Done]


@pytest.fixture
def atoll(capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Atoll:
    """Runs `atoll WORDS...` in an empty folder, with no platform known."""
    for name in [name for name in os.environ if name.startswith("ATOLL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.setenv("ATOLL_TIMEOUT", "10")
    monkeypatch.chdir(tmp_path)

    def command(*words: str, stdin: str = "") -> Done:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin.encode())))
        code = run(list(words))
        sys.stdout.flush()
        captured = capfdbinary.readouterr()
        return Done(code, captured.out.decode(), captured.err.decode())

    return command


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    """A platform of this machine, for the tests of one file."""
    with RunningPlatform(tmp_path_factory.mktemp("platform") / "data") as platform:
        yield platform


@pytest.fixture
def there(atoll: Atoll, platform: RunningPlatform, monkeypatch: pytest.MonkeyPatch) -> Atoll:
    """Runs `atoll WORDS...` against that platform."""
    monkeypatch.setenv("ATOLL_DATA", str(platform.data))
    return atoll
