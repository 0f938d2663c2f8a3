"""Submitting with a project tree: only to one's own projects, and never for more than they could have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.core.errors import AtollError, Denied, Invalid
from atoll.core.project import Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, Site, SiteReport, UsualWait
from atoll.core.spec import read_spec
from atoll.core.states import Outcome
from atoll.jobs.prepare import prepare_all
from atoll.jobs.projects import Projects
from atoll.scheduler.model import Demand
from atoll.store import jobs, projects, sites
from atoll.store.people import Principal
from tests.support.http import GIB, Served
from tests.support.rows import end, run

ROOT = TreeNode("institute", quotas={("cpu", "cpu"): Limit(4000)})
ASTRO = TreeNode("astro", "institute", people=("anna",))
OPTICS = TreeNode("optics", "institute", people=("anna",), quotas={("cpu", "cpu"): Limit(1000, 1000)})
OLD = TreeNode("old", "institute", people=("carl",), ends=date(1999, 12, 31))
LONE = TreeNode("lone", "institute", people=("dora",), ends=date(2999, 12, 31))
TREE = Projects([ROOT, ASTRO, OPTICS, OLD, LONE])


def refused(project: str | None, person: str) -> AtollError:
    with pytest.raises(AtollError) as error:
        TREE.choose(project, person, date(2026, 1, 1), "jobs.3.")
    assert error.value.field == "jobs.3.project"
    return error.value


def test_one_may_name_a_project_that_one_is_in() -> None:
    assert TREE.choose("astro", "anna", date(2026, 1, 1)) == "astro"


def test_who_is_in_one_project_need_not_name_it() -> None:
    assert TREE.choose(None, "dora", date(2026, 1, 1)) == "lone"


@pytest.mark.parametrize(
    ("project", "person", "status", "code", "words"),
    [
        (None, "anna", 422, "no_project", "name one: astro, optics."),
        (None, "eve", 403, "not_a_member", "in no project yet"),
        ("lone", "anna", 403, "not_a_member", "not in project lone; yours: astro, optics."),
        ("lone", "eve", 403, "not_a_member", "you are in no project yet."),
        ("opticks", "anna", 422, "no_such_project", "Did you mean 'optics'?"),
        ("institute", "anna", 422, "not_a_leaf", "name one of those: astro, optics, old, lone."),
        ("old", "carl", 403, "project_ended", "ended on 1999-12-31"),
    ],
)  # fmt: skip
def test_whoever_names_another_is_told_which_would_do(
    project: str | None, person: str, status: int, code: str, words: str
) -> None:
    error = refused(project, person)
    assert (error.status, error.code) == (status, code)
    assert words in error.sentence


def test_without_a_tree_any_project_will_do() -> None:
    assert Projects().choose("whatever", "anna", date(2026, 1, 1)) == "whatever"
    assert Projects().choose(None, "anna", date(2026, 1, 1)) is None


def test_a_project_that_has_ended_is_not_meant_by_who_names_none() -> None:
    over = TreeNode("over", "institute", people=("dora", "finn"), ends=date(1999, 12, 31))
    tree = Projects([ROOT, OLD, LONE, over])
    assert tree.choose(None, "dora", date(2026, 1, 1)) == "lone"
    with pytest.raises(Denied, match="all your projects have ended: over"):
        tree.choose(None, "finn", date(2026, 1, 1))


class _Noticed(dict[Any, Any]):
    """Tells when it is asked whether it has a key, before it answers."""

    def __init__(self, seen: Callable[[], None]) -> None:
        super().__init__()
        self._seen = seen

    def __contains__(self, key: object) -> bool:
        found = super().__contains__(key)
        self._seen()
        return found


def test_verdicts_stand_while_another_thread_judges_by_other_sites() -> None:
    flavor = Flavor("cpu", Resources(8000, GIB), Resources(8000, GIB))
    small = [Site("here", "fake", report=SiteReport((flavor,)))]
    large = [Site("here", "fake", report=SiteReport((replace(flavor, name="free"),)))]
    tree = Projects([ROOT, OPTICS])
    demand = Demand.of(read_spec({"command": ["true"], "cpu": 3}), "anna", 0)

    def meanwhile() -> None:
        tree.check_size("optics", demand, large)  # not governed there

    tree._verdicts = small, _Noticed(meanwhile)
    with pytest.raises(Invalid, match="more than project optics can ever"):
        tree.check_size("optics", demand, small)
    tree.check_size("optics", demand, large)
    with pytest.raises(Invalid):
        tree.check_size("optics", demand, small)


# ---- over HTTP


async def plant(served: Served, *nodes: TreeNode) -> None:
    await served.do(lambda connection: projects.replace(connection, nodes, 1))
    served.app.state.sites.forget()


async def submit(served: Served, person: str = "anna", **spec: Any) -> Any:
    async with served.client(person) as client:
        return await client.post("/api/v1/jobs", json={"command": ["true"], **spec})


async def test_every_way_in_holds_jobs_against_the_tree(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    assert (await submit(served, "bob")).json()["code"] == "not_a_member"
    async with served.client("bob") as bob:
        held = await bob.post("/api/v1/jobs?hold=true", json={"command": ["true"], "array": "0-9"})
        assert held.json()["code"] == "not_a_member"
    async with served.client("anna") as anna:
        jobs = [{"command": ["true"]}, {"command": ["true"], "project": "astor"}]
        bulk = (await anna.post("/api/v1/jobs/bulk", json={"jobs": jobs})).json()
        assert (bulk["field"], bulk["code"]) == ("jobs.1.project", "no_such_project")
        number = await served.submit(array="0-9")
        assert (await anna.get(f"/api/v1/jobs/{number}")).json()["project"] == "astro"


async def test_a_change_of_the_tree_is_heard_of(served: Served) -> None:
    await served.add_site()
    assert (await submit(served, project="anything")).status_code == 201
    await plant(served, ROOT, ASTRO)
    assert (await submit(served, project="anything")).status_code == 422
    await plant(served)
    assert (await submit(served, project="anything")).status_code == 201


async def test_submissions_that_come_together_read_a_changed_tree_once(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    loads: list[int] = []
    load = projects.load

    def counted(connection: Connection) -> list[TreeNode]:
        loads.append(1)
        return load(connection)

    monkeypatch.setattr(projects, "load", counted)
    answers = await asyncio.gather(*(submit(served) for _ in range(20)))
    assert {answer.status_code for answer in answers} == {201}
    assert len(loads) == 1


async def test_who_was_let_in_by_another_replica_need_not_wait(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    assert (await submit(served, "bob")).json()["code"] == "not_a_member"
    await served.do(lambda connection: projects.change_people(connection, "astro", ["bob"], (), 2))
    assert (await submit(served, "bob")).status_code == 201, "no word of it came here"


@pytest.mark.parametrize("bulk", [False, True])
async def test_who_was_let_out_by_another_replica_submits_nothing_any_more(served: Served, bulk: bool) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    assert (await submit(served)).status_code == 201
    await served.do(lambda connection: projects.change_people(connection, "astro", (), ["anna"], 2))
    if bulk:
        async with served.client() as anna:
            refused = await anna.post("/api/v1/jobs/bulk", json={"jobs": [{"command": ["true"]}]})
    else:
        refused = await submit(served)
    assert refused.json()["code"] == "not_a_member", "no word of it came here"


async def test_a_reading_from_before_a_change_is_not_taken_for_news(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = served.app.state.sites
    read, go_on = threading.Event(), threading.Event()
    load = sites.load

    def slow(connection: Connection) -> list[Site]:
        found = load(connection)
        read.set()
        assert go_on.wait(30)
        return found

    monkeypatch.setattr(sites, "load", slow)
    view.forget()
    late = asyncio.create_task(view.refresh())
    await asyncio.to_thread(read.wait, 30)
    monkeypatch.setattr(sites, "load", load)
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    view.forget()
    await view.refresh()
    go_on.set()
    await late
    assert "astro" in view.projects.tree
    assert not view.warnings(), "the site that was added meanwhile is forgotten again"


async def test_what_was_accepted_is_told_again_after_its_project_has_ended(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO)
    async with served.client(**{"idempotency-key": "k"}) as anna:
        first = await anna.post("/api/v1/jobs", json={"command": ["true"]})
        await plant(served, ROOT, replace(ASTRO, ends=date(1999, 12, 31)))
        again = await anna.post("/api/v1/jobs", json={"command": ["true"]})
        other = await anna.post("/api/v1/jobs", json={"command": ["false"]})
    assert (again.status_code, again.json(), again.headers["idempotent-replay"]) == (201, first.json(), "true")
    assert (other.status_code, other.json()["code"]) == (409, "idempotency_key_reused")
    assert (await submit(served)).json()["code"] == "project_ended"


async def test_more_than_a_project_could_ever_have_is_refused_with_the_most_that_it_could(served: Served) -> None:
    await served.add_site(cpu=8)
    await plant(served, ROOT, ASTRO, OPTICS)
    told = (await submit(served, project="optics", cpu=3)).json()
    assert (told["code"], told["field"]) == ("beyond_quota", "cpu")
    assert told["detail"] == (
        "cpu: 3 CPU in all is more than project optics can ever have of cpu, even borrowing: 2 CPU at most."
    )
    assert (await submit(served, project="optics", cpu=2)).status_code == 201
    assert (await submit(served, project="optics", cpu=8, **{"class": "opportunistic"})).status_code == 201
    assert (await submit(served, project="astro", cpu=5)).status_code == 201
    assert (await submit(served, project="astro", cpu=6)).status_code == 422
    assert (await submit(served, project="optics", memory=15 * GIB)).status_code == 201, "memory is not governed"


async def change(served: Served, job: int, person: str = "anna", **changes: Any) -> Any:
    async with served.client(person) as client:
        return await client.patch(f"/api/v1/jobs/{job}", json=changes)


async def test_a_waiting_job_goes_to_another_project_as_if_it_were_submitted_to_it(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO, OPTICS, LONE)
    job = await served.submit(project="astro", cpu=2)
    assert (await change(served, job, project="lone")).json()["code"] == "not_a_member"
    refused = await change(served, job, "root", project="lone")
    assert refused.json()["code"] == "not_a_member", "its owner must be in it, whoever changes it"
    assert (await change(served, job, project="opticks")).json()["field"] == "project"
    changed = (await change(served, job, project="optics")).json()
    assert (changed["project"], changed["spec"]["project"]) == ("optics", "optics")
    large = await served.submit(project="astro", cpu=3)
    assert (await change(served, large, project="optics")).json()["code"] == "beyond_quota"
    await served.do(lambda connection: run(connection, job))
    assert (await change(served, job, project="astro")).json()["code"] == "started_already"


async def test_tasks_that_run_stay_in_the_project_that_they_were_started_in(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO, OPTICS)
    array = await served.submit(project="astro", array="0-3")

    def begin(connection: Connection) -> None:
        end(connection, run(connection, array, "0"), Outcome.FAILED, retries=1)
        run(connection, array, "1")

    await served.do(begin)
    assert (await change(served, array, project="optics")).status_code == 200
    tasks = await served.database.read(lambda connection: jobs.get_tasks(connection, array))
    assert {task.task: task.project for task in tasks} == {0: "optics", 1: "astro"}


async def test_the_project_of_a_job_is_judged_by_the_tree_as_it_is(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO, OPTICS)
    job = await served.submit(project="astro")
    await served.do(lambda connection: projects.change_people(connection, "optics", (), ["anna"], 2))
    assert (await change(served, job, project="optics")).json()["code"] == "not_a_member"


async def test_new_constraints_leave_no_flavor_on_which_the_project_could_never_have_so_much(served: Served) -> None:
    await served.add_site(region="here")
    await served.do(lambda connection: add_flavor(connection, "free"))
    await plant(served, ROOT, OPTICS)
    job = await served.submit(project="optics", cpu=3)
    refused = await change(served, job, constraints=["region=here"])
    assert (refused.json()["code"], refused.json()["field"]) == ("beyond_quota", "cpu")


def add_flavor(connection: Connection, name: str) -> None:
    """A site `there` that has it."""
    size = Resources(8000, 16 * GIB)
    sites.put(connection, "there", "fake", {}, {})
    abilities = frozenset({Ability.FILES, Ability.OTHER_PERSONS})
    sites.set_report(connection, "there", SiteReport((Flavor(name, size, size),), abilities), 1)


async def test_a_project_goes_only_where_its_data_may(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, ASTRO, replace(OPTICS, clearance=("patients",)))
    refused = (await submit(served, project="optics")).json()
    assert (refused["code"], refused["field"]) == ("impossible", "project")
    assert "is not cleared for patients" in refused["detail"]
    job = await served.submit(project="astro")
    assert (await change(served, job, project="optics")).json()["field"] == "project"
    await served.do(lambda connection: sites.put(connection, "there", "fake", {}, {}, clearance=["patients"]))
    report = (await served.database.read(sites.load))[0].report
    assert report is not None
    await served.do(lambda connection: sites.set_report(connection, "there", report, 1))
    served.app.state.sites.forget()
    accepted = await submit(served, project="optics")
    assert accepted.status_code == 201
    async with served.client("anna") as client:
        told = (await client.get(f"/api/v1/jobs/{accepted.json()['id']}/why")).json()
    assert [fact for fact in told["facts"] if "is not cleared for patients" in fact]
    assert "Site there could run it once it has room." in told["facts"]


async def test_what_sites_will_have_is_not_known_before_they_have_reported(served: Served) -> None:
    await plant(served, ROOT, ASTRO, OPTICS)
    assert (await submit(served, project="optics", cpu=3)).status_code == 201


async def test_the_check_costs_next_to_nothing_for_each_job(served: Served) -> None:
    await served.add_site()
    await plant(served, ROOT, *(TreeNode(f"p{number}", "institute", people=("anna",)) for number in range(1000)))
    view = served.app.state.sites
    await view.refresh()
    who = Principal("anna", False)
    specs = [read_spec({"command": ["true"], "project": "p500"}) for _ in range(5000)]
    began = time.perf_counter()
    prepare_all(specs, who, view, served.platform)
    with_tree = time.perf_counter() - began
    view.projects = Projects()
    began = time.perf_counter()
    prepare_all(specs, who, view, served.platform)
    without = time.perf_counter() - began
    print(f"{(with_tree - without) / 5000 * 1e6:.1f} µs for each job beside {without / 5000 * 1e6:.1f} µs")
    assert (with_tree - without) / 5000 < 200e-6


async def test_why_tells_how_long_jobs_usually_wait_at_a_remote_site(served: Served) -> None:
    await served.add_site("far", remote="true")
    await served.do(lambda connection: sites.set_waits(connection, {"far": UsualWait(720), "gone": UsualWait(60)}))
    assert (await facts(served))[0] == "Site far could run it once it has room."
    await served.add_site("here")
    assert (await facts(served))[0].endswith("what is shorter than the usual wait, 12m 0s, stays local.")
    assert (await facts(served, walltime="10m")) == [
        "Site far has a usual wait of 12m 0s, longer than the job runs; it stays local.",
        "Site here could run it once it has room.",
    ]


async def facts(served: Served, **spec: Any) -> list[str]:
    """What is told of a new job."""
    job = await served.submit(**spec)
    async with served.client("anna") as client:
        found: list[str] = (await client.get(f"/api/v1/jobs/{job}/why")).json()["facts"]
    return found
