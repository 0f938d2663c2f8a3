"""The loops in slow motion, before a played site."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.control.harness import SlowMotion
from tests.support.rows import opened


@pytest.fixture
def played() -> dict[str, Any]:
    """What the played site is like; files of tests say otherwise by a fixture of this name."""
    return {"cpus": 4}


@pytest.fixture
async def motion(database_url: str, tmp_path: Path, played: dict[str, Any]) -> AsyncIterator[SlowMotion]:
    """The loops, which go on a step at a time."""
    with opened(database_url) as database:
        slow = SlowMotion(database, tmp_path, **played)
        await slow.begin()
        yield slow
