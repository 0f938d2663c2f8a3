"""The Slurm driver passes the contract of drivers at a real cluster, as its owner and as another account."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.drivers.contract import DriverContract
from atoll.drivers.contract.sizes import Gpus
from tests.contract.slurm_harness import SlurmHarness
from tests.support.slurm import SlurmCluster, need_slurm


@pytest.fixture(scope="session")
def slurm_cluster() -> Iterator[SlurmCluster]:
    """Two nodes with room for many small jobs, and one with GPUs in a partition of its own."""
    need_slurm()
    partitions = ("main Nodes={0},{1} Default=YES MaxTime=INFINITE", "gpu Nodes={2} MaxTime=INFINITE")
    with SlurmCluster(
        nodes=3, cpus=48, memory=64_000, gpus=("a100", 1, 4), partitions=partitions, max_array_size=101
    ) as cluster:
        yield cluster


class TestSlurm(DriverContract):
    @pytest.fixture(params=[None, "nobody"], ids=["owner", "other"])
    async def harness(
        self, tmp_path: Path, slurm_cluster: SlurmCluster, request: pytest.FixtureRequest
    ) -> AsyncIterator[SlurmHarness]:
        harness = SlurmHarness(tmp_path, slurm_cluster, request.param)
        await harness.start()
        yield harness
        await harness.tear_down()


class TestSlurmGpus(Gpus):
    """The same where the class's partition is the one with GPUs."""

    @pytest.fixture
    async def harness(self, tmp_path: Path, slurm_cluster: SlurmCluster) -> AsyncIterator[SlurmHarness]:
        harness = SlurmHarness(tmp_path, slurm_cluster, config={"classes": {"batch": {"partition": "gpu"}}})
        harness.gpus = 4
        await harness.start()
        yield harness
        await harness.tear_down()
