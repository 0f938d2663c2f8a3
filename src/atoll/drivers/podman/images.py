"""Images: whether they are there, and having Podman pull them, each once however many attempts wait for it."""

import asyncio
import json
import re
import time
from urllib.parse import quote

from atoll.drivers.base import DriverError
from atoll.drivers.podman.api import Complaint, Engine, plain_words

# What a registry says that is away or busy; anything else it would say again.
_PASSING = re.compile(
    r"dial tcp|no such host|i/o timeout|timed? ?out|deadline exceeded|connection (reset|refused)|unexpected EOF"
    r"|TLS handshake|temporar|toomanyrequests|too many requests|server misbehaving"
    r"|\b(429|500|502|503|504)\b|no space left",
    re.IGNORECASE,
)
_KNOWN_FOR = 10.0
"""Seconds for which an image that was there is believed to be there."""
_FRESH_FOR = 60.0
"""Seconds for which `pull: always` takes an image that was pulled for current, or a failure for lasting."""
_SILENCE = 600.0
"""Longest silence of a pull that goes on."""


class NoImage(Exception):
    """The image cannot be had. The message is one sentence in the engine's words."""

    def __init__(self, message: str, permanent: bool) -> None:
        super().__init__(message)
        self.permanent = permanent


class Images:
    """The images of one host."""

    def __init__(self, engine: Engine, longest: float) -> None:
        self._engine = engine
        self._longest = longest
        self._there: dict[str, float] = {}
        self._pulled: dict[str, tuple[float, NoImage | None]] = {}
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def ready(self, image: str, policy: str, patience: float) -> bool:
        """Whether the image is there now; a pull that is needed goes on after `patience` seconds. Raises NoImage."""
        now = time.monotonic()
        if policy != "always" and (self._there.get(image, -_KNOWN_FOR) + _KNOWN_FOR > now or await self._exists(image)):
            self._there[image] = now
            return True
        if policy == "never":
            raise NoImage(f"environment.image: {image!r} is not at this site, which pulls none.", permanent=True)
        pull = self._pulls.get(image)
        if pull is None:
            ended = self._pulled.get(image)
            if ended is not None and ended[0] + _FRESH_FOR > now:
                if ended[1] is not None:
                    raise ended[1]
                return True
            pull = self._pulls[image] = asyncio.create_task(self._pull(image))
        done, _ = await asyncio.wait([pull], timeout=patience)
        if not done:
            return False
        failed = self._pulled[image][1]
        if failed is not None:
            raise failed
        return True

    def doubt(self, image: str) -> None:
        """Podman said that the image is not there after all."""
        self._there.pop(image, None)
        self._pulled.pop(image, None)

    async def close(self) -> None:
        """Let go of pulls, which Podman may or may not go on with."""
        for pull in self._pulls.values():
            pull.cancel()
        await asyncio.gather(*self._pulls.values(), return_exceptions=True)

    async def _exists(self, image: str) -> bool:
        try:
            await self._engine.ask("GET", f"/images/{quote(image, safe='/:@')}/exists")
        except Complaint as complaint:
            if complaint.status == 404:
                return False
            raise NoImage(f"environment.image: {complaint}.", permanent=complaint.status == 400) from None
        return True

    async def _pull(self, image: str) -> None:
        failed: NoImage | None = None
        try:
            async with asyncio.timeout(self._longest):
                words = await self._pull_words(image)
            if words is not None:
                passing = _PASSING.search(words) is not None
                failed = NoImage(f"environment.image: {image!r} cannot be pulled: {words}.", permanent=not passing)
        except TimeoutError:
            words = f"it was not pulled within {self._longest:g} s"
            failed = NoImage(f"environment.image: {image!r} cannot be had: {words}.", permanent=False)
        except DriverError as error:
            failed = NoImage(f"environment.image: {image!r} cannot be had: {error}", permanent=False)
        finally:
            self._pulls.pop(image, None)
        now = time.monotonic()
        self._pulled = {name: told for name, told in self._pulled.items() if told[0] + _FRESH_FOR > now}
        self._pulled[image] = (now, failed)

    async def _pull_words(self, image: str) -> str | None:
        """What went wrong, in the engine's words; None where the image came."""
        try:
            came = False
            lines = self._engine.lines(
                "POST", "/images/pull", params={"reference": image}, seconds=min(_SILENCE, self._longest)
            )
            async for line in lines:
                try:
                    said = json.loads(line)
                except ValueError:
                    return f"Podman answered what cannot be read: {plain_words(line[:80].decode('utf-8', 'replace'))}"
                if isinstance(said, dict):
                    if said.get("error"):
                        return plain_words(str(said["error"])).rstrip(".")
                    came = came or bool(said.get("id") or said.get("images"))
        except Complaint as complaint:
            return str(complaint).rstrip(".")
        return None if came else "the answer ended before the image had come; unexpected EOF"
