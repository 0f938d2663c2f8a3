"""Who asks: a token in the header Authorization, or the login that a browser's cookie names.

Both are looked up at most every two seconds. `faces.http.origin` has refused what other pages send before.
"""

import asyncio
import hashlib
import time
from typing import Annotated

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request

from atoll.core.clock import to_micros
from atoll.core.errors import Denied, Unauthenticated
from atoll.faces.http.origin import login_cookies, own_origin
from atoll.faces.http.platform import Platform
from atoll.store import logins, people
from atoll.store.people import Principal

REMEMBERED_SECONDS = 2.0
"""How long what was found valid is taken for valid: ending it at another replica takes so long to work."""
_NOTED_EVERY = 5 * 60 * 1_000_000
"""Microseconds for which the use of a login is not noted again."""
_MOST = 10_000
_LONGEST_SECRET = 500
_Key = tuple[str, bytes]
"""`token` or `login`, and the digest of the secret."""


def digest_of(secret: str) -> bytes:
    """What is kept of tokens and the like: SHA-256, enough for a text that nobody can guess."""
    return hashlib.sha256(secret[:_LONGEST_SECRET].encode("utf-8", "surrogateescape")).digest()


def _no_token() -> Unauthenticated:
    return Unauthenticated(
        "no_token", "This needs a token: send the header Authorization: Bearer TOKEN.", field="Authorization"
    )


class Authenticator:
    """Finds out whose token a request has, or who is logged in in the browser that sent it."""

    def __init__(self, platform: Platform) -> None:
        self._platform = platform
        self._known: dict[_Key, tuple[Principal, float]] = {}
        self._asking: dict[_Key, asyncio.Task[Principal | None]] = {}

    async def find(self, connection: HTTPConnection) -> Principal:
        """The person behind a request. Raises Unauthenticated."""
        if "authorization" not in connection.headers:
            return await self._find_login(connection)
        scheme, _, token = connection.headers["authorization"].partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise _no_token()
        principal = await self._find(("token", digest_of(token)))
        if principal is None:
            raise Unauthenticated(
                "wrong_token",
                "The token is not valid: it is wrong, expired or revoked; get a new one with: atoll token create, or "
                "atoll login.",
                field="Authorization",
            )
        return principal

    async def _find_login(self, connection: HTTPConnection) -> Principal:
        secrets = login_cookies(connection.headers, own_origin(connection, self._platform.address))
        if len(secrets) > 1:
            raise Unauthenticated(
                "two_logins",
                "The browser sends two logins, one of which another page may have put there; remove this platform's "
                "cookies from the browser, then log in.",
            )
        if not secrets:
            raise _no_token()
        principal = await self._find(("login", digest_of(secrets[0])))
        if principal is None:
            raise Unauthenticated("login_over", "The login is over; log in again.")
        return principal

    async def _find(self, key: _Key) -> Principal | None:
        """Look a token or login up; requests that come at the same time share one question."""
        known = self._known.get(key)
        if known is not None and known[1] > time.monotonic():
            return known[0]
        task = self._asking.get(key)
        if task is None:
            task = asyncio.create_task(self._look_up(key))
            self._asking[key] = task
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        return await asyncio.shield(task)

    async def _look_up(self, key: _Key) -> Principal | None:
        asked_at = time.monotonic()
        self._known.pop(key, None)
        kind, digest = key
        principal = await (self._token(digest) if kind == "token" else self._login(digest))
        if principal is not None:
            if len(self._known) >= _MOST:
                self._known.clear()
            self._known[key] = (principal, asked_at + REMEMBERED_SECONDS)
        return principal

    async def _token(self, digest: bytes) -> Principal | None:
        now = to_micros(self._platform.clock())
        return await self._platform.database.read(lambda connection: people.find_by_digest(connection, digest, now))

    async def _login(self, digest: bytes) -> Principal | None:
        now, rules, database = to_micros(self._platform.clock()), self._platform.login, self._platform.database
        idle, longest = rules.idle * 1_000_000, rules.longest * 1_000_000
        found = await database.read(lambda connection: logins.find(connection, digest, now - idle, now - longest))
        if found is None:
            return None
        if found.used_at < now - min(_NOTED_EVERY, idle // 10):
            await database.write(lambda connection: logins.use(connection, digest, now))
        return found.who

    async def forget(self) -> None:
        """Look everybody up anew: a token or login was ended. Questions under way may have been answered; wait."""
        if self._asking:
            await asyncio.wait(list(self._asking.values()))
        self._known.clear()


class _BearerToken(SecurityBase):
    """The dependency that every operation but the public ones has."""

    def __init__(self) -> None:
        self.model = HTTPBearer(description="A token of `atoll token create` or `atoll login`.")
        self.scheme_name = "token"

    async def __call__(self, request: Request) -> Principal:
        authenticator: Authenticator = request.app.state.authenticator
        return await authenticator.find(request)


caller = _BearerToken()
"""The dependency that says who asks, and refuses whoever has neither a valid token nor is logged in."""
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
