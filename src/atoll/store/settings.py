"""Facts about this platform that are made once and never change."""

import secrets
from collections.abc import Callable
from contextlib import suppress

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.core.ids import new_instance_id
from atoll.store.tables import settings

_INSTANCE = "instance"
_RELAY_KEY = "relay_key"


def instance_id(connection: Connection) -> str:
    """The platform's id, made at the first call. All replicas on one database have the same."""
    return _once(connection, _INSTANCE, new_instance_id)


def relay_key(connection: Connection) -> str:
    """What the secrets between the relay and its attempts are made of; made at the first call."""
    return _once(connection, _RELAY_KEY, lambda: secrets.token_hex(32))


def find(connection: Connection) -> tuple[str | None, str | None]:
    """The platform's id and the relay's key, None for what was not made yet. It only reads."""
    return _value(connection, _INSTANCE), _value(connection, _RELAY_KEY)


def _value(connection: Connection, name: str) -> str | None:
    found = connection.execute(select(settings.c.value).where(settings.c.name == name)).scalar()
    return None if found is None else str(found)


def _once(connection: Connection, name: str, make: Callable[[], str]) -> str:
    found = _value(connection, name)
    if found is None:
        # another replica may be first; then its value is read below
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(settings).values(name=name, value=make()))
        found = _value(connection, name)
        assert found is not None
    return found
