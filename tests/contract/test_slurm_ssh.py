"""The Slurm driver passes the contract over SSH: as the site's own login, as a person with a key, and impersonated."""

import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atoll.drivers.base import Launch
from atoll.drivers.contract import DriverContract
from atoll.drivers.contract.sizes import Gpus
from tests.contract.slurm_harness import SlurmHarness
from tests.support.openssh import OpenSsh, made_accounts, need_openssh
from tests.support.slurm import SlurmCluster, need_slurm

SITE, PERSON = (f"atoll-test-{name}-{os.getpid()}" for name in ("site", "person"))

# two nodes with room for many small jobs, and one with GPUs in a partition of its own
SHAPE: dict[str, Any] = {
    "nodes": 3, "cpus": 48, "memory": 64_000, "gpus": ("a100", 1, 4), "max_array_size": 101,
    "partitions": ("main Nodes={0},{1} Default=YES MaxTime=INFINITE", "gpu Nodes={2} MaxTime=INFINITE"),
}  # fmt: skip


@dataclass(frozen=True)
class LoginNode:
    """A cluster behind a login node, with two accounts that can log in there."""

    cluster: SlurmCluster
    server: OpenSsh

    def config(self, user: str, **more: Any) -> dict[str, Any]:
        """What the site file says where `user` logs in."""
        return {
            "transport": "ssh", "host": "127.0.0.1", "port": self.server.port, "user": user,
            "key": str(self.server.new_key(user)), "known_hosts": str(self.server.known_hosts), **more,
        }  # fmt: skip


@pytest.fixture(scope="session")
def login_node() -> Iterator[LoginNode]:
    """A cluster behind sshd."""
    need_slurm()
    need_openssh()
    with (
        made_accounts(SITE, PERSON),
        OpenSsh() as server,
        SlurmCluster(**SHAPE) as cluster,
    ):
        yield LoginNode(cluster, server)


class SshHarness(SlurmHarness):
    """Runs the cases by way of the login node."""

    def folder_of(self, launch: Launch) -> Path:
        return self.sites / (self.account or self.config["user"]) / self.instance / "attempts" / launch.attempt_id


class TestSlurmOverSsh(DriverContract):
    @pytest.fixture(params=["own", "key", "impersonated"])
    async def harness(
        self, tmp_path: Path, login_node: LoginNode, request: pytest.FixtureRequest
    ) -> AsyncIterator[SshHarness]:
        account, config = None, login_node.config(SITE)
        if request.param == "key":
            account = PERSON
            config = login_node.config(SITE, keys={PERSON: str(login_node.server.new_key(PERSON))})
        elif request.param == "impersonated":
            account = PERSON
            become = "setpriv --reuid={account} --regid={account} --init-groups --"
            config = login_node.config("root", impersonate=become)
        harness = SshHarness(tmp_path, login_node.cluster, account, config)
        await harness.start()
        yield harness
        await harness.tear_down()


class TestGpusOverSsh(Gpus):
    @pytest.fixture
    async def harness(self, tmp_path: Path, login_node: LoginNode) -> AsyncIterator[SshHarness]:
        config = login_node.config(SITE, classes={"batch": {"partition": "gpu"}})
        harness = SshHarness(tmp_path, login_node.cluster, None, config)
        harness.gpus = 4
        await harness.start()
        yield harness
        await harness.tear_down()
