"""Databases of earlier versions, with jobs in them, come up to date and their jobs go on."""

from __future__ import annotations

from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, MetaData, create_engine, insert, make_url, update

from atoll.core.resources import Resources
from atoll.core.site import UsualWait
from atoll.core.states import JobState
from atoll.store import jobs, migrate, people, projects, rooms, sites
from atoll.store.database import Database
from tests.support import rows
from tests.support.rows import NOW, do

ATTEMPT = "test0-0000000000000001"
JOB = {
    "owner": "anna", "name": "job", "class": "batch", "reason": "None", "cpu": 1000, "memory": 1 << 20, "gpu": 0,
    "nodes": 1, "submitted_at": NOW,
}  # fmt: skip
SPEC = '{"command":["true"],"walltime":7200,"grace":60}'
OLD: dict[str, list[dict[str, Any]]] = {
    "jobs": [
        {"id": 1, "spec": SPEC, "state": "queued", **JOB},
        {"id": 2, "spec": '{"command":["true"]}', "state": "running", "attempt_id": ATTEMPT, "attempts": 1, **JOB},
        {"id": 3, "spec": SPEC[:-1] + ',"array":"0-9"}', "state": "queued", "waiting": "1-9", "waiting_count": 9,
         "active_count": 0, "succeeded_count": 1, "task_count": 10, **JOB},
        {"id": 2**41, "array_id": 3, "task": 0, "state": "succeeded", "ended_at": NOW, "exit_code": 0, **JOB},
    ],
    "attempts": [
        {"id": ATTEMPT, "job_id": 2, "number": 1, "site": "here", "flavor": "cpu", "state": "running", "cpu": 1000,
         "memory": 1 << 20, "gpu": 0, "nodes": 1, "placed_at": NOW, "submitted_at": NOW, "started_at": NOW,
         "native_id": "7", "kept": True},
    ],
    "people": [{"name": "anna", "role": "administrator", "account": None, "created_at": NOW}],
    "tokens": [{"id": "ab", "person": "anna", "name": "laptop", "digest": bytes(32), "created_at": NOW}],
    "sites": [{"name": "here", "driver": "slurm", "labels": "{}", "config": "{}", "health": "ok"}],
}  # fmt: skip


def make_old(url: str, revision: str) -> None:
    """A database of an earlier version, with what that version wrote: an array, a job that waits, one that runs."""
    engine = create_engine(make_url(url))
    with engine.connect() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate._FOLDER))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        connection.commit()
        tables = MetaData()
        tables.reflect(connection)
        for name, values in OLD.items():
            for value in values:
                connection.execute(insert(tables.tables[name]).values(value))
        if "wait" in tables.tables["sites"].c:
            wait = {"0002": 600}.get(revision, '{"all": 600}')
            connection.execute(update(tables.tables["sites"]).values(wait=wait))
        connection.commit()
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002", "0003"])
def test_jobs_of_an_earlier_version_go_on(database_url: str, revision: str) -> None:
    make_old(database_url, revision)
    database = Database.open(database_url)

    def look(connection: Connection) -> None:
        waiting = {row.id: row for row in jobs.load_unended(connection, 0, 10)}
        assert sorted(waiting) == [1, 2, 3]
        assert (waiting[3].waiting, waiting[3].succeeded_count) == ("1-9", 1)
        if revision == "0001":
            assert [(waiting[number].walltime, waiting[number].grace) for number in (1, 2, 3)] == [
                (7200, 60), (None, 30), (7200, 60),
            ]  # fmt: skip
        (room,) = rooms.load(connection, None)
        assert (room.job_id, room.request) == (2, Resources(1000, 1 << 20))
        (site,) = sites.load(connection)
        assert (site.name, site.clearance, site.price) == ("here", frozenset(), None)
        assert site.wait == UsualWait(0 if revision == "0001" else 600)
        assert projects.load(connection) == []
        assert people.find_by_digest(connection, bytes(32), NOW) == people.Principal("anna", True, "ab")
        assert people.count_administrators(connection, with_password=True) == 0

    database.read_now(look)
    do(database, lambda connection: rows.end(connection, [ATTEMPT]))
    do(database, lambda connection: rows.place(connection, 1))
    do(database, lambda connection: rows.place(connection, 3, "1-2"))

    def states(connection: Connection) -> list[JobState]:
        return [rows.state(connection, number) for number in (1, 2)]

    assert database.read_now(states) == [JobState.PLACED, JobState.SUCCEEDED]
    database.close()
