"""Speaks HTTP with a plugin: http, https or a unix socket, a bearer token, and everything bounded in time and size."""

import asyncio
import json
import ssl
from typing import Any

import aiohttp

from atoll.drivers.base import DriverError
from atoll.drivers.interlink.config import InterlinkConfig

_WORDS = 300
"""Characters of an engine's answer that a sentence quotes."""
_TROUBLE = 8192


class Answered(Exception):
    """The plugin answered with another code than 200. The message is one sentence with its words."""

    def __init__(self, code: int, words: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.words = words


class NotReached(DriverError):
    """No connection came about: the call did not land."""


class Wire:
    """One plugin."""

    def __init__(self, config: InterlinkConfig) -> None:
        self._config = config
        self._session: aiohttp.ClientSession | None = None
        self._turn = asyncio.Semaphore(config.at_once)
        self._reading = asyncio.Semaphore(4)

    async def create(self, body: Any) -> bytes:
        """POST /create. Raises Answered, NotReached and DriverError (which may have landed)."""
        async with self._turn:
            return await self._call("POST", "/create", body, self._config.answer_limit)

    async def delete(self, pod: Any) -> bytes:
        """POST /delete. Raises Answered and DriverError."""
        async with self._turn:
            return await self._call("POST", "/delete", pod, self._config.answer_limit)

    async def status(self, pods: list[Any]) -> bytes:
        """GET /status. Raises Answered and DriverError."""
        async with self._turn:
            return await self._call("GET", "/status", pods, self._config.answer_limit)

    async def logs(self, body: Any, limit: int) -> bytes:
        """GET /getLogs, at most `limit` bytes. Raises Answered and DriverError."""
        async with self._reading:
            return await self._call("GET", "/getLogs", body, limit, cut=True)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _call(self, method: str, path: str, body: Any, limit: int, *, cut: bool = False) -> bytes:
        what = f"{method} {path}"
        seconds = self._config.timeout
        try:
            session = self._open()
            headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
            if self._config.token is not None:
                headers["Authorization"] = f"Bearer {await asyncio.to_thread(self._config.token.read)}"
            async with session.request(
                method, self._base + path, data=json.dumps(body).encode(), headers=headers, allow_redirects=False,
            ) as response:  # fmt: skip
                if response.status != 200:
                    self._trouble(what, response.status, await _read(response, _TROUBLE, cut=True))
                answer = await _read(response, limit, cut=cut)
        except _TooLong:
            raise DriverError(f"The plugin's answer to {what} has more than {limit} bytes.") from None
        except TimeoutError:
            raise DriverError(f"The plugin did not answer {what} within {seconds} seconds.") from None
        except (aiohttp.ClientConnectorError, ssl.SSLError) as error:
            raise NotReached(f"The plugin at {self._config.url} cannot be reached: {_words(error)}.") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise DriverError(f"The plugin gave no proper answer to {what}: {_words(error)}.") from None
        return answer

    @property
    def _base(self) -> str:
        return "http://plugin" if self._config.url.startswith("unix://") else self._config.url

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            url = self._config.url
            connector: aiohttp.BaseConnector
            if url.startswith("unix://"):
                connector = aiohttp.UnixConnector(path=url.removeprefix("unix://"))
            else:
                connector = aiohttp.TCPConnector(ssl=self._tls() if url.startswith("https://") else True)
            timeout = aiohttp.ClientTimeout(total=self._config.timeout)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        return self._session

    def _tls(self) -> ssl.SSLContext:
        config = self._config
        try:
            context = ssl.create_default_context(cafile=config.ca)
            if config.certificate is not None:
                context.load_cert_chain(config.certificate, config.key)
        except (OSError, ssl.SSLError) as error:
            raise NotReached(f"The certificates for the plugin cannot be read: {_words(error)}.") from None
        return context

    @staticmethod
    def _trouble(what: str, code: int, body: bytes) -> None:
        words = _shown(body)
        if code in (401, 403):
            raise NotReached(f"The plugin does not accept the platform's token or certificate ({code}): {words}.")
        raise Answered(code, words, f"The plugin answered {what} with {code}: {words or 'nothing'}.")


class _TooLong(Exception):
    """There is more than may be read."""


async def _read(response: aiohttp.ClientResponse, limit: int, *, cut: bool) -> bytes:
    parts: list[bytes] = []
    room = limit
    async for part in response.content.iter_chunked(65536):
        if len(part) > room:
            if not cut:
                raise _TooLong
            parts.append(part[:room])
            response.close()
            break
        parts.append(part)
        room -= len(part)
    return b"".join(parts)


def _shown(body: bytes) -> str:
    """What a body says, in one line for a sentence."""
    text = " ".join(body.decode(errors="replace").split())
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return (text if len(text) <= _WORDS else f"{text[:_WORDS]}...").rstrip(".")


def _words(error: BaseException) -> str:
    return (_shown(str(error).encode()) or type(error).__name__).rstrip(".")


def parsed(body: bytes, what: str) -> Any:
    """JSON that a plugin answered. Raises DriverError with the beginning of what it is instead."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise DriverError(f"The plugin answered {what} with what is no JSON: {_shown(body) or 'nothing'}.") from None
