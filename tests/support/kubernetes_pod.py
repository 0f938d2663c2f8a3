"""The two containers of a pod as process namespaces of this machine, so that pod.sh is shown without any cluster.

What the driver renders is laid into a folder, with that folder's path in the place of /atoll. The shell of each
container is process 1 of a namespace of its own: what signals all, signals nobody outside.
"""

import asyncio
import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from atoll.drivers.base import Launch
from atoll.drivers.kubernetes.config import read_config
from atoll.drivers.kubernetes.objects import Report, read_report
from atoll.drivers.kubernetes.payload import make_payload, shared_texts
from atoll.drivers.wrapper import secret_files

_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")


async def can_unshare() -> bool:
    """Whether this account may make process namespaces."""
    process = await asyncio.create_subprocess_exec(*_NAMESPACES, "true", stderr=asyncio.subprocess.DEVNULL)
    return await process.wait() == 0


class Pod:
    """One attempt in its pod."""

    def __init__(self, folder: Path, launch: Launch, config: Mapping[str, Any] | None = None) -> None:
        self.folder = folder / "atoll"
        self.run = self.folder / "run"
        self.launch = launch
        self._config = read_config(config or {})
        self._main: asyncio.subprocess.Process | None = None
        self._keeper: asyncio.subprocess.Process | None = None
        self.environment: dict[str, str] = {}

    def _moved(self, text: str) -> str:
        moved = text.replace("/atoll/", f"{self.folder}/").replace("/dev/termination-log", str(self.folder / "message"))
        return moved.replace("/sys/fs/cgroup", str(self.folder / "cgroup"))

    def lay_out(self) -> None:
        """What the cluster would mount."""
        inside = self.folder / "in"
        for path in (inside, self.run, self.folder / "checkpoint", self.folder / "private"):
            path.mkdir(parents=True)
        payload = make_payload(self.launch, self._config, "ada", f"ns/atoll-{self.launch.attempt_id}")
        for content in (shared_texts(), *payload.maps):
            for name, value in content.items():
                (inside / name).write_bytes(value if isinstance(value, bytes) else self._moved(value).encode())
        secrets = secret_files(self.launch)
        if secrets:
            (self.folder / "secrets").mkdir()
        for name, value in secrets.items():
            (self.folder / "secrets" / name).write_bytes(base64.b64decode(base64.b64encode(value)))

    async def start(self, *, keep: str = "60") -> None:
        """Start both containers."""
        self.lay_out()
        script = str(self.folder / "in" / "pod.sh")
        variables = {"PATH": os.environ["PATH"], **self.environment}
        pipe = asyncio.subprocess.PIPE
        self._keeper = await asyncio.create_subprocess_exec(
            *_NAMESPACES, "sh", script, "keep", keep, env=variables, stdout=pipe
        )
        self._main = await asyncio.create_subprocess_exec(*_NAMESPACES, "sh", script, "main", env=variables)

    async def ended(self) -> tuple[int, Report]:
        """Wait for the end of the job's container: its exit code, and what it told the engine."""
        assert self._main is not None
        async with asyncio.timeout(30):
            code = await self._main.wait()
        return code, read_report((self.folder / "message").read_text())

    async def said(self) -> bytes:
        """Wait for the end of the other container: its log."""
        assert self._keeper is not None
        async with asyncio.timeout(30):
            log, _ = await self._keeper.communicate()
        return log

    async def verb(self, container: str, *words: str, stdin: bytes = b"") -> tuple[int, bytes]:
        """Run a verb of pod.sh in a container, as an exec would: exit code and output."""
        process = self._main if container == "main" else self._keeper
        assert process is not None
        async with asyncio.timeout(10):
            while not (inner := psutil.Process(process.pid).children()):  # noqa: ASYNC110  # nothing tells of a fork
                await asyncio.sleep(0.01)
        first = inner[0]
        enter = ("nsenter", "-t", str(first.pid), "--pid", "--mount", "sh", str(self.folder / "in" / "pod.sh"), *words)
        pipe = asyncio.subprocess.PIPE
        inside = await asyncio.create_subprocess_exec(
            *enter, stdin=pipe, stdout=pipe, env={"PATH": os.environ["PATH"]}
        )  # fmt: skip
        async with asyncio.timeout(30):
            out, _ = await inside.communicate(stdin)
        return inside.returncode or 0, out

    async def wait_for(self, text: bytes, stream: str = "stdout") -> None:
        """Wait until the job has written something."""
        path = self.run / stream
        async with asyncio.timeout(20):
            while not path.exists() or text not in path.read_bytes():  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def close(self) -> None:
        """End whatever is left."""
        for process in (self._main, self._keeper):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()
            if process is not None and process.stdout is not None:
                process.stdout.feed_eof()
                process._transport.close()  # type: ignore[attr-defined]
