"""A running Atoll in a folder of its own, started as a person would, for tests, chaos and benchmarks.

    with RunningPlatform(folder) as platform:
        platform.client.submit(command=["true"])

`kill`, `pause` and `start` treat it as the world does. Its jobs' supervisor outlives it; leaving the context ends
both.
"""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2
import psutil

from tests.support.ports import free_port

START_SECONDS = 60.0


class RunningPlatform:
    """`atoll up` as a child process. `data`, `port` and `database` stay the same over restarts."""

    def __init__(
        self, data: Path, *, database: str | None = None, port: int | None = None,
        environment: Mapping[str, str] | None = None, flags: tuple[str, ...] = ("--bare",),
    ) -> None:  # fmt: skip
        """Alone, without a proxy before it, unless `flags` say otherwise: it starts quicker."""
        self.data = data
        self.database = database
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.verify: ssl.SSLContext | bool = True
        """What its certificate is held against, where `url` says https."""
        self.log = data.parent / f"{data.name}-{self.port}.log"
        self._environment = dict(environment or {})
        self._flags = flags
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.end_supervisors()

    @property
    def token(self) -> str:
        """The local token."""
        return str(json.loads((self.data / "client.json").read_text())["token"])

    def environment(self) -> dict[str, str]:
        """What a command needs to find this platform."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
        return {**kept, "ATOLL_DATA": str(self.data)}

    def start(self, *, wait: bool = True) -> None:
        """Start it, and wait until it is ready."""
        database = ["--database", self.database] if self.database else []
        command = [sys.executable, "-m", "atoll", "up", "--data", str(self.data), "--port", str(self.port)]
        self.data.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, *database, *self._flags],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env={**self.environment(), **self._environment},
                start_new_session=True,
            )
        if wait:
            self.wait_ready()

    def wait_ready(self, seconds: float = START_SECONDS) -> None:
        """Wait until it says that it is ready."""
        deadline = time.monotonic() + seconds
        while True:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"atoll up ended with {self.process.returncode}:\n{self.tail()}")
            try:
                if httpx2.get(f"{self.url}/readyz", timeout=5, verify=self.verify).status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # not listening yet
            if time.monotonic() > deadline:
                raise AssertionError(f"atoll up was not ready after {seconds} s:\n{self.tail()}")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def interrupt(self, seconds: float = 30.0) -> int:
        """Ctrl-C; returns its exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(seconds)

    def pause(self) -> None:
        """SIGSTOP."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def end_supervisors(self) -> None:
        """Kill what runs jobs in our folder, and the jobs."""
        marker = str(self.data)
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any(marker in word for word in words) and process.pid != os.getpid():
                for child in [*process.children(recursive=True), process]:
                    try:
                        child.kill()
                    except psutil.NoSuchProcess:
                        continue

    def tail(self, lines: int = 40) -> str:
        """The end of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def request(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A request with the local token."""
        headers = {"Authorization": f"Bearer {self.token}", **options.pop("headers", {})}
        return httpx2.request(method, f"{self.url}{path}", headers=headers, timeout=30, **options)

    def command(self, *words: str, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run the command line against this platform."""
        done = subprocess.run(
            [sys.executable, "-m", "atoll", *words],
            env=self.environment(), text=True, capture_output=True, timeout=options.pop("timeout", 120), **options,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(f"atoll {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
        return done
