"""Which demands fit anywhere: the same as looking everywhere, whatever happened in between."""

import time

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.scheduler.nodes import NodeInfo, Nodes, Spot
from atoll.scheduler.witnesses import Witnesses
from tests.scheduler.fleets import every, first_spot, infos, masks, node, requests, resources

Asked = list[tuple[Resources, np.ndarray]]
asked_for = st.lists(st.tuples(requests, masks), min_size=1, max_size=8)


def table(asked: Asked) -> tuple[np.ndarray, np.ndarray]:
    rows = np.zeros(len(asked), [("cpu", "i8"), ("memory", "i8"), ("gpu", "i8"), ("uses", "i8")])
    for row, (request, _) in zip(rows, asked, strict=True):
        row["cpu"], row["memory"], row["gpu"] = request.cpu, request.memory, request.gpu
    return rows, np.array([pools for _, pools in asked])


def everywhere(nodes: Nodes, asked: Asked) -> list[bool]:
    return [first_spot(nodes, request, pools) is not None for request, pools in asked]


@given(infos, asked_for, asked_for, st.lists(st.tuples(requests, masks, st.integers(0, 5)), max_size=20))
def test_the_answer_is_that_of_looking_everywhere(
    made: list[NodeInfo], asked: Asked, later: Asked, wanted: list[tuple[Resources, np.ndarray, int]]
) -> None:
    nodes = Nodes(made)
    witnesses = Witnesses(nodes)
    taken: list[tuple[Spot, Resources]] = []
    for request, pools, dice in wanted:
        if (spot := first_spot(nodes, request, pools)) is not None:
            nodes.take(spot, request)
            taken.append((spot, request))
        if dice == 0 and taken:
            nodes.give(*taken.pop())
        if dice == 1:
            nodes = nodes.copy()
            witnesses = witnesses.copy(nodes)
        if dice == 2:  # other demands have come to have the numbers of these
            asked, later = later, asked
        if dice > 2:
            assert witnesses.fitting(*table(asked)).tolist() == everywhere(nodes, asked)


@given(infos, asked_for, st.lists(st.tuples(requests, masks), max_size=12))
def test_many_demands_are_looked_for_only_where_it_matters(made: list[NodeInfo], asked: Asked, wanted: Asked) -> None:
    nodes = Nodes(made)
    for request, pools in wanted:
        if (spot := first_spot(nodes, request, pools)) is not None:
            nodes.take(spot, request)
    many = asked * 70
    assert Witnesses(nodes).fitting(*table(many)).tolist() == everywhere(nodes, asked) * 70


def test_a_node_that_frees_room_is_found_by_those_that_fitted_nowhere() -> None:
    nodes = Nodes([node(4, gpus=1), node(2)])
    witnesses = Witnesses(nodes)
    asked = [(resources(3), every()), (resources(1, gpu=500), every())]
    big, gpu = (Spot(0), resources(2)), (Spot(0, ((0, 1000),)), resources(1, gpu=1000))
    assert witnesses.fitting(*table(asked)).tolist() == [True, True]
    nodes.take(*big)
    nodes.take(*gpu)
    assert witnesses.fitting(*table(asked)).tolist() == [False, False]
    nodes.give(*gpu)
    assert witnesses.fitting(*table(asked)).tolist() == [False, True]


def test_a_demand_that_may_go_elsewhere_than_the_one_before_it_is_looked_for_anew() -> None:
    witnesses = Witnesses(Nodes([node(4, pool=0), node(1, pool=1)]))
    first, second = every() * [True, False, False], every() * [False, True, False]
    asked = [(resources(2), first), (resources(2), second)]
    assert witnesses.fitting(*table(asked)).tolist() == [True, False]
    assert witnesses.fitting(*table([(resources(2), pools) for pools in (second, first)])).tolist() == [False, True]


def test_5000_demands_and_10_000_nodes_are_quick_from_scratch_and_after_a_change() -> None:
    """The limits are several times what is measured, so that they tell of an order."""
    nodes = Nodes(
        [node(1 + number % 64, 1 + number % 200, gpus=number % 9, pool=number % 3) for number in range(10_000)]
    )
    asked = [
        (resources(1 + number % 70, number % 250, (0, 300, 1000, 8000)[number % 4]), every()) for number in range(5000)
    ]
    rows, possible = table(asked)
    witnesses = Witnesses(nodes)
    begun = time.process_time()
    fits = witnesses.fitting(rows, possible)
    assert time.process_time() - begun < 0.5
    assert 0 < fits.sum() < 5000
    assert fits[:200].tolist() == [bool(nodes.fits(request, pools).any()) for request, pools in asked[:200]]
    nodes.take(Spot(9999), resources(1))
    begun = time.process_time()
    witnesses.fitting(rows, possible)
    assert time.process_time() - begun < 0.02
