"""The driver of docs/drivers/writing.md runs: found by its entry point, made by the platform, held to the contract."""

import inspect
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.control import drivers
from atoll.core.errors import Invalid
from atoll.drivers.base import Driver, DriverSetup, Held, Phase, StopReason, StopRequest
from atoll.drivers.contract import CASES, DriverContract, Harness
from tests.contract.example.atoll_plain import PlainDriver

PAGE = Path(__file__).parents[2] / "docs" / "drivers" / "writing.md"
EXAMPLE = Path(__file__).parent / "example" / "atoll_plain.py"


class PlainHarness(Harness):
    interval = 0.1

    async def make_driver(self) -> Driver:
        return PlainDriver(DriverSetup("plain", self.instance, self.folder / "site", {}, self.owner))

    async def tear_down(self) -> None:
        states = (await self.driver.observe([])).states
        running = [name for name, status in states.items() if status.phase is not Phase.ENDED]
        await self.driver.stop([StopRequest(Held(name), StopReason.ORPHANED, 0) for name in running])
        await self.driver.close()


ENGINES_WORK = "this driver has no engine that ends jobs, and all that they started"
LEFT_OUT = {
    "walltime_ends_as_timed_out": ENGINES_WORK,
    "memory_ends_as_out_of_memory": ENGINES_WORK,
    "memory_of_several_processes_counts_together": ENGINES_WORK,
    "background_process_ends_with_the_job": ENGINES_WORK,
    "daemon_ends_with_the_job": ENGINES_WORK,
    "daemon_ends_when_the_job_is_killed": ENGINES_WORK,
}
"""What the example does not do. A driver that people rely on has no such list."""


class TestPlain(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[PlainHarness]:
        harness = PlainHarness(tmp_path)
        await harness.start()
        yield harness
        await harness.tear_down()


for name in LEFT_OUT:
    setattr(TestPlain, f"test_{name}", None)  # pytest passes over what cannot be called


def test_what_the_example_leaves_out_are_cases() -> None:
    assert CASES.keys() > LEFT_OUT.keys()


async def test_example_is_found_by_its_entry_point_and_has_to_be_enabled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `pip` would install it: a distribution with the lines that the documentation shows."""
    points = re.search(r'\[project\.entry-points\."atoll\.drivers"\]\n(\w+) = "(\w+):(\w+)"', PAGE.read_text())
    assert points is not None
    metadata = tmp_path / f"{points[2]}-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {points[2]}\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(f"[atoll.drivers]\n{points[1]} = {points[2]}:{points[3]}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    drivers._points.cache_clear()
    try:
        with pytest.raises(Invalid, match="enable it by name"):
            drivers.Drivers().make(points[1], setup(tmp_path))
        driver = drivers.Drivers([points[1]]).make(points[1], setup(tmp_path))
        assert (await driver.observe([])).states == {}
        with pytest.raises(Invalid, match=r"cpu.*Did you mean 'cpus'"):
            drivers.Drivers([points[1]]).make(points[1], setup(tmp_path, cpu=2))
    finally:
        drivers._points.cache_clear()
        sys.modules.pop(points[2], None)


def setup(folder: Path, **config: object) -> DriverSetup:
    return DriverSetup("plain", "aaaaa", folder / "site", config, "ann")


def test_example_of_the_documentation_is_the_one_that_runs() -> None:
    shown = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert EXAMPLE.read_text() in shown
    harness = inspect.getsource(PlainHarness)
    assert any(harness in block for block in shown)
