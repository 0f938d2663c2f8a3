"""The Slurm driver passes the contract over slurmrestd with a token for each account, but for what that cannot do."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest

from atoll.drivers.contract import DriverContract
from atoll.drivers.contract.sizes import Gpus
from tests.contract.slurm_harness import SlurmHarness
from tests.support.slurm import SlurmCluster, need_slurm
from tests.support.slurmrestd import need_slurmrestd, start_slurmrestd

# two nodes with room for many small jobs, and one with GPUs in a partition of its own
SHAPE: dict[str, Any] = {
    "nodes": 3, "cpus": 48, "memory": 64_000, "gpus": ("a100", 1, 4), "max_array_size": 101,
    "partitions": ("main Nodes={0},{1} Default=YES MaxTime=INFINITE", "gpu Nodes={2} MaxTime=INFINITE"),
}  # fmt: skip


@pytest.fixture(scope="session")
def rest_cluster() -> Iterator[tuple[SlurmCluster, str]]:
    """A cluster, and the URL of its slurmrestd."""
    need_slurm()
    need_slurmrestd()
    with SlurmCluster(**SHAPE) as cluster:
        tokens = cluster.folder / "tokens"
        tokens.mkdir(mode=0o700)
        for account in ("root", "nobody"):
            (tokens / account).write_text(cluster.token(account, 7200))
            (tokens / account).chmod(0o600)
        yield cluster, start_slurmrestd(cluster)


def rest_config(cluster: SlurmCluster, url: str) -> dict[str, Any]:
    """What the site file says of it."""
    return {"transport": "rest", "url": url, "token": f"{cluster.folder}/tokens/{{account}}"}


class RestHarness(SlurmHarness):
    """Asks Slurm by slurmrestd alone; files are on this machine."""

    @property
    def executor(self) -> NoReturn:
        """The driver has the method, and says the same as an error."""
        pytest.skip("slurmrestd starts no commands inside a running job")


class TestSlurmRest(DriverContract):
    @pytest.fixture(params=[None, "nobody"], ids=["owner", "other"])
    async def harness(
        self, tmp_path: Path, rest_cluster: tuple[SlurmCluster, str], request: pytest.FixtureRequest
    ) -> AsyncIterator[RestHarness]:
        cluster, url = rest_cluster
        harness = RestHarness(tmp_path, cluster, request.param, rest_config(cluster, url))
        await harness.start()
        yield harness
        await harness.tear_down()


class TestGpusByRest(Gpus):
    @pytest.fixture
    async def harness(self, tmp_path: Path, rest_cluster: tuple[SlurmCluster, str]) -> AsyncIterator[RestHarness]:
        cluster, url = rest_cluster
        config = rest_config(cluster, url) | {"classes": {"batch": {"partition": "gpu"}}}
        harness = RestHarness(tmp_path, cluster, config=config)
        harness.gpus = 4
        await harness.start()
        yield harness
        await harness.tear_down()
