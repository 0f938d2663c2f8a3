"""Podman's REST API: one place that sends, waits, bounds what comes back, and tells the kinds of failure apart.

The API is libpod's, of version 4 or 5, on the unix socket of `podman system service`; behind SSH the same socket is
reached through a shell. Called by the driver alone.
"""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import msgspec
from aiohttp.client_proto import ResponseHandler

from atoll.drivers.base import Channel, DriverError
from atoll.drivers.shell import Shell

_BASE = "/v4.0.0/libpod"
_MOST = 256 << 20
"""Bytes of an answer."""
_MOST_WORDS = 500
_LINE = 1 << 20
_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})")
_CONNECT_WITHIN = 10.0


class Complaint(Exception):
    """Podman answered, and said no. The message is in its words."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Unreached(DriverError):
    """The question never came to Podman."""


class Silent(DriverError):
    """Podman may have the question, and did not answer in time or in full."""


def plain_words(text: str) -> str:
    """What an engine said, on one line that can be shown."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text)
    return " ".join(printable.split())[:_MOST_WORDS]


def complaint(status: int, body: bytes) -> Complaint:
    """What an answer that is no success says."""
    try:
        said = json.loads(body)
        message = said.get("message") or said.get("cause") or ""
    except (ValueError, AttributeError):
        message = body[:_MOST_WORDS].decode("utf-8", "replace")
    return Complaint(status, plain_words(str(message)) or f"Podman answered {status}")


class _BridgedConnector(aiohttp.BaseConnector):
    """Connections to a unix socket that only a shell reaches: each is a pair of sockets with a pump behind it."""

    def __init__(self, shell: Shell, path: str, limit: int) -> None:
        super().__init__(limit=limit)
        self._shell = shell
        self._path = path
        self._pumps: set[asyncio.Task[None]] = set()

    async def _create_connection(self, req: Any, traces: Any, timeout: Any) -> ResponseHandler:  # noqa: ASYNC109
        channel = await self._shell.connect_unix(None, self._path)
        ours, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        _, handler = await loop.create_connection(self._factory, sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        pump = asyncio.create_task(carry(channel, reader, writer))
        self._pumps.add(pump)
        pump.add_done_callback(self._pumps.discard)
        return handler


async def carry(channel: Channel, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry bytes between a channel and a pair of streams until both have ended, or either broke."""

    async def out() -> None:
        while data := await reader.read(65536):
            await channel.write(data)
        await channel.end()

    async def back() -> None:
        while data := await channel.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    try:
        # whoever reads the answer sees the stream end early; there is nobody else to tell
        with suppress(DriverError, OSError):
            await asyncio.gather(out(), back())
    finally:
        writer.close()
        await channel.close()


class Engine:
    """Questions to one Podman. Raises Unreached, Silent or another DriverError; Complaint where it said no."""

    def __init__(self, shell: Shell, path: str, *, bridged: bool, seconds: float, connections: int = 64) -> None:
        self._shell = shell
        self._path = path
        self._bridged = bridged
        self._seconds = seconds
        self._connections = connections
        self._session: aiohttp.ClientSession | None = None

    def _http(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector: aiohttp.BaseConnector
            if self._bridged:
                connector = _BridgedConnector(self._shell, self._path, self._connections)
            else:
                connector = aiohttp.UnixConnector(self._path, limit=self._connections)
            self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        return self._session

    async def close(self) -> None:
        """Let go of all connections."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None,
        seconds: float | None = None, whole: bool = False,
    ) -> AsyncIterator[aiohttp.ClientResponse]:  # fmt: skip
        """An answer that is read as it comes; `seconds` is the longest silence, or with `whole` the longest call."""
        limit = seconds or self._seconds
        time_out = aiohttp.ClientTimeout(
            total=limit if whole else None, sock_connect=min(limit, _CONNECT_WITHIN), sock_read=limit
        )
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        try:
            async with self._http().request(
                method, f"http://podman{_BASE}{path}", params=params, data=data, headers=headers, timeout=time_out
            ) as response:
                yield response
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise Unreached(self._unreached(error)) from error
        except TimeoutError:
            raise Silent(f"Podman did not answer within {limit:g} s.") from None
        except (aiohttp.ClientError, ConnectionError) as error:
            words = plain_words(str(error)) or type(error).__name__
            raise Silent(f"The connection to Podman broke: {words}.") from error

    def _unreached(self, error: Exception) -> str:
        inner = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
        words = getattr(inner, "strerror", None) or plain_words(str(inner)) or type(inner).__name__
        return f"Podman's socket {self._path} cannot be reached: {words}."

    async def ask(
        self, method: str, path: str, *, params: Mapping[str, str] | None = None, body: Any = None,
        seconds: float | None = None,
    ) -> bytes:  # fmt: skip
        """The whole of an answer that says yes."""
        async with self.stream(method, path, params=params, body=body, seconds=seconds, whole=True) as response:
            pieces, size = [], 0
            async for piece in response.content.iter_any():
                size += len(piece)
                if size > _MOST:
                    raise Silent(f"Podman answered more than {_MOST >> 20} MiB to {path}.")
                pieces.append(piece)
            answer = b"".join(pieces)
            if response.status >= 400:
                raise complaint(response.status, answer)
            return answer

    async def ask_as(self, shape: msgspec.json.Decoder[Any], path: str, params: Mapping[str, str] | None = None) -> Any:
        """An answer in a shape; DriverError where it has another."""
        answer = await self.ask("GET", path, params=params)
        try:
            return shape.decode(answer)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise DriverError(f"Podman answered what cannot be read to {path}: {plain_words(str(error))}.") from error

    async def check_version(self) -> str:
        """The version of the API there. Raises DriverError for one that is too old, and for what is no Podman."""
        async with self.stream("GET", "/_ping", whole=True) as response:
            version = response.headers.get("Libpod-API-Version", "")
        match = _VERSION.match(version)
        if match is None:
            raise DriverError(f"What answers on {self._path} is not Podman.")
        if int(match[1]) < 4:
            raise DriverError(f"Podman at {self._path} speaks version {version} of its API; version 4 is needed.")
        return version

    async def upgrade(self, path: str, body: Any) -> tuple[Channel, bytes]:
        """A call whose connection becomes a stream: the channel, and what came with the answer's head."""
        try:
            channel = await self._shell.connect_unix(None, self._path)
        except DriverError as error:
            raise Unreached(str(error)) from error
        data = json.dumps(body).encode()
        head = (
            f"POST {_BASE}{path} HTTP/1.1\r\nHost: podman\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        )
        try:
            async with asyncio.timeout(self._seconds):
                await channel.write(head.encode() + data)
                got = b""
                while b"\r\n\r\n" not in got:
                    piece = await channel.read(65536)
                    if not piece or len(got) > _LINE:
                        raise Silent("Podman closed the connection instead of answering.")
                    got += piece
                answer, rest = got.split(b"\r\n\r\n", 1)
                status = int((answer.split(b" ", 2) + [b"0", b"0"])[1][:3] or b"0")
                if status not in (101, 200):
                    raise complaint(status, rest.split(b"\r\n", 1)[-1] if b"chunked" in answer.lower() else rest)
                return channel, rest
        except ValueError:
            await channel.close()
            raise DriverError("Podman answered what is no HTTP.") from None
        except TimeoutError:
            await channel.close()
            raise Silent(f"Podman did not answer within {self._seconds:g} s.") from None
        except BaseException:
            await channel.close()
            raise

    async def lines(self, method: str, path: str, *, params: Mapping[str, str], seconds: float) -> AsyncIterator[bytes]:
        """The lines of an answer that goes on; each at most 1 MiB. Ends after `seconds` of silence by Silent."""
        async with self.stream(method, path, params=params, seconds=seconds) as response:
            if response.status >= 400:
                raise complaint(response.status, await response.content.read(65536))
            waiting = b""
            async for piece in response.content.iter_any():
                *whole, waiting = (waiting + piece).split(b"\n")
                for line in whole:
                    yield line
                if len(waiting) > _LINE:
                    raise DriverError("Podman sends a line without an end.")
            if waiting:
                yield waiting


def filters(**wanted: list[str]) -> str:
    """The API's filters as it wants them."""
    return json.dumps(wanted)
