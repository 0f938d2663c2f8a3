"""The project tree in the store, on both databases: kept as it is given, told of, and counted right."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path

from sqlalchemy import Connection, event

from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.store import events, jobs, projects, reservations
from atoll.store.database import Database
from atoll.store.reservations import Reservation
from tests.support.rows import NOW, add, do, end, new_array, new_job, opened, place, run

GPU = ("a100", "gpu")
ROOT = TreeNode("institute", quotas={GPU: Limit(64_000)})
PHYSICS = TreeNode("physics", "institute", 2.5, {GPU: Limit(2**60, 16_000, 0), ("cpu", "memory"): Limit(0)})
ASTRO = TreeNode(
    "astro", "physics", people=("ana", "ben"), managers=("ana", "zoe"), clearance=("internal",), description="Stars",
    ends=date(2030, 1, 31),
)  # fmt: skip
TREE = [ASTRO, ROOT, PHYSICS]


def test_a_tree_is_kept_as_it_is_given(database: Database) -> None:
    assert database.read_now(projects.load) == []
    assert database.read_now(projects.revision) == 0
    assert do(database, lambda connection: projects.replace(connection, TREE, NOW))
    assert database.read_now(projects.load) == TREE
    assert database.read_now(projects.revision) == 1


def test_the_order_of_names_is_the_same_on_every_database(database: Database) -> None:
    names = ["B", "_", "a", "c.d", "cd"]
    tree = [TreeNode("B"), *(TreeNode(name, "B", people=tuple(names)) for name in names[1:])]
    do(database, lambda connection: projects.replace(connection, tree, NOW))
    assert database.read_now(projects.load) == tree
    assert not do(database, lambda connection: projects.replace(connection, tree, NOW))


def test_each_change_raises_the_revision_and_is_told_in_the_same_transaction(database: Database) -> None:
    do(database, lambda connection: projects.replace(connection, TREE, NOW))
    cursor = database.read_now(events.last_id)
    assert not do(database, lambda connection: projects.replace(connection, TREE, NOW))
    assert database.read_now(events.last_id) == cursor
    changed = [replace(ASTRO, people=("ana",)), ROOT, replace(PHYSICS, quotas={})]
    assert do(database, lambda connection: projects.replace(connection, changed, NOW))
    assert database.read_now(projects.load) == changed
    assert database.read_now(projects.revision) == 2
    [said] = database.read_now(lambda connection: events.after(connection, cursor))
    assert (said.kind, said.data["projects"], said.data["revision"]) == ("tree", ["astro", "physics"], 2)
    told = database.read_now(lambda connection: events.changed(connection, cursor, 10))
    assert (told.tree, told.sites, told.reservations, told.jobs) == (True, False, False, [])


def test_a_tree_can_be_taken_away_again(database: Database) -> None:
    do(database, lambda connection: projects.replace(connection, TREE, NOW))
    assert do(database, lambda connection: projects.replace(connection, [], NOW))
    assert database.read_now(projects.load) == []


def test_people_come_and_go_and_managers_stay_managers(database: Database) -> None:
    def change(connection: Connection) -> bool:
        return projects.change_people(connection, "astro", {"zoe", "carl", "ana"}, {"ben", "nobody"}, NOW)

    do(database, lambda connection: projects.replace(connection, TREE, NOW))
    assert do(database, change)
    [astro, *_] = database.read_now(projects.load)
    assert (astro.people, astro.managers) == (("ana", "carl", "zoe"), ("ana", "zoe"))
    assert not do(database, change)
    assert do(database, lambda connection: projects.change_people(connection, "astro", (), {"ana", "zoe"}, NOW))
    [astro, *_] = database.read_now(projects.load)
    assert (astro.people, astro.managers) == (("carl",), ("ana", "zoe"))
    assert database.read_now(projects.revision) == 3


def test_usage_is_what_attempts_hold_room_for_but_opportunistic_ones(database: Database) -> None:
    def fill(connection: Connection) -> None:
        single, array, other, spare, _, ended = add(
            connection,
            new_job(project="astro", cpu=2000, gpu=1000, nodes=3), new_array("0-3", project="astro"),
            new_job(project="chem"), new_job(project="astro", class_="opportunistic"), new_job(project="astro"),
            new_job(project="astro"),
        )  # fmt: skip
        run(connection, single)
        place(connection, array, "0-1")
        place(connection, other)
        place(connection, spare)
        end(connection, run(connection, ended))

    do(database, fill)
    assert database.read_now(projects.usage) == {
        ("astro", "cpu"): Resources(2000 * 3 + 2 * 1000, 5 << 20, 3000),
        ("chem", "cpu"): Resources(1000, 1 << 20, 0),
    }


def test_what_has_not_ended_is_counted_by_project_with_arrays_as_one(database: Database) -> None:
    def fill(connection: Connection) -> None:
        _, _, array, ended = add(
            connection, new_job(project="astro"), new_job(), new_array("0-3", project="astro"), new_job(project="old")
        )
        run(connection, array, "0-1")
        end(connection, run(connection, ended))

    do(database, fill)
    assert database.read_now(projects.unended) == {"astro": 2, None: 1}


def test_counting_what_has_not_ended_reads_nothing_else(tmp_path: Path) -> None:
    statements: list[str] = []

    def explained(connection: Connection) -> str:
        event.listen(connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        projects.unended(connection)
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statements[0]}", (2**40,))
        return "\n".join(str(row) for row in plan)

    with opened(f"sqlite:///{tmp_path / 'atoll.db'}") as database:
        assert "jobs_unended" in database.read_now(explained)


def test_a_task_has_its_arrays_project(database: Database) -> None:
    [array] = do(database, lambda connection: add(connection, new_array("0-3", project="astro")))
    do(database, lambda connection: place(connection, array, "1"))
    [task] = database.read_now(lambda connection: jobs.get_tasks(connection, array))
    assert (task.task, task.project) == (1, "astro")


def test_reservations_are_kept_until_they_are_over_and_told_of(database: Database) -> None:
    wanted = Reservation(
        0, "course", "event", "a100", None, 2, Resources(), "astro", ("ana",), NOW, NOW + 100, "admin", NOW
    )  # fmt: skip
    amounts = replace(wanted, name="small", nodes=0, resources=Resources(1, 2, 3), site="here", starts_at=NOW - 5)
    first = do(database, lambda connection: reservations.add(connection, wanted))
    second = do(database, lambda connection: reservations.add(connection, amounts))
    found = database.read_now(lambda connection: reservations.load(connection, NOW + 99))
    assert found == [replace(amounts, id=second), replace(wanted, id=first)]
    assert database.read_now(lambda connection: reservations.load(connection, NOW + 100)) == []
    assert do(database, lambda connection: reservations.remove(connection, first, NOW))
    assert not do(database, lambda connection: reservations.remove(connection, first, NOW))
    assert database.read_now(lambda connection: reservations.get(connection, first)) is None
    told = database.read_now(lambda connection: events.changed(connection, 0, 10))
    assert (told.reservations, told.tree) == (True, False)
