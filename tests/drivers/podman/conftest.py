"""A Podman site in a temporary folder; no container is left of it."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.podman_harness import PodmanHarness
from tests.support.podman import PodmanService, podman_service

__all__ = ["podman_service"]


@pytest.fixture
async def harness(tmp_path: Path, podman_service: PodmanService) -> AsyncIterator[PodmanHarness]:
    harness = PodmanHarness(tmp_path, podman_service)
    await harness.start()
    yield harness
    await harness.tear_down()
