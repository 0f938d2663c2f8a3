"""What this machine has: CPUs, memory, GPUs. Read when the driver describes its site."""

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from atoll.core.resources import Resources
from atoll.drivers.process.config import ProcessConfig

_VENDOR = re.compile(r"\b(nvidia|tesla|geforce|quadro|graphics device)\b", re.IGNORECASE)
_FORM = re.compile(r"[\s-](sxm\d?|pcie|nvl|hbm\w*|\d+gb(?:\s+hbm\w*)?)\b.*", re.IGNORECASE)


@dataclass(frozen=True)
class Gpu:
    """One GPU: its index in PCI order, as CUDA_DEVICE_ORDER=PCI_BUS_ID counts, and its model, as in a100."""

    index: int
    model: str


@dataclass(frozen=True)
class Machine:
    """What jobs may take of this machine."""

    total: Resources
    gpus: tuple[Gpu, ...]
    notes: tuple[str, ...] = ()

    @property
    def flavor(self) -> str:
        """`cpu`, or `gpu-MODEL` of the GPUs there are: all of a GPU machine belongs to that flavor."""
        return f"gpu-{self.gpus[0].model}" if self.gpus else "cpu"


def model_word(name: str) -> str:
    """The model as flavors write it: `NVIDIA A100-SXM4-40GB` is `a100`, `NVIDIA GeForce RTX 3090` is `rtx-3090`."""
    plain = _FORM.sub("", _VENDOR.sub("", name).strip())
    return re.sub(r"[^a-z0-9]+", "-", plain.lower()).strip("-") or "unknown"


def cpu_milli() -> int:
    """Thousandths of CPUs that this process may use: by affinity, and by the quota of its cgroup."""
    count = len(os.sched_getaffinity(0)) * 1000
    quota = _quota()
    return min(count, quota) if quota else count


def _own_groups() -> dict[str, str]:
    """Path of this process in each cgroup hierarchy; "" is version 2."""
    groups = {}
    for line in _words("/proc/self/cgroup", "\n"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            groups[controller] = path.rstrip("/")
    return groups


def _words(path: str, separator: str | None = None) -> list[str]:
    try:
        return [word for word in Path(path).read_text("ascii", "replace").split(separator) if word]
    except OSError:
        return []


def _quota() -> int | None:
    groups = _own_groups()
    limits = []
    if "" in groups:
        words = _words(f"/sys/fs/cgroup{groups['']}/cpu.max")
        if len(words) == 2 and words[0].isdecimal():
            limits.append(int(words[0]) * 1000 // int(words[1]))
    if "cpu" in groups:
        base = f"/sys/fs/cgroup/cpu{groups['cpu']}"
        quota, period = _words(f"{base}/cpu.cfs_quota_us"), _words(f"{base}/cpu.cfs_period_us")
        if quota and period and quota[0].isdecimal():
            limits.append(int(quota[0]) * 1000 // int(period[0]))
    return min(limits, default=None)


def memory_bytes() -> int:
    """Bytes of memory that this process may use: the machine's, or the limit of its cgroup."""
    words = _words("/proc/meminfo")
    total = int(words[words.index("MemTotal:") + 1]) * 1024
    groups = _own_groups()
    limits = [total]
    for path in (
        f"/sys/fs/cgroup{groups.get('', '')}/memory.max",
        f"/sys/fs/cgroup/memory{groups.get('memory', '')}/memory.limit_in_bytes",
    ):
        limit = _words(path)
        if limit and limit[0].isdecimal():
            limits.append(int(limit[0]))
    return min(limits)


def nvml_gpus() -> list[Gpu]:
    """The GPUs that NVML finds; none where there is no driver or the library is not installed."""
    try:
        import pynvml
    except ImportError:
        return []
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return []
    try:
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(index))
            found.append(Gpu(index, model_word(name.decode() if isinstance(name, bytes) else name)))
        return found
    except pynvml.NVMLError:
        return []
    finally:
        pynvml.nvmlShutdown()


def _visible(gpus: list[Gpu]) -> list[Gpu]:
    """Those that the platform itself may use, where whoever started it said so by index."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return gpus
    words = [word.strip() for word in said.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        return gpus
    return [gpu for gpu in gpus if str(gpu.index) in words]


def discover(config: ProcessConfig) -> Machine:
    """This machine, as `config` corrects what is found."""
    notes = []
    gpus = _visible(nvml_gpus())
    if config.gpus is not None:
        if config.gpus <= len(gpus):
            gpus = gpus[: config.gpus]
        else:
            gpus = [Gpu(index, "unknown") for index in range(config.gpus)]
    if gpus:
        models = Counter(gpu.model for gpu in gpus)
        model = config.gpu_model or models.most_common(1)[0][0]
        if len(models) > 1 and config.gpu_model is None:
            notes.append(f"The GPUs are not all alike ({', '.join(sorted(models))}); all count as {model}.")
        gpus = [Gpu(gpu.index, model) for gpu in gpus]
    total = Resources(
        cpu=config.cpus if config.cpus is not None else cpu_milli(),
        memory=config.memory if config.memory is not None else memory_bytes(),
        gpu=1000 * len(gpus),
    )
    return Machine(total, tuple(gpus), tuple(notes))
