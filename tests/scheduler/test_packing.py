"""Placing loses as little usable room as it can; what is kept up to date agrees with what is worked out afresh."""

import time
from collections.abc import Iterator

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.scheduler.fragmentation import SCALE, Fragmentation, Typical
from atoll.scheduler.nodes import NodeInfo, Nodes, Spot
from atoll.scheduler.packing import Packer
from tests.scheduler.fleets import POOLS, every, first_spot, infos, masks, node, requests, resources, wear, worn

typicals = st.lists(
    st.builds(
        Typical,
        requests,
        st.none() | st.sets(st.integers(0, POOLS - 1), min_size=1).map(frozenset),
        st.integers(1, 5),
    ),
    max_size=5,
)


def spots(nodes: Nodes, number: int, request: Resources) -> Iterator[Spot]:
    """Every place on a node, apart from which of its free devices whole ones are."""
    one = np.zeros(POOLS, np.bool_)
    one[nodes.infos[number].pool] = True
    if not nodes.fits(request, one)[number]:
        return
    if 0 < request.gpu < 1000:
        for device in np.flatnonzero(nodes.gpu[number] >= request.gpu).tolist():
            yield Spot(number, ((device, request.gpu),))
    else:
        yield nodes.spot(number, request)


def usable(nodes: Nodes, number: int, typical: list[Typical]) -> int:
    """U_n(M) as it is defined: task by task, device by device."""
    tasks = [task for task in typical if task.request.gpu]
    total = sum(task.weight for task in tasks)
    found = 0
    for task in tasks:
        whole, least = max(1, task.request.gpu // 1000), min(task.request.gpu, 1000)
        able = [milli for milli in nodes.gpu[number].tolist() if milli >= least]
        if (
            (task.pools is None or nodes.infos[number].pool in task.pools)
            and nodes.cpu[number] >= task.request.cpu
            and nodes.memory[number] >= task.request.memory
            and len(able) >= whole
        ):
            found += sum(able) * round(task.weight / total * SCALE)
    return found


def plain_best(nodes: Nodes, request: Resources, pools: np.ndarray, typical: list[Typical], count: int) -> list[Spot]:
    """The `count` best nodes by trying out every place there is."""
    choices = []
    for number, info in enumerate(nodes.infos):
        tried = []
        for spot in spots(nodes, number, request) if pools[info.pool] else ():
            after = nodes.copy()
            after.take(spot, request)
            loss = usable(nodes, number, typical) - usable(after, number, typical)
            left = sum(int(after.gpu[number, device]) for device, _ in spot.gpus)
            tried.append((loss, left, spot.gpus))
        if tried:
            loss, _, gpus = min(tried)
            free = int(nodes.gpu[number].sum())
            choices.append((loss, free, int(nodes.cpu[number] - request.cpu) // 1000, number, gpus))
    return [Spot(number, gpus) for _, _, _, number, gpus in sorted(choices)[:count]]


@settings(deadline=None)
@given(infos, wear, typicals, st.lists(st.tuples(requests, masks, st.integers(0, 9)), max_size=15), st.booleans())
def test_the_best_place_is_the_one_that_trying_out_all_of_them_finds(
    made: list[NodeInfo],
    shares: list[int],
    typical: list[Typical],
    wanted: list[tuple[Resources, np.ndarray, int]],
    forgetful: bool,
) -> None:
    packer = Packer(worn(made, shares), Fragmentation(typical, POOLS), keep=1 if forgetful else 2**20)
    taken: list[tuple[Spot, Resources]] = []
    for request, pools, dice in wanted:
        nodes = packer.nodes
        best = packer.best(request, pools)
        expected = plain_best(nodes, request, pools, typical, 1)
        assert best == (expected[0] if expected else None)
        assert (best is None) == (first_spot(nodes, request, pools) is None)
        if best is not None:
            nodes.take(best, request)
            taken.append((best, request))
        if dice == 0 and taken:
            nodes.give(*taken.pop(0))
        if dice == 1:
            packer = packer.copy()


@settings(deadline=None)
@given(infos, wear, typicals, requests, masks, st.integers(0, 4))
def test_a_gang_has_the_best_nodes_each_once_or_none_at_all(
    made: list[NodeInfo], shares: list[int], typical: list[Typical], request: Resources, pools: np.ndarray, count: int
) -> None:
    packer = Packer(worn(made, shares), Fragmentation(typical, POOLS))
    found = packer.best_many(request, pools, count)
    best = plain_best(packer.nodes, request, pools, typical, count)
    assert found == (tuple(best) if len(best) == count else None)
    for spot in found or ():
        packer.nodes.take(spot, request)


def test_placing_on_a_copy_leaves_the_original_as_it_was_and_both_go_on_rightly() -> None:
    packer = Packer(Nodes([node(4, gpus=1), node(8, gpus=1)]), Fragmentation([], 1))
    request = resources(2, gpu=1000)
    trial = packer.copy()
    for expected in (0, 1):
        best = trial.best(request, every(1))
        assert best is not None
        assert best.node == expected
        trial.nodes.take(best, request)
    assert trial.best(request, every(1)) is None
    packer.nodes.take(Spot(0), resources(3))
    assert packer.best(request, every(1)) == Spot(1, ((0, 1000),))
    assert trial.best(resources(1), every(1)) == Spot(0)


def test_a_share_fills_a_device_in_use_before_it_breaks_a_free_one() -> None:
    nodes = Nodes([node(8, gpus=2), node(8, gpus=2)])
    nodes.take(Spot(1, ((1, 500),)), resources(1, gpu=500))
    packer = Packer(nodes, Fragmentation([Typical(resources(1, gpu=1000)), Typical(resources(1, gpu=300))], 1))
    assert packer.best(resources(1, gpu=500), every(1)) == Spot(1, ((1, 500),))


def test_of_equal_places_it_is_the_fullest_device_of_the_node_with_the_fewest_free_gpus() -> None:
    nodes = Nodes([node(8, gpus=3), node(8, gpus=2), node(4, gpus=2)])
    nodes.take(Spot(1, ((1, 500),)), resources(1, gpu=500))
    packer = Packer(nodes, Fragmentation([], 1))
    assert packer.best(resources(1, gpu=300), every(1)) == Spot(1, ((1, 300),))
    assert packer.best(resources(5, gpu=2000), every(1)) == Spot(0, ((0, 1000), (1, 1000)))
    assert packer.best_many(resources(1, gpu=2000), every(1), 2) == (
        Spot(2, ((0, 1000), (1, 1000))),
        Spot(0, ((0, 1000), (1, 1000))),
    )


def test_a_whole_device_is_not_broken_where_that_loses_more_than_a_share_of_another() -> None:
    nodes = Nodes([node(8, gpus=2)])
    nodes.take(Spot(0, ((1, 400),)), resources(1, gpu=400))
    packer = Packer(nodes, Fragmentation([Typical(resources(1, gpu=1000)), Typical(resources(1, gpu=600))], 1))
    # on the second device 600 become useless to one task in two, on the first 100 to one and 1000 to the other
    assert packer.best(resources(1, gpu=100), every(1)) == Spot(0, ((1, 100),))


def test_a_job_without_gpu_leaves_the_cpus_of_gpu_nodes_alone() -> None:
    typical = [Typical(resources(4, gpu=1000))]
    packer = Packer(Nodes([node(4, gpus=1), node(8, gpus=1), node(64)]), Fragmentation(typical, 1))
    assert packer.best(resources(1), every(1)) == Spot(2)
    assert packer.best(resources(4, gpu=1000), every(1)) == Spot(0, ((0, 1000),))


def test_1000_placements_among_10_000_nodes_are_quick() -> None:
    """The limit is several times what is measured, so that it tells of an order."""
    nodes = Nodes([node(64, 256, gpus=8, pool=number % POOLS) for number in range(10_000)])
    asked = [resources(1 + number % 25, number % 5, (0, 300, 1000, 2000)[number % 4]) for number in range(500)]
    packer = Packer(nodes, Fragmentation(map(Typical, asked), POOLS))
    for request in asked:
        packer.best(request, every())
    begun = time.process_time()
    for request in asked + asked:
        spot = packer.best(request, every())
        assert spot is not None
        nodes.take(spot, request)
    assert time.process_time() - begun < 1
