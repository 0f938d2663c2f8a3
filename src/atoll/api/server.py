"""The platform: one process with the HTTP application and the control plane of a replica.

Started as `python -m atoll.api.server`: by `front`, which hands it the socket to listen on, or, by `atoll up --bare`,
alone.
"""

import asyncio
import contextlib
import gc
import getpass
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import uvicorn
from sqlalchemy import Connection

from atoll.api.app import create_app
from atoll.api.flags import Flags, parse
from atoll.api.folders import Folders, prepare, sole_user
from atoll.api.listening import listen, public_url
from atoll.control import launches
from atoll.control.drivers import Drivers
from atoll.control.leases import LeaseKeeper
from atoll.control.plane import ControlPlane
from atoll.control.pump import Pump
from atoll.control.purge import Ages
from atoll.control.work import SiteWork, Tools
from atoll.core.clock import system_clock
from atoll.core.config import LocalSite, PlatformConfig, QueueConfig
from atoll.core.errors import AtollError, Conflict
from atoll.core.resources import format_milli
from atoll.core.site_file import Identity, SiteFile
from atoll.drivers.base import DriverSetup
from atoll.faces.http.platform import Platform
from atoll.people.login import first_link
from atoll.people.service import local_token
from atoll.scheduler.model import CLASSES, Policy, Weights
from atoll.store import attempts, leases, settings, sites
from atoll.store.attempts import AttemptState
from atoll.store.database import Database
from atoll.store.files import FileStore
from atoll.store.logs import LogStore
from atoll.store.sites import Configured

log = logging.getLogger("atoll")

CLIENT_FILE = "client.json"
"""File in the data folder from which a command line of the same person learns address and token."""


@contextlib.contextmanager
def _data_folder(config: PlatformConfig) -> Iterator[Folders]:
    """The data folder under its lock, unless the state is in PostgreSQL, which several replicas share."""
    folders = prepare(config)
    if not config.database_url.startswith("sqlite"):
        yield folders
        return
    with sole_user(folders, "lock"):
        yield folders


def _listener(flags: Flags) -> socket.socket:
    """What to listen on: a socket that was handed over, or one of our own."""
    if flags.listen_on is not None:
        return socket.socket(fileno=flags.listen_on)
    return listen(flags.config.host, flags.config.port)


def _local_config(config: PlatformConfig) -> dict[str, object]:
    local = config.local
    # as the driver reads it: what is here is in thousandths
    cpus = None if local.cpus is None else format_milli(local.cpus)
    asked = {"cpus": cpus, "memory": local.memory, "gpus": local.gpus, "accounts": local.accounts or None}
    return {name: value for name, value in asked.items() if value is not None}


async def _local_site(
    tools: Tools, config: PlatformConfig, folders: Folders, drivers: Drivers, owner: str
) -> dict[str, SiteWork]:
    """The site that is this machine."""
    local = config.local
    if not local.enabled:
        return {}
    folder = folders.site(local.name)
    asked = _local_config(config)
    await tools.database.write(lambda connection: _claim_local_site(connection, local, folder, asked))
    driver = drivers.make("process", DriverSetup(local.name, tools.instance, folder, asked, owner))
    return {
        local.name: SiteWork(
            tools, local.name, driver, call_seconds=10.0, log_limit=config.log_limit, output_limit=config.file_limit
        )
    }


def _claim_local_site(connection: Connection, local: LocalSite, folder: Path, asked: dict[str, object]) -> None:
    """Note which folder of which machine the local site is. Raises Conflict where it is another one's.

    Replicas may share one database, and each may have a machine; but a job that runs at one of them is not lost
    because another cannot see it.
    """
    name, place = local.name, {"host": socket.gethostname(), "folder": str(folder)}
    known = sites.configured(connection).get(name)
    if known is not None and not known.local:
        raise Conflict(
            "site_taken",
            f"There is a site {name!r} already, with the driver {known.driver!r}. Give this machine's site a name of "
            "its own (local: {name: ...} in the configuration).",
            field="local.name",
        )
    if known is not None:
        before = known.config
        same = all(before.get(key) == value for key, value in place.items())
        if not same and (leases.is_held(connection, f"site:{name}") or attempts.any_live(connection, name)):
            raise Conflict(
                "site_taken",
                f"The site {name!r} is the folder {before.get('folder')} on {before.get('host')}. "
                "Use that data folder, or give this machine's site a name of its own "
                "(local: {name: ...} in the configuration).",
                field="local.name",
            )
    sites.put(connection, name, "process", {}, {**asked, **place}, clearance=local.clearance, local=True)


async def serve(flags: Flags) -> None:
    """Run a replica until SIGINT or SIGTERM. Raises AtollError where it cannot start."""
    with _listener(flags) as listener, _data_folder(flags.config) as folders:
        database = await asyncio.to_thread(Database.open, flags.config.database_url)
        try:
            await _serve(flags, folders, database, listener)
        finally:
            await asyncio.to_thread(database.close)


def _policy(queue: QueueConfig) -> Policy:
    """How the queue works, as the scheduler wants to be told."""
    return Policy(
        half_life=queue.half_life,
        max_wait=queue.max_wait,
        notice=queue.notice,
        minimum_run=tuple(getattr(queue.minimum_run, name) for name in CLASSES),
        most_evictions=queue.most_evictions,
        walltimes=tuple(getattr(queue.walltimes, name) for name in CLASSES),
        weights=Weights(**queue.weights.model_dump()),
    )


async def _serve(flags: Flags, folders: Folders, database: Database, listener: socket.socket) -> None:
    config, owner = flags.config, getpass.getuser()
    instance = await database.write(settings.instance_id)
    if database.dialect == "sqlite":
        # the data folder's lock says that nobody else is here: the leases of one that died need not run out
        await database.write(leases.expire_all)
    pump = Pump(database)
    tools = Tools(
        database, system_clock, LeaseKeeper(database, time.monotonic), pump,
        FileStore(config.store_folder / "files"), LogStore(config.store_folder / "logs"), instance,
        _policy(config.queue),
    )  # fmt: skip
    drivers = Drivers(config.drivers)
    works = await _local_site(tools, config, folders, drivers, owner)
    keep = config.keep_days

    def setup_of(name: str, driver_config: Mapping[str, Any], identity: Identity | None) -> DriverSetup:
        shared = identity is not None and identity.shared
        return DriverSetup(name, instance, folders.site(name), driver_config, owner, shared=shared)

    def open_site(site: Configured) -> SiteWork:
        driver = drivers.make(site.driver, setup_of(site.name, site.config, site.identity))
        return SiteWork(
            tools, site.name, driver, observe_gap=0.5, call_seconds=60.0, log_limit=config.log_limit,
            output_limit=config.file_limit,
        )  # fmt: skip

    def check_site(file: SiteFile) -> None:
        drivers.make(file.driver, setup_of(file.name, file.config, file.identity))

    ages = Ages(
        keep.jobs, keep.events, keep.files, keep.idempotency_keys, config.login.idle / 86400,
        config.login.longest / 86400,
    )  # fmt: skip
    plane = ControlPlane(tools, works, ages, open_site)
    state = _State()
    platform = Platform(
        database=database,
        files=tools.files,
        logs=tools.logs,
        clock=system_clock,
        instance=instance,
        version=version("atoll"),
        memory_per_cpu=config.memory_per_cpu,
        file_limit=config.file_limit,
        changed=pump.poke,
        changes=pump,
        driver_for=plane.driver_for,
        check_site=check_site,
        ready=state.ready,
        address=config.address,
        login=config.login,
    )
    token = await database.write(lambda connection: local_token(connection, owner, folders.state, tools.now()))
    url = flags.url or public_url(config, listener)
    _write_client_file(folders.data / CLIENT_FILE, url, token)
    link = await database.write(lambda connection: first_link(connection, owner, tools.now()))
    server = uvicorn.Server(
        uvicorn.Config(
            create_app(platform), log_config=None, access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=2, loop="none", backlog=1024,
        )
    )  # fmt: skip
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopping.set)
    planned = asyncio.create_task(plane.run(), name="control plane")
    state.plane = planned
    # _serve, not serve: with its own signal handlers it would end before the jobs that --stop-jobs ends
    served = asyncio.create_task(server._serve([listener]), name="http")
    print(f"Atoll {version('atoll')} listens on {url}", flush=True)
    print(f"  data in {folders.data}, state in {database.shown_url}", flush=True)
    print(f"  in another terminal: export ATOLL_DATA={folders.data}", flush=True)
    if link is not None:
        print(f"  choose {owner}'s password and log in (good once, for a day):", flush=True)
        print(f"    {url}/login/once/{link}", flush=True)
    if flags.tell_ready is not None:
        os.write(flags.tell_ready, b".")
        os.close(flags.tell_ready)
    stop = asyncio.create_task(stopping.wait())
    await asyncio.wait({planned, served, stop}, return_when=asyncio.FIRST_COMPLETED)
    if flags.stop_jobs and stopping.is_set():
        plane.dispatcher.paused = True
        stopping.clear()
        ending = asyncio.create_task(_stop_jobs(tools, list(works)), name="stop jobs")
        # a second Ctrl-C leaves the rest running
        again = asyncio.create_task(stopping.wait())
        await asyncio.wait({ending, again, planned}, return_when=asyncio.FIRST_COMPLETED)
        for task in (ending, again):
            task.cancel()
    platform.stopping.set()
    server.should_exit = True
    await served
    planned.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await planned
    stop.cancel()


class _State:
    """Whether this replica is ready, for load balancers."""

    plane: "asyncio.Task[None] | None" = None

    def ready(self) -> str | None:
        if self.plane is None or self.plane.done():
            return "The control plane does not run."
        return None


def _write_client_file(path: Path, url: str, token: str) -> None:
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
        json.dump({"url": url, "token": token}, file)
    part.replace(path)


async def _stop_jobs(tools: Tools, names: list[str]) -> None:
    """Cancel what runs at this machine's sites, each with its own grace, and wait until it has ended."""
    live = [AttemptState.PLACED, AttemptState.SUBMITTING, AttemptState.STARTING, AttemptState.RUNNING]

    def left(connection: Connection) -> list[int]:
        return [row.job_id for name in names for row in attempts.at_site(connection, name, live)]

    def ask(connection: Connection) -> int:
        found = launches.with_arrays(connection, left(connection))
        grace = {key: launches.spec_of(whole.spec).grace for key, (_, whole) in found.items()}
        attempts.ask_to_stop(connection, list(found), "cancelled", grace, tools.now())
        return len(found)

    print("Stopping the jobs that run here; Ctrl-C again leaves them running.", flush=True)
    cursor = tools.pump.cursor
    # again and again: what was just being placed has to hear of it, too
    while await tools.database.write(ask):
        tools.pump.poke()
        cursor = await tools.pump.wait(cursor, 1.0)


def main() -> None:
    """Read flags and configuration, serve, and tell in one sentence what went wrong."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        flags = parse(sys.argv[1:])
        import uvloop

        # many small objects live for one request: collecting every few dozen of them costs more than they do
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        uvloop.run(serve(flags))
    except AtollError as error:
        print(f"atoll up: {error.sentence}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
