"""What a plugin has: from its answer to an empty question, or from the site file."""

import re
from collections.abc import Mapping
from typing import Any

from atoll.core.resources import Resources
from atoll.core.site import Flavor
from atoll.drivers.base import DriverError
from atoll.drivers.interlink.config import InterlinkConfig

_QUANTITY = re.compile(r"([0-9]{1,24}(?:\.[0-9]{1,9})?)(m|[kMGTPE]i?|Ki|e[0-9]{1,2})?")
_TENS = {"k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_TWOS = {"K": 10, "M": 20, "G": 30, "T": 40, "P": 50, "E": 60}


def quantity(value: Any) -> float | None:
    """An amount as Kubernetes writes it ("4", "500m", "128Gi"); None for what is none."""
    match = _QUANTITY.fullmatch(str(value).strip()) if isinstance(value, str | int | float) else None
    if match is None:
        return None
    number, unit = float(match[1]), match[2] or ""
    if unit == "m":
        return number / 1000
    if unit.startswith("e"):
        return number * 10.0 ** int(unit[1:])
    if unit.endswith("i"):
        return number * 2.0 ** _TWOS[unit[0]]
    return number * 10.0 ** _TENS[unit] if unit else number


def told_resources(ping: Any, gpu_resource: str) -> Resources | None:
    """What the answer to an empty question says that there is; None where it does not tell."""
    resources = ping.get("resources") if isinstance(ping, dict) else None
    if not isinstance(resources, dict):
        return None
    cpu, memory = quantity(resources.get("cpu")), quantity(resources.get("memory"))
    if cpu is None or memory is None:
        return None
    gpus = 0.0
    accelerators = resources.get("accelerators")
    for each in accelerators if isinstance(accelerators, list) else ():
        if isinstance(each, Mapping) and each.get("resourceType") == gpu_resource:
            gpus += quantity(each.get("available")) or 0.0
    return Resources(round(min(cpu, 1e9) * 1000), round(min(memory, 2.0**62)), int(min(gpus, 1e9)) * 1000)


def told_taints(ping: Any) -> list[str]:
    """Taints by which the plugin keeps work away, as Kubernetes writes them."""
    taints = ping.get("taints") if isinstance(ping, dict) else None
    listed = [each for each in taints if isinstance(each, Mapping)] if isinstance(taints, list) else []
    closing = [each for each in listed if each.get("effect") in ("NoSchedule", "NoExecute")]
    return [f"{each.get('key')}={each.get('value', '')}:{each['effect']}"[:200] for each in closing[:10]]


def flavor_of(config: InterlinkConfig, told: Resources | None) -> Flavor:
    """The site's one kind of hardware. Raises DriverError where nobody says what there is."""
    if config.total is not None:
        total = config.total.resources
        free = None
        if told is not None:
            free = Resources(min(told.cpu, total.cpu), min(told.memory, total.memory), min(told.gpu, total.gpu))
    elif told is not None:
        total, free = told, None
    else:
        raise DriverError("The plugin does not tell what it has: give total (cpus, memory, gpus) in the site's config.")
    node = config.node.resources if config.node is not None else total
    name = config.flavor or ("gpu" if total.gpu else "cpu")
    return Flavor(name, total=total, node=node, nodes=config.nodes, free=free)
