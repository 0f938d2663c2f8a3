"""How full nodes become before nothing fits any more: the scheduler's placing beside other policies, and what it costs.

The experiment of "Beware of Fragmentation" (USENIX ATC 2023) on its own trace (`bench.openb`): pods are drawn from the
trace with replacement, until the GPUs that they ask for come to 130 % of those there are; each is placed at once or
never, and none leaves. `python -m bench.packing` also draws the GPUs that were allocated by the GPUs asked for.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from atoll.core.resources import Resources
from atoll.scheduler.fragmentation import Fragmentation, Typical, damped
from atoll.scheduler.nodes import Mask, NodeInfo, Nodes
from atoll.scheduler.packing import Packer
from atoll.scheduler.witnesses import Witnesses
from bench import openb
from bench.figures import Row, Target, table
from bench.policies.base import Policy
from bench.policies.fgd import FragmentationGradientDescent, Task
from bench.policies.simple import BestFit, DotProduct, GpuClustering, GpuPacking, Random

ASKED = 1.3
"""GPUs asked for when an experiment ends, as a part of those there are."""
STEPS = 130
"""Points of a curve."""
OURS = "Atoll"
_NOTE = (
    "GPUs that are not allocated when those asked for come to 130 % of the capacity; the value is Atoll's. Pods are "
    "drawn from openb, with a seed for each value, the same ones for all policies. Choosy: a third of those with GPUs "
    "may use two models only."
)
_CPU_NOTE = "CPU time of one process; the time of taking what was chosen is in it."


@dataclass(frozen=True)
class Case:
    """The nodes, numbered by model into pools, and the pods that are drawn from."""

    machines: Sequence[openb.Machine]
    pods: Sequence[openb.Pod]

    @property
    def models(self) -> list[str]:
        """The models by the number of their pool."""
        return sorted({machine.model for machine in self.machines})

    @property
    def gpus(self) -> int:
        """Milli-GPU of all nodes."""
        return sum(machine.capacity.gpu for machine in self.machines)

    def nodes(self, times: int = 1) -> Nodes:
        """Empty nodes, or so many times as many."""
        pools = {model: number for number, model in enumerate(self.models)}
        return Nodes(
            [
                NodeInfo(f"{machine.name}-{copy}", pools[machine.model], machine.capacity)
                for copy in range(times)
                for machine in self.machines
            ]
        )

    def pools(self, pod: openb.Pod) -> frozenset[int]:
        """The pools that a pod may use: of its models, or all."""
        return frozenset(number for number, model in enumerate(self.models) if not pod.models or model in pod.models)

    def mask(self, pod: openb.Pod) -> Mask:
        """The same as a mask."""
        allowed = self.pools(pod)
        return np.array([number in allowed for number in range(len(self.models))])

    def kinds(self) -> Counter[openb.Pod]:
        """How often each distinct pod comes."""
        return Counter(self.pods)

    def packer(self, nodes: Nodes) -> Packer:
        """The scheduler's own policy, for pods as they come here."""
        typical = [Typical(pod.request, self.pools(pod), count) for pod, count in self.kinds().items()]
        return Packer(nodes, Fragmentation(damped(typical), len(self.models)))

    def gradient_descent(self, nodes: Nodes) -> Policy:
        """The paper's policy, for the same pods."""
        tasks = [Task(pod.request, self.pools(pod), count) for pod, count in self.kinds().items()]
        return FragmentationGradientDescent(nodes, tasks, len(self.models))


POLICIES: dict[str, Callable[[Case, Nodes], Policy]] = {
    OURS: lambda case, nodes: case.packer(nodes),
    "FGD": lambda case, nodes: case.gradient_descent(nodes),
    "best fit": lambda _, nodes: BestFit(nodes),
    "dot product": lambda _, nodes: DotProduct(nodes),
    "GPU packing": lambda _, nodes: GpuPacking(nodes),
    "GPU clustering": lambda _, nodes: GpuClustering(nodes),
    "random": lambda _, nodes: Random(nodes),
}


def arrivals(case: Case, random_: random.Random) -> list[openb.Pod]:
    """Pods in the order in which they come."""
    asked, drawn = 0, []
    while asked < ASKED * case.gpus:
        drawn.append(random_.choice(case.pods))
        asked += drawn[-1].request.gpu
    return drawn


def fill(policy: Policy, nodes: Nodes, case: Case, drawn: Sequence[openb.Pod]) -> list[float]:
    """The parts of all GPUs that were allocated when those asked for were 1 %, 2 %, ... of them."""
    masks = {pod: case.mask(pod) for pod in set(drawn)}
    curve: list[float] = []
    asked = allocated = 0
    for pod in drawn:
        spot = policy.best(pod.request, masks[pod])
        if spot is not None:
            nodes.take(spot, pod.request)
            allocated += pod.request.gpu
        asked += pod.request.gpu
        while len(curve) < STEPS and asked >= (len(curve) + 1) * ASKED / STEPS * case.gpus:
            curve.append(allocated / case.gpus)
    return curve


def play(chosen: str, seeds: Sequence[int], told: Callable[[str], None]) -> dict[str, list[list[float]]]:
    """By policy, a curve for each seed; `chosen` is `as traced` or `choosy`, see `bench.openb.choosy`."""
    place = openb.folder()
    machines, trace = openb.machines(place), openb.pods(place)
    curves: dict[str, list[list[float]]] = {name: [] for name in POLICIES}
    for seed in seeds:
        random_ = random.Random(seed)
        pods = openb.choosy(trace, machines, random_) if chosen == "choosy" else trace
        case = Case(machines, pods)
        drawn = arrivals(case, random_)
        for name, make in POLICIES.items():
            nodes = case.nodes()
            began = time.process_time()
            curves[name].append(fill(make(case, nodes), nodes, case, drawn))
            left = 100 * (1 - curves[name][-1][-1])
            told(f"{chosen}, seed {seed}, {name}: {left:.2f} % left, {time.process_time() - began:.1f} s")
    return curves


def quality(chosen: str, curves: Mapping[str, Sequence[Sequence[float]]]) -> Iterator[Row]:
    """What each policy leaves, beside ours."""
    left = {name: [100 * (1 - curve[-1]) for curve in found] for name, found in curves.items()}
    for name, values in left.items():
        if name != OURS:
            target = Target("at most", 1, ratio=True)
            yield Row(f"GPUs left, {chosen}", "%", left[OURS], target, name, values, note=_NOTE)


def measure(folder: Path, small: bool = False) -> Iterator[Row]:
    """What is left by each policy, and the time that ours takes."""
    del folder
    for chosen in ("as traced", "choosy"):
        yield from quality(chosen, play(chosen, range(1 if small else 10), lambda _: None))
    yield from speed(1 if small else 5)


# ---- what it costs


def speed(times: int) -> Iterator[Row]:
    """CPU seconds for the whole trace, for 1,000 placements among 10,000 nodes, and for asking which demands fit."""
    place = openb.folder()
    case = Case(openb.machines(place), openb.pods(place))
    whole = [_whole_trace(case) for _ in range(times)]
    yield Row("placing 8,152 pods on 1,523 nodes", "s", whole, Target("under", 0.5), note=_CPU_NOTE)
    nodes, pods = _nearly_full(case)
    packer = case.packer(nodes)
    placed = [_thousand(Packer(nodes, packer.fragmentation).copy(), pods) for _ in range(times)]
    yield Row("1,000 placements, 10,661 nodes 95 % full", "s", placed, Target("under", 0.4), note=_CPU_NOTE)
    scratch, again = zip(*(_which_fit(nodes, case) for _ in range(times)), strict=True)
    yield Row("which of 5,000 demands fit, at first", "s", scratch, Target("under", 0.5))
    yield Row("which of 5,000 demands fit, then", "ms", again)


def _whole_trace(case: Case) -> float:
    nodes, mask = case.nodes(), np.ones(len(case.models), np.bool_)
    began = time.process_time()
    packer = case.packer(nodes)
    for pod in case.pods:
        if (spot := packer.best(pod.request, mask)) is not None:
            nodes.take(spot, pod.request)
    return time.process_time() - began


def _variants(case: Case, count: int) -> list[Resources]:
    """So many distinct requests, like those of the trace."""
    kinds = list(dict.fromkeys(pod.request for pod in case.pods))
    return [kinds[n % len(kinds)] + Resources(0, n // len(kinds) * 2**20, 0) for n in range(count)]


def _nearly_full(case: Case) -> tuple[Nodes, list[Resources]]:
    """Seven times the nodes with 95 % of the GPUs taken, and 1,000 requests of 500 kinds."""
    random_ = random.Random(0)
    nodes, mask = case.nodes(7), np.ones(len(case.models), np.bool_)
    packer, wanted = case.packer(nodes), 0.05 * 7 * case.gpus
    while nodes.together.sum() > wanted:
        for pod in random_.choices(case.pods, k=100):
            if (spot := packer.best(pod.request, mask)) is not None:
                nodes.take(spot, pod.request)
    return nodes, random_.choices(_variants(case, 500), k=1000)


def _thousand(packer: Packer, requests: Sequence[Resources]) -> float:
    began = time.process_time()
    mask = np.ones(int(packer.nodes.pool.max()) + 1, np.bool_)
    for request in requests:
        if (spot := packer.best(request, mask)) is not None:
            packer.nodes.take(spot, request)
    return time.process_time() - began


def _which_fit(nodes: Nodes, case: Case) -> tuple[float, float]:
    """Seconds for the first answer, milliseconds for the next after ten changes."""
    nodes = nodes.copy()
    rows = np.zeros(5000, [("cpu", "i8"), ("memory", "i8"), ("gpu", "i8")])
    for row, request in zip(rows, _variants(case, 5000), strict=True):
        row["cpu"], row["memory"], row["gpu"] = request.cpu, request.memory, request.gpu
    possible = np.ones((5000, len(case.models)), np.bool_)
    witnesses = Witnesses(nodes)
    began = time.process_time()
    witnesses.fitting(rows, possible)
    first = time.process_time() - began
    request = Resources(1000)
    for node in np.flatnonzero(nodes.fits(request, possible[0]))[-10:].tolist():
        nodes.take(nodes.spot(node, request), request)
    began = time.process_time()
    witnesses.fitting(rows, possible)
    return first, 1000 * (time.process_time() - began)


# ---- the picture


def draw(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]], folder: Path) -> list[Path]:
    """GPUs allocated by GPUs asked for, the mean of all seeds, as PNG and SVG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(curves), figsize=(6 * len(curves), 4.5), layout="constrained", squeeze=False)
    asked = [100 * ASKED * (step + 1) / STEPS for step in range(STEPS)]
    for axis, (chosen, by_policy) in zip(axes[0], curves.items(), strict=True):
        for name, found in by_policy.items():
            mean = 100 * np.mean(found, axis=0)
            axis.plot(asked, mean, label=f"{name} ({mean[-1]:.1f} %)", linewidth=2 if name == OURS else 1)
        axis.plot(asked, [min(100, at) for at in asked], color="0.7", linewidth=0.8, linestyle=":")
        axis.set(xlabel="GPUs asked for, %", ylabel="GPUs allocated, %", title=f"openb, {chosen}")
        axis.set(xlim=(70, 100 * ASKED), ylim=(65, 101))
        axis.legend(loc="lower right", frameon=False)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"packing.{kind}" for kind in ("png", "svg")]
    for path in paths:
        figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return paths


def main(arguments: Sequence[str] | None = None) -> int:
    """Play it and draw the picture."""
    parser = argparse.ArgumentParser(prog="python -m bench.packing", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("bench-packing"), help="folder for the picture and the table")
    given = parser.parse_args(arguments)

    def told(words: str) -> None:
        print(words, file=sys.stderr, flush=True)

    curves = {chosen: play(chosen, range(given.seeds), told) for chosen in ("as traced", "choosy")}
    paths = draw(curves, given.out)
    text = table([row for chosen, found in curves.items() for row in quality(chosen, found)])
    (given.out / "packing.txt").write_text(text + "\n")
    print(f"{text}\n\npicture: {', '.join(map(str, paths))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
