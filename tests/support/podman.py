"""A Podman of its own for tests: service, storage, network and image in a temporary folder.

Several may run beside each other. A guard ends all containers and removes the folder when the tests end, however they
end. The image is made of this machine's own Debian packages, in seconds and without any registry, and kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.engines import skip_without

IMAGE = "localhost/atoll-test:1"
_PACKAGES = (
    "base-files", "bash", "dash", "coreutils", "grep", "sed", "findutils", "util-linux", "procps", "python3",
    "python3-minimal", "tar",
)  # fmt: skip
_NOT_NEEDED = {"perl-base", "debconf", "cdebconf", "media-types", "openssl", "ca-certificates", "dpkg", "usrmerge"}
_LEFT_OUT = tuple(f"/usr/share/{name}" for name in ("doc", "man", "locale", "info", "lintian", "bash-completion"))
_EMPTY = {"tmp": 0o1777, "var/tmp": 0o1777, "proc": 0o755, "sys": 0o755, "dev": 0o755, "run": 0o755, "root": 0o700}
_WHERE = f"{os.environ.get('PATH', os.defpath)}:/usr/lib/podman:/usr/libexec/podman"
_PROGRAMS = ("podman", "runc", "conmon", "netavark", "setpriv")
_GUARD = """
read -r nothing
rm -f {cdi}
for try in 1 2 3 4 5; do
    {podman} rm --all --force --time 0
    # one that was being made when the service was killed may only now be there
    sleep 0.5
    [ -n "$({podman} ps --all --quiet)" ] || break
done
umount -l {folder}/root/overlay
rm -rf {folder}
"""


class PodmanUnavailable(Exception):
    """Why there is no Podman for tests here."""


class PodmanService:
    """`podman system service` on a socket of its own, with an image that has a shell and a Python."""

    def __init__(self) -> None:
        missing = [name for name in _PROGRAMS if shutil.which(name, path=_WHERE) is None]
        if missing:
            raise PodmanUnavailable(f"not installed: {', '.join(missing)}")
        if os.geteuid() != 0:
            raise PodmanUnavailable("it needs root, for control groups")
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-podman-"))
        name = secrets.token_hex(3)
        self.socket = self.folder / "podman.sock"
        self.log = self.folder / "service.log"
        self.gpu_kind = f"atoll-{name}.test/gpu"
        self._cdi = Path(f"/etc/cdi/atoll-{name}.json")
        self._configure(name)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        self._command = [
            "podman", "--root", f"{self.folder}/root", "--runroot", f"{self.folder}/runroot", "--tmpdir",
            f"{self.folder}/tmp", "--runtime", "runc",
        ]  # fmt: skip
        guard = _GUARD.format(podman=" ".join(self._command), folder=self.folder, cdi=self._cdi)
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", guard], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            env=self.environment, start_new_session=True, cwd="/",
        )  # fmt: skip
        self._service: subprocess.Popen[bytes] | None = None
        try:
            self.podman("import", str(base_image()), IMAGE)
            self.start()
        except BaseException:
            self.remove()
            raise

    def _configure(self, name: str) -> None:
        networks = self.folder / "networks"
        networks.mkdir()
        number = secrets.randbelow(200 * 250)
        subnet = f"10.{20 + number // 250}.{number % 250}"
        network = {
            "name": f"atoll{name}", "id": secrets.token_hex(32), "driver": "bridge", "network_interface": f"at{name}",
            "created": "2026-01-01T00:00:00Z", "subnets": [{"subnet": f"{subnet}.0/24", "gateway": f"{subnet}.1"}],
            "ipv6_enabled": False, "internal": False, "dns_enabled": False, "ipam_options": {"driver": "host-local"},
        }  # fmt: skip
        (networks / f"atoll{name}.json").write_text(json.dumps(network))
        (self.folder / "containers.conf").write_text(
            '[containers]\ndefault_ulimits = ["nofile=20000:20000","nproc=20000:20000"]\n'
            '[engine]\nevents_logger = "file"\ncgroup_manager = "cgroupfs"\nruntime = "runc"\n'
            f'[network]\nnetwork_backend = "netavark"\nnetwork_config_dir = "{networks}"\n'
            f'default_network = "atoll{name}"\n'
        )
        # stand-ins for GPUs: what Podman is given of a real one by the same file
        devices = [
            {"name": str(gpu), "containerEdits": {"deviceNodes": [{"path": f"/dev/gpu{gpu}", "hostPath": "/dev/null"}]}}
            for gpu in range(2)
        ]
        self._cdi.parent.mkdir(exist_ok=True)
        self._cdi.write_text(json.dumps({"cdiVersion": "0.5.0", "kind": self.gpu_kind, "devices": devices}))

    def podman(self, *words: str) -> str:
        """What a command of Podman writes, with this service's storage."""
        ran = subprocess.run(
            [*self._command, *words], env=self.environment, capture_output=True, text=True, timeout=120, check=False
        )
        if ran.returncode != 0:
            raise PodmanUnavailable(f"podman {words[0]}: {ran.stderr.strip().splitlines()[-1:]}")
        return ran.stdout

    def start(self) -> None:
        """Start the service; it answers when this returns."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._service = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self._command, "--log-level=info", "system", "service",
                 "--time", "0", f"unix://{self.socket}"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.environment, start_new_session=True,
                cwd=self.folder,  # conmon leaves a file named oom there
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._service.poll() is not None or time.monotonic() > deadline:
                raise PodmanUnavailable(f"its service does not start: {self.log.read_text()[-500:]}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket))
            except OSError:
                return False
            return True

    def kill(self) -> None:
        """End the service at once; containers go on."""
        assert self._service is not None
        self._service.kill()
        self._service.wait()

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Within, the service takes connections and answers nothing."""
        assert self._service is not None
        self._service.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._service.send_signal(signal.SIGCONT)

    def questions(self) -> int:
        """How many lists of containers were asked for."""
        return sum("/containers/json" in line and "GET" in line for line in self.log.read_text().splitlines())

    def remove(self) -> None:
        """End everything and remove the folder."""
        if self._service is not None and self._service.poll() is None:
            self.kill()
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait(timeout=120)


def base_image() -> Path:
    """A tar archive of a small system with /bin/sh and /usr/bin/python3; made once, of this machine's packages.

    `ATOLL_TEST_IMAGE` names another archive to take, or where to keep this one.
    """
    place = Path(os.environ.get("ATOLL_TEST_IMAGE") or Path.home() / ".cache" / "atoll-tests" / "base-1.tar")
    place.parent.mkdir(parents=True, exist_ok=True)
    with (place.parent / f".{place.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not place.is_file():
            fresh = place.with_suffix(".new")
            _pack(fresh)
            fresh.replace(place)
    return place


def _packages() -> list[str]:
    """The packages that the image holds, and what they need."""
    if shutil.which("dpkg-query") is None:
        raise PodmanUnavailable("the image is made of Debian's packages; name another one by ATOLL_TEST_IMAGE")
    seen, waiting = set(_PACKAGES), list(_PACKAGES)
    while waiting:
        asked = ["dpkg-query", "-W", "-f", "${Pre-Depends},${Depends}", waiting.pop()]
        needs = subprocess.run(asked, capture_output=True, text=True, check=False).stdout
        for need in needs.split(","):
            name = need.split("|")[0].split("(")[0].strip().split(":")[0]
            if name and name not in seen and name not in _NOT_NEEDED:
                seen.add(name)
                waiting.append(name)
    return sorted(seen)


def _pack(target: Path) -> None:
    listed = subprocess.run(["dpkg", "-L", *_packages()], capture_output=True, text=True, check=False).stdout
    paths = {path for path in listed.splitlines() if path.startswith("/") and not path.startswith(_LEFT_OUT)}
    paths |= {"/etc/passwd", "/etc/group", "/etc/ld.so.conf", "/etc/ld.so.cache", "/etc/nsswitch.conf"}
    with tarfile.open(target, "w") as tar:
        done: set[str] = set()
        for path in ("/bin", "/sbin", "/lib", "/lib64", *sorted(paths)):
            if path.count("/") > 1:
                path = str(Path(path).parent.resolve() / Path(path).name)
            name = path.lstrip("/")
            if not name or name in done or not os.path.lexists(path):
                continue
            done.add(name)
            tar.add(path, name, recursive=False)
        for name, mode in _EMPTY.items():
            if name not in done:
                folder = tarfile.TarInfo(name)
                folder.type, folder.mode = tarfile.DIRTYPE, mode
                tar.addfile(folder)


@pytest.fixture(scope="session")
def podman_service() -> Iterator[PodmanService]:
    """One Podman for each test process."""
    try:
        service = PodmanService()
    except PodmanUnavailable as error:
        skip_without("Podman", str(error))
    yield service
    service.remove()
