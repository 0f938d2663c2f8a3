"""What the HTTP faces need of a running platform; whoever starts the server fills it in."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from atoll.core.clock import Clock, system_clock
from atoll.core.config import LoginConfig
from atoll.core.site_file import SiteFile
from atoll.drivers.base import Driver
from atoll.store.database import Database
from atoll.store.files import FileStore
from atoll.store.logs import LogStore

MEBIBYTE = 1 << 20


class Changes(Protocol):
    """Tells when the outbox has something new."""

    async def wait(self, cursor: int, seconds: float | None = None, /) -> int:
        """Return once there is an event with an id above `cursor`, or after `seconds`; the newest id known."""


def _nothing() -> None:
    """The default of `Platform.changed`: no loop runs in this process."""


def _no_driver(_site: str) -> Driver | None:
    """The default of `Platform.driver_for`: this process drives no site."""
    return None


def _any_site(_site: SiteFile) -> None:
    """The default of `Platform.check_site`: no driver is here to say what it takes."""


def _ready() -> str | None:
    """The default of `Platform.ready`."""
    return None


@dataclass(frozen=True)
class Platform:
    """A running platform, as its faces see it."""

    database: Database
    files: FileStore
    logs: LogStore
    changes: Changes
    instance: str
    version: str
    memory_per_cpu: int = 2048 * MEBIBYTE
    """Bytes for each CPU, where a job does not say how much memory it needs."""
    clock: Clock = system_clock
    changed: Callable[[], None] = _nothing
    """Called after each write, so that the loops look at once."""
    driver_for: Callable[[str], Driver | None] = _no_driver
    """The live driver of a site; None where this replica has none."""
    check_site: Callable[[SiteFile], None] = _any_site
    """Raises Invalid for a site whose driver is not there, or does not take its config."""
    ready: Callable[[], str | None] = _ready
    """None where the control plane runs, else the sentence that says why not."""
    file_limit: int = 10 * 1024 * MEBIBYTE
    """Bytes that one uploaded file may have."""
    address: str | None = None
    """Origin under which browsers reach it, as `https://atoll.example.org`; None: what requests say."""
    login: LoginConfig = field(default_factory=LoginConfig)
    """How long people stay logged in."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the server is about to stop: streams end, so that it need not wait for them."""

    def default_memory(self, cpu: int) -> int:
        """Bytes of memory on each node for a job with `cpu` milli-CPU that asked for none."""
        return max(16 * MEBIBYTE, cpu * self.memory_per_cpu // 1000)
