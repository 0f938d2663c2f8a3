"""An emulated cluster for the driver's own tests, and launches to give it."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import kmock
import pytest
import yaml

from atoll.core.ids import new_attempt_id, new_instance_id
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec
from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.kubernetes import KubernetesDriver
from tests.support.kubernetes_emulator import Emulator

OWNER = "ada"


def write_kubeconfig(folder: Path, server: str, **cluster: Any) -> Path:
    """A kubeconfig for `server` with a token."""
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": server, **cluster}}],
        "users": [{"name": "u", "user": {"token": "a-token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    }))  # fmt: skip
    return path


class Site:
    """An emulated cluster with drivers of one platform."""

    def __init__(self, folder: Path, emulator: Emulator, url: str) -> None:
        self.folder = folder
        self.emulator = emulator
        self.url = url
        self.kubeconfig = write_kubeconfig(folder, url)
        self.instance = new_instance_id()
        self.drivers: list[KubernetesDriver] = []
        self._jobs = 0

    def driver(self, *, shared: bool = False, **config: Any) -> KubernetesDriver:
        """A driver with this configuration beside what all need."""
        values = {"kubeconfig": str(self.kubeconfig), "image": "registry.example/base:1", "timeout": 5, **config}
        driver = KubernetesDriver(DriverSetup("k8s", self.instance, self.folder, values, OWNER, shared))
        self.drivers.append(driver)
        return driver

    def launch(self, spec: dict[str, Any] | None = None, **values: Any) -> Launch:
        """An attempt of a new job."""
        self._jobs += 1
        job = JobSpec.model_validate(spec or {"command": ["true"]})
        usual: dict[str, Any] = {
            "attempt_id": new_attempt_id(self.instance), "job_id": self._jobs, "task": None, "task_count": 1,
            "number": 1, "checkpoint_key": f"job-{self._jobs}", "person": OWNER, "project": "physics", "account": None,
            "spec": job, "request": Resources(1000, 1 << 30, job.gpu), "nodes": job.nodes, "walltime": job.walltime,
        }  # fmt: skip
        return Launch(**(usual | values))

    def made(self, kind: str) -> list[dict[str, Any]]:
        """The bodies of all objects of a kind that were made."""
        return [body for body in self.emulator.bodies if body["kind"] == kind]


@pytest.fixture
async def site(tmp_path: Path) -> AsyncIterator[Site]:
    emulator = Emulator()
    async with emulator, kmock.Server(emulator) as server:
        emulator.add_node("node-0")
        site = Site(tmp_path, emulator, str(server.url).rstrip("/"))
        yield site
        for driver in site.drivers:
            await driver.close()
        await emulator.stop_playing()


Launcher = Callable[..., Launch]
