"""Acting at the platform for the people of a hub, with the one token that the hub was given.

An administrator's token makes a token of a day for each person, so that jobs are the person's own: submitted, counted
and shown as if by themselves. Any other token acts for the person it belongs to, and for nobody else.
"""

import time
from dataclasses import dataclass
from functools import lru_cache

from atoll.client.asynchronous import AsyncClient
from atoll.client.calls import JobFilter
from atoll.client.models import Job
from atoll.core.errors import Denied, Unauthenticated

_TOKEN_SECONDS = 86_400
_USED_SECONDS = 43_200
"""After so long a new token is made, while the old one is still good."""
_LOOKED_AT = 20
"""Jobs of the same name that are looked at to find a session's."""


@dataclass
class _Known:
    client: AsyncClient
    until: float


class Acting:
    """Clients of the platform at `url`, each of which is somebody's."""

    def __init__(self, url: str, token: str, patience: float) -> None:
        self._hub = AsyncClient(url, token, patience=patience)
        self._patience = patience
        self._known: dict[str, _Known] = {}

    async def as_person(self, person: str) -> AsyncClient:
        """A client whose requests are that person's. Raises Denied, Unavailable."""
        known = self._known.get(person)
        if known is not None and known.until > time.monotonic():
            return known.client  # one whose token has grown old may be in use, and is left to its users
        me = await self._hub.me()
        if me.person == person:
            made = _Known(self._hub, float("inf"))
        elif me.administrator:
            token = await self._hub.create_token("jupyterhub", expires_in=_TOKEN_SECONDS, person=person)
            client = AsyncClient(self._hub.platform.url, token.token, patience=self._patience)
            made = _Known(client, time.monotonic() + _USED_SECONDS)
        else:
            raise Denied(
                "not_for_others",
                f"The hub's token is {me.person}'s, who is no administrator: it starts nothing for {person}. Give the "
                "hub the token of an administrator.",
                field="AtollSpawner.token",
            )
        self._known[person] = made
        return made.client

    async def forget(self, person: str) -> None:
        """The platform refused the person's token: make another the next time."""
        known = self._known.pop(person, None)
        if known is not None and known.client is not self._hub:
            await known.client.close()

    async def close(self) -> None:
        """Close all connections."""
        for person in list(self._known):
            await self.forget(person)
        await self._hub.close()


@lru_cache
def acting(url: str, token: str, patience: float) -> Acting:
    """The one of this process for a platform and token."""
    return Acting(url, token, patience)


async def find_session(client: AsyncClient, person: str, name: str, labels: dict[str, str]) -> Job | None:
    """The newest of a person's jobs that has this name and these labels, whether it has ended or not."""
    async for summary in client.jobs(JobFilter(owner=person, name=name, ended=True), limit=_LOOKED_AT):
        job = await client.job(summary.job)
        found = job.spec.get("labels", {})
        if all(found.get(key) == value for key, value in labels.items()):
            return job
    return None


def refused(error: Exception) -> bool:
    """Whether the platform no longer knows a token."""
    return isinstance(error, Unauthenticated)
