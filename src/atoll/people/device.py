"""Logging in a command line (RFC 8628): it shows a code, somebody enters the code in a browser and lets it in."""

import secrets
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Row

from atoll.core.errors import Conflict, Denied, Exhausted, NotFound
from atoll.faces.http.auth import digest_of
from atoll.people.login import note
from atoll.people.service import NewToken, issue_token
from atoll.store import devices, people
from atoll.store.tries import Limit

CODE_SECONDS = 600
"""For how long a code is good."""
GAP = 5
"""Seconds between two questions at first, and what is added where somebody asks too soon (RFC 8628, section 3.5)."""
TOKEN_SECONDS = 90 * 86400
"""For how long the token is good that comes of it."""
_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"
"""Of codes: none that are mistaken for each other, no vowels and so no words (RFC 8628, section 6.1)."""
_LENGTH = 8


@dataclass(frozen=True)
class Waiting:
    """A command line that was given a code: `secret` is for itself, `code` for people."""

    secret: str
    code: str


def begun_by(address: str) -> Limit:
    """How many may be begun from one address before they have to wait."""
    return Limit(("device logins", address), 60, 300)


def entered_by(person: str) -> Limit:
    """How many wrong codes a person may enter before waiting: a guessed one would let somebody else in."""
    return Limit(("device codes", person), 10, 300)


def shown(code: str) -> str:
    """A code as people read it: `BCDF-GHJK`."""
    return f"{code[:4]}-{code[4:]}"


def read_code(text: str) -> str:
    """A code as it is kept, from what people type."""
    return "".join(letter for letter in text.upper() if letter.isalnum())[: _LENGTH + 1]


def begin(connection: Connection, machine: str, now: int) -> Waiting:
    """Give a command line on `machine` a code."""
    while devices.is_taken(connection, code := "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))):
        pass
    found = Waiting(secrets.token_urlsafe(32), code)
    devices.insert_device(connection, digest_of(found.secret), code, machine, now + CODE_SECONDS * 1_000_000, GAP)
    return found


def find(connection: Connection, code: str, now: int) -> Row[*tuple[Any, ...]]:
    """The command line that shows `code`. Raises NotFound."""
    row = devices.find_by_code(connection, code, now)
    if row is None:
        raise NotFound(
            "no_code", "No command line waits with this code: look at it again, or begin anew with atoll login.",
            field="code",
        )  # fmt: skip
    return row


def decide(connection: Connection, code: str, person: str, approved: bool, now: int) -> Row[*tuple[Any, ...]]:
    """Let a command line in as `person`, or refuse it. Raises NotFound."""
    row = find(connection, code, now)
    devices.decide(connection, row.digest, person, approved)
    note(connection, "device_approved" if approved else "device_refused", person, now, machine=row.machine)
    return row


def ask(connection: Connection, secret: str, now: int) -> NewToken | Exhausted | Conflict | Denied | NotFound:
    """What a command line is told: its token, this once; or the error that says what to do.

    The errors are returned, not raised, so that what is written with them is kept.
    """
    digest = digest_of(secret)
    row = devices.find_by_digest(connection, digest, now)
    if row is None:
        return NotFound("expired_token", "The code is too old, or was used; begin anew with: atoll login.")
    if row.asked_at is not None and now < row.asked_at + row.gap * 1_000_000:
        devices.asked(connection, digest, row.gap + GAP, now)
        return Exhausted("slow_down", "You ask too often; wait a little longer.", retry_after=row.gap + GAP)
    if row.approved is None:
        devices.asked(connection, digest, row.gap, now)
        return Conflict("authorization_pending", "Nobody has let this command line in yet.")
    devices.drop(connection, digest)
    known = people.find_person(connection, row.person)
    if not row.approved or known is None or known.disabled_at is not None:
        return Denied("access_denied", "It was refused to let this command line in.")
    return issue_token(connection, row.person, row.machine, now + TOKEN_SECONDS * 1_000_000, now)
