"""Streams to sessions at a Slurm cluster behind SSH and in containers; and what happens while a site is down."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from atoll.client.synchronous import Client
from atoll.core.site_file import read_site
from tests.support.engines import skip_without
from tests.support.openssh import OpenSsh, need_openssh
from tests.support.platform import RunningPlatform
from tests.support.podman import IMAGE, PodmanService, PodmanUnavailable
from tests.support.relay import RunningRelay, session
from tests.support.slurm import SlurmCluster, need_slurm


def put_site(client: Client, name: str, driver: str, identity: Any, config: dict[str, Any]) -> None:
    """Configure a site, and wait until it takes jobs."""
    client.put_site(read_site({"name": name, "driver": driver, "identity": identity, "config": config}))
    deadline = time.monotonic() + 60
    while client.site(name).health != "ok":
        assert time.monotonic() < deadline, client.site(name).message
        time.sleep(0.1)  # nothing but looking tells


@pytest.fixture(scope="module")
def login() -> Iterator[OpenSsh]:
    need_slurm()
    need_openssh()
    with OpenSsh() as server:
        yield server


@pytest.fixture(scope="module")
def behind_ssh(client: Client, login: OpenSsh) -> Iterator[str]:
    """A Slurm cluster that is reached by way of a login node."""
    with SlurmCluster(nodes=1, cpus=8) as cluster:
        config = {
            "transport": "ssh", "host": "127.0.0.1", "port": login.port, "user": "root",
            "key": str(login.new_key("root")), "known_hosts": str(login.known_hosts), "slurm_conf": str(cluster.conf),
            "folder": str(cluster.folder / "sites"),
        }  # fmt: skip
        put_site(client, "far", "slurm", {"map": "same-name"}, config)
        yield "driver=slurm"
        client.drain_site("far")


@pytest.fixture(scope="module")
def in_containers(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Podman host whose containers have a network without any route out of it."""
    try:
        podman = PodmanService()
    except PodmanUnavailable as error:
        skip_without("Podman", str(error))
    try:
        podman.podman("network", "create", "--internal", "inside")
        config = {
            "socket": str(podman.socket), "image": IMAGE, "pull": "never", "network": "inside",
            "folder": str(tmp_path_factory.mktemp("containers")),
        }  # fmt: skip
        put_site(client, "boxes", "podman", "shared", config)
        yield "driver=podman"
        client.drain_site("boxes")
    finally:
        podman.remove()


@pytest.mark.parametrize("where", ["behind_ssh", "in_containers"])
def test_streams_in_both_directions(
    client: Client, relay: RunningRelay, where: str, request: pytest.FixtureRequest
) -> None:
    constraint = request.getfixturevalue(where)
    made = client.submit(session(client, constraints=[constraint]))
    assert relay.wait_for(made.id) == b"1\n"
    data = os.urandom(5_000_000)
    assert relay.ask(made.id, b"echo", data) == data
    assert relay.ask(made.id, b"count", data) == b"5000000\n"
    assert relay.ask(made.id, b"outside", data) == b"hello " + data
    client.requeue(made.id)
    while relay.wait_for(made.id) != b"2\n":
        time.sleep(0.1)
    assert relay.ask(made.id, b"outside", b"again") == b"hello again"
    client.cancel(made.id)


def test_site_that_is_down_refuses_with_a_reason(
    client: Client, relay: RunningRelay, login: OpenSsh, behind_ssh: str
) -> None:
    made = client.submit(session(client, constraints=[behind_ssh]))
    relay.wait_for(made.id)
    login.stop()
    relay.wait_for_log(f"job {made.id} at far: ")
    with relay.connect(made.id) as stream:
        stream.sendall(b"who\n")
        with pytest.raises(ConnectionResetError):
            stream.recv(1)
    assert f"job {made.id} at far: 127.0.0.1" in relay.tail()
    login.start()
    assert relay.wait_for(made.id, b"outside") == b"hello "
    client.cancel(made.id)


def test_paths_of_the_platform_are_not_needed(platform: RunningPlatform, relay: RunningRelay) -> None:
    """The relay keeps nothing beside the database: no file of its own appears in the data folder."""
    assert not [path for path in Path(platform.data).rglob("*relay*") if "agent" not in path.name]
