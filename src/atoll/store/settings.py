"""Facts about this platform that are made once and never change."""

from contextlib import suppress

from sqlalchemy import Connection, insert, select
from sqlalchemy.exc import IntegrityError

from atoll.core.ids import new_instance_id
from atoll.store.tables import settings


def instance_id(connection: Connection) -> str:
    """The platform's id, made at the first call. All replicas on one database have the same."""
    query = select(settings.c.value).where(settings.c.name == "instance")
    found = connection.execute(query).scalar()
    if found is None:
        # another replica may be first; then its value is read below
        with suppress(IntegrityError), connection.begin_nested():
            connection.execute(insert(settings).values(name="instance", value=new_instance_id()))
        found = connection.execute(query).scalar_one()
    return str(found)
