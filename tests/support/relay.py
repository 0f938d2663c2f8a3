"""A running relay beside a running platform, and jobs whose streams it carries, for tests and benchmarks."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from atoll.client.synchronous import Client
from atoll.control.relay import AGENT, PORT_NAME, address_of, random_port
from tests.support.platform import RunningPlatform
from tests.support.ports import free_port

SERVER = Path(__file__).with_name("relayed_server.py")
_PATIENCE = 30.0


class RunningRelay:
    """`python -m atoll.control.relay` as a child process; `port` stays the same over restarts."""

    def __init__(self, platform: RunningPlatform, target: str | None = None) -> None:
        self.platform = platform
        self.port = free_port()
        self.target = target
        self.log = platform.data.parent / f"relay-{self.port}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it."""
        words = [sys.executable, "-m", "atoll.control.relay", "--data", str(self.platform.data)]
        words += ["--port", str(self.port), *(["--target", self.target] if self.target else [])]
        words += ["--database", self.platform.database] if self.platform.database else []
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self.platform.environment()
            )

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def terminate(self, seconds: float = 15.0) -> int:
        """SIGTERM; returns its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(seconds)

    def connect(self, job: int, seconds: float = 10.0) -> socket.socket:
        """A connection to the job's address. Raises OSError."""
        return socket.create_connection(address_of(job, self.port), timeout=seconds)

    def ask(self, job: int, line: bytes, rest: bytes = b"", *, seconds: float = 20.0) -> bytes:
        """All that the job's server says to a line and what follows it, after which our direction ends."""
        with self.connect(job, seconds) as connection:
            sender = threading.Thread(target=_send, args=(connection, line + b"\n" + rest), daemon=True)
            sender.start()
            said = b"".join(iter(lambda: connection.recv(1 << 18), b""))
            sender.join()
            return said

    def wait_for(self, job: int, line: bytes = b"who") -> bytes:
        """What the job's server says to a line, once it can be reached."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if said := self.ask(job, line):
                    return said
            except OSError:
                pass  # not there yet
            if time.monotonic() > deadline:
                raise AssertionError(f"job {job} is not reached:\n{self.tail()}\n{self.platform.tail()}")
            time.sleep(0.05)

    def wait_for_log(self, words: str) -> None:
        """Wait until it has logged something."""
        deadline = time.monotonic() + _PATIENCE
        while words not in self.tail(10_000):
            if time.monotonic() > deadline:
                raise AssertionError(f"{words!r} is not said:\n{self.tail()}")
            time.sleep(0.05)

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


def _send(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # who reads our answers sees that it broke


def session(client: Client, *, port: int | None = None, place: str = "{port}", **more: Any) -> dict[str, Any]:
    """The document of an interactive job that runs the tests' server, with the agent around it."""
    port = port or random_port()
    files = [{"path": path.name, "sha256": client.upload(path)} for path in (AGENT, SERVER)]
    agent = ["python3", AGENT.name, "--port", str(port), "--reverse-url", "OUTSIDE_URL=/", "--"]
    return {
        "class": "interactive", "command": [*agent, "python3", SERVER.name, place], "cpu": "50m", "memory": "64M",
        "walltime": "1h", "grace": 2, "files_in": files, "ports": [{"name": PORT_NAME, "port": port}], **more,
    }  # fmt: skip


class Target:
    """A server of this machine that says hello, and back what it was told."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.most = 0
        """Most connections at a time."""
        self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        with connection:
            try:
                connection.sendall(b"hello ")
                while piece := connection.recv(1 << 16):
                    connection.sendall(piece)
            except OSError:
                pass
        with self._lock:
            self._now -= 1
