"""What runs images without a daemon, for tests: whether it works here, and a small root file system to run in."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from pathlib import Path

from tests.support.engines import skip_without

_SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FOLDERS = ("bin", "dev", "etc", "proc", "sys", "tmp", "usr/bin", "ch", "data")
_APPLETS = ("sh", "cat", "id", "ls", "env", "sleep", "echo", "touch", "mkdir", "pwd", "test", "true", "printf", "rm")
_EVERYBODY = stat.S_IROTH | stat.S_IWOTH
ENVIRONMENT = ("FROM_IMAGE=of the image", "BOTH=of the image", "PATH=/in-image:/usr/bin:/bin")
"""Variables that the image brings."""


def need_user_namespaces(engine: str, program: str, account: str) -> str:
    """The path of `program`; skips the running test where it is missing, or user namespaces of the account are."""
    path = shutil.which(program, path=_SEARCH)
    if path is None:
        skip_without(engine, f"{program} is not installed")
    tried = subprocess.run(
        ["setpriv", f"--reuid={account}", "--clear-groups", "unshare", "--user", "--mount", "--map-root-user", "true"],
        check=False, capture_output=True, timeout=30,
    )  # fmt: skip
    if tried.returncode != 0:
        skip_without(engine, f"no user namespaces: {tried.stderr.decode(errors='replace').strip()}")
    return path


def small_root(engine: str, folder: Path) -> Path:
    """A root file system with BusyBox and nothing else, that all can read; it has a place for /data."""
    busybox = shutil.which("busybox", path=_SEARCH)
    if busybox is None:
        skip_without(engine, "busybox is not installed (Debian: busybox-static)")
    for name in _FOLDERS:
        (folder / name).mkdir(parents=True, mode=0o755)
    shutil.copy(busybox, folder / "bin" / "busybox")
    for applet in _APPLETS:
        (folder / "bin" / applet).symlink_to("busybox")
    (folder / "usr" / "bin" / "env").symlink_to("/bin/busybox")
    for name in ("passwd", "group", "hosts"):
        (folder / "etc" / name).touch()
    (folder / "etc" / "os-release").write_text("ID=small\n")
    (folder / "ch" / "environment").write_text("".join(f"{each}\n" for each in ENVIRONMENT))
    # whatever the umask
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755)
    return folder


def bundle_of(root: Path) -> Path:
    """An OCI bundle, as tools for images unpack them: `root` has to be the folder `rootfs` in it."""
    described = {
        "ociVersion": "1.0.2",
        "process": {"terminal": True, "args": ["/bin/sh"], "env": list(ENVIRONMENT), "cwd": "/"},
        "root": {"path": "rootfs"},
    }
    path = root.parent / "config.json"
    path.write_text(json.dumps(described))
    path.chmod(0o644)
    return root.parent


def squashed(root: Path) -> Path:
    """The same as one file; skips the running test where nothing makes such files, or jobs cannot mount them."""
    maker = shutil.which("mksquashfs", path=_SEARCH)
    if maker is None:
        skip_without("SquashFS", "mksquashfs is not installed (Debian: squashfs-tools)")
    fuse = Path("/dev/fuse")
    if not fuse.exists() or stat.S_IMODE(fuse.stat().st_mode) & _EVERYBODY != _EVERYBODY:
        skip_without("FUSE", f"{fuse} is missing, or closed to accounts other than root (udev's default: mode 666)")
    target = root.parent / f"{root.name}.sqfs"
    subprocess.run(
        [maker, str(root), str(target), "-quiet", "-no-progress", "-all-root"], check=True, capture_output=True,
        timeout=60, env={**os.environ, "PATH": _SEARCH},
    )  # fmt: skip
    target.chmod(0o644)
    return target
