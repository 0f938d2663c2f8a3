"""The outbox: whoever reads by cursor sees every event, in whatever order transactions commit."""

from __future__ import annotations

import threading

import pytest
from sqlalchemy import Connection

from atoll.store import events
from atoll.store.database import Database
from tests.support.rows import NOW, add, do, new_job, opened


def _event(state: str) -> dict[str, object]:
    return {"at": NOW, "kind": "job", "owner": "anna", "state": state}


def test_a_reader_that_resumes_gets_the_event_of_a_writer_that_began_first_and_committed_last(
    database: Database, database_url: str
) -> None:
    began, may_commit = threading.Event(), threading.Event()

    def slow(connection: Connection) -> None:
        events.append(connection, [_event("slow")])
        began.set()
        assert may_commit.wait(30)

    def fast(connection: Connection) -> None:
        events.append(connection, [_event("fast")])

    with opened(database_url) as other:  # another replica
        first = database.write_soon(slow)
        assert began.wait(30)
        second = other.write_soon(fast)
        # the second writer cannot pass the first; until it commits a reader sees neither
        assert other.read_now(lambda connection: events.after(connection, 0)) == []
        assert not second.done()
        may_commit.set()
        first.result(30)
        seen = other.read_now(lambda connection: events.after(connection, 0, limit=1))
        cursor = seen[-1].id
        second.result(30)
        rest = other.read_now(lambda connection: events.after(connection, cursor))
    assert [event.state for event in (*seen, *rest)] == ["slow", "fast"]


def test_ids_rise_in_the_order_of_commits_with_many_writers(database: Database, database_url: str) -> None:
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        cursor = 0
        while True:
            finished = done.is_set()
            page = database.read_now(lambda connection, cursor=cursor: events.after(connection, cursor))  # type: ignore[misc]
            seen.extend(event.id for event in page)
            cursor = seen[-1] if seen else 0
            if finished and not page:
                return

    reader = threading.Thread(target=read)
    reader.start()
    with opened(database_url) as other:
        futures = [
            writer.write_soon(lambda connection: events.append(connection, [_event("x"), _event("y")]))
            for _ in range(50)
            for writer in (database, other)
        ]
        for future in futures:
            future.result(60)
    done.set()
    reader.join(60)
    assert len(seen) == len(set(seen)) == 200
    assert seen == sorted(seen)


def test_a_transaction_that_fails_leaves_no_event(database: Database) -> None:
    def fail(connection: Connection) -> None:
        events.append(connection, [_event("never")])
        raise LookupError

    with pytest.raises(LookupError):
        do(database, fail)
    do(database, lambda connection: events.append(connection, [_event("after")]))
    assert [event.state for event in database.read_now(lambda connection: events.after(connection, 0))] == ["after"]


def test_what_fails_takes_nothing_with_it_that_was_committed_together(database: Database) -> None:
    gate = threading.Event()
    blocker = database.write_soon(lambda connection: gate.wait(30))  # the rest gathers behind it

    def fail(connection: Connection) -> None:
        add(connection, new_job(name="bad"))
        raise LookupError

    good = database.write_soon(lambda connection: add(connection, new_job(name="good")))
    bad = database.write_soon(fail)
    better = database.write_soon(lambda connection: add(connection, new_job(name="better")))
    gate.set()
    assert blocker.result(30)
    with pytest.raises(LookupError):
        bad.result(30)
    ids = [*good.result(30), *better.result(30)]
    found = database.read_now(lambda connection: events.after(connection, 0))
    assert [event.job_id for event in found] == ids


def test_the_newest_event_survives_every_purge_so_that_cursors_stay_true(database: Database) -> None:
    do(database, lambda connection: events.append(connection, [_event("a"), _event("b"), _event("c")]))
    newest = database.read_now(events.last_id)
    assert do(database, lambda connection: events.purge(connection, NOW + 1, 100)) == 2
    do(database, lambda connection: events.append(connection, [_event("d")]))
    assert [event.state for event in database.read_now(lambda connection: events.after(connection, newest))] == ["d"]
