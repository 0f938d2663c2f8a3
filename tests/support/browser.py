"""Browsers, as far as the platform sees them: they keep cookies, and say from which page a request comes."""

from __future__ import annotations

from typing import Any

import httpx2
from argon2 import PasswordHasher

from atoll.people import login
from atoll.store import people
from tests.support.http import Served

OWN = "http://127.0.0.1"
PASSWORD = "correct horse battery"
_CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


def browser(served: Served, **headers: str) -> httpx2.AsyncClient:
    """A browser that shows one of the platform's own pages."""
    return served.client(None, **{"origin": OWN, "sec-fetch-site": "same-origin", **headers})


async def give_password(served: Served, person: str = "anna", password: str = PASSWORD) -> None:
    """Let a person have a password, kept with cheap parameters (which the first login renews)."""
    kept = _CHEAP.hash(password)
    await served.do(lambda connection: people.change_person(connection, person, password=kept))


async def log_in(client: httpx2.AsyncClient, person: str = "anna", password: str = PASSWORD, **form: str) -> Any:
    """Send the form."""
    return await client.post("/login", data={"name": person, "password": password, **form})


async def logged_in(served: Served, person: str = "anna", **headers: str) -> httpx2.AsyncClient:
    """A browser in which a person is logged in."""
    secret = await served.do(lambda connection: login.start_session(connection, person, _now(served)))
    client = browser(served, **headers)
    client.cookies.set("atoll", secret, domain="127.0.0.1", path="/")
    return client


def _now(served: Served) -> int:
    return int(served.clock().timestamp() * 1_000_000)
