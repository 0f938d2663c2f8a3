"""The way to the agent inside one attempt: connections that both sides have proved to be theirs."""

import asyncio
import hmac
import os
from collections.abc import Iterator

from atoll.control.relay.agent import CANDIDATES, HELLO, NONCE, PROOF, proof
from atoll.control.relay.copying import let_go
from atoll.drivers.base import Channel, Connect, DriverError, Held

_CONNECT_WITHIN = 20.0
_GREET_WITHIN = 5.0


class Unreachable(Exception):
    """There is no way to the agent now; the message is one sentence."""


class Tunnel:
    """Opens connections to the agent of an attempt."""

    def __init__(self, attempt: Held, port: int, secret: str) -> None:
        """`port`: the first of those at which the agent may be."""
        self._attempt = attempt
        self._ports = range(port, min(port + CANDIDATES, 65536))
        self._secret = secret.encode()
        self._found: int | None = None
        """The port at which the agent was."""

    async def open(self, driver: Connect, kind: bytes) -> Channel:
        """A connection of a kind (FORWARD, SPARE), greeted. Raises Unreachable."""
        words = ""
        for port in self._candidates():
            try:
                channel = await self._greeted(driver, port, kind)
            except KeyError:
                raise Unreachable("The site says that the attempt does not run.") from None
            except (DriverError, TimeoutError, OSError) as error:
                words = words or str(error) or f"Nobody answered in time at port {port}."
                continue
            self._found = port
            return channel
        raise Unreachable(words)

    def _candidates(self) -> Iterator[int]:
        """The port where the agent was last, then the others."""
        if self._found is not None:
            yield self._found
        yield from (port for port in self._ports if port != self._found)

    async def _greeted(self, driver: Connect, port: int, kind: bytes) -> Channel:
        async with asyncio.timeout(_CONNECT_WITHIN):
            channel = await driver.connect(self._attempt, port)
        try:
            async with asyncio.timeout(_GREET_WITHIN):
                await self._greet(channel, port, kind)
        except BaseException:
            await let_go(channel)
            raise
        return channel

    async def _greet(self, channel: Channel, port: int, kind: bytes) -> None:
        """Have the agent prove that it is the one, before it gets anything. Raises DriverError."""
        ours = os.urandom(NONCE)
        await channel.write(HELLO + kind + ours)
        said = b""
        while len(said) < NONCE + PROOF:
            piece = await channel.read(NONCE + PROOF - len(said))
            if not piece:
                raise DriverError(f"Who listens at port {port} is not the agent of this attempt.")
            said += piece
        theirs, shown = said[:NONCE], said[NONCE:]
        if not hmac.compare_digest(shown, proof(self._secret, b"agent", kind, ours, theirs)):
            raise DriverError(f"Who listens at port {port} does not know the attempt's secret.")
        await channel.write(proof(self._secret, b"relay", kind, ours, theirs))
