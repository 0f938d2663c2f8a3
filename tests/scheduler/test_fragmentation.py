"""The usable room of a node, on examples that were worked out by hand."""

import numpy as np
import pytest

from atoll.scheduler import fragmentation
from atoll.scheduler.fragmentation import SCALE, Fragmentation, Typical, damped
from atoll.scheduler.nodes import Nodes, Spot
from tests.scheduler.fleets import node, resources


def usable(nodes: Nodes, typical: list[Typical]) -> list[float]:
    """U_n(M) in milli-GPU."""
    found = Fragmentation(typical, 2).usable(nodes, np.arange(len(nodes)))
    return [value / SCALE for value in found.tolist()]


def worn() -> Nodes:
    """One node of 6 free CPUs, and devices with 1000, 500, 300 and 0 left: 1800 together."""
    nodes = Nodes([node(10, gpus=4)])
    for device, share in enumerate((500, 700, 1000), 1):
        nodes.take(Spot(0, ((device, share),)), resources(1, gpu=share))
    nodes.take(Spot(0), resources(1))
    return nodes


HALF = Typical(resources(2, gpu=400), weight=2)
ONE = Typical(resources(2, gpu=1000))
HUNGRY = Typical(resources(8, gpu=200))
TWO = Typical(resources(1, gpu=2000))
ELSEWHERE = Typical(resources(1, gpu=100), frozenset({1}))


@pytest.mark.parametrize(
    ("typical", "unusable"),
    [
        ([HALF], 300),  # the device with 300 has less than 400
        ([ONE], 800),  # only the one that is completely free will do
        ([HUNGRY], 1800),  # the node has no 8 CPUs
        ([TWO], 1800),  # nor two free devices
        ([ELSEWHERE], 1800),  # and this one may not come here
        ([HALF, ONE, HUNGRY], (2 * 300 + 800 + 1800) / 4),
        ([HALF, TWO, ELSEWHERE, Typical(resources(9), weight=50)], (2 * 300 + 1800 + 1800) / 4),
    ],
)
def test_what_a_typical_task_cannot_use_is_fragmented(typical: list[Typical], unusable: float) -> None:
    assert usable(worn(), typical) == [1800 - unusable]


def test_memory_that_lacks_makes_gpus_unusable_as_cpus_do() -> None:
    nodes = Nodes([node(8, memory=4, gpus=1), node(8, memory=3, gpus=1)])
    assert usable(nodes, [Typical(resources(1, memory=4, gpu=500))]) == [1000, 0]


def test_without_typical_tasks_nothing_is_usable_and_nothing_breaks() -> None:
    assert usable(worn(), []) == [0]


def test_rare_and_small_tasks_count_for_more_than_their_number() -> None:
    one, quarter = resources(1, gpu=1000), resources(1, gpu=250)
    often = [Typical(one, frozenset({0}), 12), Typical(one, frozenset({1}), 4)]
    weighed = damped([*often, Typical(quarter), Typical(quarter, weight=0), Typical(resources(1), weight=9)])
    # 16 of the one request count as 2, those of each pool for their part of them
    assert [task.weight for task in weighed] == [pytest.approx(1.5), pytest.approx(0.5), 4]


def test_the_least_typical_tasks_are_left_out_where_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = [Typical(resources(cpu, cpu, 500), weight=cpu) for cpu in range(1, 9)]
    monkeypatch.setattr(fragmentation, "CELLS", 2 * 5 * 5 * 19)
    assert usable(Nodes([node(4, gpus=1), node(5, gpus=1)]), tasks) == [0, pytest.approx(1000 * 5 / 26, rel=1e-3)]
