"""A tab's stream of a live page, on the application in this process."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from types import TracebackType
from typing import Any, Self

from tests.support.http import Served


class Stream:
    """`async with Stream(served, "/live?jobs=", "anna") as stream`: `until` waits for a text, `text` is all of it."""

    def __init__(self, served: Served, address: str, person: str = "anna", **headers: str) -> None:
        path, _, query = address.partition("?")
        sent = {"authorization": f"Bearer {served.tokens[person]}", **headers}
        self._app = served.app
        self._scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
            "path": path, "raw_path": path.encode(), "query_string": query.encode(), "root_path": "",
            "headers": [(name.replace("_", "-").encode(), value.encode()) for name, value in sent.items()],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80),
        }  # fmt: skip
        self.status = 0
        self.text = ""
        self.ended = False
        self._arrived = asyncio.Condition()
        self._gone = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._app(self._scope, self._receive, self._send))
        await self.until("event: opened")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gone.set()
        assert self._task is not None
        async with asyncio.timeout(10):
            await self._task

    async def until(self, text: str, seconds: float = 10.0) -> None:
        """Wait until `text` came."""
        async with asyncio.timeout(seconds), self._arrived:
            await self._arrived.wait_for(lambda: text in self.text)

    async def until_ended(self) -> None:
        """Wait until the server ended it."""
        async with asyncio.timeout(10), self._arrived:
            await self._arrived.wait_for(lambda: self.ended)

    async def _receive(self) -> MutableMapping[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: MutableMapping[str, Any]) -> None:
        async with self._arrived:
            self.status = message.get("status", self.status)
            self.text += message.get("body", b"").decode()
            self.ended = message["type"] == "http.response.body" and not message.get("more_body")
            self._arrived.notify_all()
