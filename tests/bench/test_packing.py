"""The policies that placing is compared with, on nodes that are small enough to work it out by hand."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from atoll.core.resources import Resources
from atoll.scheduler.fragmentation import SCALE, Typical
from atoll.scheduler.fragmentation import Fragmentation as Ours
from atoll.scheduler.nodes import NodeInfo, Nodes, Spot
from bench import openb, packing
from bench.figures import Broken
from bench.policies.base import Policy
from bench.policies.fgd import Fragmentation, FragmentationGradientDescent, States, Task
from bench.policies.simple import BestFit, DotProduct, GpuClustering, GpuPacking, Random

HERE = frozenset({0})
ALL = np.ones(2, np.bool_)


def task(cpu: int, gpu: int, popularity: float = 1, pools: frozenset[int] = HERE) -> Task:
    return Task(Resources(1000 * cpu, 0, gpu), pools, popularity)


def nodes(*shapes: tuple[int, int]) -> Nodes:
    """Nodes of so many CPUs and GPUs."""
    return Nodes([NodeInfo(str(n), 0, Resources(1000 * cpu, 2**30, 1000 * gpu)) for n, (cpu, gpu) in enumerate(shapes)])


def use(made: Nodes, node: int, device: int, share: int, cpu: int = 1) -> None:
    made.take(Spot(node, ((device, share),)), Resources(1000 * cpu, 0, share))


@pytest.mark.parametrize(
    ("tasks", "fragmented"),
    [
        ([task(2, 400)], 300),  # the device with 300 has less than 400
        ([task(2, 1000)], 800),  # only the one that is completely free will do
        ([task(8, 200)], 1800),  # there are no 8 CPUs
        ([task(1, 2000)], 1800),  # nor two free devices
        ([task(1, 100, pools=frozenset({1}))], 1800),  # and this one may not come here
        ([task(1, 0)], 1800),  # what asks for no GPU uses none
        ([task(2, 400, 2), task(2, 1000), task(8, 200)], (2 * 300 + 800 + 1800) / 4),
        ([task(2, 400, 3), task(2, 400, 1, frozenset({1}))], (3 * 300 + 1800) / 4),
    ],
)
def test_fragmentation_is_what_a_typical_task_cannot_use(tasks: list[Task], fragmented: float) -> None:
    state = States(np.array([0]), np.array([6000]), np.array([0]), np.array([[1000, 500, 300, 0]]))
    assert Fragmentation(tasks, 2).of(state).tolist() == [pytest.approx(fragmented)]


def test_the_papers_and_the_schedulers_fragmentation_agree() -> None:
    random_ = random.Random(7)
    made = nodes(*((random_.randint(1, 9), random_.randint(1, 4)) for _ in range(30)))
    for node in range(30):
        for device in range(int(made.whole[node])):
            share = random_.choice([0, 200, 500, 1000])
            if share:
                use(made, node, device, share, cpu=0)
    tasks = [task(random_.randint(1, 9), random_.choice([200, 300, 600, 1000, 2000])) for _ in range(8)]
    ours = Ours([Typical(each.request, each.pools, each.popularity) for each in tasks], 1)
    states = States(made.pool, made.cpu, made.memory, made.gpu)
    fragmented = made.together - ours.usable(made, np.arange(30)) / SCALE
    assert fragmented.tolist() == pytest.approx(Fragmentation(tasks, 1).of(states).tolist(), abs=1)


def test_gradient_descent_leaves_a_whole_device_to_those_who_need_one() -> None:
    made = nodes((8, 2), (8, 2))
    use(made, 1, 1, 500)
    policy = FragmentationGradientDescent(made, [task(1, 1000), task(1, 500)], 2)
    assert policy.best(Resources(1000, 0, 500), ALL) == Spot(1, ((1, 500),))
    use(made, 1, 1, 500)
    # F of a node that is empty is 0; what is left of a device that was whole can be used by half of the tasks only
    assert policy.best(Resources(1000, 0, 400), ALL) == Spot(0, ((0, 400),))
    assert policy.best(Resources(1000, 0, 3000), ALL) is None
    assert policy.best(Resources(1000, 0, 1000), np.zeros(2, np.bool_)) is None


def test_best_fit_takes_the_node_that_has_least_left() -> None:
    made = nodes((16, 4), (8, 2), (8, 4))
    assert BestFit(made).best(Resources(1000, 0, 1000), ALL) == Spot(1, ((0, 1000),))


def test_the_dot_product_prefers_what_is_scarce_where_little_is_asked() -> None:
    made = nodes((16, 1), (4, 4))
    # 1/16 * 1/16 * (16, 4) for the CPUs, and 1/4 * 1/4 * (1, 4) for the GPUs
    assert DotProduct(made).best(Resources(1000, 0, 1000), ALL) == Spot(0, ((0, 1000),))
    assert DotProduct(made).best(Resources(4000, 0, 100), ALL) == Spot(1, ((0, 100),))


def test_gpu_packing_takes_gpus_in_use_then_nodes_in_use_then_free_nodes() -> None:
    made = nodes((8, 1), (8, 2), (8, 4))
    use(made, 2, 0, 500)
    policy = GpuPacking(made)
    assert policy.best(Resources(1000, 0, 500), ALL) == Spot(2, ((0, 500),))
    assert policy.best(Resources(1000, 0, 600), ALL) == Spot(2, ((1, 600),))
    assert policy.best(Resources(5000, 0, 4000), ALL) is None
    use(made, 2, 1, 1000, cpu=7)
    assert policy.best(Resources(1000, 0, 600), ALL) == Spot(0, ((0, 600),))


def test_gpu_clustering_keeps_tasks_of_one_size_together() -> None:
    made = nodes((8, 4), (8, 4), (8, 4))
    policy = GpuClustering(made)
    chosen = []
    for gpu in (1000, 2000, 500, 1000, 300, 2000):
        request = Resources(1000, 0, gpu)
        spot = policy.best(request, ALL)
        assert spot is not None
        made.take(spot, request)
        chosen.append(spot.node)
    assert chosen == [0, 1, 2, 0, 2, 1]


def test_random_is_the_same_with_the_same_seed_and_only_where_there_is_room() -> None:
    made = nodes((8, 1), (1, 1), (8, 2))
    chosen = [Random(made, seed).best(Resources(2000, 0, 500), ALL) for seed in range(20)]
    assert {spot.node for spot in chosen if spot} == {0, 2}
    assert chosen == [Random(made, seed).best(Resources(2000, 0, 500), ALL) for seed in range(20)]


# ---- the experiment


@pytest.fixture
def trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A trace in small: two nodes with two GPUs each, one without, and four pods."""
    (tmp_path / openb.NODES).write_text(
        "sn,cpu_milli,memory_mib,gpu,model\na,8000,4096,2,T4\nb,8000,4096,2,A10\nc,32000,4096,0,\n"
    )
    (tmp_path / openb.PODS).write_text(
        "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos\n"
        "p,1000,1,1,500,,LS\nq,1000,1,2,1000,T4|A10,LS\nr,1000,1,0,0,,BE\ns,1000,1,1,1000,A10,LS\n"
    )
    monkeypatch.setenv("ATOLL_OPENB", str(tmp_path))
    return tmp_path


def test_the_trace_is_read(trace: Path) -> None:
    mib = 2**20
    assert openb.machines(openb.folder())[1] == openb.Machine("b", Resources(8000, 4096 * mib, 2000), "A10")
    assert [pod.request.gpu for pod in openb.pods(trace)] == [500, 2000, 0, 1000]
    assert [sorted(pod.models) for pod in openb.pods(trace)] == [[], ["A10", "T4"], [], ["A10"]]


def test_a_trace_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATOLL_OPENB", str(tmp_path / "nowhere"))
    with pytest.raises(Broken, match=openb.NODES):
        list(packing.measure(tmp_path, small=True))


def test_choosy_pods_may_use_two_models_that_can_hold_them(trace: Path) -> None:
    machines = [*openb.machines(trace), openb.Machine("small", Resources(500, 2**30, 1000), "P4")]
    pods = openb.choosy(openb.pods(trace), machines, random.Random(1), part=1)
    assert [sorted(pod.models) for pod in pods] == [["A10", "T4"], ["A10", "T4"], [], ["A10", "T4"]]


@pytest.mark.parametrize("name", packing.POLICIES)
def test_filling_ends_at_130_percent_and_never_gives_more_than_there_is(trace: Path, name: str) -> None:
    case = packing.Case(openb.machines(trace), openb.pods(trace))
    drawn = packing.arrivals(case, random.Random(3))
    assert sum(pod.request.gpu for pod in drawn) >= 1.3 * 4000
    made = case.nodes()
    policy: Policy = packing.POLICIES[name](case, made)
    curve = packing.fill(policy, made, case, drawn)
    assert len(curve) == packing.STEPS
    assert curve == sorted(curve)
    assert curve[-1] == 1 - made.together.sum() / 4000


def test_the_picture_and_the_rows_have_every_policy(tmp_path: Path) -> None:
    curves = {name: [[0.5] * packing.STEPS, [0.6] * packing.STEPS] for name in packing.POLICIES}
    rows = list(packing.quality("as traced", curves))
    assert [row.peer for row in rows] == [name for name in packing.POLICIES if name != packing.OURS]
    assert rows[0].values == [50, 40]
    assert rows[0].met
    png, svg = packing.draw({"as traced": curves}, tmp_path)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()
