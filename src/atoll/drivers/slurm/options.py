"""What sbatch is told: its options for an attempt, and which attempts go together as one job array."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.core.resources import Resources
from atoll.core.spec import ConstraintTerm
from atoll.drivers.base import Launch
from atoll.drivers.slurm.config import ClassOptions
from atoll.drivers.wrapper import quote

NAME = "atoll-"
"""What the names of our jobs begin with; the first attempt's id follows."""
_NOT_PLAIN = re.compile(r"[^\x20-\x7e]")
_EACH = 'export ATOLL_NODE_RANK="$SLURM_NODEID"; exec "$@"'
_MOST_TOGETHER = 5000
"""Most attempts of one array: one more than this is another call."""


@dataclass(frozen=True)
class Limits:
    """What the cluster allows, as far as it decides about options."""

    max_array_size: int = 1001
    """An array's indexes stay below it."""
    max_walltime: int | None = None
    """Seconds that the partition allows; None for no limit."""
    features: frozenset[str] = frozenset()
    """Features that nodes have."""
    gpu_types: Mapping[str, str] = field(default_factory=dict)
    """What Slurm calls the GPUs of a flavor, by flavor, where it has a name for them."""
    gpu_nodes: tuple[str, ...] = ()
    """Nodes that have GPUs, among others that have none."""


@dataclass(frozen=True)
class Batch:
    """Attempts with the same options, submitted by one sbatch."""

    launches: tuple[Launch, ...]
    placed: tuple[str, ...]
    """The options that all share."""
    options: tuple[str, ...]
    """All options."""
    is_array: bool = False

    @property
    def name(self) -> str:
        """Its first attempt's id, which the job's name carries."""
        return self.launches[0].attempt_id

    def native(self, job: str, index: int) -> str:
        """What the engine calls an attempt of it."""
        return f"{job}_{index}" if self.is_array else job

    def of(self, launches: Sequence[Launch], root: str) -> "Batch":
        """A batch of some of its attempts only."""
        return _batch(launches, self.placed, root)


def placing(launch: Launch, own: ClassOptions, limits: Limits) -> tuple[str, ...]:
    """The options that decide where and how long an attempt runs; attempts that share them can be one array."""
    options = _sized(launch.request, launch.nodes, launch.flavors, limits)
    if launch.walltime is not None:
        options.append(f"--time={_minutes(launch, limits)}")
    features = [
        term.label
        for term in map(ConstraintTerm.parse, launch.spec.constraints)
        if not term.values and term.label in limits.features
    ]
    return (*options, *_named(own, features))


def asking_for(room: Resources, flavor: str, own: ClassOptions, limits: Limits) -> tuple[str, ...]:
    """The options of any job of a class that wants so much on one node of a flavor, and names no walltime."""
    return (*_sized(room, 1, (flavor,), limits), *_named(own, ()))


def _sized(request: Resources, nodes: int, flavors: Sequence[str], limits: Limits) -> list[str]:
    """The options for `request` on each of some nodes, of one of some flavors (none: of any)."""
    options = [
        f"--nodes={nodes}",
        "--ntasks-per-node=1",
        f"--cpus-per-task={_whole_cpus(request)}",
        f"--mem={max(1, -(-request.memory // (1 << 20)))}M",
    ]
    if request.gpu:
        kind = next((limits.gpu_types[name] for name in flavors if name in limits.gpu_types), None)
        options.append(f"--gres=gpu:{kind + ':' if kind else ''}{request.gpu // 1000}")
    elif tuple(flavors) == ("cpu",) and limits.gpu_nodes:
        options.append(f"--exclude={','.join(limits.gpu_nodes)}")
    return options


def _named(own: ClassOptions, features: Sequence[str]) -> list[str]:
    """The options that the site file gives a class, with the features that a job asks for beside them."""
    named = {name: getattr(own, name) for name in ("partition", "qos", "account", "reservation")}
    options = [f"--{name}={value}" for name, value in named.items() if value is not None]
    wanted = list(features)
    if own.constraint is not None:
        wanted.insert(0, f"({own.constraint})" if wanted else own.constraint)
    if wanted:
        options.append(f"--constraint={'&'.join(wanted)}")
    return options


def on_each(launch: Launch) -> bool:
    """Whether the command starts on each of several nodes."""
    return launch.nodes > 1 and launch.spec.launch == "each"


def step_on_each(launch: Launch) -> list[str]:
    """The words by which srun starts a command on each node."""
    return [
        "srun", f"--nodes={launch.nodes}", f"--ntasks={launch.nodes}", "--ntasks-per-node=1",
        f"--cpus-per-task={cpus_of(launch)}", "--kill-on-bad-exit=1", "--export=ALL", "--",
        "/bin/sh", "-c", _EACH, "sh",
    ]  # fmt: skip


def words_for_srun(words: Sequence[str]) -> list[str]:
    """A command that means the same to srun, for which a word `:` stands between the parts of a job in parts."""
    return ["/bin/sh", "-c", "exec " + " ".join(map(quote, words))] if ":" in words else list(words)


def cpus_of(launch: Launch) -> int:
    """Whole CPUs on each node: parts are rounded up."""
    return _whole_cpus(launch.request)


def _whole_cpus(request: Resources) -> int:
    return max(1, -(-request.cpu // 1000))


def _minutes(launch: Launch, limits: Limits) -> int:
    """Whole minutes for Slurm's own clock, which is the second line: the keeper ends the job by the second.

    The grace comes on top, or else Slurm would cut it; but never beyond what the partition allows.
    """
    assert launch.walltime is not None
    exact = -(-launch.walltime // 60)
    longer = -(-(launch.walltime + launch.spec.grace + 30) // 60)
    if limits.max_walltime is None:
        return max(1, longer)
    return max(1, exact, min(longer, limits.max_walltime // 60))


def batches(launches: Iterable[tuple[Launch, Sequence[str]]], root: str, limits: Limits) -> Iterator[Batch]:
    """Groups of attempts with the same options, none larger than the cluster's arrays may be."""
    groups: dict[tuple[str, ...], list[Launch]] = {}
    for launch, options in launches:
        groups.setdefault(tuple(options), []).append(launch)
    most = max(1, min(limits.max_array_size, _MOST_TOGETHER))
    for placed, members in groups.items():
        for start in range(0, len(members), most):
            yield _batch(members[start : start + most], placed, root)


def _batch(launches: Sequence[Launch], placed: Sequence[str], root: str) -> Batch:
    name = launches[0].attempt_id
    folder = f"{root}/batches/{name}"
    options = [
        f"--job-name={NAME}{name}",
        f"--comment={comment(launches)}",
        "--no-requeue",
        "--export=ALL",
        f"--chdir={folder}",
        f"--output={_no_symbols(folder)}/log",
        f"--error={_no_symbols(folder)}/log",
        "--open-mode=append",
        "--input=/dev/null",
        *placed,
    ]
    if len(launches) > 1:
        options.append(f"--array=0-{len(launches) - 1}")
    return Batch(tuple(launches), tuple(placed), tuple(options), is_array=len(launches) > 1)


def comment(launches: Sequence[Launch]) -> str:
    """The person's own name of the job, for those who look at the queue with Slurm's commands."""
    titles = {launch.spec.title for launch in launches}
    title = launches[0].spec.title
    text = title if len(titles) == 1 else f"{title} and {len(titles) - 1} more"
    return _NOT_PLAIN.sub("?", text)[:200]


def _no_symbols(path: str) -> str:
    """A path in which sbatch replaces nothing."""
    return path.replace("%", "%%")
