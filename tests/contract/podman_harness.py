"""The Podman driver for the contract and for its own tests: a real Podman of the tests' own."""

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.contract import Harness
from atoll.drivers.podman import PodmanDriver
from tests.support.openssh import OpenSsh
from tests.support.podman import IMAGE, PodmanService


class PodmanHarness(Harness):
    """Runs the cases in containers, as the account that runs the tests or as another one."""

    interval = 0.3
    slack = 6.0
    gpus = 2
    volume = "data"
    crowd = 30

    def __init__(self, folder: Path, /, service: PodmanService, account: str | None = None, **config: Any) -> None:
        super().__init__(folder)
        self.service = service
        self.account = account
        self.site = folder / "site"
        volume = self.volume_folder()
        volume.mkdir()
        if account is not None:
            volume.chmod(0o777)
        self.config = {
            "socket": str(service.socket),
            "image": IMAGE,
            "gpu_kind": service.gpu_kind,
            "seconds": 25,
            "volumes": {"data": {"path": str(volume)}},
            **config,
        }

    @classmethod
    def over_ssh(cls, folder: Path, service: PodmanService, server: OpenSsh) -> "PodmanHarness":
        """The same host, as if it were another machine."""
        key = server.new_key("root")
        harness = cls(
            folder, service, transport="ssh", host="127.0.0.1", port=server.port, user="root", key=str(key),
            known_hosts=str(server.known_hosts), folder=str(folder / "site"), cpu_limit="weight",
        )  # fmt: skip
        harness.slack = 15.0  # each look is a login session or two
        return harness

    async def make_driver(self) -> PodmanDriver:
        return PodmanDriver(DriverSetup("host", self.instance, self.site, self.config, self.owner))

    async def tear_down(self) -> None:
        """No container is left."""
        await self.driver.close()
        names = (await self.podman("ps", "-aq", "--filter", f"label=atoll.instance={self.instance}")).split()
        if names:
            await self.podman("rm", "--force", "--time", "0", "--volumes", *names)

    async def podman(self, *words: str) -> str:
        """What a command of Podman writes: what an administrator would do beside the platform."""
        return await asyncio.to_thread(self.service.podman, *words)

    def folder_of(self, attempt_id: str) -> Path:
        return self.site / "attempts" / attempt_id

    # -- hooks

    def volume_folder(self) -> Path:
        return self.folder / "volume"

    def free_port(self) -> int:
        return 8765 + self._jobs

    async def listings(self) -> str:
        names = (await self.podman("ps", "-aq")).split()
        inspected = await self.podman("inspect", *names) if names else ""
        listed = await asyncio.create_subprocess_exec("ps", "axww", stdout=subprocess.PIPE)
        processes, _ = await listed.communicate()
        return await self.podman("ps", "-a", "--format", "json") + inspected + processes.decode()

    async def left_behind(self, launch: Launch) -> bytes:
        found = [(await self.podman("inspect", f"atoll-{launch.attempt_id}")).encode()]
        for folder in ("attempts", "orders"):
            for path in (self.site / folder / launch.attempt_id).rglob("*"):
                found.append(str(path).encode())
                if path.is_file() and not path.is_symlink():
                    found.append(path.read_bytes())
        return b"\n".join(found)

    @asynccontextmanager
    async def slow_acceptance(self) -> AsyncIterator[None]:
        with self.service.frozen():
            yield

    async def restart_engine(self) -> None:
        self.service.kill()
        self.service.start()  # in this thread: the service ends with the thread that started it

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        self.service.kill()
        try:
            yield
        finally:
            self.service.start()  # in this thread: the service ends with the thread that started it

    async def outlast_memory(self, launch: Launch) -> None:
        name = f"atoll-{launch.attempt_id}"
        await self.podman("wait", name)
        await self.podman("rm", name)

    async def remove_behind_our_back(self, launch: Launch) -> None:
        await self.podman("rm", "--force", "--time", "0", f"atoll-{launch.attempt_id}")

    async def run_again(self, launch: Launch) -> None:
        await self.podman("restart", "--time", "0", f"atoll-{launch.attempt_id}")

    def refused_by_engine(self) -> tuple[Launch, str]:
        return self.launch({"command": ["true"], "environment": {"image": "localhost:1/nothing:1"}}), "nothing:1"

    async def questions(self) -> int:
        return await asyncio.to_thread(self.service.questions)

    def inspect(self, launch: Launch) -> dict[str, Any]:
        """All that Podman says of an attempt's container."""
        found = json.loads(self.service.podman("inspect", f"atoll-{launch.attempt_id}"))
        assert isinstance(found[0], dict)
        return found[0]
