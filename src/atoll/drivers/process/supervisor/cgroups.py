"""Memory limits by cgroup, version 1 or 2, where this machine lets us make groups; called by the supervisor."""

import os

from atoll.drivers.process.supervisor.processes import read_text

_ROOT = "/sys/fs/cgroup"
_MOST_SPARE = 64
_CLEAN = 1 << 20
"""Bytes still charged to a group, counters of the kernel's included, below which it is as good as new."""


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


class Groups:
    """Makes, reads and removes the memory group of each attempt. `kind` is "v1" or "v2"."""

    def __init__(self, base: str, kind: str) -> None:
        self.base = base
        self.kind = kind
        self._limit_file = "memory.limit_in_bytes" if kind == "v1" else "memory.max"
        self._peak_file = "memory.max_usage_in_bytes" if kind == "v1" else "memory.peak"
        self._event_file = "memory.oom_control" if kind == "v1" else "memory.events"
        self._swap_file: str | None = "memory.memsw.limit_in_bytes" if kind == "v1" else "memory.swap.max"
        self._usage_file = "memory.usage_in_bytes" if kind == "v1" else None
        # names of its own for each supervisor: an earlier one's may still be about to be removed
        self._mark, self._made = os.urandom(4).hex(), 0
        self._leftover: list[str] = []
        self._spare: dict[str, int] = {}
        """Empty groups to be used again, with their limits: making and removing one costs as much as a process."""

    @classmethod
    def find(cls, name: str, root: str = _ROOT) -> "Groups | None":
        """The groups below our own one where that can be done, None where not. `name` tells sites apart."""
        for line in read_text("/proc/self/cgroup").splitlines():
            number, controllers, own = line.split(":", 2)
            if "memory" in controllers.split(","):
                return cls._try(f"{root}/memory{own}", name, "v1")
            if number == "0" and os.access(f"{root}/cgroup.controllers", os.R_OK):
                return cls._try(f"{root}{own}", name, "v2")
        return None

    @classmethod
    def _try(cls, own: str, name: str, kind: str) -> "Groups | None":
        own = own.rstrip("/")
        base = f"{own}/atoll-{name}"
        groups = cls(base, kind)
        try:
            if kind == "v2":
                groups._prepare_v2(own)
            else:
                os.makedirs(base, exist_ok=True)  # noqa: PTH103
            probe = groups.make(1 << 30)
            groups.remove(probe)
        except (OSError, ValueError):
            return None
        return groups

    def _prepare_v2(self, own: str) -> None:
        """Hand the memory controller down. A group with processes cannot, so we first move into one beside ours."""
        if "memory" not in read_text(f"{own}/cgroup.controllers").split():
            raise ValueError("the memory controller is not handed to this group")
        if os.path.basename(own) == "atoll-supervisor":  # noqa: PTH119  # restarted: we are there already
            own = os.path.dirname(own)  # noqa: PTH120
            self.base = f"{own}/{os.path.basename(self.base)}"  # noqa: PTH119
        elif "memory" not in read_text(f"{own}/cgroup.subtree_control").split() and own != _ROOT:
            os.makedirs(f"{own}/atoll-supervisor", exist_ok=True)  # noqa: PTH103
            _write(f"{own}/atoll-supervisor/cgroup.procs", "0")
        _write(f"{own}/cgroup.subtree_control", "+memory")
        os.makedirs(self.base, exist_ok=True)  # noqa: PTH103
        _write(f"{self.base}/cgroup.subtree_control", "+memory")

    def make(self, limit: int) -> str:
        """A group with `limit` bytes, no swap beyond: a spare one, or a new one; returns its path. Raises OSError."""
        if self._spare:
            path, had = self._spare.popitem()
            if had == limit:
                return path
            # a limit is never above the one with swap, so they are lowered and raised by way of making it anew
            self.remove(path)
        self._made += 1
        path = f"{self.base}/{self._mark}-{self._made}"
        os.mkdir(path)  # noqa: PTH102
        _write(f"{path}/{self._limit_file}", str(limit))
        if self._swap_file is not None:
            try:
                _write(f"{path}/{self._swap_file}", str(limit) if self.kind == "v1" else "0")
            except OSError:
                self._swap_file = None  # this machine does not count swap
        return path

    def enter(self, path: str) -> None:
        """Move this process into a group. Raises OSError."""
        _write(f"{path}/cgroup.procs", "0")

    def members(self, path: str) -> list[int]:
        """The processes in a group."""
        try:
            return [int(pid) for pid in read_text(f"{path}/cgroup.procs").split() if pid != "0"]
        except OSError:
            return []

    def kills(self, path: str) -> int:
        """How often the kernel killed for memory in the group."""
        try:
            for line in read_text(f"{path}/{self._event_file}").splitlines():
                if line.startswith("oom_kill "):
                    return int(line.split()[1])
        except OSError:
            return 0
        return 0

    def peak(self, path: str) -> int | None:
        """The largest use of memory in the group, in bytes; None where it is not known (memory.peak: Linux 5.19)."""
        try:
            return int(read_text(f"{path}/{self._peak_file}"))
        except (OSError, ValueError):
            return None

    def done(self, path: str, limit: int) -> bool:
        """An attempt has left its group: keep that for the next one if it is as good as new, else remove it."""
        if self._usage_file is not None and len(self._spare) < _MOST_SPARE and not self.kills(path):
            try:
                if int(read_text(f"{path}/{self._usage_file}")) < _CLEAN and not self.members(path):
                    _write(f"{path}/{self._peak_file}", "0")
                    self._spare[path] = limit
                    return True
            except (OSError, ValueError):
                return self.remove(path)
        return self.remove(path)

    def clear(self, used: set[str]) -> None:
        """Remove the groups that an earlier supervisor left, except those that are `used`."""
        for name in os.listdir(self.base):  # noqa: PTH208
            path = f"{self.base}/{name}"
            if path not in used and path not in self._spare and os.path.isdir(path):  # noqa: PTH112
                self.remove(path)

    def remove(self, path: str) -> bool:
        """Remove a group; False where it still has a dying process, and `sweep` is to remove it later."""
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            return True
        except OSError:
            self._leftover.append(path)
            return False
        return True

    def sweep(self) -> bool:
        """Try again to remove what could not be removed before; whether something is still left."""
        left, self._leftover = self._leftover, []
        for path in left:
            self.remove(path)
        return bool(self._leftover)

    def close(self) -> None:
        """Remove the common group of the site, if nothing is left in it."""
        for path in self._spare:
            self.remove(path)
        self.sweep()
        try:
            os.rmdir(self.base)  # noqa: PTH106
        except OSError:
            # attempts of ours are still in it; whoever supervises them next removes it
            return
