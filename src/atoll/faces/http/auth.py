"""Who asks: tokens in the Authorization header, looked up at most every two seconds."""

import asyncio
import hashlib
import time
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request

from atoll.core.clock import to_micros
from atoll.core.errors import Denied, Unauthenticated
from atoll.faces.http.platform import Platform
from atoll.store import people
from atoll.store.people import Principal

REMEMBERED_SECONDS = 2.0
"""How long a token that was found valid is taken for valid: revoking it at another replica takes so long to work."""
_MOST = 10_000
_LONGEST_TOKEN = 500


class Authenticator:
    """Finds out whose token a request has."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._known: dict[bytes, tuple[Principal, float]] = {}
        self._asking: dict[bytes, asyncio.Task[Principal | None]] = {}

    async def find(self, header: str | None) -> Principal:
        """The person behind an Authorization header. Raises Unauthenticated."""
        scheme, _, token = (header or "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthenticated(
                "no_token", "This needs a token: send the header Authorization: Bearer TOKEN.", field="Authorization"
            )
        digest = hashlib.sha256(token[:_LONGEST_TOKEN].encode("utf-8", "surrogateescape")).digest()
        known = self._known.get(digest)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        principal = await self._ask(digest)
        if principal is None:
            raise Unauthenticated(
                "wrong_token",
                "The token is not valid: it is wrong, expired or revoked; get a new one with: atoll token create.",
                field="Authorization",
            )
        return principal

    async def _ask(self, digest: bytes) -> Principal | None:
        """Look a token up; requests that come at the same time share one question."""
        task = self._asking.get(digest)
        if task is None:
            task = asyncio.create_task(self._look_up(digest))
            self._asking[digest] = task
            task.add_done_callback(lambda _: self._asking.pop(digest, None))
        return await asyncio.shield(task)

    async def _look_up(self, digest: bytes) -> Principal | None:
        now = to_micros(self._platform.clock())
        asked_at = time.monotonic()
        self._known.pop(digest, None)
        principal = await self._platform.database.read(
            lambda connection: people.find_by_digest(connection, digest, now)
        )
        if principal is not None:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[digest] = (principal, asked_at + REMEMBERED_SECONDS)
        return principal

    async def forget(self) -> None:
        """Look every token up anew: one was revoked. Questions under way may have been answered before; wait."""
        if self._asking:
            await asyncio.wait(list(self._asking.values()))
        self._known.clear()


class _BearerToken(SecurityBase):
    """The dependency that every operation but the public ones has."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="A token of `atoll token create`.")
        self.scheme_name = "token"

    async def __call__(self, request: Request) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        return await authenticator.find(request.headers.get("authorization"))


caller = _BearerToken()
"""The dependency that says who asks, and refuses whoever has no valid token."""
Caller = Annotated[Principal, Depends(caller)]


def platform_of(request: Request) -> Platform:
    """The platform that a request came to."""
    platform: Platform = request.app.state.platform
    return platform


Here = Annotated[Platform, Depends(platform_of)]


def require_administrator(who: Principal, what: str) -> None:
    """Refuse (Denied) whoever is no administrator; `what` continues "Only an administrator may"."""
    if not who.administrator:
        raise Denied("administrators_only", f"Only an administrator may {what}.")
