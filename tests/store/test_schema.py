"""The migrations make exactly the tables that the code knows."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection

from atoll.store.database import Database
from atoll.store.tables import metadata


def test_migrations_lead_to_the_tables_of_the_code(database_url: str) -> None:
    database = Database.open(database_url)

    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "target_metadata": metadata}
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), metadata))

    assert database.read_now(differences) == []
    database.close()


def test_opening_a_database_again_changes_nothing(database_url: str) -> None:
    Database.open(database_url).close()
    Database.open(database_url).close()
