"""What a cluster is: its nodes, partitions and limits, read from `scontrol show`, and what becomes of them in Atoll."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from atoll.core.resources import Resources, format_bytes, parse_seconds
from atoll.core.site import Flavor
from atoll.core.spec import JobClass
from atoll.drivers.base import DriverError
from atoll.drivers.slurm.config import ClassOptions

_PAIR = re.compile(r"(?:^|\s)([A-Za-z][A-Za-z_/:0-9]*)=(\S*)")
_SETTING = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s(.*?)\s*$", re.MULTILINE)
_GRES = re.compile(r"gpu:(?:([A-Za-z0-9_.-]*[A-Za-z_.-][A-Za-z0-9_.-]*):)?(\d+)")
_VERSION = re.compile(r"(\d{2,})\.(\d{1,2})(?:\.\d+)?")
_AWAY = (
    "DOWN",
    "DRAIN",
    "FAIL",
    "MAINT",
    "NOT_RESPONDING",
    "UNKNOWN",
    "POWERED_DOWN",
    "POWERING_DOWN",
    "INVAL",
    "FUTURE",
)
_MIB = 1 << 20
_MOST_NAMED = 20
MARK = "--atoll--"
"""What stands between the answers to DESCRIBE."""

DESCRIBE = f"""
for what in config partition "node -d"; do
    scontrol show $what -o || exit
    echo {MARK}
done
scontrol show reservation -o 2>/dev/null
echo {MARK}
for program in apptainer singularity ch-run conda; do command -v "$program"; done
if [ -n "${{SLURM_CONF:-}}" ]; then set -- "${{SLURM_CONF%/*}}"; else set -- /etc/slurm /run/slurm/conf; fi
for folder in "$@"; do [ ! -f "$folder/oci.conf" ] || echo "$folder/oci.conf"; done
for what in "qos format=Name,MaxWall" "account format=Account"; do
    echo {MARK}
    timeout 5 sacctmgr --noheader --parsable2 show $what 2>/dev/null
done
:
"""
"""Asks for all of it in one go."""


@dataclass(frozen=True)
class Node:
    """A node with what it has, and what of it nobody has been given."""

    name: str
    address: str
    total: Resources
    free: Resources
    gpu_type: str | None
    gpu_types: frozenset[str]
    features: frozenset[str]
    partitions: frozenset[str]
    available: bool

    @property
    def flavor(self) -> str:
        """`cpu`, or `gpu-TYPE`; all of a GPU node belongs to that flavor."""
        if not self.total.gpu:
            return "cpu"
        return f"gpu-{re.sub(r'[^a-z0-9.]+', '-', (self.gpu_type or 'unknown').lower()).strip('-')}"


@dataclass(frozen=True)
class Partition:
    """A partition. Times in seconds; None for no limit."""

    name: str
    default: bool
    up: bool
    max_time: int | None
    max_nodes: int | None


@dataclass(frozen=True)
class Facts:
    """A cluster."""

    cluster: str
    version: tuple[int, int]
    settings: Mapping[str, str]
    nodes: tuple[Node, ...]
    partitions: Mapping[str, Partition]
    reservations: tuple[str, ...] = ()
    programs: Mapping[str, str] = field(default_factory=dict)
    """Paths of programs that the login node has, by name; and of the cluster's oci.conf."""
    qos: Mapping[str, int | None] = field(default_factory=dict)
    """Longest walltime in seconds, or None, of each quality of service, where slurmdbd tells of them."""
    accounts: frozenset[str] = frozenset()
    """Accounts that slurmdbd tells of."""

    def number(self, setting: str, otherwise: int) -> int:
        """A setting of slurm.conf that is a number; `60 sec` is 60."""
        match = re.match(r"\d+", self.settings.get(setting, ""))
        return int(match[0]) if match else otherwise

    @property
    def accounting(self) -> bool:
        """Whether there is slurmdbd, and so sacct."""
        return self.settings.get("AccountingStorageType", "").endswith("slurmdbd")

    def partitions_of(self, named: Iterable[str | None]) -> dict[str, Partition]:
        """The partitions that the site file names; for what it leaves open, the default one. Raises DriverError."""
        chosen: dict[str, Partition] = {}
        for words in named:
            for name in (words or "").split(",") if words else self._default():
                if name not in self.partitions:
                    known = ", ".join(sorted(self.partitions)) or "none"
                    raise DriverError(f"The cluster has no partition {name!r}; it has: {known}.")
                chosen[name] = self.partitions[name]
        return chosen

    def longest(self, own: ClassOptions) -> int | None:
        """Seconds that a job of a class may run at most; None for no limit. Raises DriverError."""
        times = [partition.max_time for partition in self.partitions_of([own.partition]).values()]
        longest = None if None in times else max((time for time in times if time is not None), default=None)
        of_qos = self.qos.get(own.qos) if own.qos is not None else None
        return min((time for time in (longest, of_qos) if time is not None), default=None)

    def unknown(self, classes: Mapping[JobClass, ClassOptions]) -> list[str]:
        """Sentences about what the site file names and the cluster does not have."""
        said = []
        for name, own in classes.items():
            wanted = {
                "qos": (own.qos, self.qos, "quality of service"),
                "account": (own.account, self.accounts, "account"),
                "reservation": (own.reservation, self.reservations, "reservation"),
            }
            for key, (word, known, what) in wanted.items():
                # who does not tell of any, as where there is no slurmdbd, has not said that there are none
                if word is None or word in known or not (known or key == "reservation"):
                    continue
                there = ", ".join(sorted(known)[:_MOST_NAMED]) or "none"
                said.append(f"classes.{name}.{key}: the cluster has no {what} {word!r}; it has: {there}.")
        return said

    def _default(self) -> list[str]:
        return [partition.name for partition in self.partitions.values() if partition.default]


def read_facts(text: str) -> Facts:
    """What DESCRIBE said. Raises DriverError where that is not what scontrol says."""
    parts = text.split(f"{MARK}\n")
    if len(parts) != 7:
        raise DriverError(f"scontrol's description of the cluster cannot be read: {text[:80]!r}.")
    config, partitions, nodes, reservations, programs, qos, accounts = parts
    settings = dict(_SETTING.findall(config))
    match = _VERSION.match(settings.get("SLURM_VERSION", ""))
    return Facts(
        cluster=settings.get("ClusterName", ""),
        version=(int(match[1]), int(match[2])) if match else (0, 0),
        settings=settings,
        nodes=tuple(_node(line) for line in nodes.splitlines() if line.startswith("NodeName=")),
        partitions={
            each.name: each
            for each in (_partition(line) for line in partitions.splitlines() if line.startswith("PartitionName="))
        },
        reservations=tuple(
            line.split()[0].removeprefix("ReservationName=")
            for line in reservations.splitlines()
            if line.startswith("ReservationName=")
        ),
        programs={path.rpartition("/")[2]: path for path in programs.split() if path.startswith("/")},
        qos={name: _seconds(time) for name, _, time in (line.partition("|") for line in qos.splitlines()) if name},
        accounts=frozenset(accounts.split()),
    )


def _pairs(line: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for name, value in _PAIR.findall(line):
        pairs.setdefault(name, "" if value == "(null)" else value)
    return pairs


def _words(text: str) -> frozenset[str]:
    return frozenset(word for word in text.split(",") if word)


def _gpus(text: str) -> tuple[int, dict[str, int]]:
    """GPUs together and by type, of `gpu:a100:4(S:0-1),gpu:h100:2(IDX:0)`."""
    kinds: dict[str, int] = {}
    together = 0
    for kind, count in _GRES.findall(re.sub(r"\([^)]*\)", "", text)):
        together += int(count)
        if kind and kind != "(null)":
            kinds[kind] = kinds.get(kind, 0) + int(count)
    return together, kinds


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0


def _node(line: str) -> Node:
    pairs = _pairs(line)
    count, kinds = _gpus(pairs.get("Gres", ""))
    used, _ = _gpus(pairs.get("GresUsed", ""))
    cpus = _number(pairs.get("CPUEfctv")) or _number(pairs.get("CPUTot"))
    memory = _number(pairs.get("RealMemory")) - _number(pairs.get("MemSpecLimit"))
    total = Resources(cpus * 1000, memory * _MIB, count * 1000)
    state = pairs.get("State", "UNKNOWN")
    available = not any(word in state for word in _AWAY) and "*" not in state
    free = Resources()
    if available:
        free = Resources(
            max(0, cpus - _number(pairs.get("CPUAlloc"))) * 1000,
            max(0, memory - _number(pairs.get("AllocMem"))) * _MIB,
            max(0, count - used) * 1000,
        )
    return Node(
        name=pairs["NodeName"],
        address=pairs.get("NodeAddr") or pairs["NodeName"],
        total=total,
        free=free,
        gpu_type=max(kinds, key=lambda kind: kinds[kind]) if kinds else None,
        gpu_types=frozenset(kinds),
        features=_words(pairs.get("ActiveFeatures", "") or pairs.get("AvailableFeatures", "")),
        partitions=_words(pairs.get("Partitions", "")),
        available=available,
    )


def _partition(line: str) -> Partition:
    pairs = _pairs(line)
    return Partition(
        name=pairs["PartitionName"],
        default=pairs.get("Default") == "YES",
        up=pairs.get("State", "UP") == "UP",
        max_time=_seconds(pairs.get("MaxTime", "UNLIMITED")),
        max_nodes=int(pairs["MaxNodes"]) if pairs.get("MaxNodes", "").isdecimal() else None,
    )


def _seconds(text: str) -> int | None:
    try:
        return None if text in ("UNLIMITED", "INFINITE", "NONE", "") else parse_seconds(text)
    except ValueError:
        return None


def flavors(nodes: Sequence[Node]) -> tuple[Flavor, ...]:
    """The kinds of hardware among the nodes, the plain one first."""
    by_name: dict[str, list[Node]] = {}
    for node in nodes:
        by_name.setdefault(node.flavor, []).append(node)
    made = []
    for name in sorted(by_name, key=lambda name: (name != "cpu", name)):
        members = by_name[name]
        made.append(
            Flavor(
                name,
                total=_sum(node.total for node in members),
                node=_largest(node.total for node in members),
                nodes=len(members),
                free=_sum(node.free for node in members),
            )
        )
    return tuple(made)


def _sum(amounts: Iterable[Resources]) -> Resources:
    total = Resources()
    for amount in amounts:
        total += amount
    return total


def _largest(amounts: Iterable[Resources]) -> Resources:
    """The most of each that a node has; Slurm itself says no where no single node has all of it."""
    every = list(amounts)
    return Resources(max(a.cpu for a in every), max(a.memory for a in every), max(a.gpu for a in every))


def notes(facts: Facts) -> tuple[str, ...]:
    """Sentences for the operator about what works less well here."""
    said = []
    settings = facts.settings
    if "cgroup" not in settings.get("TaskPlugin", "cgroup"):  # slurmrestd tells no settings: then nothing is known
        said.append("TaskPlugin is not task/cgroup: Slurm does not hold jobs to the memory that they asked for.")
    if "cgroup" not in settings.get("ProctrackType", "cgroup"):
        said.append("ProctrackType is not proctrack/cgroup: Slurm itself cannot find every process that a job started.")
    if "jobs" in settings.get("PrivateData", ""):
        said.append("PrivateData hides jobs: let the site's own account see all of them (operator, or root).")
    if not facts.accounting:
        age = facts.number("MinJobAge", 300)
        said.append(
            f"There is no slurmdbd: Slurm forgets an ended job after {age} s; then only the wrapper knows its end."
        )
    largest = max((node.total.memory for node in facts.nodes), default=0)
    if largest and largest < 512 * _MIB:
        said.append(f"The nodes have {format_bytes(largest)} of memory at most: set RealMemory in slurm.conf.")
    return tuple(said)
