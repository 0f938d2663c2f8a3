"""What a cluster's nodes have: quantities, kinds of hardware, taints, and what is free."""

from decimal import Decimal
from typing import Any

import msgspec
import pytest

from atoll.core import site
from atoll.core.resources import Resources
from atoll.drivers.kubernetes.config import Toleration, read_config
from atoll.drivers.kubernetes.nodes import Load, Node, Stock, Stocktaking, Taint, quantity, tolerated

GIB = 1 << 30
NO_KEEPER = {"keeper": {"cpu": "1m", "memory": 0}}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("2", 2),
        ("500m", Decimal("0.5")),
        ("64Gi", 64 * GIB),
        ("1k", 1000),
        ("1e3", 1000),
        ("12E", 12 * 10**18),
        ("0", 0),
        ("100n", Decimal("1e-7")),
        ("garbage", 0),
        ("", 0),
        ("-5", 0),
        ("NaN", 0),
        ("1Ei", 2**60),
    ],
)
def test_quantities_are_read_as_kubernetes_writes_them(text: str, number: Decimal | int) -> None:
    assert quantity(text) == number


def node(name: str = "n", labels: dict[str, str] | None = None, ready: str = "True", **values: Any) -> Node:
    allocatable = values.pop("allocatable", {"cpu": "8", "memory": "32Gi"})
    conditions = [{"type": "Ready", "status": ready}]
    return msgspec.convert(
        {
            "metadata": {"name": name, "labels": labels or {}},
            "spec": values,
            "status": {"allocatable": allocatable, "conditions": conditions},
        },
        Node,
    )


def stocks(nodes: list[Node], loads: list[Load] | None = None, **config: Any) -> dict[str, Stock]:
    return Stocktaking(read_config({**NO_KEEPER, **config})).count(nodes, loads)


GPU_NODE = {"cpu": "64", "memory": "512Gi", "nvidia.com/gpu": "8"}
MIG_NODE = {"cpu": "64", "memory": "512Gi", "nvidia.com/mig-1g.10gb": "14"}
A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}


def test_nodes_are_sorted_by_the_label_of_their_hardware() -> None:
    found = stocks([node("a"), node("b"), node("g", A100, allocatable=GPU_NODE)])
    names = sorted(found)
    assert names[0] == "cpu"
    assert names[1].startswith("gpu-nvidia-a100-sxm4-80gb")
    assert (found["cpu"].nodes, found["cpu"].total.memory) == (2, 64 * GIB)
    assert found[names[1]].total.gpu == 8000
    assert dict(found[names[1]].kind.labels) == A100


def test_configured_flavors_come_first_and_may_count_slices_as_gpus() -> None:
    flavors = {"gpu-a100-1g.10gb": {"resource": "nvidia.com/mig-1g.10gb"}, "gpu-a100": {"labels": A100}}
    found = stocks([node("m", A100, allocatable=MIG_NODE), node("g", A100, allocatable=GPU_NODE)], flavors=flavors)
    assert set(found) == {"gpu-a100", "gpu-a100-1g.10gb"}
    assert found["gpu-a100-1g.10gb"].total.gpu == 14_000
    assert found["gpu-a100"].total.gpu == 8000


def test_nodes_that_take_no_job_of_ours_do_not_count() -> None:
    taint = [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]
    nodes = [
        node("ok", {"pool": "x"}),
        node("cordoned", {"pool": "x"}, unschedulable=True),
        node("broken", {"pool": "x"}, ready="Unknown"),
        node("tainted", {"pool": "x"}, taints=taint),
        node("other", {"pool": "y"}),
    ]
    found = stocks(nodes, node_selector={"pool": "x"})
    assert found["cpu"].nodes == 1
    tolerations = [{"key": "node-role.kubernetes.io/control-plane", "operator": "Exists"}]
    assert stocks(nodes, node_selector={"pool": "x"}, tolerations=tolerations)["cpu"].nodes == 2


@pytest.mark.parametrize(
    ("toleration", "fits"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "k", "operator": "Exists"}, True),
        ({"key": "k", "value": "v"}, True),
        ({"key": "k", "value": "w"}, False),
        ({"key": "k"}, False),
        ({"key": "x", "operator": "Exists"}, False),
        ({"key": "k", "value": "v", "effect": "NoExecute"}, False),
    ],
)
def test_taints_are_tolerated_as_kubernetes_does(toleration: dict[str, Any], fits: bool) -> None:
    assert tolerated(Taint("k", "v", "NoSchedule"), [Toleration(**toleration)]) is fits


def test_free_is_what_no_pod_asks_for_and_the_keeper_is_taken_off_each_node() -> None:
    loads = msgspec.convert(
        [
            {
                "spec": {
                    "nodeName": "a",
                    "containers": [{"resources": {"requests": {"cpu": "1500m", "memory": "2Gi"}}}, {}],
                }
            },
            {"spec": {"nodeName": "elsewhere", "containers": [{"resources": {"requests": {"cpu": "99"}}}]}},
            {"spec": {"containers": [{"resources": {"requests": {"cpu": "7"}}}]}},
        ],
        list[Load],
    )
    found = stocks([node("a")], loads, keeper={"cpu": "50m", "memory": "1Gi"})["cpu"]
    assert found.total == found.largest == Resources(7950, 31 * GIB, 0)
    assert found.free == Resources(6450, 29 * GIB, 0)


def test_nodes_among_which_atoll_chooses_have_what_pods_of_others_leave() -> None:
    def load(instance: str, cpu: str, gpu: str = "0") -> dict[str, Any]:
        requests = {"cpu": cpu, "memory": "1Gi", "nvidia.com/gpu": gpu}
        labels = {"atoll/instance": instance} if instance else {}
        spec = {"nodeName": "g", "containers": [{"resources": {"requests": requests}}]}
        return {"metadata": {"labels": labels}, "spec": spec}

    loads = msgspec.convert([load("", "1500m", "3"), load("other", "1"), load("ours", "8", "2")], list[Load])
    nodes = [
        node("g", {"pool": "x"}, allocatable=GPU_NODE), node("c", {"pool": "x"}, unschedulable=True),
        node("down", {"pool": "x"}, ready="Unknown"), node("elsewhere"),
    ]  # fmt: skip
    config = read_config({"nodes": "owned", "node_selector": {"pool": "x"}, "keeper": {"memory": "1Gi"}})
    assert Stocktaking(config).owned(nodes, loads, "ours") == (
        site.Node("g", "gpu", Resources(61_500, 510 * GIB, 5000)),
        site.Node("c", "cpu", Resources(8000, 32 * GIB), open=False),
        site.Node("down", "cpu", Resources(8000, 32 * GIB), open=False),
    )
    stock = Stocktaking(config).count(nodes, loads)["gpu"]
    assert (stock.total, stock.free.cpu, stock.nodes) == (Resources(64_000, 512 * GIB, 8000), 53_500, 1)
