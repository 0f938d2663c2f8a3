"""One attempt's streams: forwards from its job's address, backwards to the target."""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass

from atoll.control.relay.addresses import listen
from atoll.control.relay.agent import BEGIN, FORWARD, OPENED, PING, SPARE, UNREACHED, abort
from atoll.control.relay.copying import Broken, carry, let_go
from atoll.control.relay.sites import ConnectedSite
from atoll.control.relay.tunnel import Tunnel, Unreachable
from atoll.drivers.base import Channel, DriverError

log = logging.getLogger(__name__)

MOST_FORWARDS = 400
"""Streams to one attempt at a time."""
MOST_BACKWARDS = 32
"""Streams from one attempt at a time."""
SPARES = 2
"""Connections that wait at an agent for streams backwards."""
_OPENING = 16
"""Connections to one agent that are made at a time."""
_NO_ROOM = 0.2
"""Seconds for which nobody is taken in where that has failed."""
_PING_EVERY = 30.0
_ANSWER_WITHIN = 15.0
_PAUSES = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 5.0)
"""Seconds after which an agent that could not be reached is tried again: the first time, the second, ..."""
_TARGET_WITHIN = 5.0

Target = Callable[[], Awaitable[socket.socket]]
"""Connects to the one place that streams backwards come to. Raises OSError, TimeoutError."""


@dataclass(frozen=True)
class Road:
    """What it takes to carry an attempt's streams."""

    job_id: int
    attempt_id: str
    address: tuple[str, int]
    tunnel: Tunnel


class Carrier:
    """Carries the streams of one attempt from `start` to `end`."""

    def __init__(self, road: Road, site: ConnectedSite, target: Target | None) -> None:
        self.road = road
        self.site = site
        """New streams go through it; it may be replaced."""
        self._target = target
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._opening = asyncio.Semaphore(_OPENING)
        self._backwards = asyncio.Semaphore(MOST_BACKWARDS)
        self._forwards = 0
        self._said = ""

    def start(self) -> None:
        """Listen. Raises OSError where the address cannot be had."""
        self._listener = listen(self.road.address)
        asyncio.get_running_loop().add_reader(self._listener, self._accept, self._listener)
        if self._target is not None:
            for _ in range(SPARES):
                self._begin(self._keep_spare(self._target), self._tasks)

    def refuse(self) -> None:
        """Take no new streams: from now on, connections are refused."""
        if self._listener is not None:
            asyncio.get_running_loop().remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    async def end(self, grace: float = 0.0) -> None:
        """Take no new streams, let the others end for `grace` seconds, and break what is left."""
        self.refuse()
        await _cancel(self._tasks)
        if grace and self._streams:
            await asyncio.wait(self._streams, timeout=grace)
        await _cancel(self._streams)

    def _begin(self, work: Coroutine[None, None, None], tasks: set[asyncio.Task[None]]) -> None:
        task = asyncio.create_task(work)
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _complain(self, words: str) -> None:
        """Log why nothing comes through, once until it changes."""
        if words != self._said:
            self._said = words
            log.warning("job %d at %s: %s", self.road.job_id, self.site.name, words)

    async def _open(self, kind: bytes, site: ConnectedSite) -> Channel:
        """A connection to the agent. Raises Unreachable."""
        try:
            with site.used() as driver:
                async with self._opening:
                    channel = await self.road.tunnel.open(driver, kind)
        except Unreachable as error:
            self._complain(str(error))
            raise
        if self._said:
            self._said = ""
            log.info("job %d at %s: reached again", self.road.job_id, site.name)
        return channel

    # -- forwards ------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        """Take in whoever has connected."""
        while listener is self._listener:
            try:
                client, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                # no descriptors left, perhaps: streams that end let go of some
                self._complain(f"Connections cannot be taken: {error.strerror}.")
                loop = asyncio.get_running_loop()
                loop.remove_reader(listener)
                loop.call_later(_NO_ROOM, self._accept_again, listener)
                return
            if self._forwards >= MOST_FORWARDS:
                self._complain(f"It has {MOST_FORWARDS} streams already.")
                abort(client)
                client.close()
                continue
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._forwards += 1
            self._begin(self._forward(client), self._streams)

    def _accept_again(self, listener: socket.socket) -> None:
        if listener is self._listener:
            asyncio.get_running_loop().add_reader(listener, self._accept, listener)

    async def _forward(self, client: socket.socket) -> None:
        site = self.site
        try:
            with site.used(), client:
                try:
                    channel = await self._open(FORWARD, site)
                except BaseException:
                    abort(client)
                    raise
                await carry(client, channel, OPENED)
        except Unreachable:
            pass  # complained of
        except Broken as error:
            log.info("job %d at %s: a stream broke: %s", self.road.job_id, site.name, error)
        finally:
            self._forwards -= 1

    # -- backwards -----------------------------------------------------------------------------------------------

    async def _keep_spare(self, target: Target) -> None:
        """Hold one connection ready for whoever inside wants to reach the target, and then the next."""
        failures = 0
        while True:
            site = self.site
            with site.used():
                try:
                    channel = await self._open(SPARE, site)
                except Unreachable:
                    failures += 1
                    await asyncio.sleep(_PAUSES[min(failures, len(_PAUSES)) - 1])
                    continue
                if await self._is_wanted(channel, site):
                    failures = 0
                    await self._backwards.acquire()
                    self._begin(self._backward(channel, site, target), self._streams)
                    continue
            await asyncio.sleep(_PAUSES[0])

    async def _is_wanted(self, channel: Channel, site: ConnectedSite) -> bool:
        """Wait until somebody wants the connection: True; False where it is gone, or its driver, and closed."""
        try:
            while site is self.site:
                said = await _read_within(channel, _PING_EVERY)
                if said is None:
                    await channel.write(PING)
                    said = await _read_within(channel, _ANSWER_WITHIN)
                if said == BEGIN:
                    return True
                if said != PING:
                    break
        except (DriverError, OSError):
            pass
        except BaseException:
            await let_go(channel)
            raise
        await let_go(channel)
        return False

    async def _backward(self, channel: Channel, site: ConnectedSite, target: Target) -> None:
        try:
            with site.used():
                try:
                    async with asyncio.timeout(_TARGET_WITHIN):
                        near = await target()
                except (OSError, TimeoutError) as error:
                    log.warning("the target cannot be reached: %s", str(error) or "it did not answer in time")
                    await channel.write(UNREACHED)
                    await let_go(channel)
                    return
                try:
                    await channel.write(OPENED)
                except BaseException:
                    near.close()
                    raise
                await carry(near, channel)
        except (Broken, DriverError, OSError) as error:
            log.info("job %d at %s: a stream backwards broke: %s", self.road.job_id, site.name, error)
            await let_go(channel)
        finally:
            self._backwards.release()


async def _read_within(channel: Channel, seconds: float) -> bytes | None:
    """The next byte, empty at the end; None where there is none in that time."""
    try:
        async with asyncio.timeout(seconds):
            return await channel.read(1)
    except TimeoutError:
        return None


async def _cancel(tasks: set[asyncio.Task[None]]) -> None:
    doomed = list(tasks)
    for task in doomed:
        task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.gather(*doomed, return_exceptions=True)
