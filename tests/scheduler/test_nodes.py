"""Room on nodes is counted exactly, and never given twice."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.scheduler.nodes import NodeInfo, Nodes, Spot
from tests.scheduler.fleets import every, first_spot, infos, masks, node, plain_spot, requests, resources


def columns(nodes: Nodes) -> list[list[object]]:
    names = ("cpu", "memory", "gpu", "whole", "largest", "together")
    return [getattr(nodes, name).tolist() for name in names]


@given(infos, st.lists(st.tuples(requests, masks), max_size=12), st.randoms())
def test_what_was_taken_and_given_back_leaves_all_as_it_was(
    made: list[NodeInfo], wanted: list[tuple[Resources, np.ndarray]], random: object
) -> None:
    nodes = Nodes(made)
    before = columns(nodes)
    taken = []
    for request, pools in wanted:
        if (spot := first_spot(nodes, request, pools)) is not None:
            nodes.take(spot, request)
            taken.append((spot, request))
    free = nodes.gpu.tolist()
    assert nodes.whole.tolist() == [row.count(1000) for row in free]
    assert nodes.largest.tolist() == [max(row, default=0) for row in free]
    assert nodes.together.tolist() == [sum(row) for row in free]
    random.shuffle(taken)  # type: ignore[attr-defined]
    for spot, request in taken:
        nodes.give(spot, request)
    assert columns(nodes) == before


@given(infos, st.lists(st.tuples(requests, masks), max_size=12))
def test_nothing_is_ever_given_that_is_not_there(
    made: list[NodeInfo], wanted: list[tuple[Resources, np.ndarray]]
) -> None:
    nodes = Nodes(made)
    for request, pools in wanted:
        spots = [plain_spot(nodes, number, request) for number in range(len(nodes))]
        allowed = [spot is not None and bool(pools[info.pool]) for spot, info in zip(spots, made, strict=True)]
        assert nodes.fits(request, pools).tolist() == allowed
        for number, spot in enumerate(spots):
            if spot is None:
                with pytest.raises(ValueError, match="does not fit"):
                    nodes.take(Spot(number, ((0, request.gpu),) if request.gpu else ()), request)
        if any(allowed):
            nodes.take(nodes.spot(allowed.index(True), request), request)
        assert min(nodes.cpu.min(), nodes.memory.min(), nodes.gpu.min(initial=0)) >= 0


def test_a_share_goes_to_the_fullest_device_that_holds_it_and_whole_ones_to_free_devices() -> None:
    nodes = Nodes([node(8, gpus=3)])
    nodes.take(Spot(0, ((1, 600),)), resources(1, gpu=600))
    assert nodes.spot(0, resources(1, gpu=300)).gpus == ((1, 300),)
    assert nodes.spot(0, resources(1, gpu=500)).gpus == ((0, 500),)
    assert nodes.spot(0, resources(1, gpu=2000)).gpus == ((0, 1000), (2, 1000))
    assert not nodes.fits(resources(1, gpu=3000), every())[0]


def test_a_spot_that_was_not_made_for_the_request_is_refused() -> None:
    nodes = Nodes([node(8, gpus=2)])
    for gpus in ((), ((0, 500), (1, 500)), ((2, 1000),)):
        with pytest.raises(ValueError, match="does not fit"):
            nodes.take(Spot(0, gpus), resources(1, gpu=1000))
    with pytest.raises(ValueError, match="does not fit"):
        nodes.take(Spot(0, ((0, 1000), (0, 1000))), resources(1, gpu=2000))
    with pytest.raises(ValueError, match="was not taken"):
        nodes.give(Spot(0, ((0, 500),)), resources(0, gpu=500))


def test_a_copy_counts_for_itself() -> None:
    nodes = Nodes([node(8, gpus=2)])
    other = nodes.copy()
    other.take(Spot(0, ((0, 1000),)), resources(1, gpu=1000))
    assert (nodes.cpu.tolist(), other.cpu.tolist()) == ([8000], [7000])
    assert (nodes.changed(0).tolist(), other.changed(0).tolist()) == ([], [0])


def test_nodes_of_more_gpus_than_there_are_columns_for_are_refused() -> None:
    with pytest.raises(ValueError, match="17 GPUs"):
        Nodes([node(8, gpus=17)])
    assert len(Nodes([])) == 0
