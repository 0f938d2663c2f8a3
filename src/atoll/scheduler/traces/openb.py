"""The trace of openb, a production GPU cluster: a CSV of its nodes, and one of the pods that ran on it.

The format is that of the folder cluster-trace-gpu-v2023 of alibaba/clusterdata, published with Weng et al., "Beware of
Fragmentation: Scheduling GPU-Sharing Workloads with Fragmentation Gradient Descent", USENIX ATC 2023.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.traces.model import (
    LISTED,
    MOST_AMOUNT,
    MOST_MEMORY,
    BrokenRow,
    Problem,
    Trace,
    TraceJob,
    gather,
    micros,
    number,
)

MEBIBYTE = 2**20
CPU_FLAVOR = "cpu"
"""The flavor of nodes without GPUs; that of others is their model of GPU."""
_CLASSES = {
    "LS": JobClass.INTERACTIVE,  # latency-sensitive
    "Guaranteed": JobClass.BATCH,
    "Burstable": JobClass.BATCH,
    "BE": JobClass.OPPORTUNISTIC,  # best effort
}
_POD_COLUMNS = (
    "name", "cpu_milli", "memory_mib", "num_gpu", "gpu_milli", "gpu_spec", "qos", "creation_time", "deletion_time",
    "scheduled_time",
)  # fmt: skip
_NODE_COLUMNS = ("sn", "cpu_milli", "memory_mib", "gpu", "model")

Row = list[str]
Cells = dict[str, str]


@dataclass(frozen=True, slots=True)
class TraceNode:
    """A node of the cluster that a trace is from."""

    name: str
    flavor: str
    amount: Resources


def is_pod_list(first: str) -> bool:
    """Whether a first line is the heading of a list of pods."""
    return {"cpu_milli", "num_gpu", "creation_time"} <= set(first.split(","))


def is_node_list(first: str) -> bool:
    """Whether a first line is the heading of a list of nodes."""
    return set(_NODE_COLUMNS) <= set(first.split(","))


def read_pods(text: str) -> Trace:
    """The pods as jobs. Raises Invalid where a column is missing.

    A pod that was never scheduled is a job too: its work takes as long as it was there.
    """
    head, rows = _rows(text, _POD_COLUMNS)
    return gather("openb", rows, lambda row: _pod(_cells(head, row)), passed_over="that are empty")


def read_nodes(text: str) -> tuple[tuple[TraceNode, ...], int, tuple[Problem, ...]]:
    """The nodes, how many rows are broken, and the first of these. Raises Invalid where a column is missing."""
    head, rows = _rows(text, _NODE_COLUMNS)
    nodes, problems = [], []
    for line, row in rows:
        try:
            nodes.append(_node(_cells(head, row)))
        except BrokenRow as error:
            problems.append(Problem(line, str(error)))
    return tuple(nodes), len(problems), tuple(problems[:LISTED])


def _rows(text: str, needed: tuple[str, ...]) -> tuple[Row, Iterator[tuple[int, Row]]]:
    """The names of the columns, and the other rows with the numbers of their lines. Raises Invalid."""
    lines = text.split("\n")
    top = next((place for place, line in enumerate(lines) if line.strip()), 0)
    head = lines[top].strip().split(",")
    missing = [column for column in needed if column not in head]
    if missing:
        raise Invalid("bad_trace", f"The trace has no column {missing[0]}.", field="trace")
    # nothing of this trace is ever quoted
    return head, ((line, row.strip().split(",")) for line, row in enumerate(lines[top + 1 :], top + 2) if row.strip())


def _cells(head: Row, row: Row) -> Cells:
    if len(row) != len(head):
        raise BrokenRow(f"there are {len(row)} fields instead of {len(head)}")
    return dict(zip(head, row, strict=True))


def _pod(cells: Cells) -> TraceJob:
    created = micros(cells["creation_time"], "creation_time")
    begun = micros(cells["scheduled_time"], "scheduled_time") if cells["scheduled_time"] else created
    deleted = micros(cells["deletion_time"], "deletion_time")
    if deleted < begun:
        raise BrokenRow("it ends before it starts")
    if cells["qos"] not in _CLASSES:
        raise BrokenRow(f"qos is {cells['qos'][:40]!r}, and not one of {', '.join(_CLASSES)}")
    return TraceJob(
        cells["name"],
        created,
        deleted - begun,
        Resources(_milli(cells, "cpu_milli"), _memory(cells), _gpus(cells)),
        job_class=_CLASSES[cells["qos"]],
        flavors=tuple(flavor for flavor in cells["gpu_spec"].split("|") if flavor),
        ordered=False,
    )


def _gpus(cells: Cells) -> int:
    """Milli-GPU: whole devices where there are several, else the share of one."""
    devices = int(number(cells["num_gpu"], "num_gpu", most=1000))
    if devices == 1:
        return int(number(cells["gpu_milli"], "gpu_milli", most=1000))
    return devices * 1000


def _milli(cells: Cells, field: str) -> int:
    return int(number(cells[field], field, most=MOST_AMOUNT * 1000))


def _memory(cells: Cells) -> int:
    return int(number(cells["memory_mib"], "memory_mib", most=MOST_MEMORY / MEBIBYTE)) * MEBIBYTE


def _node(cells: Cells) -> TraceNode:
    devices = int(number(cells["gpu"], "gpu", most=1000))
    flavor = cells["model"] or CPU_FLAVOR
    return TraceNode(cells["sn"], flavor, Resources(_milli(cells, "cpu_milli"), _memory(cells), devices * 1000))
