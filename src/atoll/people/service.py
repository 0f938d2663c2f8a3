"""Use cases of persons and tokens."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection

from atoll.core.errors import Denied, Invalid, NotFound
from atoll.faces.http.auth import digest_of
from atoll.store import people
from atoll.store.people import Principal

TOKEN_FILE = "token"  # noqa: S105 - the name of the file
_PREFIX = "atl_"


@dataclass(frozen=True)
class NewToken:
    """A token that was just made; `text` is shown this once and kept nowhere."""

    id: str
    person: str
    name: str
    created_at: int
    expires_at: int | None
    text: str


def ensure_person(connection: Connection, name: str, role: str, now: int) -> None:
    """Make the person known with `role` ("administrator" or "member"), unless it is known already."""
    if people.find_person(connection, name) is None:
        people.put_person(connection, name, role, None, now)


def issue_token(connection: Connection, person: str, name: str, expires_at: int | None, now: int) -> NewToken:
    """Make a token for a person that is known. Times in microseconds."""
    token = NewToken(secrets.token_hex(6), person, name, now, expires_at, _PREFIX + secrets.token_urlsafe(32))
    people.insert_token(connection, token.id, person, name, digest_of(token.text), now, expires_at)
    return token


def create_token(
    connection: Connection, who: Principal, name: str, expires_at: int | None, person: str | None, now: int
) -> NewToken:
    """Make a token for oneself; administrators also for others, who become members where they are not known yet.

    Raises Denied, and Invalid for a time of expiry that is over.
    """
    owner = person if person is not None else who.person
    if owner != who.person and not who.administrator:
        raise Denied(
            "administrators_only", "Only an administrator may make a token for another person; leave out `person`.",
            field="person",
        )  # fmt: skip
    if expires_at is not None and expires_at <= now:
        raise Invalid("expired", "The token would have expired already; give more seconds.", field="expires_in")
    ensure_person(connection, owner, "member", now)
    return issue_token(connection, owner, name, expires_at, now)


def revoke_token(connection: Connection, who: Principal, token_id: str, now: int) -> None:
    """End one of one's tokens; administrators end anybody's. Raises NotFound."""
    if not people.revoke_token(connection, token_id, None if who.administrator else who.person, now):
        raise NotFound("no_token", f"There is no valid token {token_id!r}; see: atoll token ls.", field="token")


def local_token(connection: Connection, person: str, folder: Path, now: int) -> str:
    """The token of the person who started the platform, an administrator; kept in a file only its owner can read.

    The same one is found again at each start, as long as it is valid.
    """
    path = folder / TOKEN_FILE
    known = people.find_person(connection, person)
    if known is None or known.role != "administrator":
        people.put_person(connection, person, "administrator", known.account if known else None, now)
    if known is not None and known.disabled_at is not None:  # whoever has the data folder has the platform
        people.change_person(connection, person, disabled_at=None)
    if path.exists():
        text = path.read_text().strip()
        found = people.find_by_digest(connection, digest_of(text), now)
        if found is not None and found.person == person:
            return text
    token = issue_token(connection, person, "local", None, now)
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_CREAT | os.O_WRONLY | os.O_EXCL, 0o600), "w") as file:
        file.write(token.text + "\n")
    part.replace(path)
    return token.text
