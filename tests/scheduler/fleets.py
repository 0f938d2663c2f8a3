"""Random nodes and requests, for the tests of what is placed on nodes."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from atoll.core.resources import Resources
from atoll.scheduler.nodes import Mask, NodeInfo, Nodes, Spot

POOLS = 3
GIB = 2**30

infos = st.lists(
    st.builds(
        lambda pool, cpu, memory, gpu: NodeInfo(f"p{pool}-{cpu}", pool, resources(cpu, memory, gpu * 1000)),
        st.integers(0, POOLS - 1),
        st.integers(1, 8),
        st.integers(1, 8),
        st.integers(0, 3),
    ),
    min_size=1,
    max_size=6,
)
requests = st.builds(
    lambda cpu, memory, gpu: resources(cpu, memory, gpu),
    st.integers(1, 3),
    st.integers(0, 3),
    st.sampled_from([0, 100, 300, 500, 700, 1000, 2000]),
)
masks = st.lists(st.booleans(), min_size=POOLS, max_size=POOLS).map(np.array)


wear = st.lists(st.sampled_from([0, 0, 100, 300, 400, 500, 700, 1000]), max_size=9)
"""Shares that are taken of device after device before anything else happens."""


def worn(made: Sequence[NodeInfo], shares: Sequence[int]) -> Nodes:
    nodes = Nodes(made)
    devices = zip(*np.nonzero(nodes.gpu), strict=True)
    for (number, device), share in zip(devices, shares, strict=False):
        if share:
            nodes.take(Spot(int(number), ((int(device), share),)), Resources(0, 0, share))
    return nodes


def resources(cpu: int, memory: int = 0, gpu: int = 0) -> Resources:
    """`cpu` CPUs, `memory` GiB and `gpu` milli-GPU."""
    return Resources(cpu * 1000, memory * GIB, gpu)


def node(cpu: int, memory: int = 100, gpus: int = 0, pool: int = 0) -> NodeInfo:
    return NodeInfo(f"node-{cpu}-{gpus}", pool, resources(cpu, memory, gpus * 1000))


def every(pools: int = POOLS) -> Mask:
    return np.ones(pools, np.bool_)


def first_spot(nodes: Nodes, request: Resources, pools: Mask) -> Spot | None:
    """The first place that there is, found one node after the other and without any columns but those of what is free.

    What fits is said here a second time, in the plainest way.
    """
    for number, info in enumerate(nodes.infos):
        spot = plain_spot(nodes, number, request)
        if pools[info.pool] and spot is not None:
            return spot
    return None


def plain_spot(nodes: Nodes, number: int, request: Resources) -> Spot | None:
    if nodes.cpu[number] < request.cpu or nodes.memory[number] < request.memory:
        return None
    free: Sequence[int] = nodes.gpu[number].tolist()
    if request.gpu < 1000:
        holding = [device for device, milli in enumerate(free) if milli >= request.gpu]
        if not request.gpu:
            return Spot(number)
        return Spot(number, ((holding[0], request.gpu),)) if holding else None
    empty = [device for device, milli in enumerate(free) if milli == 1000]
    count = request.gpu // 1000
    return Spot(number, tuple((device, 1000) for device in empty[:count])) if len(empty) >= count else None
