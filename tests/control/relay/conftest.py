"""A platform of processes, a relay beside it, and one session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from atoll.client.synchronous import Client
from tests.support.platform import RunningPlatform
from tests.support.relay import RunningRelay, Target, session


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningPlatform]:
    with RunningPlatform(tmp_path_factory.mktemp("platform") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def client(platform: RunningPlatform) -> Iterator[Client]:
    with Client(platform.url, platform.token) as connected:
        yield connected


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with Target() as found:
        yield found


@pytest.fixture(scope="module")
def relay(platform: RunningPlatform, target: Target) -> Iterator[RunningRelay]:
    with RunningRelay(platform, target.address) as running:
        yield running


@pytest.fixture
def job(client: Client, relay: RunningRelay) -> Iterator[int]:
    """A session that can be reached."""
    made = client.submit(session(client))
    relay.wait_for(made.id)
    yield made.id
    client.cancel(made.id)
