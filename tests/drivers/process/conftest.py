"""A process site in a temporary folder, torn down with everything that it started."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.contract.process_harness import ProcessHarness


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[ProcessHarness]:
    harness = ProcessHarness(tmp_path)
    await harness.start()
    yield harness
    await harness.tear_down()


@pytest.fixture(params=["auto", "sampling"])
async def either(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ProcessHarness]:
    """Once with memory held by cgroup where permitted, once by looking."""
    harness = ProcessHarness(tmp_path, {"memory_by": request.param})
    await harness.start()
    yield harness
    await harness.tear_down()
