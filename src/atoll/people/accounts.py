"""What administrators do with accounts: add people, give roles, disable and enable."""

from typing import Any

from sqlalchemy import Connection, Row

from atoll.core.errors import Conflict, NotFound
from atoll.people.login import end_everything, new_link, note
from atoll.people.model import Role
from atoll.store import people


def add(connection: Connection, person: str, role: Role, now: int, by: str) -> tuple[str, int]:
    """Make a person known. Returns the secret of a link to log in by, and until when it is good. Raises Conflict."""
    if people.find_person(connection, person) is not None:
        raise Conflict(
            "person_known", f"There is a person {person!r} already; for a way in: atoll user link {person}.",
            field="person",
        )  # fmt: skip
    people.put_person(connection, person, role, None, now)
    note(connection, "added", person, now, by=by, role=role)
    return new_link(connection, person, now, by)


def get(connection: Connection, person: str) -> Row[*tuple[Any, ...]]:
    """The person's row. Raises NotFound."""
    row = people.find_person(connection, person)
    if row is None:
        raise NotFound("no_person", f"There is no person {person!r}; see: atoll user ls.", field="person")
    return row


def change(
    connection: Connection, person: str, role: Role | None, disabled: bool | None, now: int, by: str
) -> Row[*tuple[Any, ...]]:
    """Give a role, disable or enable; None leaves it. Returns the row as it is then. Raises NotFound, Conflict."""
    before = get(connection, person)
    if role is not None and role != before.role:
        people.change_person(connection, person, role=role)
        note(connection, "role_changed", person, now, by=by, role=role)
    if disabled is not None and disabled != (before.disabled_at is not None):
        people.change_person(connection, person, disabled_at=now if disabled else None)
        note(connection, "disabled" if disabled else "enabled", person, now, by=by)
        if disabled:
            end_everything(connection, person)
    if people.count_administrators(connection) == 0:
        raise Conflict("last_administrator", f"{person} is the last administrator; first make another.", field="person")
    return get(connection, person)
