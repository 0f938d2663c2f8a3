"""What a cycle of the scheduler costs: a real trace at once, and long queues before ten thousand nodes.

CPU time of one process. `python -m bench queue`; `python -m bench.queue docs/queue-curve.svg` draws how the cost grows.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.site import Flavor, Health, Node, NodeSpot, Site, SiteReport
from atoll.core.site_file import Identity
from atoll.scheduler.consistency import contents
from atoll.scheduler.cycle import cycle
from atoll.scheduler.model import (
    Change,
    Decisions,
    JobGone,
    JobWaits,
    Placement,
    Reserved,
    RoomFreed,
    RoomTaken,
    Running,
    SiteChanged,
    SiteState,
    TreeChanged,
    Waiting,
)
from atoll.scheduler.quota import Tree
from atoll.scheduler.snapshot import Snapshot
from bench import openb
from bench.figures import Broken, Row, Target, table

_GIB = 2**30
_SECOND = 1_000_000
NOW = 10**7 * _SECOND
FLAVORS = tuple(f"gpu-{number}" for number in range(8))
_NODE = Resources(96_000, 400 * _GIB, 8000)
SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
"""So many wait, for the curve."""
_NOTE = "CPU time; reasons of the first 1,000 included. 1,000 projects with quotas, 95 % of the GPUs taken."


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """Seconds for a trace, for a long queue and for one change of it, and how the cost grows with the queue."""
    del folder
    times = 1 if small else 3
    whole = [_trace_at_once(200 if small else None) for _ in range(times)]
    yield Row("all pods of openb in one cycle", "s", whole, Target("under", 1), note="CPU time, with all reasons.")
    nodes, jobs = (40, 300) if small else (10_000, 100_000)
    starts, firsts, ones = zip(*(_long_queue(nodes, jobs) for _ in range(times)), strict=True)
    yield Row(f"first cycle, {jobs:,} wait", "s", firsts, Target("under", 2), note=_NOTE)
    yield Row(f"jobs that start then, {jobs:,} wait", "jobs", starts)
    changes = [figure for one in ones for figure in one]
    yield Row(f"one change and a cycle, {jobs:,} wait", "ms", changes, Target("under", 100), note=_NOTE)
    if small:
        yield from Curve.of(nodes, (100, 200)).rows()


def _timed(work: Callable[[], Decisions]) -> tuple[float, Decisions]:
    begun = time.process_time()
    found = work()
    return time.process_time() - begun, found


def _site(*nodes: Node) -> SiteChanged:
    flavors = []
    for kind in dict.fromkeys(node.flavor for node in nodes):
        sizes = [node.resources for node in nodes if node.flavor == kind]
        most = Resources(*(max(getattr(size, name) for size in sizes) for name in ("cpu", "memory", "gpu")))
        flavors.append(Flavor(kind, sum(sizes, Resources()), most, len(sizes)))
    report = SiteReport(tuple(flavors), nodes=nodes)
    return SiteChanged(SiteState(Site("bench", "fake", {}, report, Health.OK, identity=Identity(shared=True))))


# ---- a trace


def _trace_at_once(most: int | None) -> float:
    place = openb.folder()
    nodes = [Node(found.name, found.model or "none", found.capacity) for found in openb.machines(place)]
    waits = [
        JobWaits(Waiting(number, 2, 0, number, pod.request, flavors=tuple(sorted(pod.models)), ordered=False))
        for number, pod in enumerate(openb.pods(place)[:most])
    ]
    snapshot = Snapshot.from_changes([_site(*nodes), *waits])
    seconds, decisions = _timed(lambda: cycle(snapshot, _SECOND, head=len(waits)))
    if len(decisions.placements) + len(decisions.reasons) != len(waits):
        raise Broken("a pod was neither placed nor told why not")
    return seconds


# ---- a long queue


def long_queue(nodes: int, jobs: int) -> Snapshot:
    """So many that wait before so many nodes, after what could start at `NOW` has started."""
    return _first_cycle(nodes, jobs, random.Random(1))[0]


def _first_cycle(nodes: int, jobs: int, chance: random.Random) -> tuple[Snapshot, int, float]:
    """What is after the first cycle, how many started in it, and the seconds that it took."""
    snapshot = Snapshot.from_changes(_institution(nodes, chance))
    waits = [_job(number, chance, jobs) for number in range(1, jobs + 1)]
    snapshot.apply(map(JobWaits, waits))
    seconds, decisions = _timed(lambda: cycle(snapshot, NOW))
    known = {waiting.job_id: waiting for waiting in waits}
    for place in decisions.placements:
        job = known[place.job_id]
        snapshot.apply([JobGone(job.job_id), RoomTaken(_begun(job, place.flavor, place.spots[0]))])
    snapshot.apply([Reserved(decisions.reservations)])
    return snapshot, len(decisions.placements), seconds


def _long_queue(nodes: int, jobs: int) -> tuple[float, float, list[float]]:
    """How many start at first, the seconds of that cycle, and milliseconds for single changes afterwards."""
    chance = random.Random(1)
    snapshot, started, seconds = _first_cycle(nodes, jobs, chance)
    snapshot.apply([Reserved(cycle(snapshot, NOW + _SECOND).reservations)])
    held = sorted(contents(snapshot)[1])
    changes: list[list[Change]] = [
        [JobWaits(_job(jobs + 1, chance, jobs))], [RoomFreed(chance.choice(held), NOW)],
        [JobWaits(_job(jobs + 2, chance, jobs))], [RoomFreed(chance.choice(held), NOW)],
    ]  # fmt: skip
    figures = []
    for number, change in enumerate(changes, start=2):
        begun = time.process_time()
        snapshot.apply(change)
        found = cycle(snapshot, NOW + number * _SECOND)
        figures.append(1000 * (time.process_time() - begun))
        snapshot.apply([Reserved(found.reservations)])
    return started, seconds, figures


# ---- how the cost grows


@dataclass(frozen=True)
class Curve:
    """What cycles cost with queues of different lengths."""

    sizes: Sequence[int]
    firsts: Sequence[float]
    """Seconds of the first cycle, in which about a thousand start."""
    ones: Sequence[Sequence[float]]
    """Milliseconds of single changes afterwards, each with its cycle."""

    @classmethod
    def of(cls, nodes: int, sizes: Sequence[int]) -> Curve:
        """Measure it."""
        _, firsts, ones = zip(*(_long_queue(nodes, size) for size in sizes), strict=True)
        return cls(sizes, firsts, ones)

    def powers(self, last: int = 0) -> tuple[float, float]:
        """As which powers of the length first cycles and those after a change grow: of all lengths, or the `last`."""
        ones = [statistics.median(one) for one in self.ones]
        return _power(self.sizes[-last:], self.firsts[-last:]), _power(self.sizes[-last:], ones[-last:])

    def rows(self) -> Iterator[Row]:
        """As a table."""
        for size, first, one in zip(self.sizes, self.firsts, self.ones, strict=True):
            yield Row(f"first cycle, curve at {size:,}", "s", [first], note=_NOTE)
            yield Row(f"one change and a cycle, curve at {size:,}", "ms", one, note=_NOTE)
        note = "The cost grows as this power of the length of the queue; the target is that of n log n."
        for lengths, last in (("all lengths", 0), ("the last two", 2)):
            sizes = self.sizes[-last:]
            most = Target("at most", round(_power(sizes, [size * np.log(size) for size in sizes]), 3))
            for name, power in zip(("first cycle", "one change"), self.powers(last), strict=True):
                yield Row(f"power of {name}, {lengths}", "", [power], most, note=note)

    def draw(self, path: Path) -> None:
        """Both as lines over the length of the queue, all in powers, beside n log n."""
        import matplotlib as mpl

        mpl.use("Agg")
        mpl.rcParams["svg.hashsalt"] = "atoll"  # the same file for the same figures
        from matplotlib import pyplot

        lengths = np.array(self.sizes, np.float64)
        ones = [statistics.median(one) for one in self.ones]
        first, one = self.powers()
        figure, axis = pyplot.subplots(figsize=(6.5, 4), layout="constrained")
        axis.loglog(lengths, 1000 * np.array(self.firsts), "o-", label=f"first cycle (power {first:.2f})")
        axis.loglog(lengths, ones, "s-", label=f"one change and a cycle (power {one:.2f})")
        growing = lengths * np.log(lengths)
        axis.loglog(lengths, growing * (1000 * self.firsts[-1] / growing[-1]), ":", color="0.6", label="n log n")
        axis.set(xlabel="jobs that wait", ylabel="CPU time, ms", title="Cycles before 10,000 nodes, 1,000 projects")
        axis.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
        pyplot.close(figure)


def _power(lengths: Sequence[float], costs: Sequence[float]) -> float:
    """The exponent of the power law through these, by least squares of the logarithms."""
    return float(np.polyfit(np.log(lengths), np.log(costs), 1)[0])


def _institution(count: int, chance: random.Random) -> list[Change]:
    """Nodes of eight flavors with 95 % of their GPUs taken, and 1,000 projects in 30 departments."""
    quotas = {(flavor, "gpu"): Limit(max(1000, count * 8)) for flavor in FLAVORS}
    tree = [TreeNode("root", None), *(TreeNode(f"d{number}", "root", weight=1 + number % 3) for number in range(30))]
    tree += [TreeNode(f"p{number}", f"d{number % 30}", quotas=quotas) for number in range(1000)]
    nodes = [Node(f"n{number:05}", FLAVORS[number % 8], _NODE) for number in range(count)]
    changes: list[Change] = [TreeChanged(Tree(tree)), _site(*nodes)]
    for number, node in enumerate(nodes):
        for device in range(8):
            if chance.random() < 0.95:
                project = chance.randrange(1000)
                held = Running(
                    f"r{number:05}-{device}", 10**8 + number, "bench", node.flavor, Resources(8000, 30 * _GIB, 1000),
                    1, 2, project=f"p{project}", person=f"u{project}", placed=1, started=1,
                    walltime=10**7 + chance.randrange(3600, 86400), spots=(NodeSpot(node.name, ((device, 1000),)),),
                )  # fmt: skip
                changes.append(RoomTaken(held))
    return changes


def _job(number: int, chance: random.Random, jobs: int) -> Waiting:
    """Most ask for all GPUs of a node, of which none is free; so many for one that about a thousand can start."""
    project = min(999, int(chance.paretovariate(1) * 5))
    small = chance.random() < 1000 / jobs
    request = Resources(chance.choice([4000, 8000]), chance.choice([8, 16, 32]) * _GIB, 1000 if small else 8000)
    placement = Placement(f"u{project}-{chance.randrange(3)}", walltime=chance.choice([3600, 7200, 14_400, 86_400]))
    return Waiting(
        number, 2, 0, NOW - 1000 * _SECOND + number, request, flavors=(chance.choice(FLAVORS),), placement=placement,
        project=f"p{project}",
    )  # fmt: skip


def _begun(job: Waiting, flavor: str, spots: tuple[NodeSpot, ...]) -> Running:
    return Running(
        f"s{job.job_id}", job.job_id, "bench", flavor, job.request, 1, 2, project=job.project,
        person=job.placement.person, placed=NOW, started=NOW, walltime=job.placement.walltime, spots=spots,
    )  # fmt: skip


def main() -> None:
    """Draw the picture that the documentation shows."""
    parser = argparse.ArgumentParser(prog="python -m bench.queue", description="How the cost of cycles grows.")
    parser.add_argument("file", type=Path, help="where the picture goes, as docs/queue-curve.svg")
    parser.add_argument("--nodes", type=int, default=10_000)
    parser.add_argument("--most", type=int, default=SIZES[-1], help="so many wait at most")
    given = parser.parse_args()
    curve = Curve.of(given.nodes, [size for size in SIZES if size <= given.most])
    curve.draw(given.file)
    print(table(list(curve.rows())))


if __name__ == "__main__":
    main()
