"""The process driver passes the contract of drivers, by cgroup where permitted and by sampling."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.drivers.contract import CASES, DriverContract
from tests.contract.process_harness import ProcessHarness


class TestProcess(DriverContract):
    @pytest.fixture(params=["auto", "sampling"])
    async def harness(self, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[ProcessHarness]:
        folder = tmp_path / "volume"
        folder.mkdir()
        config = {
            "memory_by": request.param,
            "gpus": 2,
            "gpu_model": "a100",
            "volumes": {"data": {"path": str(folder)}},
        }
        harness = ProcessHarness(tmp_path, config)
        await harness.start()
        yield harness
        await harness.tear_down()


def test_contract_has_a_named_case_for_all_that_a_driver_must_do() -> None:
    assert len(CASES) >= 40
    assert all(CASES.values())
