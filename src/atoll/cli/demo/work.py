"""What the people of the demonstration submit, and when: drawn from a seed, without any clock or network."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.cli.demo.department import HOUR, PEOPLE

_FAILED, _TOO_MUCH_MEMORY, _TOO_LONG, _HELD = 0.04, 0.015, 0.02, 0.015
"""What share of jobs fail, use more memory than they asked for, run over their walltime, are submitted on hold."""
_BUSY = 600
"""With so many jobs and tasks waiting, nobody feels like sending more."""
_LINES = 24


@dataclass(frozen=True)
class Kind:
    """Work that a project does again and again."""

    project: str
    name: str
    rate: float
    """How often an hour it is submitted in the busiest hours."""
    hours: tuple[float, float]
    """Between which times it runs, in hours."""
    cpu: int = 1
    gpu: float = 0
    memory: int = 4
    """GiB."""
    flavor: tuple[str, ...] = ("cpu",)
    nodes: int = 1
    array: tuple[int, int] = (0, 0)
    """Of how many tasks, from and to; 0: no array."""
    class_: str = "batch"
    script: str = "python {name}.py"
    then: str = ""
    """The name of what runs once it has succeeded."""


KINDS = (
    Kind("stars", "reduce-night", 1.5, (0.2, 0.7), 1, array=(24, 96), then="coadd"),
    Kind("stars", "nbody", 0.5, (2, 6), 32, memory=128, nodes=2, script="mpirun ./nbody --steps 40000"),
    Kind("climate", "ensemble", 0.5, (1.5, 4), 16, memory=48, array=(6, 12), script="./icon member.nml"),
    Kind("climate", "downscale", 0.7, (1, 3), 8, 2, 64, ("gpu-a100", "gpu-h100")),
    Kind("plasma", "gyrokinetics", 0.4, (2, 5), 32, memory=120, nodes=3, script="mpirun ./gene"),
    Kind("genomes", "align", 1.2, (0.3, 1), 4, memory=14, array=(12, 48), script="minimap2 -a", then="variants"),
    Kind("imaging", "segment", 2, (0.5, 2), 6, 1, 32, ("gpu-l40s", "gpu-a100")),
    Kind("neurons", "spike-sort", 1.5, (0.5, 2.5), 8, 1, 48, ("gpu-l40s",)),
    Kind("vision", "train-vit", 0.8, (2, 7), 24, 4, 160, ("gpu-a100",), then="evaluate"),
    Kind("vision", "ablation", 0.6, (1, 2), 8, 1, 48, ("gpu-a100",), array=(4, 10)),
    Kind("language", "pretrain", 0.3, (4, 9), 48, 4, 320, ("gpu-h100", "gpu-a100"), nodes=2, then="evaluate"),
    Kind("language", "finetune", 0.9, (1, 4), 16, 2, 128, ("gpu-h100", "gpu-a100")),
    Kind("teaching", "exercise", 2, (0.1, 0.3), 1, array=(20, 40)),
    # sessions: somebody sits before them
    Kind("vision", "jupyterlab", 1.5, (1, 4), 4, 1, 24, ("gpu-a100", "gpu-l40s"), class_="interactive"),
    Kind("language", "jupyterlab", 1, (1, 4), 4, 1, 24, ("gpu-h100", "gpu-a100"), class_="interactive"),
    Kind("genomes", "rstudio", 1, (1, 3), 4, memory=16, class_="interactive"),
    Kind("imaging", "jupyterlab", 1, (1, 3), 4, 0.5, 16, ("gpu-l40s",), class_="interactive"),
    Kind("teaching", "jupyterlab", 4, (0.5, 1.5), 1, memory=2, class_="interactive"),
    Kind("climate", "jupyterlab", 1, (1, 3), 2, memory=8, class_="interactive"),
    # what takes whatever is idle, and goes when somebody comes
    Kind("vision", "sweep", 0.8, (1, 3), 6, 1, 32, ("gpu-a100", "gpu-l40s"), array=(16, 40), class_="opportunistic"),
    Kind("stars", "lightcurves", 0.8, (0.5, 2), 4, memory=12, array=(30, 80), class_="opportunistic"),
    Kind("language", "embed", 0.8, (0.5, 2), 8, 1, 48, ("gpu-h100", "gpu-a100"), array=(8, 20), class_="opportunistic"),
)  # fmt: skip


@dataclass
class Order:
    """What one person submits at once."""

    person: str
    specs: list[dict[str, Any]] = field(default_factory=list)
    hold: bool = False


def busy(hour: float) -> float:
    """How busy an hour of the day is, from 0.25 at night to 1 at two in the afternoon."""
    return 0.25 + 0.75 * max(0.0, math.cos((hour - 14) / 10 * math.pi / 2 if abs(hour - 14) < 10 else math.pi / 2))


class Day:
    """All that is submitted. `speed` times as short as it is meant, everything runs."""

    def __init__(self, seed: int, speed: float, mine: Sequence[tuple[str, str]] = ()) -> None:
        """`mine` are further people as (person, project)."""
        self._random = random.Random(seed)
        self._speed = speed
        self._people: dict[str, list[str]] = {project: list(names) for project, names in PEOPLE.items()}
        for person, project in mine:
            self._people[project].append(person)
        self._number = 0

    @property
    def people(self) -> list[str]:
        """Everybody, each once."""
        return list(dict.fromkeys(person for names in self._people.values() for person in names))

    def draw(self, hour: float, hours: float, waiting: int) -> list[Order]:
        """What comes in the `hours` from `hour` of the day on, when so many jobs and tasks wait."""
        room = max(0.0, 1 - waiting / _BUSY)
        orders = []
        for kind in KINDS:
            # whoever wants to sit before a session does not ask how long the queue is
            eager = 1.0 if kind.class_ == "interactive" else room
            count = self._count(kind.rate * busy(hour) * hours * eager)
            orders += [self._order(kind) for _ in range(count)]
        return orders

    def fill(self, count: int, chunk: int = 5000) -> list[Order]:
        """So many single jobs, for a long queue."""
        alone = [kind for kind in KINDS if kind.class_ != "interactive" and kind.nodes == 1]
        orders = []
        while count > 0:
            kind, number = self._random.choice(alone), min(chunk, count)
            order = Order(self._random.choice(self._people[kind.project]))
            order.specs = [self._spec(kind, single=True) for _ in range(number)]
            orders.append(order)
            count -= number
        return orders

    def happens(self, rate: float, hours: float) -> bool:
        """Whether something that happens `rate` times an hour happens in these `hours`."""
        return self._count(rate * hours) > 0

    def choose(self, among: Sequence[Any]) -> Any:
        """One of several."""
        return self._random.choice(among)

    def _count(self, mean: float) -> int:
        """How often something happens that does so `mean` times in the mean (Poisson; Knuth's method)."""
        limit, count, product = math.exp(-mean), 0, self._random.random()
        while product > limit:
            count += 1
            product *= self._random.random()
        return count

    def _order(self, kind: Kind) -> Order:
        draw = self._random
        spec = self._spec(kind)
        order = Order(draw.choice(self._people[kind.project]), [spec], hold=draw.random() < _HELD)
        if kind.then:
            follower = Kind(kind.project, kind.then, 0, (0.2, 0.6), 2, min(kind.gpu, 1), 16, kind.flavor)
            order.specs.append(self._spec(follower) | {"dependencies": [f"ok:{spec['name']}"]})
        return order

    def _spec(self, kind: Kind, *, single: bool = False) -> dict[str, Any]:
        draw = self._random
        self._number += 1
        name = f"{kind.name}-{self._number}"
        hours = draw.uniform(*kind.hours)
        walltime = kind.hours[1] * draw.choice((1.2, 1.5, 2))
        memory = kind.memory
        env = {"FAKE_STOP_TIME": f"{min(5.0, 120 / self._speed):.2f}"}
        fate = draw.random()
        if kind.class_ != "interactive":
            if fate < _FAILED:
                env |= {"FAKE_EXIT": "1", "FAKE_ERROR_OUTPUT": _TRACEBACK.format(name=kind.name)}
                hours *= draw.random()
            elif fate < _FAILED + _TOO_MUCH_MEMORY:
                env["FAKE_MEMORY"] = f"{memory * 2}G"
            elif fate < _FAILED + _TOO_MUCH_MEMORY + _TOO_LONG:
                hours = walltime * 1.1
        env["FAKE_RUNTIME"] = f"{hours * HOUR / self._speed:.2f}"
        if not single:
            env["FAKE_OUTPUT"] = self._log(kind)
        spec: dict[str, Any] = {
            "name": name, "project": kind.project, "class": kind.class_, "cpu": kind.cpu, "memory": f"{memory}Gi",
            "nodes": kind.nodes, "flavor": list(kind.flavor), "env": env, "grace": "10s",
            "walltime": max(2, round(walltime * HOUR / self._speed)), "rerun": True,
            "command": _command(kind),
        }  # fmt: skip
        if kind.gpu:
            spec["gpu"] = kind.gpu
        if kind.array[1] and not single:
            tasks = draw.randint(*kind.array)
            spec["array"] = f"0-{tasks - 1}" + (f"%{max(4, tasks // 3)}" if draw.random() < 0.4 else "")
        return spec

    def _log(self, kind: Kind) -> str:
        loss, lines = self._random.uniform(2, 4), [f"{kind.name}: started on {kind.flavor[0]}"]
        for step in range(1, _LINES):
            loss *= self._random.uniform(0.88, 1.01)
            lines.append(f"step {step * 500:>6}  loss {loss:.4f}  {self._random.uniform(40, 60):.1f} items/s")
        return "\n".join([*lines, "done", ""])


def _command(kind: Kind) -> list[str]:
    if kind.class_ == "interactive":
        return [kind.name, "--no-browser"]
    return kind.script.format(name=kind.name).split()


_TRACEBACK = """Traceback (most recent call last):
  File "{name}.py", line 214, in <module>
    main()
  File "{name}.py", line 97, in main
    batch = loader.next(timeout=600)
TimeoutError: the data loader gave nothing for 600 s
"""
