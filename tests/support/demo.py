"""A running demonstration in a folder of its own, for tests that need a platform with something on it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from atoll.client.synchronous import Client
from atoll.core.errors import Unavailable
from tests.support.ports import free_port


class RunningDemo:
    """`atoll demo` as a child process; a context that waits until something runs on it."""

    def __init__(self, folder: Path, *flags: str, running: int = 50) -> None:
        self.data, self.log = folder / "demo", folder / "demo.log"
        self._port, self._flags, self._running = free_port(), flags, running
        self.url = f"http://127.0.0.1:{self._port}"

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "atoll", "demo", "--data", str(self.data), "--port", str(self._port)]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("ATOLL_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen([*command, *self._flags], stdout=log, stderr=log, env=environment)
        try:
            self.wait_for(lambda: (self.data / "client.json").exists())
            self.client = Client(data=self.data)
            self.wait_for(lambda: self.client.queue().running >= self._running)
        except BaseException:
            self._process.terminate()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        if self._process.poll() is None:
            self.interrupt()

    @property
    def token(self) -> str:
        """The administrator's."""
        assert self.client.platform.token is not None
        return self.client.platform.token

    def interrupt(self) -> int:
        """Ctrl-C; its exit status."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(40)
        finally:
            self._process.kill()

    def wait_for(self, condition: Callable[[], bool], seconds: float = 60) -> None:
        """Wait until it is so."""
        deadline = time.monotonic() + seconds
        while not self._holds(condition):
            assert self._process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.2)

    @staticmethod
    def _holds(condition: Callable[[], bool]) -> bool:
        try:
            return condition()
        except Unavailable:  # where it goes on, what the demonstration has said tells why
            return False
