"""A cluster for the driver's own tests, with room for few jobs and ways to lose them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.contract.slurm_harness import SlurmHarness
from tests.support.slurm import SlurmCluster, need_slurm


@pytest.fixture(scope="module")
def small_cluster() -> Iterator[SlurmCluster]:
    """Two nodes of four CPUs; jobs in `high` take room from those in `low`."""
    need_slurm()
    partitions = (
        "low Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1 PreemptMode=CANCEL",
        "high Nodes=ALL MaxTime=01:00:00 PriorityTier=10 PreemptMode=OFF",
    )
    extra = ("PreemptType=preempt/partition_prio", "PreemptMode=CANCEL")
    with SlurmCluster(
        nodes=2, cpus=4, partitions=partitions, extra=extra, features="fast", max_array_size=201
    ) as cluster:
        yield cluster


@pytest.fixture
async def harness(tmp_path: Path, small_cluster: SlurmCluster) -> AsyncIterator[SlurmHarness]:
    """The driver at that cluster, as its owner; interactive jobs go to `high`."""
    classes = {"batch": {"partition": "low"}, "interactive": {"partition": "high"}}
    harness = SlurmHarness(tmp_path, small_cluster, config={"classes": classes})
    await harness.start()
    yield harness
    await harness.tear_down()


@pytest.fixture
async def own_harness(tmp_path: Path) -> AsyncIterator[SlurmHarness]:
    """The driver at a cluster that no other test uses after what is done to it here."""
    need_slurm()
    with SlurmCluster(nodes=1, cpus=4) as cluster:
        harness = SlurmHarness(tmp_path, cluster)
        await harness.start()
        yield harness
        await harness.driver.close()
