"""The relay: reads again and again what is to be carried, and has it carried."""

import asyncio
import getpass
import logging
import resource
import signal
import socket
from collections.abc import Mapping
from contextlib import ExitStack

from sqlalchemy import Connection

from atoll.control.drivers import Drivers
from atoll.control.launches import spec_of
from atoll.control.pump import Pump
from atoll.control.relay.addresses import address_of, reserve
from atoll.control.relay.carrier import Carrier, Road, Target
from atoll.control.relay.secret import PORT_NAME, relayed_port, secret_of
from atoll.control.relay.sites import ConnectedSites
from atoll.control.relay.tunnel import Tunnel
from atoll.core.config import PlatformConfig
from atoll.core.errors import AtollError, Invalid
from atoll.drivers.base import Held
from atoll.store import relayed, settings, sites
from atoll.store.database import Database, parse_url
from atoll.store.relayed import RelayedAttempt
from atoll.store.sites import Configured

log = logging.getLogger(__name__)

_LOOK_AGAIN = 5.0
"""Seconds after which the store is read again, news or not."""
_GAP = 0.1
"""Seconds between two looks."""
_GRACE = 5.0
"""Seconds that streams get to end when the relay does."""


class Relay:
    """Carries the streams of what runs, until it is cancelled."""

    def __init__(self, database: Database, connected: ConnectedSites, port: int, target: Target | None) -> None:
        self._database = database
        self._sites = connected
        self._port = port
        self._target = target
        self._pump = Pump(database)
        self._carriers: dict[str, Carrier] = {}
        """By attempt."""
        self._endings: set[asyncio.Task[None]] = set()
        self._refused: set[str] = set()
        """Attempts that were complained of."""

    async def run(self) -> None:
        """Follow the store. What it cannot tell for a while stays as it is."""
        pumping = asyncio.create_task(self._pump.run(), name="pump")
        try:
            while True:
                cursor = self._pump.cursor
                try:
                    await self._look()
                except AtollError as error:
                    log.warning("the store cannot be read: %s", error.sentence)
                except Exception:
                    log.exception("streams could not be brought up to date")
                await asyncio.sleep(_GAP)
                await self._pump.wait(cursor, _LOOK_AGAIN)
        finally:
            pumping.cancel()

    async def end(self) -> None:
        """Take no new streams, and give the others a moment."""
        for carrier in self._carriers.values():
            carrier.refuse()
        log.info("the relay stops; streams get %.0f s to end", _GRACE)
        await asyncio.gather(*(carrier.end(_GRACE) for carrier in self._carriers.values()), *self._endings)
        await self._sites.close()

    async def _look(self) -> None:
        """Bring what is carried up to date with the store."""
        (instance, key), running, configured = await self._database.read(_read)
        if instance is None or key is None:
            return  # nothing was ever started that has a secret
        self._sites.bring_up_to_date(configured)
        wanted = self._wanted(running, key)
        for name in set(self._carriers) - set(wanted):
            self._end(self._carriers.pop(name))
        self._refused &= {attempt.attempt_id for attempt in running}
        for attempt, road in wanted.values():
            site = configured.get(attempt.site)
            connected = self._sites.get(site, instance) if site is not None else None
            carrier = self._carriers.get(attempt.attempt_id)
            if connected is None:
                continue
            if carrier is not None:
                carrier.site = connected
            else:
                self._start(Carrier(road, connected, self._target))

    def _wanted(self, running: list[RelayedAttempt], key: str) -> dict[str, tuple[RelayedAttempt, Road]]:
        """The attempts whose streams are to be carried, by id."""
        wanted = {}
        taken: dict[tuple[str, int], int] = {}
        for attempt in running:
            port = relayed_port(spec_of(attempt.spec))
            if port is None:
                continue
            address = address_of(attempt.job_id, self._port)
            other = taken.setdefault(address, attempt.job_id)
            if other != attempt.job_id:
                self._refuse(attempt.attempt_id, f"job {attempt.job_id}: job {other} has the same address {address[0]}")
                continue
            held = Held(attempt.attempt_id, attempt.native_id, attempt.account)
            tunnel = Tunnel(held, port, secret_of(key, attempt.attempt_id))
            wanted[attempt.attempt_id] = attempt, Road(attempt.job_id, attempt.attempt_id, address, tunnel)
        return wanted

    def _start(self, carrier: Carrier) -> None:
        road = carrier.road
        try:
            carrier.start()
        except OSError as error:
            self._refuse(road.attempt_id, f"job {road.job_id}: cannot listen on {road.address[0]}: {error.strerror}")
            return
        self._carriers[road.attempt_id] = carrier
        log.info("job %d at %s is reached at %s port %d", road.job_id, carrier.site.name, *road.address)

    def _end(self, carrier: Carrier) -> None:
        """Free the address now, which may be the next attempt's, and break the streams beside."""
        carrier.refuse()
        log.info("job %d at %s is reached no more", carrier.road.job_id, carrier.site.name)
        ending = asyncio.create_task(carrier.end())
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    def _refuse(self, attempt_id: str, words: str) -> None:
        if attempt_id not in self._refused:
            self._refused.add(attempt_id)
            log.error("%s", words)


def _read(
    connection: Connection,
) -> tuple[tuple[str | None, str | None], list[RelayedAttempt], Mapping[str, Configured]]:
    return settings.find(connection), relayed.running(connection, PORT_NAME), sites.configured(connection)


def read_target(text: str) -> Target:
    """What connects to HOST:PORT. Raises Invalid for what is not that."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise Invalid("bad_target", f"The relay's target {text!r} is not HOST:PORT.", field="relay.target")

    async def connect() -> socket.socket:
        loop = asyncio.get_running_loop()
        [(family, *_, address), *_] = await loop.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
        connection = socket.socket(family)
        try:
            connection.setblocking(False)
            await loop.sock_connect(connection, address)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except BaseException:
            connection.close()
            raise
        return connection

    return connect


async def serve(config: PlatformConfig, port: int, target: str | None, reserved: int | None = None) -> None:
    """Run until SIGINT or SIGTERM. `reserved`: descriptor of what `reserve` returned to who started us.

    Raises AtollError where it cannot start. The database need not be there yet, nor answer.
    """
    reaching = read_target(target) if target else None
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with ExitStack() as stack:
        stack.enter_context(reserve(port) if reserved is None else socket.socket(fileno=reserved))
        database = Database(parse_url(config.database_url))
        stack.callback(database.close)
        connected = ConnectedSites(Drivers(config.drivers), config.data_folder / "sites", getpass.getuser())
        relay = Relay(database, connected, port, reaching)
        stopping = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stopping.set)
        running = asyncio.create_task(relay.run(), name="relay")
        log.info("the relay carries streams at port %d%s", port, f" and to {target}" if target else "")
        stop = asyncio.create_task(stopping.wait())
        await asyncio.wait({running, stop}, return_when=asyncio.FIRST_COMPLETED)
        for task in (running, stop):
            task.cancel()
        await asyncio.gather(running, stop, return_exceptions=True)
        await relay.end()
