"""One plugin for all tests of the interLink driver."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.interlink_harness import InterlinkHarness
from tests.support.interlink import InterlinkPlugin


@pytest.fixture(scope="module")
def plugin() -> Iterator[InterlinkPlugin]:
    plugin = InterlinkPlugin()
    yield plugin
    plugin.stop()


@pytest.fixture
async def harness(tmp_path: Path, plugin: InterlinkPlugin) -> AsyncIterator[InterlinkHarness]:
    harness = InterlinkHarness(tmp_path, plugin, timeout=2)
    await harness.start()
    yield harness
    await harness.tear_down()
