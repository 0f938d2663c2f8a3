"""Copies between a socket of this machine and a driver's channel, at the pace of the slower side."""

import asyncio
import contextlib
import socket

from atoll.control.relay.agent import HALF_CLOSED, abort, copy
from atoll.drivers.base import Channel, DriverError, PlainChannel

_PIECE = 256 << 10
"""Most bytes of a stream that are here at a time, in each direction, beside what the system and the driver hold."""


class Broken(Exception):
    """A stream ended before its time; the message is one sentence."""


async def carry(near: socket.socket, far: Channel, opening: bytes = b"") -> None:
    """Copy in both directions until both have ended, then close both; what breaks one breaks the other.

    `opening` has to come from the far side first, and is not passed on. A stream of which one direction has ended is
    closed when the other is silent for HALF_CLOSED seconds: some drivers cannot tell that the far side is gone.
    Raises Broken, after the near side has got a reset.
    """
    stream = _Stream(near, far)
    tasks = {asyncio.create_task(stream.outwards()), asyncio.create_task(stream.inwards(opening))}
    try:
        done, left = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        while left and not any(task.exception() for task in done):
            before = stream.moved
            done, left = await asyncio.wait(left, timeout=HALF_CLOSED)
            if left and stream.moved == before:
                abort(near)
                break
        for task in done:
            if (error := task.exception()) is not None:
                raise error if isinstance(error, Broken) else Broken(str(error)) from None
    except BaseException:
        abort(near)
        raise
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        near.close()
        await let_go(far)


async def let_go(channel: Channel) -> None:
    """Close a channel, however broken it is."""
    with contextlib.suppress(DriverError, OSError):
        await channel.close()


class _Stream:
    """A stream and how much it has moved."""

    def __init__(self, near: socket.socket, far: Channel) -> None:
        self._near = near
        self._far = far
        self._plain = far.socket if isinstance(far, PlainChannel) else None
        self._loop = asyncio.get_running_loop()
        self._moved = [0]

    @property
    def moved(self) -> int:
        """Bytes, in both directions."""
        return self._moved[0]

    async def outwards(self) -> None:
        """From the socket to the channel. Raises DriverError, OSError."""
        if self._plain is not None:
            await copy(self._near, self._plain, self._moved)
            return
        while piece := await self._loop.sock_recv(self._near, _PIECE):
            await self._far.write(piece)
            self._moved[0] += len(piece)
        await self._far.end()

    async def inwards(self, opening: bytes) -> None:
        """From the channel to the socket. Raises Broken, DriverError, OSError."""
        if opening and await self._far.read(len(opening)) != opening:
            raise Broken("The server does not answer at its port.")
        if self._plain is not None:
            await copy(self._plain, self._near, self._moved)
            return
        while piece := await self._far.read(_PIECE):
            await self._loop.sock_sendall(self._near, piece)
            self._moved[0] += len(piece)
        self._near.shutdown(socket.SHUT_WR)
