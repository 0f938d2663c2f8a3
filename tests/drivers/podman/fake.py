"""Servers on a unix socket that are not the Podman one hopes for."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from atoll.drivers.base import DriverSetup
from atoll.drivers.podman import PodmanDriver
from tests.drivers.podman.launches import INSTANCE

Handler = Callable[[web.Request], Any]
INFO = {
    "host": {"cpus": 4, "memTotal": 8 << 30, "arch": "amd64", "cgroupControllers": ["cpu", "memory", "pids"],
             "security": {"rootless": False}, "ociRuntime": {"name": "runc"}, "hostname": "host"},
    "version": {"Version": "4.3.1"},
}  # fmt: skip


class FakePodman:
    """Answers by `routes`, from the end of a path to an answer; counts what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.version = "4.3.1"
        self.routes: dict[str, Handler | bytes | tuple[int, dict[str, Any]]] = {
            "/info": json.dumps(INFO).encode(),
            "/containers/json": b"[]",
        }

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(f"{request.method} {request.path}")
        if request.path.endswith("/_ping"):
            return web.Response(text="OK", headers={"Libpod-API-Version": self.version} if self.version else {})
        for end, told in self.routes.items():
            if request.path.endswith(end):
                if isinstance(told, bytes):
                    return web.Response(body=told)
                if isinstance(told, tuple):
                    return web.json_response(told[1], status=told[0])
                response: web.StreamResponse = await told(request)
                return response
        return web.json_response({"message": "not here", "cause": "none"}, status=404)


@asynccontextmanager
async def served(folder: Path, **config: Any) -> AsyncIterator[tuple[FakePodman, PodmanDriver]]:
    """A fake and a driver for it."""
    fake = FakePodman()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", fake.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    path = folder / "podman.sock"
    await web.UnixSite(runner, str(path)).start()
    driver = driver_at(path, folder, **config)
    try:
        yield fake, driver
    finally:
        await driver.close()
        await runner.cleanup()


def driver_at(path: Path, folder: Path, **config: Any) -> PodmanDriver:
    settings = {"socket": str(path), "image": "base", "seconds": 0.5, "gpus": [], **config}
    return PodmanDriver(DriverSetup("host", INSTANCE, folder / "site", settings, "ann"))


async def never(request: web.Request) -> web.StreamResponse:
    """Hangs."""
    await asyncio.Event().wait()
    raise AssertionError


async def until(condition: Callable[[], object]) -> None:
    """Wait for what only looking again tells."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
