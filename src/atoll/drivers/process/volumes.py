"""Volumes of a process site: folders of this machine that a job sees where it asked for them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from atoll.drivers.base import Launch
from atoll.drivers.process.config import VolumeConfig

_SYSTEM = ("/proc", "/sys", "/dev", "/run", "/bin", "/sbin", "/lib", "/lib64", "/usr", "/etc", "/boot")
"""Nothing is laid over these, nor into the first three: the machine's programs would not be what they seem."""
_CLOSED = ("/proc", "/sys", "/dev")


def refusal(launch: Launch, volumes: Mapping[str, VolumeConfig], folder: Path) -> str | None:
    """Why the volumes of `launch` cannot be had here, as a sentence's end; None where they can."""
    taken: set[str] = set()
    for asked in launch.spec.volumes:
        volume, path = volumes.get(asked.name), _plain(asked.path)
        if volume is None:
            names = ", ".join(sorted(volumes)) or "none"
            return f"this site has no volume {asked.name!r}; it has: {names}"
        if volume.read_only and not asked.read_only:
            return f"{asked.name!r} can only be read at this site; ask for it with read_only: true"
        if path == "/" or path in _SYSTEM or _inside(path, *_CLOSED) or ".." in asked.path.split("/"):
            return f"nothing can be laid at {asked.path!r}; choose another path"
        if _inside(str(folder), path) or _inside(path, str(folder)):
            return f"{asked.path!r} is where this site keeps its jobs; choose another path"
        if path in taken:
            return f"two volumes cannot be at {asked.path!r}"
        taken.add(path)
    return None


class Request(TypedDict):
    """A folder that the supervisor is to lay at `target`."""

    source: str
    target: str
    read_only: bool


def requests(launch: Launch, volumes: Mapping[str, VolumeConfig]) -> list[Request]:
    """What the supervisor is to mount."""
    return [
        {
            "source": volumes[asked.name].path,
            "target": _plain(asked.path),
            "read_only": asked.read_only or volumes[asked.name].read_only,
        }
        for asked in launch.spec.volumes
    ]


def outside(path: str, launch: Launch, volumes: Mapping[str, VolumeConfig]) -> str:
    """Where `path`, as the job sees it, is on this machine."""
    for entry in sorted(requests(launch, volumes), key=lambda entry: len(entry["target"]), reverse=True):
        if _inside(path, entry["target"]):
            return os.path.normpath(entry["source"] + path.removeprefix(entry["target"]))
    return path


def _plain(path: str) -> str:
    """`path` without doubled, single-dot and trailing parts."""
    return "/" + os.path.normpath(path).strip("/")


def _inside(path: str, *folders: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)
