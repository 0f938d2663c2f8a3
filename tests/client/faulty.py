"""A server that misbehaves as it is told, for tests of what the client makes of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Behaviour = Callable[["Handler"], None]


@dataclass
class Seen:
    """A request that came."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Handler(BaseHTTPRequestHandler):
    """Answers each request with the next behaviour, and all further ones with the last."""

    protocol_version = "HTTP/1.1"
    server: FaultyServer

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        behaviour = self.server.take(Seen(self.command, self.path, headers, body))
        behaviour(self)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


for _method in ("GET", "POST", "PUT", "HEAD", "DELETE", "PATCH"):
    setattr(Handler, f"do_{_method}", Handler.handle_any)


class FaultyServer(ThreadingHTTPServer):
    """Serves in a thread, on a port of its own; `seen` holds the requests."""

    daemon_threads = True

    def __init__(self, *behaviours: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviours = list(behaviours)
        self.seen: list[Seen] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def take(self, seen: Seen) -> Behaviour:
        with self._lock:
            self.seen.append(seen)
            return self.behaviours.pop(0) if len(self.behaviours) > 1 else self.behaviours[0]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is part of the tests."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self._thread.join(5)
        self.server_close()


def answers(document: Any, status: int = 200, kind: str = "application/json", **headers: str) -> Behaviour:
    """A proper answer."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()

    def behave(handler: Handler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", kind)
        handler.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(body)

    return behave


def refuses(status: int, code: str, detail: str, **more: Any) -> Behaviour:
    """A problem document."""
    return answers({"status": status, "code": code, "detail": detail, **more}, status, kind="application/problem+json")


def hangs_up(handler: Handler) -> None:
    """The connection ends without an answer."""
    handler.close_connection = True
    handler.connection.close()


def talks_nonsense(handler: Handler) -> None:
    """What comes is no HTTP."""
    handler.wfile.write(b"SSH-2.0-OpenSSH_9.2\r\n")
    hangs_up(handler)


def cuts_off(handler: Handler) -> None:
    """The answer ends in the middle."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": ')
    hangs_up(handler)


def never_answers(release: threading.Event) -> Behaviour:
    """Keeps the client waiting until the test is over."""

    def behave(handler: Handler) -> None:
        release.wait(10)
        hangs_up(handler)

    return behave


def streams(*events: tuple[str, dict[str, Any], str | None], then: Behaviour | None = None) -> Behaviour:
    """An event stream that ends after these events, properly unless told otherwise."""

    def behave(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/event-stream")
        handler.send_header("Connection", "close")
        handler.end_headers()
        for name, data, number in events:
            head = f"id: {number}\n" if number else ""
            handler.wfile.write(f"{head}event: {name}\ndata: {json.dumps(data)}\n\n".encode())
            handler.wfile.flush()
        handler.close_connection = True
        if then is not None:
            then(handler)

    return behave


def by_path(**behaviours: Behaviour) -> Behaviour:
    """One behaviour for each word that a path may contain; the first that fits."""

    def behave(handler: Handler) -> None:
        for word, behaviour in behaviours.items():
            if word in handler.path:
                behaviour(handler)
                return
        refuses(404, "not_found", f"There is no {handler.path}.")(handler)

    return behave


def in_turn(*behaviours: Behaviour) -> Behaviour:
    """One behaviour after the other, the last for ever."""
    left = list(behaviours)
    lock = threading.Lock()

    def behave(handler: Handler) -> None:
        with lock:
            behaviour = left.pop(0) if len(left) > 1 else left[0]
        behaviour(handler)

    return behave


def job(state: str, **fields: Any) -> dict[str, Any]:
    """A job as the platform tells it."""
    return {"id": "1", "job": 1, "state": state, "reason": {"code": "None", "sentence": "It is so."}, **fields}
