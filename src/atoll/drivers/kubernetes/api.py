"""A thin way to the API server: the package kubernetes-asyncio for credentials, TLS and sockets; answers stay bytes.

Called by the driver. Its models are not used for answers: making an object of every field of 10,000 pods costs many
times what reading the few that matter does.
"""

import asyncio
import os
import ssl
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import aiohttp
import msgspec
from kubernetes_asyncio import config as kube_config
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config.config_exception import ConfigException

from atoll.drivers.base import DriverError
from atoll.drivers.kubernetes.config import KubernetesConfig

Query = Sequence[tuple[str, str]]
_MOST = 256 << 20
"""Bytes of one answer."""
_MOST_WORDS = 500
MERGE = "application/merge-patch+json"


class _Status(msgspec.Struct):
    kind: str = ""
    message: str = ""
    reason: str = ""


class ApiError(Exception):
    """The API server answered with an error. `words` are its own; `reason` is its code, as in AlreadyExists."""

    def __init__(self, status: int, reason: str, words: str) -> None:
        super().__init__(words)
        self.status = status
        self.reason = reason
        self.words = words

    @property
    def passing(self) -> bool:
        """Whether the same call may go well later, with nothing changed in it."""
        return self.status in (401, 408, 429) or self.status >= 500


def _plain(words: str) -> str:
    """What an engine says, as one line of bounded length without a full stop."""
    return " ".join(words.split())[:_MOST_WORDS].rstrip(". ")


def read_error(status: int, body: bytes) -> ApiError:
    """The error that an answer other than success tells of."""
    try:
        said = msgspec.json.decode(body, type=_Status)
    except msgspec.DecodeError:
        said = _Status()
    if said.kind == "Status" and said.message:
        return ApiError(status, said.reason, _plain(said.message))
    text = _plain(body[:2000].decode("utf-8", "replace"))
    return ApiError(status, "", text or f"status {status} without a word")


class Api:
    """Calls to one cluster."""

    def __init__(self, config: KubernetesConfig) -> None:
        self._config = config
        self._client: ApiClient | None = None
        self._former: ApiClient | None = None
        self._opening = asyncio.Lock()

    @property
    def _where(self) -> str:
        return str(self._client.configuration.host) if self._client is not None else "its address"

    async def _open(self) -> ApiClient:
        """The client. Raises DriverError where the credentials cannot be read."""
        if self._client is not None:
            return self._client
        async with self._opening:
            if self._client is None:
                self._client = await self._make()
        return self._client

    async def _make(self) -> ApiClient:
        configuration, path = Configuration(), self._config.kubeconfig
        try:
            async with asyncio.timeout(self._config.timeout):
                if path is None:
                    kube_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
                else:
                    if not await asyncio.to_thread(Path(path).is_file):
                        raise DriverError(f"The kubeconfig {path} is not there.")
                    await kube_config.load_kube_config(
                        path, context=self._config.context, client_configuration=configuration, persist_config=False
                    )
            configuration.connection_pool_maxsize = 32
            return ApiClient(configuration)
        except DriverError:
            raise
        except ConfigException as error:
            source = f"the kubeconfig {path}" if path else "the pod that the platform runs in"
            raise DriverError(f"The credentials of {source} cannot be used: {_plain(str(error))}.") from error
        except TimeoutError:
            raise DriverError(f"The credentials of the kubeconfig {path} did not come in time.") from None
        except Exception as error:  # whatever is in that file: the loader checks little of it
            words = _plain(str(error)) or type(error).__name__
            raise DriverError(f"The kubeconfig {path} cannot be used: {words}.") from error

    async def close(self) -> None:
        """Let go of connections."""
        clients, self._client, self._former = (self._client, self._former), None, None
        for client in clients:
            if client is not None:
                await client.close()

    async def _renew(self, used: ApiClient | None) -> None:
        """Read the credentials anew, unless another call has done so; calls under way with the old ones go on."""
        async with self._opening:
            if self._client is used and used is not None:
                oldest, self._former, self._client = self._former, used, None
                if oldest is not None:
                    await oldest.close()

    async def _headers(self, client: ApiClient, more: Mapping[str, str] | None) -> dict[str, str]:
        headers = {"Accept": "application/json", **(more or {})}
        await client.update_params_for_auth(headers, [], ["BearerToken"])
        headers["User-Agent"] = "atoll"
        return headers

    async def call(
        self, method: str, path: str, *, query: Query = (), body: Any = None, headers: Mapping[str, str] | None = None,
        kind: str = "application/json", seconds: float | None = None,
    ) -> bytes:  # fmt: skip
        """One request. Raises ApiError for an error that the server told, DriverError where it did not answer.

        Credentials that are no longer taken are read anew, once: a token may have been renewed in its file.
        """
        used = await self._open()
        try:
            return await self._call(method, path, query, body, headers, kind, seconds)
        except ApiError as error:
            if error.status != 401:
                raise
            await self._renew(used)
            return await self._call(method, path, query, body, headers, kind, seconds)
        except aiohttp.ServerDisconnectedError:
            # a kept connection that the server had closed; all that is sent here may be sent twice
            return await self._call(method, path, query, body, headers, kind, seconds, last=True)

    async def _call(
        self, method: str, path: str, query: Query, body: Any, headers: Mapping[str, str] | None, kind: str,
        seconds: float | None, last: bool = False,
    ) -> bytes:  # fmt: skip
        client = await self._open()
        sent = await self._headers(client, headers)
        if body is not None:
            sent["Content-Type"] = kind
        limit = seconds or self._config.timeout
        try:
            async with asyncio.timeout(limit):
                async with client.rest_client.pool_manager.request(
                    method,
                    self._url(client, path, query),
                    data=msgspec.json.encode(body) if body is not None else None,
                    headers=sent,
                    timeout=aiohttp.ClientTimeout(total=limit, sock_connect=min(limit, 15)),
                    **self._transport(client),
                ) as response:
                    content = await _read(response)
        except aiohttp.ServerDisconnectedError:
            if not last:
                raise
            raise DriverError(f"The cluster at {self._where} closes the connection without an answer.") from None
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._silent(error, limit) from error
        if not 200 <= response.status <= 299:
            raise read_error(response.status, content)
        return content

    @staticmethod
    def _url(client: ApiClient, path: str, query: Query) -> str:
        return str(client.configuration.host) + path + (f"?{urlencode(list(query))}" if query else "")

    @staticmethod
    def _transport(client: ApiClient) -> dict[str, Any]:
        rest = client.rest_client
        values = {"proxy": rest.proxy, "proxy_headers": rest.proxy_headers, "server_hostname": rest.server_hostname}
        return {name: value for name, value in values.items() if value}

    def _silent(self, error: BaseException, limit: float) -> DriverError:
        """The sentence for a server that gave no answer."""
        where = f"The cluster at {self._where}"
        match error:
            case TimeoutError():
                return DriverError(f"{where} did not answer within {limit:g} s.")
            case aiohttp.ClientConnectorCertificateError() | ssl.SSLCertVerificationError():
                inner = getattr(error, "certificate_error", error)
                words = getattr(inner, "verify_message", "") or str(inner)
                return DriverError(f"The certificate of the cluster at {self._where} is not trusted: {_plain(words)}.")
            case aiohttp.ClientConnectorError():
                number = error.os_error.errno
                words = os.strerror(number) if number is not None and number > 0 else str(error.os_error)
                return DriverError(f"{where} cannot be reached: {_plain(words)}.")
        return DriverError(f"{where} cannot be understood: {_plain(str(error)) or type(error).__name__}.")

    async def ask(self, method: str, path: str, **values: Any) -> bytes:
        """Like `call`, where every error means that the site does not do its part. Raises DriverError."""
        try:
            return await self.call(method, path, **values)
        except ApiError as error:
            raise self.sentence(error) from error

    def sentence(self, error: ApiError) -> DriverError:
        """An error of the server as the site's."""
        if error.status == 401:
            return DriverError(f"The cluster at {self._where} does not take our credentials: {error.words}.")
        if error.status == 403:
            return DriverError(f"The cluster at {self._where} does not allow it: {error.words}.")
        return DriverError(f"The cluster at {self._where} answered {error.status}: {error.words}.")

    async def lines(self, path: str, query: Query) -> AsyncGenerator[bytes, None]:
        """Lines of a stream that the server keeps open, until it ends. Raises DriverError, ApiError."""
        client = await self._open()
        headers = await self._headers(client, None)
        try:
            async with client.rest_client.pool_manager.get(
                self._url(client, path, query),
                headers=headers,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=15, sock_read=None),
                **self._transport(client),
            ) as response:
                if response.status != 200:
                    raise read_error(response.status, await _read(response))
                async for line in response.content:
                    yield line
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._silent(error, 15) from error

    async def websocket(self, path: str, query: Query, protocols: Sequence[str]) -> aiohttp.ClientWebSocketResponse:
        """An open websocket. Raises ApiError where the server refuses, DriverError where it does not answer."""
        client = await self._open()
        headers = await self._headers(client, {"Accept": "*/*"})
        try:
            async with asyncio.timeout(self._config.timeout):
                socket: aiohttp.ClientWebSocketResponse = await client.rest_client.pool_manager.ws_connect(
                    self._url(client, path, query),
                    headers=headers,
                    protocols=tuple(protocols),
                    heartbeat=30,
                    max_msg_size=16 << 20,
                    **self._transport(client),
                )
                return socket
        except aiohttp.WSServerHandshakeError as error:
            raise ApiError(error.status, "", _plain(error.message) or "no websocket") from error
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise self._silent(error, self._config.timeout) from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """The whole answer, within bounds. Raises ValueError."""
    pieces, size = [], 0
    async for piece in response.content.iter_chunked(1 << 18):
        size += len(piece)
        if size > _MOST:
            raise ValueError(f"the answer is larger than {_MOST >> 20} MiB")
        pieces.append(piece)
    return b"".join(pieces)
