"""The Kubernetes driver for the contract: a namespace of its own at a real cluster."""

import asyncio
import json
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from atoll.drivers.base import DriverSetup, Launch
from atoll.drivers.contract import Harness
from atoll.drivers.kubernetes import KubernetesDriver
from tests.support.kubernetes import Admin, Way, kubeconfig_by
from tests.support.kubernetes_emulator import Emulator


class KubernetesHarness(Harness):
    """Runs the cases in pods of a cluster."""

    patience = 200.0
    slack = 8.0
    interval = 1.0
    crowd = 200

    def __init__(self, folder: Path, kubeconfig: Path) -> None:
        super().__init__(folder)
        self.admin = Admin(kubeconfig)
        self.way = Way(self.admin)
        self.namespace = f"atoll-test-{self.instance}"
        self.image = os.environ.get("ATOLL_KUBERNETES_IMAGE", "docker.io/library/python:3.12")
        base = os.environ.get("ATOLL_KUBERNETES_FOLDER")
        self.volumes = Path(tempfile.mkdtemp(dir=base)) if base else None
        self.config: dict[str, Any] = {}
        self.lists = 0

    async def start(self) -> None:
        if not self.config:
            await self._arrange()
        await super().start()

    async def _arrange(self) -> None:
        """The namespace, its volumes, and a way to the cluster."""
        await self.way.open()
        await self.admin.call("POST", "/api/v1/namespaces", {
            "metadata": {"name": self.namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        })  # fmt: skip
        self.config = {
            "kubeconfig": str(kubeconfig_by(self.way, self.admin, self.folder)),
            "namespace": self.namespace,
            "image": self.image,
            "timeout": 10,
            "keeper": {"seconds": 8},  # the room of two hundred attempts is to be given back
        }
        if self.volumes is not None:
            await self._claim("checkpoints")
            await self._claim("data")
            self.config |= {"checkpoints": "checkpoints", "volumes": {"data": {"claim": "data"}}}
            self.volume = "data"

    async def _claim(self, name: str) -> None:
        """A folder of this machine, which is the cluster's node, as a claim."""
        assert self.volumes is not None
        self.volumes.chmod(0o755)
        folder = self.volumes / name
        folder.mkdir()
        folder.chmod(0o777)
        size = {"storage": "1Gi"}
        volume = f"{self.namespace}-{name}"
        await self.admin.call("POST", "/api/v1/persistentvolumes", {
            "metadata": {"name": volume},
            "spec": {"capacity": size, "accessModes": ["ReadWriteMany"], "hostPath": {"path": str(folder)},
                     "claimRef": {"namespace": self.namespace, "name": name}},
        })  # fmt: skip
        await self.admin.call("POST", f"/api/v1/namespaces/{self.namespace}/persistentvolumeclaims", {
            "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteMany"], "resources": {"requests": size}, "volumeName": volume,
                     "storageClassName": ""},
        })  # fmt: skip

    async def make_driver(self) -> KubernetesDriver:
        setup = DriverSetup("k8s", self.instance, self.folder / "site", self.config, self.owner)
        driver = KubernetesDriver(setup)
        asked = driver._cluster.api.ask

        async def counted(method: str, path: str, **values: Any) -> bytes:
            self.lists += method == "GET" and path.endswith("/jobs")
            return await asked(method, path, **values)

        driver._cluster.api.ask = counted  # type: ignore[method-assign]
        return driver

    async def tear_down(self) -> None:
        """The namespace goes, and all that is in it."""
        await self.driver.close()
        jobs = f"/apis/batch/v1/namespaces/{self.namespace}/jobs"
        await self.admin.call("DELETE", jobs, {"propagationPolicy": "Background"})
        pods = f"/api/v1/namespaces/{self.namespace}/pods"
        await self.admin.call("DELETE", pods, {"gracePeriodSeconds": 0})
        await self.admin.call("DELETE", f"/api/v1/namespaces/{self.namespace}")
        if self.volumes is not None:
            for name in ("checkpoints", "data"):
                await self.admin.call("DELETE", f"/api/v1/persistentvolumes/{self.namespace}-{name}")
            await asyncio.to_thread(shutil.rmtree, self.volumes, ignore_errors=True)
        await self.way.close()
        await self.admin.close()

    # -- hooks ---------------------------------------------------------------------------------------------------

    def volume_folder(self) -> Path:
        if self.volumes is None:
            return super().volume_folder()
        return self.volumes / "data"

    def free_port(self) -> int:
        return 8000 + self._jobs % 1000

    async def _objects(self, *paths: str) -> str:
        return "\n".join([json.dumps(await self.admin.call("GET", path)) for path in paths])

    async def listings(self) -> str:
        """All objects of the namespace but Secrets, which have their own right to be read."""
        base = f"/api/v1/namespaces/{self.namespace}"
        return await self._objects(
            f"/apis/batch/v1/namespaces/{self.namespace}/jobs", f"{base}/pods", f"{base}/configmaps", f"{base}/events"
        )  # fmt: skip

    async def left_behind(self, launch: Launch) -> bytes:
        """The same, and all files in the attempt's folder."""
        driver = self.driver
        assert isinstance(driver, KubernetesDriver)
        (pod,) = await driver._cluster.pods_of(self.namespace, launch.attempt_id)
        execution = await driver._cluster.execute(pod, "keeper", ["/bin/sh", "-c", "cd /atoll/run && grep -r ''"])
        pieces = []
        while piece := await execution.read(1 << 20):
            pieces.append(piece)
        await execution.close()
        return b"".join(pieces) + (await self.listings()).encode()

    @asynccontextmanager
    async def slow_acceptance(self) -> AsyncIterator[None]:
        async with self.way.slow():
            yield

    @asynccontextmanager
    async def nothing_begins(self) -> AsyncIterator[None]:
        """No node takes pods."""
        await self._cordon(True)
        try:
            yield
        finally:
            await self._cordon(False)

    async def _cordon(self, closed: bool) -> None:
        for node in (await self.admin.call("GET", "/api/v1/nodes"))["items"]:
            path, body = f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"unschedulable": closed}}
            await self.admin.call("PATCH", path, body, "application/merge-patch+json")

    @asynccontextmanager
    async def engine_down(self) -> AsyncIterator[None]:
        await self.way.cut()
        try:
            yield
        finally:
            await self.way.open()

    async def remove_behind_our_back(self, launch: Launch) -> None:
        path = f"/apis/batch/v1/namespaces/{self.namespace}/jobs/atoll-{launch.attempt_id}"
        await self.admin.call("DELETE", path, {"propagationPolicy": "Background"})

    async def run_again(self, launch: Launch) -> None:
        """The pod goes; a Job of another make would start the next one."""
        query = f"?labelSelector=atoll/attempt={launch.attempt_id}"
        await self.admin.call("DELETE", f"/api/v1/namespaces/{self.namespace}/pods{query}", {"gracePeriodSeconds": 1})

    def refused_by_engine(self) -> tuple[Launch, str]:
        if self.volume is None:
            return super().refused_by_engine()
        volumes = [{"name": self.volume, "path": "/mnt/twice"}] * 2
        return self.launch({"command": ["true"], "volumes": volumes}), "must be unique"

    async def questions(self) -> int:
        """How many lists of Jobs our drivers asked for; the server's own count has those of its controllers too."""
        return self.lists


class EmulatedHarness(Harness):
    """Plays the cases at the emulator, which runs nothing: as the fake driver's tests do."""

    interval = 0.05
    slack = 3.0

    def __init__(self, folder: Path, emulator: Emulator, url: str) -> None:
        super().__init__(folder)
        self.emulator = emulator
        kubeconfig = folder / "kubeconfig"
        kubeconfig.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": url}}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }))  # fmt: skip
        self.config = {"kubeconfig": str(kubeconfig), "image": "registry.example/base:1", "timeout": 10}

    async def make_driver(self) -> KubernetesDriver:
        return KubernetesDriver(DriverSetup("k8s", self.instance, self.folder / "site", self.config, self.owner))

    @asynccontextmanager
    async def nothing_begins(self) -> AsyncIterator[None]:
        self.emulator.full = True
        yield
        self.emulator.full = False
        self.emulator.room.set()

    def launch(self, spec: dict[str, Any], **values: Any) -> Launch:
        match spec.get("command"):
            case ["/bin/sh", "-c", script]:
                spec = {**spec, "env": _played(script)}
            case ["sleep", seconds]:
                spec = {**spec, "env": _played(f"sleep {seconds}")}
        return super().launch(spec, **values)


def _played(script: str) -> dict[str, str]:
    """The variables by which the emulator plays a script of `echo`, `sleep` and `exit`. Raises AssertionError."""
    runtime, code = 0.0, 0
    for part in script.split("; "):
        match part.split():
            case [":"] | ["true"] | ["echo", *_]:
                continue
            case ["sleep", seconds]:
                runtime += float(seconds)
            case ["exit", number]:
                code = int(number)
            case _:
                raise AssertionError(f"the emulator cannot play {part!r}")
    return {"FAKE_RUNTIME": str(runtime), "FAKE_EXIT": str(code)}
