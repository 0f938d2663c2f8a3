"""Flavors, reservations and the queue's figures over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import httpx2
import pytest

from atoll.store import arrays, events, jobs
from tests.support.http import GIB, Served
from tests.support.rows import add, new_array, new_job, run

RESERVATIONS = "/api/v1/reservations"


def at(served: Served, hours: float) -> str:
    return (served.clock() + timedelta(hours=hours)).isoformat()


async def reserve(
    served: Served, begin: float = 1, end: float = 2, person: str = "root", **more: Any
) -> httpx2.Response:
    wanted = {
        "name": "course", "flavor": "cpu", "nodes": 1, "people": ["anna"], "starts_at": at(served, begin),
        "ends_at": at(served, end), **more,
    }  # fmt: skip
    async with served.client(person) as client:
        return await client.post(RESERVATIONS, json=wanted)


async def test_a_reservation_is_kept_until_it_is_removed(served: Served) -> None:
    await served.add_site()
    made = await reserve(served)
    assert made.status_code == 201
    async with served.client("anna") as anna, served.client("root") as root:
        [told] = (await anna.get(RESERVATIONS)).json()["items"]
        assert told == made.json()
        assert (told["nodes"], told["people"], told["created_by"]) == (1, ["anna"], "root")
        assert (await anna.delete(f"{RESERVATIONS}/{told['id']}")).status_code == 403
        assert (await root.delete(f"{RESERVATIONS}/{told['id']}")).status_code == 204
        assert (await root.delete(f"{RESERVATIONS}/{told['id']}")).status_code == 404
        assert (await anna.get(RESERVATIONS)).json()["items"] == []
    found = await served.database.read(lambda connection: events.after(connection, 0, kinds=["reservation"]))
    assert [event.state for event in found] == ["added", "removed"]


async def test_only_administrators_reserve(served: Served) -> None:
    assert (await reserve(served, person="anna")).status_code == 403


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({"begin": -1, "end": 1}, "starts_at", "in the past"),
        ({"begin": 2, "end": 1}, "ends_at", "before it begins"),
        ({"flavor": "cpuu"}, "flavor", "Did you mean 'cpu'?"),
        ({"site": "hare"}, "site", "Did you mean 'here'?"),
        ({"nodes": 2}, "nodes", "2 nodes, with other reservations, are more than there are: 1."),
        ({"nodes": 0, "cpu": 9}, "cpu", "9 CPU, with other reservations, is more than there is: 8 CPU."),
        ({"nodes": 0}, None, "Give either nodes"),
        ({"cpu": 1}, None, "Give either nodes"),
        ({"people": []}, None, "Say for whom"),
        ({"purpose": "maintenance"}, None, "for nobody"),
        ({"name": "a b"}, "name", "cannot stand here"),
    ],
)
async def test_what_cannot_be_reserved_is_refused_by_field(
    served: Served, changes: dict[str, Any], field: str | None, words: str
) -> None:
    await served.add_site()
    refused = await reserve(served, **changes)
    assert refused.status_code == 422
    assert refused.json().get("field") == field
    assert words in refused.json()["detail"]


async def test_reservations_at_the_same_time_share_what_there_is(served: Served) -> None:
    await served.add_site()
    assert (await reserve(served, 1, 3, nodes=0, cpu=5)).status_code == 201
    assert (await reserve(served, 3, 4, nodes=0, cpu=5)).status_code == 201, "one after the other"
    assert (await reserve(served, 2, 4, nodes=0, cpu=3)).status_code == 201
    assert (await reserve(served, 2.5, 5, nodes=0, cpu=1, site="here")).json()["field"] == "cpu"
    await served.add_site("there")
    assert (await reserve(served, 2.5, 5, nodes=0, cpu=1, site="here")).status_code == 201


async def test_whole_nodes_and_amounts_are_not_kept_of_the_same_room(served: Served) -> None:
    await served.add_site(cpu=8)
    await served.add_site("there", cpu=8)
    assert (await reserve(served, nodes=1)).status_code == 201
    assert (await reserve(served, nodes=0, cpu=8)).status_code == 201
    refused = (await reserve(served, nodes=0, cpu=1)).json()
    assert refused["field"] == "cpu"
    assert "17 CPU, with other reservations, is more than there is: 16 CPU" in refused["detail"]
    assert (await reserve(served, nodes=1)).json()["field"] == "nodes"


async def test_people_of_a_reservation_are_told_to_those_whom_it_concerns(served: Served) -> None:
    await served.add_site()
    tree = {"all": {}, "physics": {"parent": "all"}, "astro": {"parent": "physics", "people": ["bob"]}}
    async with served.client("root") as root, served.client("anna") as anna, served.client("bob") as bob:
        await root.put("/api/v1/projects", json={"projects": tree})
        await reserve(served, 1, 2, people=["anna"])
        await reserve(served, 2, 3, people=["carl"], project="physics")
        told = [[kept["people"] for kept in (await each.get(RESERVATIONS)).json()["items"]] for each in (anna, bob)]
    assert told == [[["anna"], None], [None, ["carl"]]]


async def test_a_reservation_that_is_sent_again_is_made_once(served: Served) -> None:
    await served.add_site()
    wanted = {
        "name": "course", "flavor": "cpu", "nodes": 1, "people": ["anna"], "starts_at": at(served, 1),
        "ends_at": at(served, 2),
    }  # fmt: skip
    async with served.client("root", **{"idempotency-key": "k"}) as root:
        first = await root.post(RESERVATIONS, json=wanted)
        again = await root.post(RESERVATIONS, json=wanted)
        other = await root.post(RESERVATIONS, json={**wanted, "name": "other"})
        assert len((await root.get(RESERVATIONS)).json()["items"]) == 1
    assert (again.status_code, again.json(), again.headers["idempotent-replay"]) == (201, first.json(), "true")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")


async def test_flavors_say_what_there_is_and_what_quotas_give_out(served: Served) -> None:
    await served.add_site(cpu=4)
    await served.add_site("there", cpu=8)
    tree = {"a": {}, "b": {"parent": "a", "quotas": {"cpu": {"cpu": 3}}}}
    async with served.client("root") as root:
        await root.put("/api/v1/projects", json={"projects": tree})
        [flavor] = (await root.get("/api/v1/flavors")).json()["items"]
        assert (await root.get("/api/v1/flavors/cpu")).json() == flavor
        assert (await root.get("/api/v1/flavors/gpu")).status_code == 404
    assert (flavor["nodes"], flavor["total"]) == (2, {"cpu": "12", "memory": 32 * GIB, "gpu": "0"})
    assert flavor["quota"] == {"cpu": "3", "memory": None, "gpu": None}
    assert [site["site"] for site in flavor["sites"]] == ["here", "there"]


async def test_tasks_of_a_running_array_that_is_held_do_not_count_as_waiting(served: Served) -> None:
    def fill(connection: Any) -> None:
        [array] = add(connection, new_array("0-9"))
        run(connection, array, "0-2")
        row = jobs.get(connection, array)
        assert row is not None
        arrays.set_hold(connection, row, True, 1)

    await served.do(fill)
    async with served.client("anna") as anna:
        told = (await anna.get("/api/v1/queue")).json()
    assert (told["held"], told["waiting"], told["running"]) == (7, 0, 3)


async def test_the_queue_counts_jobs_and_tasks_by_class_and_project(served: Served) -> None:
    def fill(connection: Any) -> None:
        _, array, single, *_ = add(
            connection, new_job(), new_array("0-9", project="a"), new_job(project="a"),
            new_array("0-4", project="a", state="held", hold=True), new_job(class_="interactive"), new_job(),
        )  # fmt: skip
        run(connection, array, "0-2")
        run(connection, single)

    await served.do(fill)
    async with served.client("anna") as anna:
        told = (await anna.get("/api/v1/queue")).json()
    assert told == {
        "held": 5, "waiting": 10, "running": 4, "borrowing": [],
        "items": [
            {"class": "interactive", "project": None, "held": 0, "waiting": 1, "running": 0},
            {"class": "batch", "project": "a", "held": 5, "waiting": 7, "running": 4},
            {"class": "batch", "project": None, "held": 0, "waiting": 2, "running": 0},
        ],
    }  # fmt: skip
