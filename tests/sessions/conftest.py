"""A platform of processes, its relay, and a JupyterHub whose servers are the platform's jobs."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from atoll.client.synchronous import Client
from tests.support.engines import skip_without
from tests.support.hub import RunningHub
from tests.support.platform import RunningPlatform
from tests.support.ports import free_port
from tests.support.relay import RunningRelay


@pytest.fixture(scope="session", autouse=True)
def installed() -> None:
    if importlib.util.find_spec("jupyterhub") is None:
        skip_without("jupyterhub", "JupyterHub is not installed: pip install 'atoll[hub]'")


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, installed: None) -> Iterator[RunningPlatform]:
    """Its site is this machine, where the programs of our own environment are found."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    folder = tmp_path_factory.mktemp("platform") / "data"
    with RunningPlatform(folder, environment={"PATH": path}) as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Iterator[Client]:
    with Client(platform.url, platform.token) as connected:
        yield connected


@pytest.fixture(scope="module")
def person(client: Client) -> str:
    """Whose jobs may run at the site: who started the platform."""
    return client.me().person


@pytest.fixture(scope="module")
def hub_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def relay(platform: RunningPlatform, hub_port: int) -> Iterator[RunningRelay]:
    with RunningRelay(platform, f"127.0.0.1:{hub_port}") as running:
        yield running


@pytest.fixture(scope="module")
def hub(
    platform: RunningPlatform, relay: RunningRelay, hub_port: int, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningHub]:
    with RunningHub(platform, tmp_path_factory.mktemp("hub"), relay.port, hub=hub_port) as running:
        yield running
