"""What only a real cluster shows: its refusals, its rights, its nodes, and streams into its pods."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atoll.core.resources import Resources
from atoll.core.site import Ability
from atoll.core.states import Outcome
from atoll.drivers.base import DriverSetup, Phase, Refused, StopReason
from atoll.drivers.kubernetes import KubernetesDriver
from tests.contract.kubernetes_harness import KubernetesHarness
from tests.support.engines import skip_without
from tests.support.kubernetes import ENGINE, NOT_PROVEN, cluster_kubeconfig


@pytest.fixture
async def harness(tmp_path: Path) -> AsyncIterator[KubernetesHarness]:
    kubeconfig = cluster_kubeconfig()
    if kubeconfig is None:
        skip_without(ENGINE, NOT_PROVEN)
    harness = KubernetesHarness(tmp_path, kubeconfig)
    await harness.start()
    yield harness
    await harness.tear_down()


async def renewed(harness: KubernetesHarness, **config: Any) -> None:
    """The harness with a driver of another configuration."""
    harness.config |= config
    await harness.restart()


ECHO = """
import socket
listener = socket.create_server(("", 8123))
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(b"who are you?\\n")
    while piece := connection.recv(65536):
        connection.sendall(piece.upper())
"""


async def test_port_of_a_pod_is_reached_in_both_directions(harness: KubernetesHarness) -> None:
    """Whoever speaks first, a megabyte whole, several connections at once; only the half of an end is missing."""
    launch = harness.launch({"command": [harness.python, "-c", ECHO]})
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"listening")
    first, second = [await harness.connections.connect(harness.held_as(launch), 8123) for _ in range(2)]
    data = bytes(range(65, 91)) * 40_000
    for channel, sent in ((first, data), (second, b"STILL THERE")):
        sending = asyncio.create_task(channel.write(sent))
        expected, got = b"who are you?\n" + sent, b""
        async with asyncio.timeout(60):
            while len(got) < len(expected):
                piece = await channel.read(1 << 16)
                assert piece, f"the stream ended after {len(got)} of {len(expected)} bytes"
                got += piece
        assert got == expected
        await sending
        await channel.close()


async def test_output_outlives_the_files_of_its_pod(harness: KubernetesHarness) -> None:
    """Collected late, by a platform that was away: the end of both streams, and a sentence for the files."""
    await renewed(harness, keeper={"seconds": 1, "files_seconds": 1})
    line = "0123456789abcdef" * 64
    text = f"n=0; while [ $n -lt 3000 ]; do echo {line}; n=$((n+1)); done; printf 'caf\\303\\251' >&2; exit 7"
    launch = harness.script(text)
    status = await harness.run(launch)
    path = f"/api/v1/namespaces/{harness.namespace}/pods?labelSelector=atoll/attempt={launch.attempt_id}"
    async with asyncio.timeout(60):
        while (await harness.admin.call("GET", path))["items"][0]["status"]["phase"] != "Failed":  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await harness.restart()
    assert (await harness.status(launch)) == status
    assert status.exit_code == 7
    whole = 3000 * 1025
    chunk = await harness.logs.read_log(harness.held_as(launch), "stdout", -2000, 1025)
    assert (chunk.offset, chunk.size) == (whole - 2000, whole)
    assert chunk.data == (f"{line}\n" * 3).encode()[-2000:][:1025]
    first = await harness.logs.read_log(harness.held_as(launch), "stdout", 0, 10)
    assert first.offset == whole - (2 << 20), "what comes before the last 2 MiB is gone"
    assert await harness.read(launch, "stderr") == "café".encode()
    with pytest.raises(Exception, match="its files with it"):
        await harness.stage.take_out(harness.held_as(launch), ["*"], harness.folder / "out")


async def test_image_that_is_not_there_fails_in_the_clusters_words(harness: KubernetesHarness) -> None:
    await renewed(harness, image_patience=3)
    launch = harness.launch({"command": ["true"], "environment": {"image": "127.0.0.1:1/no/such:image"}})
    status = await harness.run(launch)
    assert status.outcome is Outcome.FAILED
    assert "Its image cannot be had" in status.message
    assert "no/such:image" in status.message


async def test_pod_without_room_says_so(harness: KubernetesHarness) -> None:
    await renewed(harness, autoscaling=True)
    launch = harness.script("true", request=Resources(10_000_000, 1 << 28))
    await harness.submit(launch)
    async with asyncio.timeout(60):
        while (status := await harness.status(launch)) is None or not status.message:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    assert status.phase is Phase.STARTING
    assert "no room for it now" in status.message
    assert "Insufficient cpu" in status.message


async def test_drained_pod_is_a_failed_node(harness: KubernetesHarness) -> None:
    """What `kubectl drain` does to a pod is not the job's fault, and it may run again elsewhere."""
    launch = harness.script("echo up; sleep 300")
    await harness.submit(launch)
    await harness.wait_for_output(launch, b"up")
    path = f"/api/v1/namespaces/{harness.namespace}/pods"
    (pod,) = (await harness.admin.call("GET", f"{path}?labelSelector=atoll/attempt={launch.attempt_id}"))["items"]
    name = pod["metadata"]["name"]
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    await harness.admin.call("POST", f"{path}/{name}/eviction", body)
    (status,) = await harness.wait([launch])
    assert status.outcome is Outcome.NODE_FAILED
    assert status.message


async def test_user_without_rights_is_refused_in_the_clusters_words(harness: KubernetesHarness) -> None:
    await renewed(harness, impersonate={"user": "nobody:{account}"})
    (answer,) = await harness.driver.submit([harness.script("true", account="eve", person="eve")])
    assert isinstance(answer, Refused)
    assert 'User "nobody:eve" cannot create resource' in answer.message


async def test_jobs_run_with_the_numbers_of_their_account(harness: KubernetesHarness) -> None:
    await renewed(harness, accounts={"eve": {"user": 4321, "group": 432, "groups": [777]}})
    text = await harness.output(
        harness.script("id -u; id -g; id -G; touch f; stat -c %u f", account="eve", person="eve")
    )
    user, group, groups, owner = text.splitlines()
    assert (user, group, owner) == ("4321", "432", "4321")
    assert {"432", "777"} <= set(groups.split())


async def test_nodes_that_do_not_all_come_in_time_are_given_back(harness: KubernetesHarness) -> None:
    await harness.need(Ability.MULTINODE)
    await renewed(harness, start_within=5)
    flavor = max((await harness.driver.describe()).flavors, key=lambda each: each.nodes)
    whole = Resources(flavor.node.cpu, harness.memory)
    holder = harness.script("echo up; sleep 600", request=whole)
    await harness.submit(holder)
    await harness.wait_for_output(holder, b"up")
    spec = {"command": ["echo", "ran"], "nodes": flavor.nodes, "launch": "each"}
    gang = harness.launch(spec, request=whole, nodes=flavor.nodes)
    await harness.submit(gang)
    (status,) = await harness.wait([gang])
    assert status.outcome is Outcome.NODE_FAILED
    assert "Not all of its nodes came up in time" in status.message
    assert await harness.read(gang) == b""
    path = f"/api/v1/namespaces/{harness.namespace}/pods?labelSelector=atoll/attempt={gang.attempt_id}"
    async with asyncio.timeout(60):
        while (await harness.admin.call("GET", path))["items"]:  # noqa: ASYNC110
            await asyncio.sleep(0.2)
    await harness.stop(holder, StopReason.CANCELLED, 0)
    await harness.wait([holder])


async def test_one_namespace_needs_no_right_to_list_jobs_of_all(harness: KubernetesHarness) -> None:
    """With a fixed namespace nothing but nodes and the load on them is asked for outside of it."""
    seen: list[str] = []
    driver = KubernetesDriver(DriverSetup("k8s", harness.instance, harness.folder, harness.config, harness.owner))
    original = driver._cluster.api.call

    async def noted(method: str, path: str, **values: Any) -> bytes:
        seen.append(path)
        return await original(method, path, **values)

    driver._cluster.api.call = noted  # type: ignore[method-assign]
    await driver.observe([])
    await driver.close()
    assert seen
    assert all(f"/namespaces/{harness.namespace}/" in path for path in seen)
