"""Submitting: what is accepted, what is refused and how, alone, together and twice."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from atoll.core.site import Ability
from atoll.core.states import JobState, Outcome
from atoll.store import events, jobs
from atoll.store.arrays import ranges_of
from atoll.store.tables import jobs as table
from tests.support.http import GIB, Json, Served
from tests.support.rows import end, get, run, state

JOBS = "/api/v1/jobs"


async def _post(served: Served, body: Json, person: str = "anna", path: str = JOBS, **headers: str) -> Any:
    async with served.client(person, **headers) as client:
        return await client.post(path, json=body)


async def _count(served: Served) -> int:
    query = select(func.count()).select_from(table)
    return await served.database.read(lambda connection: connection.execute(query).scalar_one())


async def _row(served: Served, job_id: int) -> Any:
    return await served.database.read(lambda connection: get(connection, job_id))


async def test_a_job_is_queued_with_what_it_asked_for_and_its_defaults(served: Served) -> None:
    answer = await _post(served, {"command": "echo 'a b'", "cpu": "500m", "priority": 7, "labels": {"run": "1"}})
    assert answer.status_code == 201
    document = answer.json()
    assert answer.headers["location"] == f"{JOBS}/{document['id']}"
    assert (document["name"], document["state"], document["tasks"]) == ("echo", "queued", 1)
    row = await _row(served, document["id"])
    assert (row.owner, row.cpu, row.memory, row.priority, row.nodes) == ("anna", 500, GIB, 7, 1)
    assert json.loads(row.spec) == {
        "command": ["echo", "a b"], "cpu": "500m", "priority": 7, "labels": {"run": "1"}
    }  # fmt: skip


async def test_the_short_way_and_the_long_way_answer_the_same(served: Served) -> None:
    for body in ({"command": ["true"]}, {"comand": ["true"]}, {"command": ["true"], "dependencies": [99]}):
        short, long = await _post(served, body), await _post(served, body, path=f"{JOBS}?hold=false")
        assert short.status_code == long.status_code
        assert short.headers["content-type"] == long.headers["content-type"]
        if short.status_code == 201:
            assert short.json() | {"id": 0} == long.json() | {"id": 0}
        else:
            assert short.json() == long.json()
    async with served.client(None) as client:
        assert [(await client.post(path, json={})).status_code for path in (JOBS, f"{JOBS}?hold=true")] == [401, 401]


async def test_a_job_submitted_with_hold_waits_for_its_owner(served: Served) -> None:
    answer = await _post(served, {"command": ["true"]}, path=f"{JOBS}?hold=true")
    assert answer.json()["state"] == "held"
    assert (await _row(served, answer.json()["id"])).reason == "JobHeldUser"


async def test_a_begin_time_is_kept(served: Served) -> None:
    job = await served.submit(begin="2026-03-01T12:00:00+01:00")
    async with served.client() as client:
        assert (await client.get(f"{JOBS}/{job}")).json()["begin"] == "2026-03-01T11:00:00.000000Z"
    assert (await _row(served, job)).not_before == 1_772_362_800_000_000
    refused = await _post(served, {"command": ["true"], "begin": "0001-01-01T00:00:00+14:00"})
    assert (refused.status_code, refused.json()["field"]) == (422, "begin")


async def test_a_million_tasks_are_one_row(served: Served) -> None:
    answer = await _post(served, {"command": ["true"], "array": "0-999999%4"})
    assert answer.json()["tasks"] == 1_000_000
    row = await _row(served, answer.json()["id"])
    assert (row.waiting_count, row.width, len(ranges_of(row.waiting))) == (1_000_000, 4, 1_000_000)
    assert await _count(served) == 1


@pytest.mark.parametrize(
    ("body", "field", "hint"),
    [
        ({"comand": ["true"]}, "comand", "Did you mean 'command'?"),
        ({}, None, "either a command or a script"),
        ({"command": ["true"], "cpu": -1}, "cpu", "from 0 up"),
        ({"command": ["true"], "cpu": 10**30}, "cpu", "from 0"),
        ({"command": ["true"], "array": "5-1"}, "array", "write 1-5"),
        ({"command": ["true"], "name": "a\u0007b"}, "name", "printable"),
        ({"command": ["a\u0000b"]}, "command.0", "\\x00"),
        ({"command": ["true"], "priority": 2**70}, "priority", ""),
        ({"command": ["true"], "dependencies": ["7"]}, "dependencies.0.job", "there is no job 7"),
        ({"command": ["true"], "dependencies": ["sort"]}, "dependencies.0.job", "is not a job"),
        ({"command": ["true"], "cpu": 9}, "cpu", "the largest node has 8 (here)"),
        ({"command": ["true"], "memory": "17G"}, "memory", "the largest node has 16 GiB (here)"),
        ({"command": ["true"], "gpu": 1}, "gpu", "the largest node has 0 (here)"),
        ({"command": ["true"], "nodes": 2}, "nodes", "multinode"),
        ({"command": ["true"], "environment": {"image": "python:3"}}, "environment.image", "image"),
        ({"command": ["true"], "volumes": [{"name": "v", "path": "/v"}]}, "volumes", "volumes"),
        ({"command": ["true"], "secrets": [{"name": "s", "env": "S"}]}, "secrets", "secrets"),
        ({"command": ["true"], "ports": [{"port": 80}]}, "ports", "connect"),
        ({"command": ["true"], "constraints": ["region=mars"]}, "constraints", "region=mars"),
        ({"command": ["true"], "flavor": "gpu-a100"}, "flavor", "there is cpu"),
    ],
)
async def test_a_job_that_cannot_be_is_refused_naming_the_field_and_what_would_do(
    served: Served, body: Json, field: str | None, hint: str
) -> None:
    await served.add_site("here")
    answer = await _post(served, body)
    assert answer.status_code == 422, answer.text
    assert answer.json().get("field") == field
    assert hint in answer.json()["detail"]
    assert await _count(served) == 0


async def test_what_a_site_can_do_after_all_is_accepted(served: Served) -> None:
    await served.add_site("here")
    await served.add_site("cloud", abilities=frozenset({Ability.IMAGE, Ability.OTHER_PERSONS}), region="mars")
    job = await _post(
        served, {"command": ["true"], "environment": {"image": "python:3"}, "constraints": ["region=mars"]}
    )
    assert job.status_code == 201


async def test_while_there_is_no_site_a_job_waits_with_a_warning(served: Served) -> None:
    answer = await _post(served, {"command": ["true"], "cpu": 1000})
    assert answer.status_code == 201
    assert answer.json()["warnings"] == ["There is no site yet; the job waits until there is one."]


# ---- files


async def test_a_file_must_have_been_sent_by_this_very_person(served: Served) -> None:
    content = b"data"
    sha256 = hashlib.sha256(content).hexdigest()
    body = {"command": ["true"], "files_in": [{"path": "in.txt", "sha256": sha256}]}
    async with served.client("bob") as bob:
        assert (await bob.put(f"/api/v1/files/{sha256}", content=content)).status_code == 201
    refused = await _post(served, body)
    assert (refused.status_code, refused.json()["field"]) == (422, "files_in.0.sha256")
    async with served.client("anna") as anna:
        assert (await anna.put(f"/api/v1/files/{sha256}", content=content)).status_code == 201
    assert (await _post(served, body)).status_code == 201


# ---- dependencies


@pytest.mark.parametrize(
    ("kind", "outcome", "expected"),
    [
        ("ok", Outcome.SUCCEEDED, "queued"),
        ("ok", Outcome.FAILED, None),
        ("any", Outcome.FAILED, "queued"),
        ("not_ok", Outcome.FAILED, "queued"),
        ("not_ok", Outcome.SUCCEEDED, None),
    ],
)
async def test_a_dependency_on_a_job_that_ended_is_judged_at_once(
    served: Served, kind: str, outcome: Outcome, expected: str | None
) -> None:
    first = await served.submit()
    await served.do(lambda connection: end(connection, run(connection, first), outcome))
    answer = await _post(served, {"command": ["true"], "dependencies": [{"job": str(first), "on": kind}]})
    if expected is None:
        assert (answer.status_code, answer.json()["field"]) == (422, "dependencies.0.job")
        assert "could never start" in answer.json()["detail"]
    else:
        assert answer.json()["state"] == expected
        async with served.client() as client:
            document = (await client.get(f"{JOBS}/{answer.json()['id']}")).json()
        assert document["dependencies"] == [{"job": str(first), "on": kind, "met": True}]


async def test_a_dependency_on_a_job_that_has_not_ended_holds(served: Served) -> None:
    first = await served.submit()
    second = await _post(served, {"command": ["true"], "dependencies": f"ok:{first}"})
    assert second.json()["state"] == "held"
    await served.do(lambda connection: end(connection, run(connection, first)))
    assert await served.database.read(lambda connection: state(connection, second.json()["id"])) is JobState.QUEUED


async def test_tasks_of_an_array_can_be_waited_for_one_by_one(served: Served) -> None:
    array = await served.submit(array="0-5")
    await served.do(lambda connection: end(connection, run(connection, array, "0")))
    answer = await _post(served, {"command": ["true"], "dependencies": [f"{array}[0,2-3]"]})
    row = await _row(served, answer.json()["id"])
    assert (row.state, row.blockers) == ("held", 2)
    for reference, hint in ((f"{array}[9]", "no task 9"), (f"{answer.json()['id']}[0]", "is no array")):
        refused = await _post(served, {"command": ["true"], "dependencies": [reference]})
        assert refused.status_code == 422
        assert hint in refused.json()["detail"]


async def test_another_persons_job_is_no_job_to_wait_for(served: Served) -> None:
    hers = await served.submit("anna")
    for person, status in (("bob", 422), ("anna", 201), ("root", 201)):
        assert (await _post(served, {"command": ["true"], "dependencies": [hers]}, person)).status_code == status


# ---- many at once


async def test_jobs_submitted_together_may_wait_for_each_other_by_name(served: Served) -> None:
    body = {
        "jobs": [
            {"name": "last", "command": ["c"], "dependencies": ["middle", {"job": "first", "on": "any"}]},
            {"name": "first", "command": ["a"]},
            {"name": "middle", "command": ["b"], "dependencies": ["first"]},
        ]
    }
    answer = await _post(served, body, path=f"{JOBS}/bulk")
    assert answer.status_code == 201
    last, first, middle = answer.json()["ids"]

    def states(connection: Connection) -> list[JobState]:
        return [state(connection, job_id) for job_id in (first, middle, last)]

    assert await served.database.read(states) == [JobState.QUEUED, JobState.HELD, JobState.HELD]
    await served.do(lambda connection: end(connection, run(connection, first)))
    assert await served.database.read(states) == [JobState.SUCCEEDED, JobState.QUEUED, JobState.HELD]
    await served.do(lambda connection: end(connection, run(connection, middle)))
    assert await served.database.read(states) == [JobState.SUCCEEDED, JobState.SUCCEEDED, JobState.QUEUED]


@pytest.mark.parametrize(
    ("jobs_", "field", "hint"),
    [
        ([{"name": "a", "command": ["x"], "dependencies": ["b"]},
          {"name": "b", "command": ["x"], "dependencies": ["a"]}],
         "jobs.0.dependencies", "a -> b -> a"),
        ([{"name": "a", "command": ["x"], "dependencies": ["a"]}], "jobs.0.dependencies", "a -> a"),
        ([{"command": ["x"]}, {"command": ["x"], "cpu": "many"}], "jobs.1.cpu", "no amount"),
        ([{"command": ["x"]}, {"command": ["x"], "dependencies": ["12345"]}], "jobs.1.dependencies.0.job", "no job"),
        ([{"name": "a", "command": ["x"]}, {"name": "a", "command": ["x"]}, {"command": ["x"], "dependencies": ["a"]}],
         "jobs.2.dependencies.0.job", "different names"),
        ([{"command": ["x"], "cpu": 99}], "jobs.0.cpu", "largest node"),
        ([], "jobs", "at least 1"),
    ],
)  # fmt: skip
async def test_of_jobs_submitted_together_one_that_is_wrong_fails_all(
    served: Served, jobs_: list[Json], field: str, hint: str
) -> None:
    await served.add_site("here")
    answer = await _post(served, {"jobs": jobs_}, path=f"{JOBS}/bulk")
    assert (answer.status_code, answer.json().get("field")) == (422, field)
    assert hint in answer.json()["detail"]
    assert await _count(served) == 0


async def test_ten_thousand_jobs_go_in_one_request_and_one_more_does_not(served: Served) -> None:
    body = {"jobs": [{"command": ["true"]}] * 10_000}
    answer = await _post(served, body, path=f"{JOBS}/bulk")
    ids = answer.json()["ids"]
    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)
    told = await served.database.read(lambda connection: events.after(connection, 0, limit=20_000))
    assert [event.job_id for event in told] == ids
    body["jobs"].append({"command": ["true"]})
    assert (await _post(served, body, path=f"{JOBS}/bulk")).status_code == 422


# ---- the same request twice


async def test_the_same_request_with_the_same_key_makes_one_job(served: Served) -> None:
    first = await _post(served, {"command": ["true"]}, **{"idempotency-key": "k"})
    again = await _post(served, {"command": ["true"]}, **{"idempotency-key": "k"})
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.json() == again.json()
    assert "idempotent-replay" not in first.headers
    assert again.headers["idempotent-replay"] == "true"
    assert await _count(served) == 1


async def test_a_key_belongs_to_one_request_and_one_person(served: Served) -> None:
    await _post(served, {"command": ["true"]}, **{"idempotency-key": "k"})
    other = await _post(served, {"command": ["false"]}, **{"idempotency-key": "k"})
    assert (other.status_code, other.json()["field"]) == (409, "Idempotency-Key")
    held = await _post(served, {"command": ["true"]}, path=f"{JOBS}?hold=true", **{"idempotency-key": "k"})
    assert held.status_code == 409
    assert (await _post(served, {"command": ["false"]}, "bob", **{"idempotency-key": "k"})).status_code == 201
    bulk = {"jobs": [{"command": ["true"]}]}
    first = await _post(served, bulk, path=f"{JOBS}/bulk", **{"idempotency-key": "b"})
    again = await _post(served, bulk, path=f"{JOBS}/bulk", **{"idempotency-key": "b"})
    assert first.json() == again.json()
    assert await _count(served) == 3


async def test_a_request_that_was_refused_may_use_its_key_again(served: Served) -> None:
    body = {"command": ["true"], "dependencies": [1]}
    assert (await _post(served, body, **{"idempotency-key": "k"})).status_code == 422
    assert (await _post(served, {"command": ["true"]}, **{"idempotency-key": "k"})).status_code == 201


async def test_a_key_that_cannot_be_kept_is_refused(served: Served) -> None:
    for key in ("", "x" * 256, "a\tb"):
        answer = await _post(served, {"command": ["true"]}, **{"idempotency-key": key})
        assert (answer.status_code, answer.json()["field"]) == (422, "Idempotency-Key")


async def test_duplicates_that_come_at_the_same_time_make_one_job(served: Served) -> None:
    async with served.client(**{"idempotency-key": "k"}) as client:
        answers = await asyncio.gather(*(client.post(JOBS, json={"command": ["true"]}) for _ in range(30)))
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert sum("idempotent-replay" not in answer.headers for answer in answers) == 1
    assert await _count(served) == 1


async def test_what_is_wrong_with_one_of_many_at_the_same_time_fails_that_one_alone(served: Served) -> None:
    bodies: list[Json] = [{"command": ["true"], "name": f"job-{number}"} for number in range(40)]
    for number in range(0, 40, 4):
        bodies[number]["dependencies"] = [f"{10**9 + number}"]
    async with served.client() as client:
        answers = await asyncio.gather(*(client.post(JOBS, json=body) for body in bodies))
    assert [answer.status_code for answer in answers] == [422 if number % 4 == 0 else 201 for number in range(40)]
    names = {
        answer.json()["id"]: body["name"] for answer, body in zip(answers, bodies, strict=True) if answer.is_success
    }
    rows = await served.database.read(lambda connection: jobs.get_many(connection, list(names)))
    assert {job_id: row.name for job_id, row in rows.items()} == names
