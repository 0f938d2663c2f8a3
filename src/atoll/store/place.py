"""Where the data folder may be: on a file system of this machine, since SQLite's locks fail silently on others."""

import os
from pathlib import Path

from atoll.core.errors import Invalid

_NETWORK_FILE_SYSTEMS = frozenset({
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "smb2", "lustre", "ceph", "glusterfs", "fuse.glusterfs", "beegfs", "gpfs",
    "afs", "9p", "fuse.sshfs", "fuse.juicefs", "fuse.s3fs", "fuse.rclone", "fuse.ceph", "fuse.ceph-fuse", "orangefs",
    "pvfs2", "ncpfs", "ocfs2", "panfs", "wekafs", "fuse.davfs", "davfs",
})  # fmt: skip


def file_system_of(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """The type of the file system that `path`, or its nearest existing parent, is on; empty where nobody can tell."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    place = place.resolve()
    best, found = -1, ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        fields = line.split(" ")
        point = Path(fields[1].encode().decode("unicode_escape"))
        # of several mounts on one point the last is the visible one
        if (place == point or point in place.parents) and len(point.parts) >= best:
            best, found = len(point.parts), fields[2]
    return found


def refuse_network_file_system(path: Path, mounts: Path = Path("/proc/self/mounts")) -> None:
    """Raise Invalid where `path` is on a network file system."""
    kind = file_system_of(path, mounts)
    if kind in _NETWORK_FILE_SYSTEMS:
        raise Invalid(
            "network_file_system",
            f"The data folder {path} is on a network file system ({kind}), where a database can be damaged. "
            "Choose a folder on a disk of this machine with --data.",
            field="data",
        )


def make_private_folder(path: Path, mode: int = 0o700) -> None:
    """Make a folder that is ours alone, or check that an existing one can be written. Raises Invalid."""
    try:
        path.mkdir(parents=True, exist_ok=True, mode=mode)
    except OSError as error:
        raise Invalid("bad_data_folder", f"The folder {path} cannot be made: {error.strerror}.", field="data") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise Invalid("bad_data_folder", f"The folder {path} cannot be written by {os.geteuid()}.", field="data")
