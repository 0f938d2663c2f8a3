"""Podman without root: jobs in user namespaces of the account that it runs as."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.containers import small_root
from tests.support.engines import skip_without

PROGRAM = Path(__file__).with_name("rootless.py")
REPOSITORY = Path(__file__).parents[3]
IMAGE = "localhost/small:1"
PODMAN = ("podman", "--storage-driver=vfs", "--runtime=runc", "--cgroup-manager=cgroupfs", "--events-backend=file")
NAME = f"atoll-rootless-{os.getpid()}"


class Account:
    """An account with a Podman of its own, behind a socket."""

    def __init__(self) -> None:
        self.entry = pwd.getpwnam(NAME)
        self.home = Path(self.entry.pw_dir)
        self.socket = self.home / "podman.sock"
        runtime = self.home / "run"
        runtime.mkdir(mode=0o700)
        os.chown(runtime, self.entry.pw_uid, self.entry.pw_gid)
        self._options: dict[str, Any] = {
            "user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": [], "cwd": self.home,
            "env": {"HOME": str(self.home), "XDG_RUNTIME_DIR": str(runtime), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
                    "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}"},
        }  # fmt: skip

    def run(self, *words: str, content: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        """Run a command as the account."""
        return subprocess.run(words, input=content, capture_output=True, check=False, timeout=200, **self._options)

    @contextmanager
    def service(self) -> Iterator[None]:
        """Podman's REST API, for as long as the context lasts."""
        words = [*PODMAN, "system", "service", "--time", "0", f"unix://{self.socket}"]
        service = subprocess.Popen(words, stderr=subprocess.DEVNULL, **self._options)
        try:
            waited = self.run("sh", "-c", f"until [ -S {self.socket} ]; do sleep 0.1; done")
            assert waited.returncode == 0
            yield
        finally:
            service.kill()
            service.wait()


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    missing = [name for name in ("podman", "runc", "newuidmap", "useradd") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        skip_without("rootless Podman", f"not installed: {', '.join(missing)}" if missing else "the tests are not root")
    root = small_root("rootless Podman", tmp_path_factory.mktemp("image") / "rootfs")
    subprocess.run(["useradd", "--create-home", NAME], check=True, capture_output=True)
    try:
        account = Account()
        packed = subprocess.run(["tar", "-C", str(root), "-c", "."], capture_output=True, check=True).stdout
        made = account.run(*PODMAN, "import", "-", IMAGE, content=packed)
        if made.returncode != 0:
            skip_without("rootless Podman", made.stderr.decode(errors="replace").strip().splitlines()[-1])
        with account.service():
            yield account
    finally:
        subprocess.run(["pkill", "-KILL", "-u", NAME], check=False)
        subprocess.run(["userdel", "--remove", NAME], check=False, capture_output=True)


@pytest.mark.parametrize("userns", ["host", "keep-id"])
def test_job_runs_in_a_user_namespace_of_the_account(account: Account, userns: str) -> None:
    folder = account.home / userns
    folder.mkdir()
    os.chown(folder, account.entry.pw_uid, account.entry.pw_gid)
    try:
        done = account.run(sys.executable, str(PROGRAM), str(account.socket), IMAGE, userns, str(folder))
    except PermissionError:
        pytest.skip("this Python lies in a folder that is closed to other accounts")
    if b"Permission denied" in done.stderr or b"No module named" in done.stderr:
        pytest.skip("this repository lies in a folder that is closed to other accounts")
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    told = json.loads(done.stdout)
    assert "without root" in " ".join(told["notes"])
    assert told["failed"] == ["failed", 3]
    # root in its own namespace, or itself; for the host it is the account either way
    assert told["id"] == ("0" if userns == "host" else str(account.entry.pw_uid))
    assert next(folder.rglob("work/made")).stat().st_uid == account.entry.pw_uid
    assert (told["cancelled"], told["said"]) == ("cancelled", "up\nbye\n")
