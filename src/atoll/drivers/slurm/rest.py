"""slurmrestd as a client sees it: which version it speaks, its questions and answers, and its complaints."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import urlsplit

import aiohttp

from atoll.drivers.base import DriverError
from atoll.drivers.shell import NoAccount, Unfinished
from atoll.drivers.shell.base import plain_words, system_words
from atoll.drivers.slurm.rest_jobs import job_document
from atoll.drivers.slurm.tokens import Tokens

VERSIONS = range(38, 44)
"""Versions of the interface that are spoken: v0.0.38 (Slurm 22.05) to v0.0.43 (25.05)."""
_TASKS_ALONE = {39, 40}
"""Versions which take `12_3` for all of the array 12 when it is to be cancelled."""
_PATH = re.compile(r"/slurm/v0\.0\.(\d+)/jobs/?")
_CONNECT, _SILENCE, _TOGETHER = 5.0, 30.0, 120.0
_MOST = 64 << 20
"""Bytes of an answer that is kept whole."""
_PIECE = 1 << 18

Sink = Callable[[bytes], Awaitable[None]]


class Complaint(Exception):
    """Slurm answered, and said no. The message is in its words."""


class Slurmrestd:
    """Asks one slurmrestd, as one account or another. Its methods raise NoAccount and DriverError."""

    def __init__(self, url: str, tokens: Tokens) -> None:
        parts = urlsplit(url)
        self._name = f"slurmrestd at {url}"
        self._socket = (parts.netloc + parts.path) if parts.scheme == "unix" else None
        self._base = "http://localhost" if self._socket else url.rstrip("/")
        self._tokens = tokens
        self._session: aiohttp.ClientSession | None = None
        self._version: int | None = None

    async def version(self, account: str) -> int:
        """The newest version that both sides speak: 38 for v0.0.38."""
        if self._version is None:
            try:
                answer = await self._ask("GET", "/openapi/v3", account)
            except Complaint as error:
                raise DriverError(f"{self._name} does not tell which versions it speaks: {error}.") from None
            paths = _document(answer, self._name).get("paths")
            listed = paths if isinstance(paths, dict) else {}
            offered = {int(match[1]) for path in listed if (match := _PATH.fullmatch(path))}
            common = offered.intersection(VERSIONS)
            if not common:
                told = ", ".join(f"v0.0.{number}" for number in sorted(offered)) or "nothing of Slurm's"
                raise DriverError(
                    f"{self._name} offers {told}; v0.0.{VERSIONS[0]} to v0.0.{VERSIONS[-1]} are understood."
                )
            self._version = max(common)
        return self._version

    @property
    def arrays(self) -> bool:
        """Whether single tasks of an array can be cancelled in the version that was agreed on."""
        return self._version not in _TASKS_ALONE

    async def get(self, what: str, account: str, *, seconds: float = _SILENCE) -> dict[str, Any]:
        """The answer about `ping`, `nodes`, `partitions` or `reservations`; `seconds` bound any silence."""
        version = await self.version(account)
        answer = await self._ask("GET", f"/slurm/v0.0.{version}/{what}", account, seconds=seconds)
        return _document(answer, self._name)

    async def jobs(self, account: str, sink: Sink, *, seconds: float = _SILENCE) -> None:
        """The answer about all jobs, piece by piece."""
        version = await self.version(account)
        await self._ask("GET", f"/slurm/v0.0.{version}/jobs", account, sink=sink, seconds=seconds)

    async def submit(
        self, account: str, options: Sequence[str], words: Sequence[str], environment: Mapping[str, str], *,
        seconds: float = _SILENCE,
    ) -> str:  # fmt: skip
        """Submit a batch job that runs `words`; its number. Raises Complaint; Unfinished where it may have landed."""
        version = await self.version(account)
        document = job_document(version, options, words, environment)
        answer = await self._ask("POST", f"/slurm/v0.0.{version}/job/submit", account, body=document, seconds=seconds)
        try:
            number = _document(answer, self._name).get("job_id")
        except DriverError as error:
            raise Unfinished(str(error)) from None
        if not isinstance(number, int) or number <= 0:
            raise Unfinished(f"{self._name} took a submission and told no job's number.")
        return str(number)

    async def kill(self, account: str, native: str, signal: str | None, *, seconds: float = _SILENCE) -> None:
        """Send a signal to all processes of a job or task; None: cancel it. Raises Complaint."""
        version = await self.version(account)
        query = f"?signal={signal}" if signal is not None else ""
        await self._ask("DELETE", f"/slurm/v0.0.{version}/job/{native}{query}", account, seconds=seconds)

    async def close(self) -> None:
        """Let go of connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    # -- one question --------------------------------------------------------------------------------------------

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket) if self._socket else aiohttp.TCPConnector(limit=16)
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def _ask(
        self, method: str, path: str, account: str, *, body: Mapping[str, Any] | None = None, sink: Sink | None = None,
        seconds: float = _SILENCE,
    ) -> bytes:  # fmt: skip
        headers = {"X-SLURM-USER-NAME": account, "X-SLURM-USER-TOKEN": await self._tokens.of(account)}
        limits = aiohttp.ClientTimeout(
            total=_TOGETHER if sink is None else None, sock_connect=min(_CONNECT, seconds), sock_read=seconds
        )
        begun = False
        try:
            async with self._opened().request(
                method, f"{self._base}{path}", headers=headers, json=body, allow_redirects=False, timeout=limits
            ) as response:
                begun = True
                if response.status == 200 and sink is not None:
                    async for piece in response.content.iter_chunked(_PIECE):
                        await sink(piece)
                    return b""
                return self._judge(method, response.status, await _whole(response, self._name), account)
        except TimeoutError as error:
            # aiohttp's own for the connection says that nothing was sent
            sent = method == "POST" and not isinstance(error, aiohttp.ConnectionTimeoutError)
            raise (Unfinished if sent else DriverError)(f"{self._name} timed out.") from None
        except aiohttp.ClientConnectorError as error:
            raise DriverError(f"{self._name} cannot be reached: {system_words(error.os_error)}.") from None
        except (aiohttp.ClientError, OSError) as error:
            said = plain_words(error) or "it closed the connection"
            sent = method == "POST" or begun
            raise (Unfinished if sent else DriverError)(f"{self._name} broke off: {said}.") from None

    def _judge(self, method: str, status: int, answer: bytes, account: str) -> bytes:
        """The answer, where it is one. Raises Complaint, NoAccount, DriverError."""
        if status == 200:
            return answer
        if status in (401, 403):
            self._not_accepted(account, plain_words(answer[:200].decode("utf-8", "replace")))
        if status == 404 and not answer.lstrip().startswith(b"{"):
            self._version = None  # it was upgraded under us
        words, nothing_said = complaint_of(answer)
        if nothing_said and status >= 500:
            # so an expired or foreign token looks, as the controller refuses it and slurmrestd keeps that for itself
            self._tokens.drop(account)
            raise (Unfinished if method == "POST" else DriverError)(
                f"{self._name} cannot ask the controller for {account} ({words}): the controller is away, or the "
                "token is expired or another's."
            )
        raise Complaint(f"{words} (status {status})" if nothing_said else words)

    def _not_accepted(self, account: str, said: str) -> NoReturn:
        self._tokens.drop(account)
        raise NoAccount(f"{self._name} does not accept the token of {account}: {said}.")


async def _whole(response: aiohttp.ClientResponse, name: str) -> bytes:
    pieces: list[bytes] = []
    size = 0
    async for piece in response.content.iter_chunked(_PIECE):
        size += len(piece)
        if size > _MOST:
            raise DriverError(f"{name} answers with more than {_MOST >> 20} MiB.")
        pieces.append(piece)
    return b"".join(pieces)


def _document(answer: bytes, name: str) -> dict[str, Any]:
    try:
        document = json.loads(answer)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        begin = plain_words(answer[:80].decode("utf-8", "replace"))
        raise DriverError(f"{name} answers with something that is not Slurm's: {begin!r}.")
    return document


def complaint_of(answer: bytes) -> tuple[str, bool]:
    """Slurm's words in an answer that says no, and whether these say nothing of the reason."""
    try:
        errors = json.loads(answer).get("errors") or []
        said = [
            [str(error.get(key)).strip(" .") for key in ("description", "error") if error.get(key)]
            for error in errors
            if isinstance(error, dict)
        ]
    except (ValueError, AttributeError, TypeError):
        return plain_words(answer[:200].decode("utf-8", "replace")) or "no reason given", True
    # what the general complaint adds to the particular one is nothing
    words = [word for each in said for word in each if word not in ("Unspecified error", "Failure during parsing")]
    if not any("Unspecified error" not in each for each in said):
        return "; ".join(dict.fromkeys(words)) or "unspecified error", True
    return plain_words("; ".join(dict.fromkeys(words))) or "no reason given", not words
