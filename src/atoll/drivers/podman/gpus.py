"""GPUs of a container host: which there are, by CDI, and which of them an attempt gets.

Podman does not count GPUs, and any number of containers may name the same one. So each container carries what it was
given in a label, and who is next gets what no living container carries.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid

LABEL = "atoll.gpus"
"""`NAME=MILLI,NAME=MILLI`: what of which device a container holds."""
SPEC_FILES = ("/etc/cdi/*", "/var/run/cdi/*")
WHOLE = 1000


def devices_in(files: Iterable[bytes], kind: str) -> list[str]:
    """The devices of `kind` that CDI files describe, one name for each: numbers before other names, never "all"."""
    names: list[str] = []
    for text in files:
        try:
            document = json.loads(text) if text.lstrip()[:1] == b"{" else read_yaml(text, "CDI file")
        except (ValueError, Invalid):
            continue  # a file that is not ours to mend; its devices are not there for Podman either
        if isinstance(document, dict) and document.get("kind") == kind:
            listed = document.get("devices")
            found = [item.get("name") for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
            names += [str(name) for name in found if name is not None and str(name) != "all"]
    numbers = [name for name in names if name.replace(":", "").isdecimal()]
    # the same GPU is often named by its number and by its UUID: numbers are enough where there are any
    return sorted(set(numbers), key=lambda name: [int(part) for part in name.split(":") if part]) or sorted(set(names))


def held_by(labels: Mapping[str, str] | None) -> dict[str, int]:
    """What a container holds, by its label; nothing for one that makes no sense."""
    held: dict[str, int] = {}
    for item in (labels or {}).get(LABEL, "").split(","):
        name, _, milli = item.rpartition("=")
        if name and milli.isdecimal():
            held[name] = held.get(name, 0) + int(milli)
    return held


def choose(wanted: int, devices: Sequence[str], used: Mapping[str, int]) -> dict[str, int] | None:
    """Devices for `wanted` milli-GPU: whole free ones, or for a part the fullest that has room. None: not now."""
    if wanted >= WHOLE:
        free = [name for name in devices if not used.get(name)]
        count = wanted // WHOLE
        return dict.fromkeys(free[:count], WHOLE) if len(free) >= count else None
    fits = [name for name in devices if used.get(name, 0) + wanted <= WHOLE]
    return {max(fits, key=lambda name: used.get(name, 0)): wanted} if fits else None


def add_devices(body: Mapping[str, Any], chosen: Mapping[str, int], kind: str) -> dict[str, Any]:
    """What the API is asked to create, with these devices."""
    labels = {**body["labels"], LABEL: ",".join(f"{name}={milli}" for name, milli in chosen.items())}
    return {**body, "labels": labels, "devices": [{"path": f"{kind}={name}"} for name in chosen]}
