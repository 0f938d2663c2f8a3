"""What a job takes in stays as long as the job is known, however long it waits."""

from __future__ import annotations

from sqlalchemy import Connection

from atoll.store import files, purge
from atoll.store.database import Database

OLD, NOW = 1_000, 2_000
CONTENT = "a" * 64


def test_an_old_file_of_a_known_job_is_not_purged(database_url: str) -> None:
    database = Database.open(database_url)

    def send(connection: Connection) -> None:
        files.put(connection, CONTENT, 3, "ada", OLD)
        files.set_inputs(connection, [(7, CONTENT), (7, CONTENT)])

    database.write_soon(send).result()
    assert database.read_now(lambda connection: files.unused(connection, NOW, 10)) == []
    database.write_soon(lambda connection: purge.remove_jobs(connection, [7])).result()
    assert database.read_now(lambda connection: files.unused(connection, NOW, 10)) == [CONTENT]
    database.close()
