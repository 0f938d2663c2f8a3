"""The trace openb: nodes and pods of a production GPU cluster, from alibaba/clusterdata (cluster-trace-gpu-v2023).

It is no part of the repository. `ATOLL_OPENB` names the folder with its two files; without it they are looked for in
`../shared/data/openb`, seen from the repository.
"""

from __future__ import annotations

import csv
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from atoll.core.resources import Resources
from bench.figures import Broken

NODES, PODS = "openb_node_list_all_node.csv", "openb_pod_list_default.csv"
_MIB = 2**20


@dataclass(frozen=True)
class Machine:
    """A node; `model` is that of its GPUs, empty where it has none."""

    name: str
    capacity: Resources
    model: str


@dataclass(frozen=True)
class Pod:
    """What a pod asks for; it may use GPUs of these models, of any where there are none."""

    request: Resources
    models: frozenset[str] = frozenset()


def folder() -> Path:
    """Where the trace is. Raises Broken where it is not, and says what is missing."""
    named = os.environ.get("ATOLL_OPENB")
    place = Path(named) if named else Path(__file__).parents[2] / "shared" / "data" / "openb"
    for name in (NODES, PODS):
        if not (place / name).is_file():
            raise Broken(f"the trace openb is missing: there is no {place / name} (ATOLL_OPENB names its folder)")
    return place


def machines(place: Path) -> list[Machine]:
    """All nodes, in the order of the file."""
    with (place / NODES).open(newline="") as file:
        return [
            Machine(row["sn"], _resources(row, 1000 * int(row["gpu"])), row["model"]) for row in csv.DictReader(file)
        ]


def pods(place: Path) -> list[Pod]:
    """All pods, in the order of the file, which is that of their creation."""
    with (place / PODS).open(newline="") as file:
        return [Pod(_resources(row, _gpu(row)), _models(row)) for row in csv.DictReader(file)]


def choosy(trace: list[Pod], nodes: list[Machine], random_: random.Random, part: float = 1 / 3) -> list[Pod]:
    """The pods, of which this part of those with GPUs may use two models only.

    The models are drawn by how many GPUs there are, among those with a node that is large enough.
    """
    gpus: dict[str, int] = {}
    for node in nodes:
        if node.model:
            gpus[node.model] = gpus.get(node.model, 0) + node.capacity.gpu
    return [
        replace(pod, models=_two(pod, nodes, gpus, random_)) if pod.request.gpu and random_.random() < part else pod
        for pod in trace
    ]


def _two(pod: Pod, nodes: list[Machine], gpus: Mapping[str, int], random_: random.Random) -> frozenset[str]:
    able = {node.model for node in nodes if node.model and pod.request.fits(node.capacity)}
    left = {model: gpus[model] for model in sorted(able)}
    chosen: set[str] = set()
    while left and len(chosen) < 2:
        model = random_.choices(list(left), list(left.values()))[0]
        chosen.add(model)
        del left[model]
    return frozenset(chosen)


def _resources(row: Mapping[str, str], gpu: int) -> Resources:
    return Resources(int(row["cpu_milli"]), int(row["memory_mib"]) * _MIB, gpu)


def _gpu(row: Mapping[str, str]) -> int:
    count = int(row["num_gpu"])
    return int(row["gpu_milli"]) if count == 1 else 1000 * count


def _models(row: Mapping[str, str]) -> frozenset[str]:
    return frozenset(filter(None, row["gpu_spec"].split("|")))
