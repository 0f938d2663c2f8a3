"""Which Kubernetes the tests use: a cluster, a control plane that they start, or an emulator that counts as a fake.

In this order: the cluster of KUBECONFIG, with nodes that run pods; etcd and kube-apiserver from the folder that
KUBEBUILDER_ASSETS names (the convention of envtest), which takes objects and runs nothing; the emulator of kmock.

A cluster needs an image with /bin/sh and /usr/bin/python3, named by ATOLL_KUBERNETES_IMAGE. Where its only node is
this machine ATOLL_KUBERNETES_FOLDER names a folder for volumes, which the cases look into from outside.
"""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import aiohttp
import yaml

from tests.support.ports import free_port

ENGINE = "Kubernetes"
NOT_PROVEN = "KUBECONFIG names no cluster"
"""Why the cases at a real cluster are skipped; the run's summary lists it under the engine's name."""


def verdict(skips: Mapping[tuple[str, str], int]) -> str | None:
    """What a run's summary says first, by its skips (engine, reason): whether a real cluster was there."""
    missed = sum(count for (engine, reason), count in skips.items() if (engine, reason) == (ENGINE, NOT_PROVEN))
    return f"{ENGINE}: not proven: {missed} tests had no cluster, and an emulator took its place" if missed else None


def cluster_kubeconfig() -> Path | None:
    """The kubeconfig of a cluster that runs pods."""
    named = os.environ.get("KUBECONFIG", "").partition(":")[0]
    return Path(named) if named and Path(named).is_file() else None


def assets_folder() -> Path | None:
    """The folder with etcd and kube-apiserver."""
    folder = Path(os.environ.get("KUBEBUILDER_ASSETS", "") or "/nonexistent")
    return folder if (folder / "kube-apiserver").is_file() else None


class Admin:
    """Calls of a cluster's administrator, for what a test arranges and looks at."""

    def __init__(self, kubeconfig: Path) -> None:
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self.server: str = cluster["server"]
        self.authority: str | None = cluster.get("certificate-authority")
        self.config = config
        self._headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user else {}
        self._session: aiohttp.ClientSession | None = None

    def _context(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.authority) if self.server.startswith("https") else True

    async def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """One request; the answer as plain data, or text. Raises AssertionError for an error."""
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context())
            self._session = aiohttp.ClientSession(connector=connector, headers=self._headers)
        headers = {"Content-Type": kind}
        async with self._session.request(method, self.server + path, json=body, headers=headers) as response:
            text = await response.text()
            assert response.status < 300 or (method == "DELETE" and response.status == 404), f"{path}: {text}"
            return await response.json(content_type=None) if text.startswith("{") else text

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()


class Way:
    """A way to the API server that a test can cut or slow down: a relay of bytes, which knows nothing of TLS."""

    def __init__(self, admin: Admin) -> None:
        host, _, port = admin.server.removeprefix("https://").removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._passing = asyncio.Event()
        self._passing.set()
        self.port = free_port()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def cut(self) -> None:
        """Nobody gets through, and who was there is cut off."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @contextlib.asynccontextmanager
    async def slow(self) -> AsyncIterator[None]:
        """Within, requests go through and answers are held back."""
        self._passing.clear()
        try:
            yield
        finally:
            self._passing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._relay(reader, writer)
        except asyncio.CancelledError:
            writer.transport.abort()
        except OSError:
            writer.transport.abort()
        finally:
            self._tasks.discard(task)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection(*self._target)
        ways = [asyncio.create_task(self._pump(reader, back, wait=False)),
                asyncio.create_task(self._pump(there, writer, wait=True))]  # fmt: skip
        try:
            await asyncio.gather(*ways)
        finally:
            for each in ways:
                each.cancel()
            for each_writer in (back, writer):
                each_writer.close()

    async def _pump(self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, wait: bool) -> None:
        while data := await source.read(1 << 16):
            if wait:
                await self._passing.wait()
            target.write(data)
            await target.drain()
        with contextlib.suppress(OSError):
            target.write_eof() if target.can_write_eof() else target.close()

    async def close(self) -> None:
        """End it."""
        await self.cut()


def kubeconfig_by(way: Way, admin: Admin, folder: Path, changes: Mapping[str, Any] | None = None) -> Path:
    """A kubeconfig that leads by `way`; `changes` take the place of the user's entries."""
    config = yaml.safe_load(yaml.safe_dump(admin.config))
    scheme = admin.server.partition("://")[0]
    config["clusters"][0]["cluster"]["server"] = f"{scheme}://127.0.0.1:{way.port}"
    if changes is not None:
        config["users"][0]["user"] = dict(changes)
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


class ControlPlane:
    """etcd and kube-apiserver of this machine, on free ports, without controllers and nodes: objects, and no pods.

    Everything ends with the process that started it.
    """

    def __init__(self, assets: Path, folder: Path) -> None:
        self._assets = assets
        self._folder = folder
        self._processes: list[subprocess.Popen[bytes]] = []
        self.port = free_port()
        self.kubeconfig = folder / "kubeconfig"

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        etcd, peer = free_port(), free_port()
        here = "http://127.0.0.1"
        local = self._assets / "etcd"
        program = str(local) if local.is_file() else (shutil.which("etcd") or "etcd")
        self._start("etcd", [
            program, "--data-dir", str(self._folder / "etcd"),
            "--listen-client-urls", f"{here}:{etcd}", "--advertise-client-urls", f"{here}:{etcd}",
            "--listen-peer-urls", f"{here}:{peer}", "--initial-advertise-peer-urls", f"{here}:{peer}",
            "--initial-cluster", f"default={here}:{peer}",
        ])  # fmt: skip
        key, public = self._folder / "sa.key", self._folder / "sa.pub"
        for words in (["genrsa", "-out", str(key), "2048"], ["rsa", "-in", str(key), "-pubout", "-out", str(public)]):
            subprocess.run(["openssl", *words], check=True, capture_output=True)
        tokens = self._folder / "tokens.csv"
        tokens.write_text('admin-token,admin,1,"system:masters"\nweak-token,weak,2,"nobody"\n')
        certificates = self._folder / "tls"
        self._start("kube-apiserver", [
            str(self._assets / "kube-apiserver"), f"--etcd-servers={here}:{etcd}", "--bind-address=127.0.0.1",
            f"--secure-port={self.port}", f"--cert-dir={certificates}", f"--token-auth-file={tokens}",
            "--authorization-mode=RBAC", "--service-account-issuer=https://kubernetes.default",
            f"--service-account-key-file={public}", f"--service-account-signing-key-file={key}",
            "--service-cluster-ip-range=10.96.0.0/16", "--disable-admission-plugins=ServiceAccount",
        ])  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(self.config("admin-token")))
        return self

    def config(self, token: str) -> dict[str, Any]:
        """A kubeconfig for whoever has this token."""
        authority = str(self._folder / "tls" / "apiserver.crt")
        cluster = {"server": f"https://127.0.0.1:{self.port}", "certificate-authority": authority}
        return {
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": cluster}], "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        }  # fmt: skip

    async def ready(self) -> "Admin":
        """The administrator, once the server serves."""
        deadline = time.monotonic() + 90
        while True:
            admin = Admin(self.kubeconfig)
            try:
                await admin.call("GET", "/readyz")
                await admin.call("GET", "/api/v1/namespaces/default")
                return admin
            except (AssertionError, OSError, aiohttp.ClientError) as error:
                await admin.close()
                if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                    raise AssertionError(f"kube-apiserver does not serve: {error}: {self._log()}") from error
                await asyncio.sleep(0.3)

    def _log(self) -> str:
        return "".join(path.read_text()[-2000:] for path in self._folder.glob("*.log"))

    def _start(self, name: str, words: Sequence[str]) -> None:
        with (self._folder / f"{name}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *words], stdout=log, stderr=log, cwd=self._folder)
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in reversed(self._processes):
            process.kill()
            process.wait()
