"""Volumes by a mount namespace of the attempt's own; called between fork and exec, and once to see whether it works.

The folders that a job names need not be on this machine. Where one is missing, the nearest folder above it that is
there is replaced, inside the namespace only, by an empty one that holds all its entries again, and the missing one.
Without root's rights a user namespace gives them, inside the namespace only. Linux 5.12 for read-only volumes.
"""

import ctypes
import errno
import os
import stat
from typing import Any

_NEWNS, _NEWUSER = 0x00020000, 0x10000000
_RDONLY, _NOSUID, _NODEV, _BIND, _REC, _PRIVATE = 1, 2, 4, 0x1000, 0x4000, 1 << 18
_DETACH = 2
_MOUNT_SETATTR, _AT_FDCWD, _AT_RECURSIVE, _ATTR_RDONLY = 442, -100, 0x8000, 1
_MOST_ENTRIES = 2000
_libc = ctypes.CDLL(None, use_errno=True)


class _Attributes(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("attr_set", "attr_clr", "propagation", "userns_fd")]


def _check(result: int, what: str) -> None:
    if result != 0:
        error = ctypes.get_errno()
        raise OSError(error, f"{what}: {os.strerror(error)}")


def _mount(source: str, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind)]
    _check(_libc.mount(*words, ctypes.c_ulong(flags), None if data is None else data.encode()), f"mount {target}")


def _make_read_only(target: str) -> None:
    attributes = _Attributes(attr_set=_ATTR_RDONLY)
    size = ctypes.sizeof(attributes)
    result = _libc.syscall(
        _MOUNT_SETATTR, _AT_FDCWD, os.fsencode(target), _AT_RECURSIVE, ctypes.byref(attributes), ctypes.c_size_t(size)
    )
    _check(result, f"{target} cannot be made read-only")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def unshare(as_root: bool) -> None:
    """Give this process mounts of its own, that no other process sees. Raises OSError."""
    uid, gid = os.getuid(), os.getgid()
    _check(_libc.unshare(_NEWNS if as_root else _NEWNS | _NEWUSER), "a mount namespace")
    if not as_root:
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/setgroups", "deny")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    _mount("none", "/", None, _REC | _PRIVATE)


def possible() -> str:
    """How mounts can be made here: "root", "user" or "" for not at all. Tried in a process of its own."""
    for how in ("root", "user"):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                unshare(how == "root")
                _mount("/proc", "/proc", None, _BIND | _REC)
                status = 0
            finally:
                os._exit(status)
        if os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0:
            return how
    return ""


def mount_volumes(volumes: list[dict[str, Any]], as_root: bool, spare: str) -> None:
    """Lay `volumes` (source, target, read_only) into this process's view of the machine. Raises OSError.

    `spare` is a folder of ours that may be hidden while the view is made.
    """
    unshare(as_root)
    # by descriptor: what is mounted first may hide the source of what is mounted next
    sources = [os.open(each["source"], os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for each in volumes]
    view = _View(spare)
    # outer ones first: an inner one may lie in an outer one
    for index in sorted(range(len(volumes)), key=lambda index: str(volumes[index]["target"])):
        target = volumes[index]["target"]
        view.make_folder(target)
        _mount(f"/proc/self/fd/{sources[index]}", target, None, _BIND | _REC)
        if volumes[index]["read_only"]:
            _make_read_only(target)
    for descriptor in sources:
        os.close(descriptor)


class _View:
    """What this process sees of the machine, with folders that are not on it."""

    def __init__(self, spare: str) -> None:
        self._spare = spare
        self._ours: set[str] = set()
        """Folders that are in this view only."""

    def make_folder(self, target: str) -> None:
        """Have a folder at `target`."""
        above, missing = target, []
        while not os.path.isdir(above):  # noqa: PTH112
            if os.path.lexists(above):
                raise OSError(errno.ENOTDIR, f"{above} is not a folder")
            above, _, name = above.rpartition("/")
            above = above or "/"
            missing.append(name)
        above = os.path.realpath(above)
        if missing and above not in self._ours:
            self._replace(above)
        for name in reversed(missing):
            above = f"{above.rstrip('/')}/{name}"
            os.mkdir(above, 0o755)  # noqa: PTH102
            self._ours.add(above)

    def _replace(self, folder: str) -> None:
        """Put a folder of ours with the same entries, to which more can be added, in the place of `folder`."""
        if folder == "/":
            # nothing can be mounted there, but this process can be given another root
            _mount("tmpfs", self._spare, "tmpfs", _NOSUID | _NODEV, "mode=755")
            _copy_entries("", os.listdir("/"), self._spare)  # noqa: PTH208
            os.chroot(self._spare)
            os.chdir("/")
            _check(_libc.umount2(os.fsencode(self._spare), _DETACH), f"umount {self._spare}")
        else:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            _mount("tmpfs", folder, "tmpfs", _NOSUID | _NODEV, f"mode={mode:o}")
            _copy_entries(f"/proc/self/fd/{descriptor}", os.listdir(descriptor), folder)  # noqa: PTH208
            os.close(descriptor)
        self._ours.add(folder)


def _copy_entries(source: str, names: list[str], target: str) -> None:
    """Make the entries of `source` appear in the empty folder `target`."""
    if len(names) > _MOST_ENTRIES:
        raise OSError(errno.ENOSPC, f"{target} has too many entries to add one; name another path for the volume")
    for name in names:
        old, new = f"{source}/{name}", f"{target}/{name}"
        kind = os.lstat(old).st_mode
        if stat.S_ISLNK(kind):
            os.symlink(os.readlink(old), new)  # noqa: PTH115, PTH211
        elif stat.S_ISDIR(kind):
            os.mkdir(new)  # noqa: PTH102
            _mount(old, new, None, _BIND | _REC)
        else:
            os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC))
            _mount(old, new, None, _BIND)


def enter(pid: int, as_root: bool) -> None:
    """See the machine as the process `pid` does. Raises OSError."""
    names = ("mnt",) if as_root else ("user", "mnt")
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names]
    for space in spaces:
        _check(_libc.setns(space, 0), "setns")
    os.fchdir(root)
    os.chroot(".")
    for descriptor in (root, *spaces):
        os.close(descriptor)
