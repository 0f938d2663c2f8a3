"""A command inside a container: a call of the API whose connection becomes the command's input and output."""

import json
from collections.abc import Sequence

from atoll.drivers.base import Channel, DriverError
from atoll.drivers.podman.api import Complaint, Engine
from atoll.drivers.podman.layout import TOOLS

_HEAD = 8
_LARGEST = 16 << 20
_NOT_STARTED = 126


class PodmanExecution:
    """An Execution. Without a terminal the stream comes in frames, which say of which output they are."""

    def __init__(self, engine: Engine, session: str, channel: Channel, first: bytes, *, terminal: bool) -> None:
        self._engine = engine
        self._session = session
        self._channel = channel
        self._waiting = first
        self._terminal = terminal
        self._left = 0
        """Bytes that are still to come of the frame begun."""

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes of both outputs; empty at the end."""
        if self._terminal:
            if self._waiting:
                return self._take(limit)
            return await self._channel.read(limit)
        while self._left == 0:
            if not await self._fill(_HEAD):
                return b""
            self._left = int.from_bytes(self._waiting[4:_HEAD], "big")
            if self._left > _LARGEST:
                raise DriverError("Podman sends a stream that is no output of a command.")
            self._waiting = self._waiting[_HEAD:]
        if not self._waiting and not await self._fill(1):
            return b""
        piece = self._take(min(limit, self._left))
        self._left -= len(piece)
        return piece

    async def _fill(self, least: int) -> bool:
        """Read until so much waits; whether it came."""
        while len(self._waiting) < least:
            piece = await self._channel.read(65536)
            if not piece:
                return False
            self._waiting += piece
        return True

    def _take(self, limit: int) -> bytes:
        piece, self._waiting = self._waiting[:limit], self._waiting[limit:]
        return piece

    async def write(self, data: bytes) -> None:
        """To the command's input."""
        await self._channel.write(data)

    async def end(self) -> None:
        """End the command's input."""
        await self._channel.end()

    async def close(self) -> None:
        """Let go; the command gets a hang-up only where it has a terminal."""
        await self._channel.close()

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""
        try:
            await self._engine.ask("POST", f"/exec/{self._session}/resize", params={"w": str(columns), "h": str(lines)})
        except Complaint:
            return  # it has no terminal, or has ended: there is nothing to resize

    async def wait(self) -> int:
        """The command's exit code, once its output has ended."""
        try:
            while await self.read(65536):
                pass
        except DriverError:
            pass  # the container ended under it
        try:
            said = json.loads(await self._engine.ask("GET", f"/exec/{self._session}/json"))
        except Complaint:
            return 137  # it went with its container
        except ValueError as error:
            raise DriverError("Podman answered what cannot be read about a command.") from error
        code = said.get("ExitCode") if isinstance(said, dict) else None
        if said.get("Running") or not isinstance(code, int):
            return 137
        return code if code >= 0 else _NOT_STARTED


async def start(engine: Engine, container: str, command: Sequence[str], *, terminal: bool) -> PodmanExecution:
    """Start a command in a running container. Raises KeyError where that does not run."""
    body = {
        "AttachStdin": True, "AttachStdout": True, "AttachStderr": True, "Tty": terminal,
        "Cmd": ["/bin/sh", f"{TOOLS}/enter.sh", *command], "WorkingDir": "/",
    }  # fmt: skip
    try:
        session = json.loads(await engine.ask("POST", f"/containers/{container}/exec", body=body))["Id"]
        channel, first = await engine.upgrade(f"/exec/{session}/start", {"Detach": False, "Tty": terminal})
    except Complaint as complaint:
        if complaint.status in (404, 409) or "state improper" in str(complaint) or "not running" in str(complaint):
            raise KeyError(container) from None
        raise DriverError(f"Podman does not start a command in {container}: {complaint}.") from None
    except (ValueError, LookupError, TypeError) as error:
        raise DriverError("Podman answered what cannot be read about a command.") from error
    return PodmanExecution(engine, session, channel, first, terminal=terminal)
