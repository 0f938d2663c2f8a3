"""Passwords: which are taken, and argon2id for keeping and comparing them.

Parameters are the second choice of RFC 9106, section 4 (64 MiB, 3 passes, 4 lanes). A comparison takes some 50 ms of
a core, so it is done in a thread, and no more of them at once than there are cores.
"""

import asyncio
import base64
import logging
import os
import unicodedata
from collections.abc import Callable
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError, VerifyMismatchError
from argon2.profiles import RFC_9106_LOW_MEMORY

from atoll.core.errors import Invalid

Result = TypeVar("Result")
log = logging.getLogger(__name__)
SHORTEST = 10
"""Characters that a password has at least."""
LONGEST = 1024
"""Bytes that it has at most."""
_HASHER = PasswordHasher.from_parameters(RFC_9106_LOW_MEMORY)


def _nobodys() -> str:
    """A text of argon2id that costs as much to compare as a real one, and that no password fits."""
    salt, digest = (base64.b64encode(bytes(length)).decode().rstrip("=") for length in (16, 32))
    found = RFC_9106_LOW_MEMORY
    sizes = f"m={found.memory_cost},t={found.time_cost},p={found.parallelism}"
    return f"$argon2id$v={found.version}${sizes}${salt}${digest}"


_NOBODYS = _nobodys()


def normal(password: str) -> str:
    """The password as it is kept, however a keyboard composed its characters (NFKC, as NIST SP 800-63B advises)."""
    return unicodedata.normalize("NFKC", password)


def check(password: str, name: str) -> None:
    """Refuse (Invalid) what is no password for the person `name`."""
    text = normal(password)
    if len(text) < SHORTEST:
        sentence = f"Choose a password of at least {SHORTEST} characters; a few words are easy to remember."
    elif len(text.encode("utf-8", "surrogatepass")) > LONGEST:
        sentence = f"Choose a password of at most {LONGEST} bytes."
    elif text.casefold() == name.casefold():
        sentence = "Choose a password that is not your name."
    else:
        return
    raise Invalid("bad_password", sentence, field="password")


class Passwords:
    """Keeps and compares passwords, as many at once as there are cores."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(os.cpu_count() or 1)

    async def keep(self, password: str) -> str:
        """What is to be kept of a password."""
        return await self._in_thread(lambda: _HASHER.hash(normal(password)))

    async def fits(self, kept: str | None, password: str) -> bool:
        """Whether it is the password that `kept` was made of; as slow where nothing is kept."""
        if len(password) > LONGEST:
            password, kept = "", None
        return await self._in_thread(lambda: _fits(kept or _NOBODYS, normal(password))) and kept is not None

    async def _in_thread(self, work: Callable[[], Result]) -> Result:
        async with self._room:
            return await asyncio.to_thread(work)


def is_outdated(kept: str) -> bool:
    """Whether it was made with other parameters than those of today."""
    return _HASHER.check_needs_rehash(kept)


def _fits(kept: str, password: str) -> bool:
    try:
        return _HASHER.verify(kept, password)
    except VerifyMismatchError:
        return False
    except (VerificationError, InvalidHashError):
        log.exception("a password that is kept cannot be compared")
        return False
