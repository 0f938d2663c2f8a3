"""What slurmrestd tells of a cluster, in the words of `scontrol show`, which the driver reads."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from atoll.drivers.slurm.facts import MARK

_SETTING = re.compile(r"^\s*([A-Za-z][A-Za-z0-9_]*)\s*=\s*(\S.*?)\s*$", re.MULTILINE)
_MOST_SETTINGS = 1 << 20


def described(
    ping: Mapping[str, Any], nodes: Mapping[str, Any], partitions: Mapping[str, Any],
    reservations: Mapping[str, Any], settings: Mapping[str, str], programs: str,
) -> str:  # fmt: skip
    """The answer to DESCRIBE, from the answers to the four questions. Fields that a version lacks are left out."""
    config = dict(settings)
    slurm = _in(ping, "meta", "Slurm") or _in(ping, "meta", "slurm") or {}
    config["SLURM_VERSION"] = str(slurm.get("release") or "")
    if slurm.get("cluster"):
        config["ClusterName"] = str(slurm["cluster"])
    listed = _list(partitions, "partitions")
    parts = [
        "".join(f"{name} = {value}\n" for name, value in config.items()),
        "".join(f"{_partition(each, alone=len(listed) == 1)}\n" for each in listed),
        "".join(f"{_node(each)}\n" for each in _list(nodes, "nodes")),
        "".join(f"ReservationName={_word(each.get('name'))}\n" for each in _list(reservations, "reservations")),
        programs,
        "",  # slurmrestd tells of qualities of service and accounts only where it has slurmdbd's part
        "",
    ]
    return f"{MARK}\n".join(parts)


def read_settings(path: str) -> dict[str, str]:
    """The settings of a slurm.conf that the control plane has; slurmrestd tells none. Raises OSError."""
    with Path(path).open("rb") as file:
        text = file.read(_MOST_SETTINGS).decode("utf-8", "replace")
    plain = "\n".join(line.partition("#")[0] for line in text.splitlines())
    return {name: value for name, value in _SETTING.findall(plain) if "=" not in value}


def _in(document: Mapping[str, Any], *path: str) -> Any:
    found: Any = document
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _list(document: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    items = document.get(name)
    return [item for item in items if isinstance(item, Mapping)] if isinstance(items, list) else []


def _word(value: Any) -> str:
    return re.sub(r"\s", "", str(value)) if value not in (None, "") else ""


def _words(value: Any) -> str:
    """A list, or what older versions write with commas."""
    return ",".join(map(_word, value)) if isinstance(value, list) else _word(value)


def _amount(value: Any) -> int | None:
    """A number: plain, with -1 for none, or `{set, infinite, number}`."""
    if isinstance(value, Mapping):
        value = value.get("number") if value.get("set") and not value.get("infinite") else None
    return int(value) if isinstance(value, int | float) and value >= 0 else None


def _states(*values: Any) -> str:
    words: list[str] = []
    for value in values:
        words += value if isinstance(value, list) else [value] if value else []
    return "+".join(_word(word).upper() for word in words) or "UNKNOWN"


def _line(pairs: Iterable[tuple[str, Any]]) -> str:
    return " ".join(f"{name}={value}" for name, value in pairs if value not in (None, ""))


def _node(node: Mapping[str, Any]) -> str:
    return _line(
        [
            ("NodeName", _word(node.get("name"))),
            ("NodeAddr", _word(node.get("address"))),
            ("CPUTot", _amount(node.get("cpus"))),
            ("CPUEfctv", _amount(node.get("effective_cpus")) or None),
            ("CPUAlloc", _amount(node.get("alloc_cpus"))),
            ("RealMemory", _amount(node.get("real_memory"))),
            ("MemSpecLimit", _amount(node.get("specialized_memory"))),
            ("AllocMem", _amount(node.get("alloc_memory"))),
            ("State", _states(node.get("state"), node.get("state_flags"))),
            ("Gres", _word(node.get("gres"))),
            ("GresUsed", _word(node.get("gres_used"))),
            ("AvailableFeatures", _words(node.get("features"))),
            ("ActiveFeatures", _words(node.get("active_features"))),
            ("Partitions", _words(node.get("partitions"))),
        ]
    )


def _partition(partition: Mapping[str, Any], *, alone: bool) -> str:
    """From v0.0.39 on nothing tells the default partition: then it is the only one, or the site file names one."""
    default = alone or "default" in [str(flag).lower() for flag in partition.get("flags") or []]
    time = partition.get("max_time_limit", _in(partition, "maximums", "time"))
    nodes = partition.get("maximum_nodes_per_job", _in(partition, "maximums", "nodes"))
    minutes = _amount(time)
    return _line(
        [
            ("PartitionName", _word(partition.get("name"))),
            ("Default", "YES" if default else "NO"),
            ("State", _states(partition.get("state", _in(partition, "partition", "state")))),
            ("MaxTime", "UNLIMITED" if minutes is None else f"{minutes}:00"),
            ("MaxNodes", _amount(nodes)),
        ]
    )
