"""A running JupyterHub whose servers are jobs of a running platform, for tests.

It is started as people start one: by a configuration file of a few lines. Logging in needs no password.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from tests.support.platform import RunningPlatform
from tests.support.ports import free_port

_PATIENCE = 60.0
TOKEN = "a-token-of-the-tests-that-may-do-everything"
_CONFIG = """
import logging
c.JupyterHub.bind_url = "http://127.0.0.1:{public}/"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub}"
c.JupyterHub.authenticator_class = "dummy"
c.Authenticator.allow_all = True
c.JupyterHub.allow_named_servers = True
c.JupyterHub.cleanup_servers = False
c.JupyterHub.db_url = "sqlite:///{folder}/hub.sqlite"
c.JupyterHub.cookie_secret_file = "{folder}/secret"
c.JupyterHub.services = [{{"name": "tests", "api_token": "{token}"}}]
c.JupyterHub.load_roles = [{{
    "name": "tests", "services": ["tests"],
    "scopes": ["admin:users", "admin:servers", "tokens", "access:servers"],
}}]
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 0}}
c.JupyterHub.proxy_class = "traefik_file"
c.TraefikProxy.traefik_api_password = "tests"
c.TraefikProxy.traefik_api_url = "http://127.0.0.1:{traefik}"
c.TraefikFileProviderProxy.static_config_file = "{folder}/static.toml"
c.TraefikFileProviderProxy.dynamic_config_file = "{folder}/dynamic.toml"
c.Spawner.http_timeout = 8
c.Spawner.consecutive_failure_limit = 5
c.Spawner.poll_interval = 1
c.Spawner.args = ["--allow-root"]

c.JupyterHub.spawner_class = "{spawner}"
c.AtollSpawner.url = "{url}"
c.AtollSpawner.token = "{platform_token}"
c.AtollSpawner.relay_port = {relay}
c.AtollSpawner.notebook_dir = "{notebooks}"
c.AtollSpawner.job = {{"cpu": "100m", "memory": "512M", "grace": 5}}
{more}
"""


class RunningHub:
    """JupyterHub as a child process; ports and folder stay the same over restarts."""

    def __init__(self, platform: RunningPlatform, folder: Path, relay_port: int, *, hub: int, more: str = "") -> None:
        self.folder = folder
        self.notebooks = folder / "notebooks"
        self.notebooks.mkdir(parents=True)
        self.public, self.hub = free_port(), hub
        self.log = folder / "hub.log"
        self.process: subprocess.Popen[bytes] | None = None
        self.config = folder / "jupyterhub_config.py"
        self._platform = platform
        self.config.write_text(
            _CONFIG.format(
                public=self.public, hub=hub, traefik=free_port(), folder=folder, token=TOKEN, url=platform.url,
                platform_token=platform.token, relay=relay_port, notebooks=self.notebooks, more=more,
                spawner="atoll.sessions.spawner.AtollSpawner",
            )
        )  # fmt: skip

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        """Start it, and wait until its API answers."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "jupyterhub", "-f", str(self.config)], cwd=self.folder,
                env={**os.environ, "PATH": path}, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                if self.api("GET", "/").status_code == 200:
                    return
            except httpx2.TransportError:
                pass  # it does not listen yet
            assert self.process.poll() is None, self.tail()
            assert time.monotonic() < deadline, self.tail()
            time.sleep(0.1)

    def kill(self) -> None:
        """SIGKILL, to it and its proxy."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, 9)
            self.process.wait()

    def api(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """A request to the hub's API, with the right to do everything."""
        url = f"http://127.0.0.1:{self.hub}/hub/api{path}"
        headers = {"Authorization": f"token {TOKEN}"}
        return httpx2.request(method, url, headers=headers, timeout=30, trust_env=False, **options)

    def spawn(self, user: str, server: str = "", **options: Any) -> None:
        """Ask for a server, of a user who may be new."""
        self.api("POST", f"/users/{user}")
        answer = self.api("POST", self._path(user, server), json=options)
        assert answer.status_code in (201, 202), answer.text

    def stop(self, user: str, server: str = "") -> None:
        """Ask for a server's end."""
        answer = self.api("DELETE", self._path(user, server))
        assert answer.status_code in (202, 204), answer.text

    def server(self, user: str, server: str = "") -> dict[str, Any] | None:
        """What the hub says of a server; None where there is none."""
        found: dict[str, Any] | None = self.api("GET", f"/users/{user}").json().get("servers", {}).get(server)
        return found

    def wait_ready(self, user: str, server: str = "") -> None:
        """Wait until the hub says that a server is ready."""
        self.wait_until(lambda: self._is_ready(user, server), f"{user}/{server} is not ready")

    def _is_ready(self, user: str, server: str) -> bool:
        found = self.server(user, server)
        assert found is not None, f"the start of {user}/{server} has failed:\n{self.tail()}"
        return bool(found["ready"])

    def wait_until(self, condition: Any, complaint: str, seconds: float = _PATIENCE) -> None:
        """Wait for something that nothing tells of."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"{complaint}:\n{self.tail()}\n{self._platform.tail()}"
            time.sleep(0.1)

    def progress(self, user: str, server: str = "") -> Iterator[dict[str, Any]]:
        """The events of a start, until it is over."""
        url = f"http://127.0.0.1:{self.hub}/hub/api{self._path(user, server)}/progress"
        headers = {"Authorization": f"token {TOKEN}"}
        deadline = time.monotonic() + _PATIENCE
        while True:
            with httpx2.stream("GET", url, headers=headers, timeout=60, trust_env=False) as stream:
                if stream.status_code == 200:
                    for line in stream.iter_lines():
                        if line.startswith("data:"):
                            yield json.loads(line.removeprefix("data:"))
                    return
                # while the hub tidies up after a start that failed, it says for a moment that there is none
                said = stream.read()
            assert stream.status_code == 400, said
            assert time.monotonic() < deadline, said
            time.sleep(0.1)

    def visit(self, user: str, path: str, server: str = "") -> httpx2.Response:
        """A request to somebody's server, through the hub's proxy."""
        name = f"/{server}" if server else ""
        url = f"http://127.0.0.1:{self.public}/user/{user}{name}{path}"
        return httpx2.get(url, headers={"Authorization": f"token {TOKEN}"}, timeout=30, trust_env=False)

    def tail(self, lines: int = 60) -> str:
        """The end of its log."""
        said = [line for line in self.log.read_text(errors="replace").splitlines() if " 200 GET /hub/api/" not in line]
        return "\n".join(said[-lines:])

    @staticmethod
    def _path(user: str, server: str) -> str:
        return f"/users/{user}/servers/{server}" if server else f"/users/{user}/server"
