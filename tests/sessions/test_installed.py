"""What `pip install atoll[jupyterhub]` brings is enough for the spawner."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_OF_THE_PLATFORM = ("fastapi", "uvicorn", "uvloop", "asyncssh", "kubernetes_asyncio", "psycopg", "numpy", "msgspec")


def test_jupyterhub_finds_the_spawner_by_its_short_name() -> None:
    from jupyterhub.spawner import Spawner

    named = tomllib.loads(PYPROJECT.read_text())["project"]["entry-points"]["jupyterhub.spawners"]["atoll"]
    module, _, name = named.partition(":")
    assert issubclass(getattr(import_module(module), name), Spawner)


def test_the_spawner_needs_nothing_that_only_the_platform_has() -> None:
    code = "import sys, atoll.sessions.spawner; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "jupyterhub.spawner" in loaded
    assert not loaded & set(_OF_THE_PLATFORM)
