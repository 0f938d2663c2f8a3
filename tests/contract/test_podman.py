"""The Podman driver passes the contract of drivers, against a real Podman."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from atoll.drivers.contract import DriverContract
from tests.contract.podman_harness import PodmanHarness
from tests.support.openssh import OpenSsh, need_openssh
from tests.support.podman import PodmanService, podman_service

__all__ = ["podman_service"]


@pytest.fixture(scope="module")
def login_server() -> Iterator[OpenSsh]:
    """The way to the host for those cases that have none of their own."""
    need_openssh()
    with OpenSsh() as server:
        yield server


class TestPodman(DriverContract):
    @pytest.fixture(params=[None, "games"], ids=["own", "account"])
    async def harness(
        self, tmp_path: Path, podman_service: PodmanService, request: pytest.FixtureRequest
    ) -> AsyncIterator[PodmanHarness]:
        harness = PodmanHarness(tmp_path, podman_service, account=request.param)
        await harness.start()
        yield harness
        await harness.tear_down()


class TestPodmanOverSsh(DriverContract):
    @pytest.fixture
    async def harness(
        self, tmp_path: Path, podman_service: PodmanService, login_server: OpenSsh
    ) -> AsyncIterator[PodmanHarness]:
        harness = PodmanHarness.over_ssh(tmp_path, podman_service, login_server)
        await harness.start()
        yield harness
        await harness.tear_down()
