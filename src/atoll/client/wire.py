"""What both clients have in common: settings, the form of requests, and what failures of the transport mean."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import httpx2

from atoll.client.calls import Call, Reply, StreamCall, error_of, not_atoll
from atoll.client.place import Platform, find_platform
from atoll.client.retry import PATIENCE, RETRIED_STATUSES, WATCH_PATIENCE, Attempts, Repeat, describe, never_sent
from atoll.core.errors import AtollError, Denied, Unavailable

_STREAM_SILENCE = 60.0
"""Seconds after which a silent stream is opened anew; the platform sends a sign of life every 15."""


class Wire:
    """Base of the clients.

    `patience` is for how long, in seconds, a platform that does not answer is tried again; `endurance` the same for
    those who wait and follow, once it has answered. `on_trouble` is told, in a sentence, of longer outages.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        *,
        data: str | os.PathLike[str] | None = None,
        patience: float = PATIENCE,
        endurance: float = WATCH_PATIENCE,
        timeout: float = 60.0,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._told = {"url": url, "token": token, "data": data}
        self.platform: Platform = find_platform(url, token, data)
        self.patience = patience
        self.endurance = endurance
        self.on_trouble = on_trouble
        self._answered = False
        self._timeout = httpx2.Timeout(timeout, connect=min(10.0, timeout))
        self._stream_timeout = httpx2.Timeout(_STREAM_SILENCE, connect=min(10.0, timeout))

    def _client_settings(self) -> dict[str, Any]:
        """Settings of the HTTP client: no proxy to this very machine, and no certificates where none are used."""
        secure = self.platform.url.startswith("https://")
        return {
            "trust_env": not self.platform.local,
            "verify": secure,
            "follow_redirects": False,
            "headers": {"User-Agent": "atoll-client", "Accept": "application/json"},
        }

    def _look_again(self) -> None:
        """A platform that was started anew may listen elsewhere: read the data folder's file again."""
        try:
            self.platform = find_platform(**self._told)  # type: ignore[arg-type]
        except AtollError:  # it is being written; the next try looks again
            return

    def _attempts(self, *, watching: bool = False) -> Attempts:
        limit = self.endurance if watching and self._answered else self.patience
        return Attempts(self.platform.url, limit, self.on_trouble)

    def _headers(self, extra: Mapping[str, str], *, public: bool = False) -> dict[str, str]:
        if self.platform.token is None and public:
            return dict(extra)
        if self.platform.token is None:
            raise Denied(
                "no_token",
                f"No token is known for {self.platform.url}; log in with: atoll login {self.platform.url}. Or set "
                "ATOLL_TOKEN, or ATOLL_DATA to the platform's folder.",
                field="ATOLL_TOKEN",
            )
        return {"Authorization": f"Bearer {self.platform.token}", **extra}

    def _request(self, call: Call[Any]) -> dict[str, Any]:
        """The arguments of the HTTP client for a call, apart from an upload's content."""
        headers = self._headers(call.headers, public=call.public)
        if call.upload is not None:
            headers |= {"Content-Length": str(call.upload.size), "Content-Type": "application/octet-stream"}
        settings: dict[str, Any] = {
            "method": call.method,
            "url": self.platform.url + call.path,
            "params": list(call.query),
            "headers": headers,
            "timeout": self._timeout,
        }
        return {**settings, "json": call.body} if call.body is not None else settings

    def _stream_request(self, call: StreamCall) -> dict[str, Any]:
        return {
            "method": "GET",
            "url": self.platform.url + call.path,
            "params": list(call.query),
            "headers": self._headers(call.headers()),
            "timeout": self._stream_timeout,
        }

    def _after_failure(self, call: Call[Any] | None, error: Exception, attempts: Attempts) -> float:
        """Seconds until the next try after a failure of the transport. Raises AtollError where there is none."""
        what = describe(error)
        if isinstance(error, httpx2.InvalidURL | httpx2.UnsupportedProtocol):
            raise not_atoll(str(error)) from None
        if call is not None and call.repeat is Repeat.UNSENT and not never_sent(error):
            raise Unavailable(
                "unknown_outcome",
                f"The connection to {self.platform.url} failed ({what}), and whether the request was carried out is "
                "not known; look before you repeat it.",
            ) from None
        delay = attempts.delay(what)
        self._look_again()
        attempts.url = self.platform.url
        return delay

    def _after_answer(self, reply: Reply, attempts: Attempts) -> float | None:
        """Seconds until the next try where the platform said that it cannot answer now; None for any other answer."""
        if reply.status not in RETRIED_STATUSES:
            self._answered = True
            attempts.progress()
            return None
        return attempts.delay(f"HTTP {reply.status}", error_of(reply))


def reply_of(response: httpx2.Response) -> Reply:
    """An answer without what belongs to the HTTP library."""
    return Reply(
        response.status_code, {key.lower(): value for key, value in response.headers.items()}, response.content
    )


def stream_refusal(reply: Reply) -> AtollError:
    """Why an answer is no event stream."""
    return not_atoll("no event stream") if reply.status == 200 else error_of(reply)


def is_event_stream(response: httpx2.Response) -> bool:
    """Whether an answer is what was asked for."""
    kind = str(response.headers.get("content-type", ""))
    return response.status_code == 200 and kind.startswith("text/event-stream")
