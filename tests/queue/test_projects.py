"""The project tree over HTTP: planned, applied, exported, told; changed by those who may."""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import httpx2
import pytest
from sqlalchemy import Connection

from atoll.core.project import TreeNode
from atoll.store import events, projects
from tests.support.http import GIB, Served
from tests.support.rows import add, new_job, place

TREE = "/api/v1/projects"
INSTITUTE: dict[str, Any] = {
    "institute": {"quotas": {"cpu": {"cpu": 2}}},
    "physics": {"parent": "institute", "weight": 2, "quotas": {"cpu": {"cpu": {"nominal": 4, "lending": 2}}}},
    "astro": {"parent": "physics", "people": ["anna"], "managers": ["bob"]},
    "chemistry": {"parent": "institute", "quotas": {"cpu": {"cpu": 2, "memory": "8Gi"}}},
}


async def put(served: Served, tree: dict[str, Any], person: str = "root", **more: Any) -> httpx2.Response:
    query = "?dry_run=true" if more.pop("dry_run", False) else ""
    async with served.client(person) as client:
        return await client.put(TREE + query, json={"projects": tree, **more})


async def get(served: Served, path: str = TREE, person: str = "anna") -> Any:
    async with served.client(person) as client:
        return (await client.get(path)).json()


def quota(project: Any, resource: str = "cpu") -> dict[str, int]:
    return next(item for item in project["quotas"] if item["resource"] == resource)


async def test_a_plan_says_what_would_change_and_changes_nothing(served: Served) -> None:
    await served.add_site()
    plan = (await put(served, INSTITUTE, dry_run=True)).json()
    assert (plan["applied"], plan["revision"], plan["over"]) == (False, 0, [])
    assert [(line["kind"], line["sentence"]) for line in plan["changes"]][2:] == [
        ("add", "astro: below physics; people anna; managers bob"),
        ("add", "chemistry: below institute; cpu cpu 2; cpu memory 8Gi"),
    ]
    assert (await get(served))["items"] == []


async def test_an_applied_tree_is_told_as_it_is(served: Served) -> None:
    await served.add_site()
    plan = (await put(served, INSTITUTE, revision=0)).json()
    assert (plan["applied"], plan["revision"], len(plan["changes"])) == (True, 1, 4)
    told = await get(served)
    assert told["revision"] == 1
    assert [item["name"] for item in told["items"]] == ["institute", "chemistry", "physics", "astro"]
    institute, chemistry, physics, astro = told["items"]
    assert quota(institute) == {
        "flavor": "cpu", "resource": "cpu", "nominal": 2000, "borrowing": None, "lending": None, "quota": 8000,
        "usage": 0, "available": 6000, "borrowed": 0, "lent": 0,
    }  # fmt: skip
    assert quota(chemistry, "memory")["nominal"] == 8 * GIB
    assert quota(physics)["available"] == 8000
    assert (astro["takes_jobs"], physics["takes_jobs"], astro["member"]) == (True, False, True)
    assert (quota(astro)["quota"], quota(astro)["available"]) == (0, 8000), "what it may borrow is told, too"
    [event] = await served.database.read(lambda connection: events.after(connection, 0, kinds=["tree"]))
    assert event.data["count"] == 4


async def test_the_export_is_the_file_that_was_applied(served: Served) -> None:
    await put(served, INSTITUTE)
    told = await get(served, "/api/v1/tree", "root")
    assert told == {"revision": 1, "projects": INSTITUTE}
    again = (await put(served, told["projects"], revision=1)).json()
    assert (again["applied"], again["changes"], again["revision"]) == (False, [], 1)


async def test_every_difference_is_a_line(served: Served) -> None:
    await put(served, INSTITUTE)
    changed = {
        "institute": {"quotas": {"cpu": {"cpu": 2}}},
        "physics": {"parent": "institute", "quotas": {"cpu": {"cpu": {"nominal": 4, "borrowing": "500m"}}}},
        "astro": {"parent": "physics", "people": ["carl"], "managers": ["bob"], "ends": "2030-01-31"},
        "optics": {"parent": "physics"},
    }
    plan = (await put(served, changed, dry_run=True)).json()
    assert [f"{line['kind']} {line['sentence']}" for line in plan["changes"]] == [
        "remove chemistry",
        "add optics: below physics",
        "change physics weight: 2 -> 1",
        "change physics cpu cpu: 4 (lending 2) -> 4 (borrowing 500m)",
        "change astro ends: none -> 2030-01-31",
        "change astro people: +carl, -anna",
    ]


async def test_whoever_planned_on_an_older_tree_is_told(served: Served) -> None:
    await put(served, INSTITUTE)
    late = await put(served, {}, revision=0)
    assert (late.status_code, late.json()["code"]) == (409, "tree_changed")
    assert (await put(served, {}, revision="1")).status_code == 422


async def test_only_administrators_change_the_tree(served: Served) -> None:
    assert (await put(served, INSTITUTE, "anna")).status_code == 403
    async with served.client("anna") as anna:
        assert (await anna.get("/api/v1/tree")).status_code == 403


async def test_mistakes_are_told_all_at_once_by_project_and_field(served: Served) -> None:
    await served.add_site()
    wrong = await put(served, {"a": {"weight": 0}, "b": {"parent": "x"}})
    assert wrong.status_code == 422
    assert [item["field"] for item in wrong.json()["errors"]] == ["projects.a.weight", "projects.b.parent"]
    flavors = await put(served, {"a": {"quotas": {"cppu": {"cpu": 1}, "cpu": {"cpu": 1}}}})
    assert flavors.json()["field"] == "projects.a.quotas.cppu.cpu"
    assert "Did you mean 'cpu'?" in flavors.json()["detail"]


async def test_flavors_are_not_held_against_sites_that_have_said_nothing(served: Served) -> None:
    plan = (await put(served, INSTITUTE, dry_run=True)).json()
    assert plan["warnings"] == ["No site has said yet what it has, so that the flavors cpu may be wrong."]


async def test_a_limit_that_means_nothing_is_warned_of(served: Served) -> None:
    await served.add_site()
    tree = {
        "a": {},
        "b": {"parent": "a", "quotas": {"cpu": {"cpu": {"nominal": 1, "lending": 5}}}},
        "c": {"parent": "b"},
    }
    [warning] = (await put(served, tree, dry_run=True)).json()["warnings"]
    assert warning.startswith("projects.b.quotas.cpu.cpu.lending: 5 is more than all that b has")


async def fill(served: Served, *cpus: int, project: str = "astro") -> None:
    def work(connection: Any) -> None:
        for cpu in cpus:
            place(connection, add(connection, new_job(project=project, cpu=cpu * 1000, memory=0))[0])

    await served.do(work)


async def test_a_quota_cut_below_what_runs_evicts_nobody_and_says_who_is_over(served: Served) -> None:
    await served.add_site()
    await put(served, INSTITUTE)
    await fill(served, 3)
    cut = {**INSTITUTE, "physics": {"parent": "institute", "quotas": {"cpu": {"cpu": {"nominal": 1, "borrowing": 0}}}}}
    plan = (await put(served, cut)).json()
    assert plan["applied"] is True
    assert plan["over"] == [
        "physics uses 3 CPU of cpu, more than its quota of 1 CPU; nothing is evicted.",
        "astro uses 3 CPU of cpu, more than its quota of 0 CPU; nothing is evicted.",
    ]
    assert quota(await get(served, f"{TREE}/physics"))["available"] == -2000


async def test_a_project_with_jobs_does_not_go_but_the_whole_tree_may(served: Served) -> None:
    await put(served, INSTITUTE)
    await fill(served, 1)
    without = {name: entry for name, entry in INSTITUTE.items() if name != "astro"}
    assert "astro (1)" in (await put(served, without, dry_run=True)).json()["warnings"][0]
    assert (await put(served, without)).json()["code"] == "project_in_use"
    divided = {**INSTITUTE, "astro": {"parent": "physics"}, "stars": {"parent": "astro"}}
    assert (await put(served, divided)).json()["code"] == "project_in_use"
    assert (await put(served, {})).json()["applied"] is True


async def test_jobs_from_before_the_tree_are_warned_of_and_can_be_given_a_project(served: Served) -> None:
    first = await served.submit(project="whatever")
    await served.submit()
    await put(served, {})
    for dry_run in (True, False):
        plan = (await put(served, INSTITUTE, dry_run=dry_run)).json()
        assert plan["applied"] is not dry_run
        assert plan["warnings"][0] == (
            "Jobs that have not ended and are in no project of this tree: 2, without a project (1), whatever (1). "
            "Those that wait may wait for ever; give them one: atoll set JOB --project NAME."
        )
    async with served.client() as anna:
        changed = await anna.patch(f"/api/v1/jobs/{first}", json={"project": "astro"})
    assert (changed.status_code, changed.json()["project"]) == (200, "astro")
    assert (await put(served, INSTITUTE, dry_run=True)).json()["warnings"][0].split(": ")[1].startswith("1,")


async def test_a_tree_taken_away_and_given_again_strands_no_job_in_silence(served: Served) -> None:
    await put(served, INSTITUTE)
    await fill(served, 1)
    await put(served, {})
    without = {name: entry for name, entry in INSTITUTE.items() if name != "astro"}
    assert "astro (1)" in (await put(served, without)).json()["warnings"][0]


async def test_usage_says_who_borrows_and_who_lends(served: Served) -> None:
    await served.add_site()
    await put(served, INSTITUTE)
    await fill(served, 5, 2)
    items = {item["name"]: quota(item) for item in (await get(served))["items"]}
    assert (items["astro"]["usage"], items["astro"]["borrowed"], items["astro"]["available"]) == (7000, 7000, 1000)
    assert (items["physics"]["usage"], items["physics"]["borrowed"]) == (7000, 3000)
    assert (items["chemistry"]["lent"], items["chemistry"]["available"]) == (1000, 1000)
    queue = await get(served, "/api/v1/queue")
    assert (queue["held"], queue["waiting"], queue["running"]) == (0, 0, 2)
    assert queue["items"] == [{"class": "batch", "project": "astro", "held": 0, "waiting": 0, "running": 2}]
    assert queue["borrowing"] == [
        {"below": "institute", "flavor": "cpu", "resource": "cpu",
         "borrowers": [{"project": "physics", "amount": 3000}],
         "lenders": [{"project": "institute", "amount": 2000}, {"project": "chemistry", "amount": 1000}]},
        {"below": "physics", "flavor": "cpu", "resource": "cpu",
         "borrowers": [{"project": "astro", "amount": 7000}],
         "lenders": [{"project": "physics", "amount": 4000}]},
    ]  # fmt: skip


async def test_managers_and_administrators_change_who_is_in_a_project(served: Served) -> None:
    await put(served, INSTITUTE)
    await served.add_site()

    async def change(person: str, project: str = "astro", **body: Any) -> httpx2.Response:
        async with served.client(person) as client:
            return await client.patch(f"{TREE}/{project}", json=body)

    assert (await change("anna", add=["anna"])).json()["code"] == "managers_only"
    changed = (await change("bob", add=["bob", "carl"], remove=["anna"])).json()
    assert (changed["people"], changed["managers"], changed["member"]) == (["bob", "carl"], ["bob"], True)
    assert (await change("root", "physics", add=["anna"])).json()["code"] == "not_a_leaf"
    unknown = await change("root", "astor", add=["anna"])
    assert (unknown.status_code, "Did you mean 'astro'?" in unknown.json()["detail"]) == (404, True)
    assert (await change("root", add=[""])).status_code == 422
    async with served.client("anna") as anna:
        refused = await anna.post("/api/v1/jobs", json={"command": ["true"]})
    assert refused.json()["code"] == "not_a_member", "it must work at once"


async def test_a_person_is_let_in_without_reading_the_tree_in_the_transaction(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(served, INSTITUTE)
    writing: list[bool] = []
    load = projects.load

    def watched(connection: Connection) -> list[TreeNode]:
        writing.append(threading.current_thread().name == "atoll-write")
        return load(connection)

    monkeypatch.setattr(projects, "load", watched)
    async with served.client("bob") as bob:
        assert (await bob.patch(f"{TREE}/astro", json={"add": ["carl"]})).json()["people"] == ["anna", "carl"]
        await bob.get(TREE)
        await bob.get(f"{TREE}/astro")
        await bob.get("/api/v1/queue")
        await bob.get("/api/v1/flavors")
    assert writing == [False]


async def test_what_is_kept_from_lending_is_part_of_what_people_are_told(served: Served) -> None:
    await served.add_site()
    own = {"parent": "all", "quotas": {"cpu": {"cpu": {"nominal": 4, "lending": 0}}}}
    await put(served, {"all": {}, "astro": own, "optics": own})
    await fill(served, 3)
    whole = quota(await get(served, f"{TREE}/all"))
    assert (whole["quota"], whole["usage"]) == (8000, 3000)
    assert (whole["available"], whole["borrowed"]) == (0, 0), "nothing of it is there for others"
    assert (await get(served, "/api/v1/flavors/cpu"))["quota"]["cpu"] == "8"


async def test_who_goes_with_reservations_is_warned_of(served: Served) -> None:
    await served.add_site()
    await put(served, INSTITUTE)
    wanted = {
        "name": "course", "flavor": "cpu", "nodes": 1, "project": "astro",
        "starts_at": (served.clock() + timedelta(hours=1)).isoformat(),
        "ends_at": (served.clock() + timedelta(hours=2)).isoformat(),
    }  # fmt: skip
    async with served.client("root") as root:
        number = (await root.post("/api/v1/reservations", json=wanted)).json()["id"]
    without = {name: entry for name, entry in INSTITUTE.items() if name != "astro"}
    [warning] = (await put(served, without, dry_run=True)).json()["warnings"]
    assert warning.endswith(f"keep room for nobody: course ({number}, astro).")
    assert (await put(served, INSTITUTE, dry_run=True)).json()["warnings"] == []


async def test_who_is_in_a_project_is_told_to_its_people_and_managers_only(served: Served) -> None:
    await put(served, {**INSTITUTE, "astro": {"parent": "physics", "people": ["anna"]}})
    assert (await get(served, f"{TREE}/astro", "anna"))["people"] == ["anna"]
    stranger = await get(served, f"{TREE}/astro", "bob")
    assert (stranger["people"], stranger["managers"], stranger["member"]) == (None, None, False)
    async with served.client("bob") as bob:
        assert (await bob.get(f"{TREE}/nothing")).status_code == 404
