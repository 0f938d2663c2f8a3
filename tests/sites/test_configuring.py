"""Sites are added, changed, drained and removed over HTTP, by administrators alone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from atoll.client.models import SiteFlavor
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, Node, Opening, SiteReport, UsualWait
from atoll.core.spec import JobClass
from atoll.core.states import Outcome
from atoll.drivers.base import DriverSetup
from atoll.drivers.fake import FakeDriver
from atoll.drivers.fake.behaviour import vanished
from atoll.store import events, sites
from tests.support.http import Served
from tests.support.rows import end, run

SITES = "/api/v1/sites"
TOY: dict[str, Any] = {"name": "toy", "driver": "fake", "labels": {"region": "eu"}, "config": {"cpus": "4"}}


async def put(served: Served, person: str = "root", **changes: Any) -> Any:
    file = {**TOY, **changes}
    async with served.client(person) as client:
        return await client.put(f"{SITES}/{file['name']}", json=file)


async def test_a_site_is_added_once_and_changed_by_the_same_request(served: Served) -> None:
    first = await put(served)
    assert (first.status_code, first.json()["identity"], first.json()["health"]) == (201, "owner", "unknown")
    again = await put(served)
    assert again.status_code == 200
    changed = await put(served, identity="shared", labels={"region": "us"})
    assert (changed.json()["identity"], changed.json()["labels"]["region"]) == ("shared", "us")
    revisions = await served.database.read(sites.revisions)
    assert revisions == {"toy": 2}, "what changed nothing must restart nothing"
    told = await served.database.read(lambda connection: events.after(connection, 0, kinds=["site"]))
    assert [event.data["health"] for event in told] == ["configured", "configured"]


async def test_the_file_comes_back_as_it_was_to_administrators_only(served: Served) -> None:
    rest: dict[str, Any] = {
        "identity": {"map": {"anna": "hpc-anna"}}, "backlog": {"batch": 7}, "clearance": ["internal"],
        "price": {"cpu": 0.01, "gpu": 2.5}, "energy": 40.5,
    }  # fmt: skip
    await put(served, **rest)
    async with served.client("root") as root, served.client("anna") as anna:
        got = (await root.get(f"{SITES}/toy/file")).json()
        assert got == {**TOY, **rest}
        assert (await anna.get(f"{SITES}/toy/file")).status_code == 403
        assert (await anna.get(f"{SITES}/toy")).json()["identity"] == "mapped"
        assert (await root.get(f"{SITES}/nothing/file")).status_code == 404


async def test_members_change_nothing(served: Served) -> None:
    await put(served)
    assert (await put(served, "anna", labels={})).status_code == 403
    async with served.client("anna") as anna:
        assert (await anna.patch(f"{SITES}/toy", json={"drained": True})).status_code == 403
        assert (await anna.delete(f"{SITES}/toy")).status_code == 403
        assert (await anna.post(f"{SITES}/toy/describe")).status_code == 403
        assert (await anna.get(f"{SITES}/toy")).json()["labels"]["region"] == "eu"


async def test_a_file_for_another_name_and_wrong_fields_are_refused_by_name(served: Served) -> None:
    async with served.client("root") as root:
        other = await root.put(f"{SITES}/other", json=TOY)
        assert (other.status_code, other.json()["field"]) == (422, "name")
        wrong = await root.put(f"{SITES}/toy", json={**TOY, "identity": "everyone"})
        assert (wrong.status_code, wrong.json()["field"]) == (422, "identity")
        garbage = await root.put(f"{SITES}/toy", content=b"{", headers={"content-type": "application/json"})
        assert garbage.status_code == 422
        assert (await root.patch(f"{SITES}/none", json={"drained": True})).status_code == 404
        assert (await root.delete(f"{SITES}/none")).status_code == 404
    assert await served.database.read(sites.revisions) == {}


async def test_a_drained_site_says_so_and_works_again_when_told(served: Served) -> None:
    await served.add_site("here")
    async with served.client("root") as root:
        assert (await root.patch(f"{SITES}/here", json={"drained": True})).json()["drained"] is True
        assert (await root.get(SITES)).json()["items"][0]["drained"] is True
        assert (await root.patch(f"{SITES}/here", json={"drained": False})).json()["drained"] is False


async def test_a_site_with_jobs_is_not_removed_and_gets_no_other_driver(served: Served) -> None:
    abilities = frozenset({Ability.OTHER_PERSONS})
    await served.add_site("toy", abilities=abilities)
    job = await served.submit()
    [attempt] = await served.database.write(lambda connection: run(connection, job, site="toy"))
    refused = await put(served, driver="process", config={})
    assert (refused.status_code, refused.json()["code"]) == (409, "site_in_use")
    async with served.client("root") as root:
        kept = await root.delete(f"{SITES}/toy")
        assert (kept.status_code, kept.json()["code"]) == (409, "site_in_use")
        assert "1 attempts" in kept.json()["detail"]
        await served.database.write(lambda connection: end(connection, [attempt], Outcome.SUCCEEDED))
        assert (await root.delete(f"{SITES}/toy")).status_code == 204
        assert (await root.get(f"{SITES}/toy")).status_code == 404


async def test_the_machine_of_a_replica_is_not_configured_from_outside(served: Served) -> None:
    await served.database.write(lambda connection: sites.put(connection, "mine", "process", {}, {}, local=True))
    refused = await put(served, name="mine")
    assert (refused.status_code, refused.json()["code"]) == (409, "local_site")
    async with served.client("root") as root:
        assert (await root.delete(f"{SITES}/mine")).json()["code"] == "local_site"


async def test_a_site_is_asked_at_once_and_its_silence_is_told(served: Served) -> None:
    await put(served)
    fake = FakeDriver(DriverSetup("toy", "aaaaa", served.platform.files.folder, {"cpus": "4"}))
    async with served.client("root") as root:
        nobody = (await root.post(f"{SITES}/toy/describe")).json()
        assert (nobody["answers"], nobody["flavors"]) == (False, [])
        served.drivers["toy"] = fake
        told = (await root.post(f"{SITES}/toy/describe")).json()
        assert (told["answers"], told["flavors"][0]["total"]["cpu"]) == (True, "4")
        fake.engine.behave(vanished("The login node is down."))
        silent = (await root.post(f"{SITES}/toy/describe")).json()
        assert (silent["answers"], silent["message"]) == (False, "The login node is down.")
        assert (await root.post(f"{SITES}/none/describe")).status_code == 404


async def test_a_job_for_a_site_that_was_added_just_now_is_taken(served: Served) -> None:
    """What submissions know of the sites is a moment old, but not older than what was changed here."""
    whole = Resources(4000, 2**33)
    report = SiteReport((Flavor("cpu", whole, whole),), frozenset(Ability))
    job = {"command": ["true"], "constraints": ["site=other"]}
    async with served.client("root") as root:
        await put(served, identity="shared")
        await served.database.write(lambda connection: sites.set_report(connection, "toy", report, 1))
        refused = await root.post("/api/v1/jobs", json=job)
        assert (refused.status_code, refused.json()["code"]) == (422, "impossible")
        await put(served, name="other", identity="shared")
        assert (await root.post("/api/v1/jobs", json=job)).status_code == 201


async def test_a_job_for_what_another_replica_learned_of_a_site_just_now_is_taken(served: Served) -> None:
    small, large = Resources(4000, 2**33), Resources(8000, 2**35)
    job = {"command": ["true"], "cpu": 6}
    async with served.client("root") as root:
        await put(served, identity="shared")
        report = SiteReport((Flavor("cpu", small, small),), frozenset(Ability))
        await served.database.write(lambda connection: sites.set_report(connection, "toy", report, 1))
        assert (await root.post("/api/v1/jobs", json=job)).json()["code"] == "impossible"
        grown = SiteReport((Flavor("cpu", large, large),), frozenset(Ability))
        await served.database.write(lambda connection: sites.set_report(connection, "toy", grown, 1))
        answer = await root.post("/api/v1/jobs", json=job)
        assert answer.status_code == 201, f"no word of it came here: {answer.text}"


async def test_nodes_that_atoll_chooses_are_told_of_one_site_and_not_in_the_list(served: Served) -> None:
    whole = Resources(4000, 2**33, 2000)
    nodes = Node("n1", "gpu", whole), Node("n2", "gpu", Resources(500), open=False)
    report = SiteReport((Flavor("gpu", whole, whole),), nodes=nodes)
    await put(served)
    await served.database.write(lambda connection: sites.set_report(connection, "toy", report, 1))
    (kept,) = await served.database.read(sites.load)
    assert kept.report == report
    async with served.client("anna") as anna:
        assert (await anna.get(f"{SITES}/toy")).json()["nodes"] == [
            {"name": "n1", "flavor": "gpu", "open": True, "resources": {"cpu": "4", "memory": 2**33, "gpu": "2"}},
            {"name": "n2", "flavor": "gpu", "open": False, "resources": {"cpu": "500m", "memory": 0, "gpu": "0"}},
        ]
        assert "nodes" not in (await anna.get(SITES)).json()["items"][0]


async def test_a_site_says_when_its_engine_expects_room(served: Served) -> None:
    whole, moment = Resources(4000, 2**33, 2000), datetime(2026, 5, 1, 12, 30, 0, 5, UTC)
    opening = Opening(Resources(2000, 2**32, 1000), moment, moment - timedelta(hours=2))
    report = SiteReport((Flavor("gpu", whole, whole, openings=(opening,)), Flavor("cpu", whole, whole)))
    await put(served)
    await served.database.write(lambda connection: sites.set_report(connection, "toy", report, 1))
    (kept,) = await served.database.read(sites.load)
    assert kept.report == report
    async with served.client("anna") as anna:
        gpu, cpu = (await anna.get(f"{SITES}/toy")).json()["flavors"]
    assert gpu["openings"] == [
        {"room": {"cpu": "2", "memory": 2**32, "gpu": "1"}, "at": "2026-05-01T12:30:00.000005Z",
         "asked_at": "2026-05-01T10:30:00.000005Z"}
    ]  # fmt: skip
    assert cpu["openings"] == []
    assert SiteFlavor.model_validate(gpu).openings[0].at == moment


async def test_a_site_says_what_decides_whether_jobs_go_there(served: Served) -> None:
    told: dict[str, Any] = {"clearance": ["patients", "internal"], "price": {"cpu": 0.5, "gpu": 2}, "energy": 40}
    document = (await put(served, **told)).json()
    assert document["clearance"] == ["internal", "patients"]
    assert (document["price"], document["energy"]) == ({"cpu": 0.5, "gpu": 2}, 40)
    assert document["usual_wait"] == {"all": 0, "of_class": {}}
    usual = UsualWait(600, {JobClass.BATCH: 900})
    await served.do(lambda connection: sites.set_waits(connection, {"toy": usual}))
    async with served.client("anna") as anna:
        found = (await anna.get(f"{SITES}/toy")).json()
    assert found["usual_wait"] == {"all": 600, "of_class": {"batch": 900}}
