"""A real OpenSSH server on a free port, with a host key of its own, for tests of login nodes."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

from tests.support.engines import skip_without
from tests.support.ports import free_port

_SERVER = "/usr/sbin/sshd"
_START_WITHIN = 10.0


def need_openssh() -> None:
    """Skip the running test where no OpenSSH server can be started that logs accounts in."""
    if not Path(_SERVER).exists():
        skip_without("OpenSSH server", f"{_SERVER} is not installed (package openssh-server)")
    if os.geteuid() != 0:
        skip_without("OpenSSH server", "only root can start one that logs other accounts in")


class OpenSsh:
    """A login node at 127.0.0.1; a context that starts it and ends it with all its sessions."""

    def __init__(self, options: Mapping[str, str] | None = None) -> None:
        # accounts read their authorized keys themselves: pytest's folders are closed to them
        self.folder = Path(tempfile.mkdtemp(prefix="atoll-sshd-"))
        self.folder.chmod(0o755)
        self.port = free_port()
        self._options = dict(options or {})
        self._process: subprocess.Popen[bytes] | None = None
        self._keys = 0
        (self.folder / "authorized").mkdir()
        self._authority = self._generate("authority")
        self._host_key = self._generate("host")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        shutil.rmtree(self.folder)

    @property
    def known_hosts(self) -> Path:
        """A file of known hosts with the server's key of now."""
        path = self.folder / "known_hosts"
        path.write_text(f"[127.0.0.1]:{self.port} {self._host_key.with_suffix('.pub').read_text()}")
        return path

    @property
    def pid(self) -> int:
        """Process id of the server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start, and wait until it listens."""
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        settings = {
            "Port": str(self.port), "ListenAddress": "127.0.0.1", "HostKey": str(self._host_key), "PidFile": "none",
            "AuthorizedKeysFile": f"{self.folder}/authorized/%u", "TrustedUserCAKeys": f"{self._authority}.pub",
            "PasswordAuthentication": "no", "KbdInteractiveAuthentication": "no", "UsePAM": "no",
            "PermitRootLogin": "prohibit-password", "StrictModes": "no", "MaxStartups": "100", "PrintMotd": "no",
            # what a person's start-up files do takes its time, and may wait for others: below a shell bash reads none
            "SetEnv": "SHLVL=2",
        } | self._options  # fmt: skip
        config = self.folder / "sshd_config"
        config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", _SERVER, "-D", "-e", "-f", config],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _START_WITHIN
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd does not start:\n{(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End the server and every session."""
        if self._process is None:
            return
        server = psutil.Process(self._process.pid)
        everyone = [*server.children(recursive=True), server]
        for process in everyone:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait(timeout=10)
        self._process = None

    def drop_sessions(self) -> None:
        """End every session, as a node that restarts; the server goes on."""
        for process in psutil.Process(self.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()

    @property
    def logins(self) -> int:
        """Connections that are logged in now."""
        return len(psutil.Process(self.pid).children())

    @property
    def accepted(self) -> int:
        """Logins that there have been."""
        return (self.folder / "log").read_text(errors="replace").count("Accepted publickey")

    def change_host_key(self) -> None:
        """Start again with another host key."""
        self.stop()
        self._host_key = self._generate("host-anew")
        self.start()

    def new_key(self, *accounts: str) -> Path:
        """A new private key, with which `accounts` can log in."""
        self._keys += 1
        key = self._generate(f"key-{self._keys}")
        for account in accounts:
            with (self.folder / "authorized" / account).open("a") as file:
                file.write(key.with_suffix(".pub").read_text())
        return key

    def protect(self, key: Path, passphrase: str) -> None:
        """Put a passphrase on a key."""
        subprocess.run(["ssh-keygen", "-q", "-p", "-N", passphrase, "-f", key], check=True, capture_output=True)

    def certify(self, key: Path, account: str, validity: str = "-1m:+1h") -> None:
        """Lay a certificate beside `key` that makes it good for logging in as `account`."""
        subprocess.run(
            ["ssh-keygen", "-q", "-s", self._authority, "-I", account, "-n", account, "-V", validity, f"{key}.pub"],
            check=True, capture_output=True,
        )  # fmt: skip

    def _generate(self, name: str) -> Path:
        path = self.folder / name
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", path], check=True, capture_output=True
        )
        return path


@contextlib.contextmanager
def made_accounts(*names: str, shells: Mapping[str, str] | None = None) -> Iterator[list[pwd.struct_passwd]]:
    """Unix accounts that exist for the time of the context only, with no password but not locked."""
    made: list[str] = []
    try:
        for name in names:
            shell = (shells or {}).get(name, "/bin/bash")
            subprocess.run(
                ["useradd", "--create-home", "--password", "*", "--shell", shell, name], check=True, capture_output=True
            )
            made.append(name)
        yield [pwd.getpwnam(name) for name in made]
    finally:
        uids = {pwd.getpwnam(name).pw_uid for name in made}
        for process in psutil.process_iter(["uids"]):
            with contextlib.suppress(psutil.NoSuchProcess):
                if process.info["uids"].real in uids:
                    process.kill()
        for name in made:
            subprocess.run(["userdel", "--force", "--remove", name], check=True, capture_output=True)
