"""What `atoll doctor` looks at: each check says in a sentence what this machine can do, or not, and what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from atoll.core.errors import AtollError, Unavailable

if TYPE_CHECKING:
    from atoll.client.synchronous import Client

_LITTLE_SPACE = 1024**3


class Status(StrEnum):
    """How a check came out."""

    OK = "ok"
    NOTE = "note"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    status: Status
    sentence: str


def examine(data: Path, connect: "Callable[[], Client]", server_modules: tuple[str, ...]) -> Iterator[Finding]:
    """Everything that is looked at, one after the other; nothing of it changes the machine."""
    yield _python()
    yield _server(server_modules)
    yield _platform(connect)
    yield from _data_folder(data)
    yield _cpus()
    yield _memory()
    yield _gpus()
    yield _memory_limits()
    yield _identity()
    yield _user_namespaces()
    yield from _engines()


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.platform != "linux":
        return Finding(
            "python", Status.WARN, f"Python {version} on {sys.platform}: the client works, the platform needs Linux."
        )
    return Finding("python", Status.OK, f"Python {version} on Linux.")


def _server(modules: tuple[str, ...]) -> Finding:
    missing = [name for name in modules if find_spec(name) is None]
    if missing:
        sentence = f"'atoll up' cannot run here ({missing[0]} is missing); pip install 'atoll[server]' brings it."
        return Finding("server", Status.NOTE, sentence)
    return Finding("server", Status.OK, "The platform's parts are installed: 'atoll up' can run here.")


def _platform(connect: "Callable[[], Client]") -> Finding:
    try:
        with connect() as client:
            url, source = client.platform.url, client.platform.source
            version = client.version().version
            me = client.me()
    except Unavailable as error:
        status = Status.NOTE if error.code == "no_platform" else Status.FAIL
        return Finding("platform", status, error.sentence)
    except AtollError as error:
        return Finding("platform", Status.FAIL, error.sentence)
    role = ", an administrator" if me.administrator else ""
    exposed = url.startswith("http://") and not client.platform.local
    if exposed:
        return Finding(
            "platform",
            Status.WARN,
            f"{url} answers (version {version}), but without https your token can be read on the way.",
        )
    return Finding(
        "platform", Status.OK, f"{url} (from {source}) answers: version {version}, you are {me.person}{role}."
    )


def _data_folder(data: Path) -> Iterator[Finding]:
    folder = data.expanduser().absolute()
    if find_spec("sqlalchemy") is not None:
        from atoll.store.place import file_system_of, refuse_network_file_system

        try:
            refuse_network_file_system(folder)
        except AtollError as error:
            yield Finding("data folder", Status.FAIL, error.sentence)
            return
        kind = f" on {file_system_of(folder)}"
    else:
        kind = ""
    place = folder
    while not place.exists() and place != place.parent:
        place = place.parent
    if not os.access(place, os.W_OK | os.X_OK):
        yield Finding("data folder", Status.FAIL, f"{folder} cannot be written by you; choose another with --data.")
        return
    free = shutil.disk_usage(place).free
    if free < _LITTLE_SPACE:
        yield Finding(
            "data folder", Status.WARN, f"{folder}{kind} has only {_size(free)} free; make room before jobs write much."
        )
    else:
        yield Finding("data folder", Status.OK, f"{folder}{kind}, {_size(free)} free.")


def _size(count: int) -> str:
    from atoll.core.resources import format_bytes

    return format_bytes(count)


def _cpus() -> Finding:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Finding("cpus", Status.OK, f"{usable} CPUs may be used.")


def _memory() -> Finding:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        total = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:"))
    except (OSError, StopIteration, ValueError, IndexError):
        return Finding(
            "memory", Status.WARN, "How much memory there is cannot be read; say it as local.memory in atoll.yaml."
        )
    limits = [
        limit for file in ("memory.max", "memory/memory.limit_in_bytes") if (limit := _cgroup_limit(file)) < total
    ]
    if limits:
        return Finding(
            "memory", Status.WARN, f"{_size(total)}, of which a control group leaves us {_size(min(limits))}."
        )
    return Finding("memory", Status.OK, f"{_size(total)}.")


def _cgroup_limit(file: str) -> int:
    try:
        return int((Path("/sys/fs/cgroup") / file).read_text())
    except (OSError, ValueError):  # no such file, or "max"
        return 1 << 62


def _gpus() -> Finding:
    if find_spec("pynvml") is None:
        return Finding("gpus", Status.NOTE, "Not looked for: nvidia-ml-py is not installed.")
    import pynvml

    try:
        pynvml.nvmlInit()
        names = [
            pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
            for index in range(pynvml.nvmlDeviceGetCount())
        ]
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return Finding(
            "gpus", Status.NOTE, "None: there is no NVIDIA driver here; jobs that ask for a GPU run elsewhere."
        )
    kinds = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
    return (
        Finding("gpus", Status.OK, f"{kinds}.")
        if names
        else Finding("gpus", Status.NOTE, "None that the driver shows us.")
    )


def _memory_limits() -> Finding:
    """Whether control groups can be made; the answer is that of mkdir, for all others can be wrong."""
    for version, folder in _own_groups():
        probe = folder / f"atoll-doctor-{os.getpid()}"
        try:
            probe.mkdir()
            probe.rmdir()
        except OSError:
            continue
        return Finding(
            "memory limits",
            Status.OK,
            f"Control groups (version {version}) can be made: the kernel holds jobs to their memory.",
        )
    return Finding(
        "memory limits", Status.WARN,
        "No control group can be made here: the memory of jobs is measured several times a second and they are ended "
        "when it is too much; a quick burst is seen late.",
    )  # fmt: skip


def _own_groups() -> Iterator[tuple[int, Path]]:
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    root = Path("/sys/fs/cgroup")
    for line in lines:
        number, controllers, own = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield 1, root / "memory" / own.lstrip("/")
        elif number == "0" and (root / "cgroup.controllers").exists():
            yield 2, root / own.lstrip("/")


def _identity() -> Finding:
    import getpass

    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = str(os.geteuid())
    if os.geteuid() == 0:
        return Finding(
            "identity", Status.OK, "You are root: a platform here can run jobs of others as their own accounts."
        )
    return Finding("identity", Status.NOTE, f"You are {name}, not root: a platform here runs jobs of {name} only.")


def _user_namespaces() -> Finding:
    program = shutil.which("unshare")
    if program is not None:
        try:
            done = subprocess.run(
                [program, "--user", "--map-root-user", "true"], capture_output=True, timeout=5, check=False
            )
        except (OSError, subprocess.TimeoutExpired):
            done = None
        if done is not None and done.returncode == 0:
            return Finding("user namespaces", Status.OK, "They can be made: rootless containers can run here.")
    return Finding("user namespaces", Status.NOTE, "They cannot be made: rootless containers cannot run here.")


_ENGINES = {
    "slurm": ("sbatch", "its cluster can become a site"),
    "podman": ("podman", "this machine can become a site for images"),
    "kubernetes": ("kubectl", "its cluster can become a site"),
    "htcondor": ("condor_submit", "its pool can become a site"),
}


def _engines() -> Iterator[Finding]:
    for engine, (program, meaning) in _ENGINES.items():
        path = shutil.which(program)
        if path is not None:
            yield Finding(engine, Status.OK, f"{path} is here: {meaning}.")
        else:
            yield Finding(engine, Status.NOTE, f"No {program} on the PATH.")
