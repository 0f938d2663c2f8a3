"""The HTCondor driver passes the contract at a real pool, where there is one.

HTCondor's daemons are neither in Debian nor on a package index, so most machines have none: there these cases are
skipped, and `tests/drivers/htcondor` shows what can be shown without them.
"""

import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from atoll.drivers.contract import DriverContract
from tests.contract.htcondor_harness import PoolHarness
from tests.support.engines import skip_without


def configuration() -> str | None:
    """HTCondor's configuration, where there is one; the bindings themselves set the variable to what is no file."""
    file = os.environ.get("CONDOR_CONFIG", "")
    return file if Path(file).is_file() else None


class TestHtcondor(DriverContract):
    @pytest.fixture
    async def harness(self, tmp_path: Path) -> AsyncIterator[PoolHarness]:
        config = configuration()
        if config is None and shutil.which("condor_master") is None:
            skip_without("HTCondor", "condor_master is not on the PATH and CONDOR_CONFIG names no file")
        harness = PoolHarness(tmp_path, **({"condor_config": config} if config else {}))
        await harness.start()
        yield harness
        await harness.tear_down()
