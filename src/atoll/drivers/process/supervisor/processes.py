"""Processes of this machine as /proc tells them: trees, memory, ends. Linux only; called by the supervisor."""

import ctypes
import os
import signal
from collections.abc import Callable, Iterable

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PAGE = os.sysconf("SC_PAGE_SIZE")
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def become_reaper() -> None:
    """Make this process the new parent of its descendants whose parents end. Kept over exec, not given to children."""
    if _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def end_with_parent() -> None:
    """Have this process killed when its parent ends. To be called after the last change of account."""
    if _prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0) != 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def read_bytes(path: str) -> bytes:
    """The content of a small file of /proc or of a cgroup. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        pieces = []
        while piece := os.read(descriptor, 65536):
            pieces.append(piece)
        return b"".join(pieces)
    finally:
        os.close(descriptor)


def read_text(path: str) -> str:
    """The same as text. Raises OSError."""
    return read_bytes(path).decode("ascii", "replace")


def environment_of(pid: int) -> dict[bytes, bytes]:
    """The variables that a process was started with. Raises OSError."""
    pairs = (entry.partition(b"=") for entry in read_bytes(f"/proc/{pid}/environ").split(b"\0"))
    return {name: value for name, sign, value in pairs if name and sign}


def boot_id() -> str:
    """Changes with each start of the machine."""
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def born(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None where it is gone or only a zombie is left."""
    try:
        # the name of the program stands in parentheses and may hold anything, so count from its end
        fields = read_text(f"/proc/{pid}/stat").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def command_line(pid: int) -> list[str]:
    """The words that the process was started with; none where it is gone."""
    try:
        return read_text(f"/proc/{pid}/cmdline").split("\0")[:-1]
    except OSError:
        return []


def all_pids() -> list[int]:
    """Every process that can be seen."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208  # no pathlib here


def children(pid: int) -> list[int]:
    """The children of a process, zombies included; none where it is gone."""
    found: list[int] = []
    try:
        for thread in os.listdir(f"/proc/{pid}/task"):  # noqa: PTH208
            found += map(int, read_text(f"/proc/{pid}/task/{thread}/children").split())
    except OSError:
        # it, or one of its threads, ended while we looked: its children have another parent now
        return found
    return found


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on, parents first."""
    found = children(pid)
    for child in found:  # grows while it is walked
        found += children(child)
    return found


def families(pids: Iterable[int]) -> list[int]:
    """Processes, each with its descendants."""
    return [each for pid in pids for each in (pid, *descendants(pid))]


def session_members(leader: int) -> list[int]:
    """The processes, other than the leader, whose session `leader` began."""
    members = []
    for pid in all_pids():
        try:
            if pid != leader and os.getsid(pid) == leader:
                members.append(pid)
        except ProcessLookupError:
            continue
    return members


def carrying(variable: str, uid: int) -> list[int]:
    """The processes of the account `uid` that were started with `variable`, NAME=VALUE, in their environment."""
    sought = variable.encode().decode("ascii", "replace")
    found = []
    for pid in all_pids():
        try:
            if os.stat(f"/proc/{pid}").st_uid == uid and sought in read_text(f"/proc/{pid}/environ").split("\0"):  # noqa: PTH116
                found.append(pid)
        except OSError:
            continue  # it ended, or is closed to us
    return found


def send(pids: Iterable[int], number: int) -> int:
    """Send a signal to each process that is still there; returns how many got it."""
    reached = 0
    for pid in pids:
        try:
            os.kill(pid, number)
            reached += 1
        except (ProcessLookupError, PermissionError):
            continue
    return reached


def kill_all(listed: Callable[[], list[int]]) -> None:
    """Kill the processes that `listed` names, again until it names no new one.

    They are stopped first, so that none can start another behind our back.
    """
    met: set[int] = set()
    for _ in range(20):
        fresh = [pid for pid in listed() if pid not in met]
        if not fresh:
            break
        met.update(fresh)
        send(fresh, signal.SIGSTOP)
    send(met, signal.SIGKILL)


def resident(pid: int) -> int:
    """Bytes of memory that the process has in use, shared ones in full; 0 where it is gone."""
    try:
        return int(read_text(f"/proc/{pid}/statm").split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional(pid: int) -> int:
    """Bytes of memory that the process has in use, each shared page divided by its users; 0 where it is gone."""
    try:
        for line in read_text(f"/proc/{pid}/smaps_rollup").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        # gone, or closed to us (it gained rights): its resident size is the next best
        return resident(pid)
    return 0


def memory_of(pids: list[int], enough: int) -> int:
    """Bytes that the processes use together: exact where their resident sizes exceed `enough`, else at most that."""
    upper = sum(map(resident, pids))
    return upper if upper <= enough else sum(map(proportional, pids))
