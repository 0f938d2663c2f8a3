"""Brings a database's schema up to date; called when a database is opened."""

import os
from pathlib import Path

from sqlalchemy import URL, Connection, create_engine, text
from sqlalchemy.pool import NullPool

_FOLDER = Path(__file__).parent / "migrations"
_LOCK = 0x41544F4C4C  # "ATOLL": the advisory lock under which one replica at a time migrates


def upgrade(url: URL) -> None:
    """Create the schema, or bring it up to date; one process at a time. Does nothing where it is."""
    if url.get_backend_name() == "sqlite" and url.database:
        created = os.open(url.database, os.O_CREAT | os.O_RDWR, 0o600)
        os.close(created)
    engine = create_engine(url, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_lock(:key)"), {"key": _LOCK})
                connection.commit()
            else:
                connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            _run_migrations(connection)
    finally:
        engine.dispose()


def _run_migrations(connection: Connection) -> None:
    # imported here: alembic is needed for a moment at the start only, and costs memory for good
    if _is_current(connection):
        return
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_FOLDER))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
    connection.commit()


def _is_current(connection: Connection) -> bool:
    """Whether the newest migration has been applied, found out without alembic."""
    newest = max(path.stem.split("_")[0] for path in (_FOLDER / "versions").glob("[0-9]*.py"))
    exists = connection.dialect.has_table(connection, "alembic_version")
    applied = connection.execute(text("SELECT version_num FROM alembic_version")).scalar() if exists else None
    connection.rollback()
    return applied == newest
