"""Logging in: by a password, or by a link that is good once; and out again.

Every way in ends in `start_session`. Whoever proves in another way who somebody is (OpenID Connect) calls that.
"""

import ipaddress
import json
import secrets
from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.errors import Conflict, Denied, Exhausted, NotFound
from atoll.faces.http.auth import digest_of
from atoll.faces.http.platform import Platform
from atoll.people import passwords
from atoll.people.passwords import Passwords
from atoll.store import devices, events, logins, people, tries
from atoll.store.tries import Limit

LINK_SECONDS = 24 * 3600
_FREE = 5
"""Wrong passwords for a name from one address before the next try has to wait, at most `_LONGEST` seconds."""
_FREE_BY_ADDRESS, _FREE_BY_NAME = 20, 20
"""The same for one address, whatever names; and for one name, wherever from."""
_LONGEST = 300
_LONGEST_BY_NAME = 30
"""Shorter: somebody who tries from everywhere must not keep out the one whose name it is."""


def note(connection: Connection, what: str, person: str | None, now: int, **details: Any) -> None:
    """Write into the outbox what happened to an account, for example `login`."""
    data = json.dumps(details) if details else None
    events.append(connection, [{"at": now, "kind": "account", "owner": person, "state": what, "data": data}])


def start_session(connection: Connection, person: str, now: int, *, former: str | None = None, **details: Any) -> str:
    """Log a person in in a browser; `former` is the secret of the login that it had. Returns the secret for its cookie.

    `now` in microseconds; `details` go into the event. Raises Denied where the person is disabled.
    """
    row = people.find_person(connection, person)
    if row is None or row.disabled_at is not None:
        raise Denied("disabled", "This account is disabled; ask an administrator.")
    if former is not None:
        logins.end(connection, digest_of(former))
    secret = secrets.token_urlsafe(32)
    logins.start(connection, digest_of(secret), person, now)
    note(connection, "login", person, now, **details)
    return secret


def end_session(connection: Connection, secret: str, now: int) -> None:
    """Log out; nothing where nobody is logged in by this secret."""
    person = logins.end(connection, digest_of(secret))
    if person is not None:
        note(connection, "logout", person, now)


def network_of(host: str | None) -> str:
    """What is counted as one address: that of IPv4, of IPv6 the 64 bits that one customer has to himself."""
    try:
        address = ipaddress.ip_address(host or "")
    except ValueError:
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((address, 64), strict=False))
    return str(address)


def _limits(name: str, host: str | None) -> list[Limit]:
    address = network_of(host)
    return [
        Limit(("name and address", name, address), _FREE, _LONGEST),
        Limit(("address", address), _FREE_BY_ADDRESS, _LONGEST),
        Limit(("name", name), _FREE_BY_NAME, _LONGEST_BY_NAME),
    ]


async def begin_try(platform: Platform, limits: list[Limit]) -> None:
    """Count a try. Raises Exhausted where there were too many in vain."""
    now = to_micros(platform.clock())
    wait = await platform.database.write(lambda connection: tries.begin(connection, limits, now))
    if wait:
        seconds = max(1, round(wait))
        shown = "a second" if seconds == 1 else f"{seconds} seconds"
        raise Exhausted("too_many_tries", f"That was tried in vain too often; try again in {shown}.", retry_after=wait)


async def _prove(platform: Platform, known: Passwords, name: str, password: str, host: str | None) -> str:
    """What is kept of the right password of an enabled person. Raises Denied, as slow for every reason; Exhausted."""
    limits = _limits(name, host)
    await begin_try(platform, limits)
    row = await platform.database.read(lambda connection: people.find_person(connection, name))
    kept: str | None = row.password if row is not None and row.disabled_at is None else None
    now = to_micros(platform.clock())
    if not await known.fits(kept, password) or kept is None:
        owner = name if row is not None else None  # an unknown name may be a password in the wrong field
        await platform.database.write(lambda connection: note(connection, "login_failed", owner, now, address=host))
        raise Denied("wrong_login", "The name or the password is wrong.", field="password")

    def right(connection: Connection) -> None:
        tries.take_back(connection, limits[1:])
        tries.forget(connection, limits[0])

    await platform.database.write(right)
    return kept


def _same(connection: Connection, name: str, kept: str) -> None:
    """Refuse where the password was changed, or the person disabled, while it was compared."""
    row = people.find_person(connection, name)
    if row is None or row.password != kept or row.disabled_at is not None:
        raise Denied("wrong_login", "The name or the password is wrong.", field="password")


async def log_in(
    platform: Platform, known: Passwords, name: str, password: str, *, host: str | None, former: str | None
) -> str:
    """Log in by a password. Returns the secret for the cookie. Raises Denied, Exhausted.

    `host` is the client's address, `former` the secret of the login that its browser had.
    """
    kept = await _prove(platform, known, name, password, host)
    anew = await known.keep(password) if passwords.is_outdated(kept) else None
    now = to_micros(platform.clock())

    def work(connection: Connection) -> str:
        _same(connection, name, kept)
        if anew is not None:
            people.change_person(connection, name, password=anew)
        return start_session(connection, name, now, former=former, address=host, by="password")

    return await platform.database.write(work)


async def change_password(
    platform: Platform, known: Passwords, name: str, present: str, wanted: str, host: str | None
) -> str:
    """Change one's own password: all one's logins end, but a new one for this browser, whose secret is returned.

    Raises Invalid for a password that is not taken, Denied for a wrong `present` one, Exhausted.
    """
    passwords.check(wanted, name)
    kept = await _prove(platform, known, name, present, host)
    anew = await known.keep(wanted)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> str:
        _same(connection, name, kept)
        _set_password(connection, name, anew, now)
        return start_session(connection, name, now, address=host, by="password")

    return await platform.database.write(work)


def _set_password(connection: Connection, person: str, kept: str, now: int) -> None:
    people.change_person(connection, person, password=kept)
    end_everything(connection, person)
    note(connection, "password_changed", person, now)


def end_everything(connection: Connection, person: str) -> None:
    """End the logins of a person, the link, and the command lines that were let in but have no token yet."""
    logins.end_all(connection, person)
    logins.drop_link(connection, person)
    devices.drop_all(connection, person)


def new_link(connection: Connection, person: str, now: int, by: str) -> tuple[str, int]:
    """A link's secret by which the person chooses a password and is logged in, and until when it is good.

    A former link is good no more. Raises NotFound, Conflict for a disabled person.
    """
    row = people.find_person(connection, person)
    if row is None:
        raise NotFound("no_person", f"There is no person {person!r}; see: atoll user ls.", field="person")
    if row.disabled_at is not None:
        raise Conflict("disabled", f"{person} is disabled; first: atoll user enable {person}.", field="person")
    secret, until = secrets.token_urlsafe(32), now + LINK_SECONDS * 1_000_000
    logins.put_link(connection, person, digest_of(secret), until)
    note(connection, "link_made", person, now, by=by)
    return secret, until


def first_link(connection: Connection, owner: str, now: int) -> str | None:
    """The secret of a link for the platform's owner, as long as no administrator has a password."""
    if people.count_administrators(connection, with_password=True):
        return None
    return new_link(connection, owner, now, "atoll up")[0]


async def whose_link(platform: Platform, secret: str) -> str:
    """Whose link it is; it stays good. Raises NotFound."""
    now = to_micros(platform.clock())
    person = await platform.database.read(_finder(secret, now))
    if person is None:
        raise _no_link()
    return person


def _finder(secret: str, now: int) -> Callable[[Connection], str | None]:
    return lambda connection: logins.find_link(connection, digest_of(secret), now)


def _no_link() -> NotFound:
    return NotFound(
        "no_link", "This link was used, replaced by a newer one, or is too old; ask an administrator for a new one."
    )


async def use_link(
    platform: Platform, known: Passwords, secret: str, wanted: str, *, host: str | None, former: str | None
) -> str:
    """Use up a link: set the person's password and log in. Returns the secret for the cookie.

    Raises NotFound, and Invalid for a password that is not taken: then the link stays good.
    """
    person = await whose_link(platform, secret)
    passwords.check(wanted, person)
    kept = await known.keep(wanted)
    now = to_micros(platform.clock())

    def work(connection: Connection) -> str:
        if _finder(secret, now)(connection) != person:  # somebody else was quicker
            raise _no_link()
        _set_password(connection, person, kept, now)
        return start_session(connection, person, now, former=former, address=host, by="link")

    return await platform.database.write(work)
