"""Reads machine ads: what the pool has, by kind."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from atoll.core.resources import Resources
from atoll.core.site import Flavor

PROJECTION = (
    "Name", "Machine", "SlotType", "PartitionableSlot", "DynamicSlot", "State", "TotalSlotCpus", "TotalSlotMemory",
    "TotalSlotGPUs", "Cpus", "Memory", "GPUs", "GPUs_DeviceName", "CUDADeviceName",
)  # fmt: skip
_MEBIBYTE = 1 << 20
_NAME = re.compile(r"[^a-z0-9]+")


@dataclass
class _Kind:
    total: Resources = field(default_factory=Resources)
    free: Resources = field(default_factory=Resources)
    machines: dict[str, Resources] = field(default_factory=dict)


def flavors_of(ads: Sequence[Mapping[str, Any]]) -> tuple[Flavor, ...]:
    """The kinds of machines, by the model of their GPUs; those without are `cpu`."""
    kinds: dict[str, _Kind] = defaultdict(_Kind)
    for ad in ads:
        if ad.get("DynamicSlot") is True or ad.get("SlotType") == "Dynamic":
            continue  # a part of a partitionable slot, which is counted as a whole
        whole, free = _whole(ad), _free(ad)
        if not whole.cpu or not whole.memory:
            continue
        kind = kinds[_flavor(ad, whole)]
        machine = str(ad.get("Machine") or ad.get("Name") or len(kind.machines))
        kind.total += whole
        kind.free += free
        before = kind.machines.get(machine, Resources())
        kind.machines[machine] = _larger(before, whole)
    return tuple(
        Flavor(name, total=kind.total, node=_largest(kind), nodes=len(kind.machines), free=kind.free)
        for name, kind in sorted(kinds.items())
    )


def _amount(ad: Mapping[str, Any], *names: str) -> int:
    for name in names:
        value = ad.get(name)
        if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12:
            return int(value)
    return 0


def _whole(ad: Mapping[str, Any]) -> Resources:
    return Resources(
        _amount(ad, "TotalSlotCpus", "Cpus") * 1000,
        _amount(ad, "TotalSlotMemory", "Memory") * _MEBIBYTE,
        _amount(ad, "TotalSlotGPUs", "GPUs") * 1000,
    )


def _free(ad: Mapping[str, Any]) -> Resources:
    """What nobody holds: of a partitionable slot what is left of it, of another one all or nothing."""
    partitionable = ad.get("PartitionableSlot") is True or ad.get("SlotType") == "Partitionable"
    if not partitionable and ad.get("State") != "Unclaimed":
        return Resources()
    return Resources(_amount(ad, "Cpus") * 1000, _amount(ad, "Memory") * _MEBIBYTE, _amount(ad, "GPUs") * 1000)


def _flavor(ad: Mapping[str, Any], whole: Resources) -> str:
    if not whole.gpu:
        return "cpu"
    model = ad.get("GPUs_DeviceName") or ad.get("CUDADeviceName")
    word = _NAME.sub("-", str(model).lower()).strip("-").removeprefix("nvidia-") if model else ""
    return f"gpu-{word}"[:63].rstrip("-") if word else "gpu"


def _larger(first: Resources, second: Resources) -> Resources:
    return second if (second.cpu, second.memory) > (first.cpu, first.memory) else first


def _largest(kind: _Kind) -> Resources:
    """The largest slot: a job here is on one."""
    return max(kind.machines.values(), key=lambda slot: (slot.gpu, slot.cpu, slot.memory))
