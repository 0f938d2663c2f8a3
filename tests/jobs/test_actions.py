"""Cancel, hold, release, requeue, signal, set: on jobs, arrays and tasks, in every state."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.event import listen, remove

from atoll.core.ids import JobRef
from atoll.core.states import JobState, Outcome
from atoll.drivers.base import Held
from atoll.jobs import actions
from atoll.jobs.actions import Target
from atoll.store import attempts, events, jobs
from atoll.store.people import Principal
from tests.support.http import Json, Served
from tests.support.rows import NOW, check_counts, end, finish, get, place, run

JOBS = "/api/v1/jobs"
ANNA = Principal("anna", False)


async def _act(served: Served, action: str, job: object, person: str = "anna", **body: Any) -> Any:
    async with served.client(person) as client:
        return await client.post(f"{JOBS}/{job}/{action}", json=body or None)


async def _changed(served: Served, action: str, job: object) -> int:
    answer = await _act(served, action, job)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["changed"])


async def _show(served: Served, job: object) -> Json:
    async with served.client() as client:
        answer = await client.get(f"{JOBS}/{job}")
    assert answer.status_code == 200, answer.text
    found: Json = answer.json()
    return found


async def _state(served: Served, job: object) -> str:
    return str((await _show(served, job))["state"])


async def _counts(served: Served, array: int) -> None:
    await served.database.read(lambda connection: check_counts(connection, array))


@pytest.mark.parametrize("action", ["cancel", "hold", "release", "requeue"])
async def test_nobody_touches_another_persons_job_but_an_administrator(served: Served, action: str) -> None:
    job = await served.submit("anna")
    missing, hers = await _act(served, action, job + 1, "bob"), await _act(served, action, job, "bob")
    assert (missing.status_code, hers.status_code) == (404, 404)
    assert hers.json()["detail"] == missing.json()["detail"].replace(str(job + 1), str(job))
    assert (await _act(served, action, job, "root")).status_code == 200


# ---- cancel


async def test_cancelling_what_waits_ends_it_at_once(served: Served) -> None:
    job = await served.submit()
    answer = await _act(served, "cancel", job)
    assert answer.json()["changed"] == 1
    assert answer.json()["job"]["state"] == "cancelled"
    assert answer.json()["job"]["reason"] == {"code": "Cancelled", "sentence": "Was cancelled by anna."}


async def test_cancelling_what_runs_asks_its_site_with_the_jobs_own_grace(served: Served) -> None:
    job = await served.submit(grace="7s")
    [attempt] = await served.do(lambda connection: run(connection, job))
    assert await _changed(served, "cancel", job) == 1
    assert await _state(served, job) == "stopping"
    [row] = await served.database.read(lambda connection: attempts.to_stop(connection, "here", 0))
    assert (row.id, row.stop_reason, row.grace) == (attempt, "cancelled", 7)
    await served.do(lambda connection: end(connection, [attempt], Outcome.CANCELLED))
    assert await _state(served, job) == "cancelled"


async def test_cancelling_twice_changes_nothing(served: Served) -> None:
    waiting, running, ended = [await served.submit() for _ in range(3)]
    await served.do(lambda connection: run(connection, running))
    await served.do(lambda connection: end(connection, run(connection, ended)))
    assert [await _changed(served, "cancel", job) for job in (waiting, running, ended)] == [1, 1, 0]
    assert [await _changed(served, "cancel", job) for job in (waiting, running, ended)] == [0, 0, 0]
    assert await _state(served, ended) == "succeeded"


async def test_a_job_cancelled_while_it_finishes_does_not_come_back(served: Served) -> None:
    job = await served.submit(retries=3)
    [attempt] = await served.do(lambda connection: run(connection, job))
    await served.do(lambda connection: attempts.ended(connection, [attempts.End(attempt, Outcome.EVICTED)], 1))
    assert await _changed(served, "cancel", job) == 1
    await served.do(lambda connection: finish(connection, [attempt], retries=3))
    assert await _state(served, job) == "cancelled"


async def test_cancelling_an_array_drops_what_waits_and_stops_what_runs(served: Served) -> None:
    array = await served.submit(array="0-9")
    ids = await served.do(lambda connection: run(connection, array, "0-2"))
    await served.do(lambda connection: end(connection, ids[:1]))
    assert await _changed(served, "cancel", array) == 9
    await _counts(served, array)
    found = await _show(served, array)
    assert found["tasks"] == {"total": 10, "waiting": 0, "active": 2, "succeeded": 1, "failed": 0, "cancelled": 7}
    assert [await _state(served, f"{array}[{task}]") for task in (0, 1, 5)] == ["succeeded", "stopping", "cancelled"]
    await served.do(lambda connection: end(connection, ids[1:], Outcome.CANCELLED))
    assert await _state(served, array) == "cancelled"


async def test_cancelling_tasks_leaves_the_others(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, array, "0-2"))
    assert await _changed(served, "cancel", f"{array}[1,7-8]") == 3
    await _counts(served, array)
    states = [await _state(served, f"{array}[{task}]") for task in (0, 1, 6, 7, 8, 9)]
    assert states == ["running", "stopping", "queued", "cancelled", "cancelled", "queued"]


async def test_cancelling_a_large_array_goes_in_bites_and_leaves_nothing(served: Served) -> None:
    array = await served.submit(array="0-9999")
    await served.do(lambda connection: run(connection, array, "0-1200"))
    assert await _changed(served, "cancel", array) == 10_000
    await _counts(served, array)
    stopping = await served.database.read(lambda connection: attempts.to_stop(connection, "here", 0))
    assert len(stopping) == 1201


async def test_a_million_tasks_are_cancelled_without_a_row(served: Served) -> None:
    array = await served.submit(array="0-999999")
    assert await _changed(served, "cancel", f"{array}[0-999998]") == 999_999
    assert await _state(served, array) == "queued"
    assert await _changed(served, "cancel", array) == 1
    assert await served.database.read(lambda connection: jobs.get_tasks(connection, array)) == []


@pytest.mark.parametrize("action", ["cancel", "hold", "release", "requeue"])
async def test_tasks_that_are_not_there_are_named(served: Served, action: str) -> None:
    array, single = await served.submit(array="0-9:3"), await served.submit()
    missing = await _act(served, action, f"{array}[3-5]")
    assert (missing.status_code, missing.json()["detail"]) == (404, f"Job {array} has no task 4.")
    assert (await _act(served, action, f"{single}[0]")).status_code == 404
    await _counts(served, array)


# ---- hold and release


async def test_a_held_job_waits_until_it_is_released(served: Served) -> None:
    job = await served.submit()
    assert await _changed(served, "hold", job) == 1
    assert await _changed(served, "hold", job) == 0
    assert (await _show(served, job))["reason"]["code"] == "JobHeldUser"
    await served.do(lambda connection: place(connection, job))  # a decision that was made before
    assert await _state(served, job) == "held"
    assert await _changed(served, "release", job) == 1
    assert await _changed(served, "release", job) == 0
    assert await _state(served, job) == "queued"


async def test_releasing_a_job_that_waits_for_another_leaves_it_waiting_for_that(served: Served) -> None:
    first = await served.submit()
    second = await served.submit(dependencies=[first])
    assert await _changed(served, "release", second) == 0
    assert await _changed(served, "hold", second) == 1
    assert await _changed(served, "release", second) == 1
    assert (await _show(served, second))["reason"]["code"] == "Dependency"
    await served.do(lambda connection: end(connection, run(connection, first)))
    assert await _state(served, second) == "queued"


async def test_what_runs_or_has_ended_cannot_be_held_and_one_is_told_what_to_do(served: Served) -> None:
    running, ended = await served.submit(), await served.submit()
    await served.do(lambda connection: run(connection, running))
    await served.do(lambda connection: end(connection, run(connection, ended)))
    answer = await _act(served, "hold", running)
    assert answer.status_code == 409
    assert f"atoll requeue {running}" in answer.json()["detail"]
    assert (await _act(served, "hold", ended)).status_code == 409


async def test_holding_an_array_holds_what_waits_of_it(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, array, "0-2"))
    assert await _changed(served, "hold", array) == 7
    assert await served.do(lambda connection: _try_place(connection, array, "5")) == 0
    assert [await _state(served, f"{array}[{task}]") for task in (0, 5)] == ["running", "held"]
    refused = await _act(served, "release", f"{array}[5]")
    assert refused.status_code == 409
    assert f"atoll release {array}" in refused.json()["detail"]
    assert await _changed(served, "release", array) == 7
    assert await served.do(lambda connection: _try_place(connection, array, "5")) == 1


def _try_place(connection: Connection, array: int, tasks: str) -> int:
    place(connection, array, tasks)
    return len(jobs.get_tasks(connection, array, None)) - 3


async def test_holding_tasks_holds_those_alone(served: Served) -> None:
    array = await served.submit(array="0-9%3")
    assert await _changed(served, "hold", f"{array}[2-4]") == 3
    await _counts(served, array)
    assert [await _state(served, f"{array}[{task}]") for task in (1, 2, 4, 5)] == ["queued", "held", "held", "queued"]
    assert await _changed(served, "release", f"{array}[2]") == 1
    assert await _changed(served, "release", array) == 2
    await _counts(served, array)
    found = await _show(served, array)
    assert found["tasks"]["waiting"] == 10  # so that the array's limit holds for them too
    assert found["state"] == "queued"


# ---- requeue


async def test_a_job_that_ended_runs_again_afresh(served: Served) -> None:
    job = await served.submit()
    await served.do(lambda connection: end(connection, run(connection, job), Outcome.FAILED))
    assert await _changed(served, "requeue", job) == 1
    found = await _show(served, job)
    assert (found["state"], found["exit_code"], found["outcome"], found["ended_at"]) == ("queued", None, None, None)
    assert [attempt["number"] for attempt in found["attempt_list"]] == [1]
    await served.do(lambda connection: end(connection, run(connection, job)))
    found = await _show(served, job)
    assert [attempt["outcome"] for attempt in found["attempt_list"]] == ["failed", "succeeded"]


async def test_a_job_that_runs_is_stopped_and_comes_back(served: Served) -> None:
    job = await served.submit()
    [attempt] = await served.do(lambda connection: run(connection, job))
    assert await _changed(served, "requeue", job) == 1
    assert await _changed(served, "requeue", job) == 0
    assert await _state(served, job) == "stopping"
    await served.do(lambda connection: end(connection, [attempt], Outcome.EVICTED))
    assert await _state(served, job) == "queued"


async def test_a_job_that_is_being_cancelled_cannot_be_requeued(served: Served) -> None:
    job = await served.submit()
    await served.do(lambda connection: run(connection, job))
    await _changed(served, "cancel", job)
    assert (await _act(served, "requeue", job)).status_code == 409


async def test_requeueing_an_array_repeats_what_did_not_succeed(served: Served) -> None:
    array = await served.submit(array="0-5")
    ids = await served.do(lambda connection: run(connection, array, "0-3"))
    await served.do(lambda connection: end(connection, ids[:2]))
    await served.do(lambda connection: end(connection, ids[2:], Outcome.FAILED))
    await _changed(served, "cancel", array)
    assert await _state(served, array) == "failed"
    assert await _changed(served, "requeue", array) == 4
    await _counts(served, array)
    states = [await _state(served, f"{array}[{task}]") for task in range(6)]
    assert states == ["succeeded", "succeeded", "queued", "queued", "queued", "queued"]


async def test_requeueing_an_array_that_succeeded_repeats_all_of_it(served: Served) -> None:
    array = await served.submit(array="0-599")
    ids = await served.do(lambda connection: run(connection, array, "0-599"))
    await served.do(lambda connection: end(connection, ids))
    assert await _state(served, array) == "succeeded"
    assert await _changed(served, "requeue", array) == 600
    await _counts(served, array)


async def test_requeueing_tasks_repeats_those_whatever_their_end(served: Served) -> None:
    array = await served.submit(array="0-5")
    ids = await served.do(lambda connection: run(connection, array, "0-3"))
    await served.do(lambda connection: end(connection, ids[:2]))
    assert await _changed(served, "requeue", f"{array}[0,2]") == 2
    states = [await _state(served, f"{array}[{task}]") for task in range(4)]
    assert states == ["queued", "succeeded", "stopping", "running"]


# ---- set


async def test_a_waiting_job_may_be_changed_and_the_scheduler_hears_of_it(served: Served) -> None:
    job = await served.submit()
    changes = {
        "name": "new", "priority": 5, "walltime": "1h", "begin": "2026-06-01T00:00:00Z", "retries": 2,
        "labels": {"a": "b"}, "grace": 5,
    }  # fmt: skip
    before = served.platform.changes
    cursor = await before.wait(0, 1)
    async with served.client() as client:
        answer = await client.patch(f"{JOBS}/{job}", json=changes)
    assert answer.status_code == 200
    found = answer.json()
    assert (found["name"], found["priority"], found["begin"]) == ("new", 5, "2026-06-01T00:00:00.000000Z")
    assert found["spec"]["walltime"] == 3600
    row = await served.database.read(lambda connection: get(connection, job))
    assert (row.priority, row.not_before) == (5, 1_780_272_000_000_000)
    assert await before.wait(cursor, 10) > cursor


@pytest.mark.parametrize(
    ("body", "field"),
    [({"cpu": 2}, "cpu"), ({"walltime": "soon"}, "walltime"), ({"retries": -1}, "retries"), ({"grace": 10**9}, "grace"),
     ({"labels": {"a": "\u0000"}}, "labels.a"), ({"constraints": ["region=mars"]}, "constraints"),
     ({"name": ""}, "name"), ({"begin": "2026-06-01"}, "begin")],
)  # fmt: skip
async def test_a_change_that_cannot_be_names_the_field(served: Served, body: Json, field: str) -> None:
    await served.add_site()
    job = await served.submit()
    before = await _show(served, job)
    async with served.client() as client:
        answer = await client.patch(f"{JOBS}/{job}", json=body)
    assert (answer.status_code, answer.json().get("field")) == (422, field), answer.text
    assert await _show(served, job) == before


async def test_what_comes_too_late_is_a_conflict(served: Served) -> None:
    running, ended = await served.submit(), await served.submit()
    await served.do(lambda connection: run(connection, running))
    await served.do(lambda connection: end(connection, run(connection, ended)))
    async with served.client() as client:
        for job, body, status in (
            (running, {"walltime": 60}, 409), (running, {"retries": 1}, 200), (ended, {"retries": 1}, 409),
            (ended, {"name": "kept"}, 200),
        ):  # fmt: skip
            assert (await client.patch(f"{JOBS}/{job}", json=body)).status_code == status


# ---- signals


class _Signalled:
    def __init__(self) -> None:
        self.got: list[tuple[str, int]] = []

    async def signal(self, attempt: Held, signal: int) -> None:
        self.got.append((attempt.attempt_id, signal))


async def test_a_signal_goes_to_what_runs(served: Served) -> None:
    driver: Any = _Signalled()
    served.drivers["here"] = driver
    job, array = await served.submit(), await served.submit(array="0-4")
    [attempt] = await served.do(lambda connection: run(connection, job))
    tasks = await served.do(lambda connection: run(connection, array, "0-2"))
    assert (await _act(served, "signal", job, signal="USR1")).json()["changed"] == 1
    assert (await _act(served, "signal", f"{array}[1-4]", signal="TERM")).json()["changed"] == 2
    assert driver.got == [(attempt, 10), (tasks[1], 15), (tasks[2], 15)]


async def test_a_signal_to_what_does_not_run_is_a_conflict(served: Served) -> None:
    job = await served.submit()
    assert (await _act(served, "signal", job, signal="USR1")).status_code == 409
    await served.do(lambda connection: run(connection, job))
    assert (await _act(served, "signal", job, signal="USR1")).status_code == 503  # no driver here
    assert (await _act(served, "signal", job, signal="NONE")).status_code == 422
    assert await _state(served, job) == JobState.RUNNING


# ---- large arrays, in bites


async def test_a_requeued_task_is_not_requeued_again_by_the_same_request(served: Served) -> None:
    array = await served.submit(array="0-1199")
    await served.do(lambda connection: end(connection, run(connection, array, "0-1199")))
    target: Target | None = Target(JobRef(array))
    bites = changed = 0
    while target is not None and bites < 5:
        bite = await served.do(partial(actions.requeue, target=target, who=ANNA, now=NOW))
        changed, target, bites = changed + bite.changed, bite.rest, bites + 1
        # what was requeued runs, and the first of it ends, before the next bite
        started = await served.do(partial(_start_queued, array=array))
        await served.do(lambda connection, ids=started[:300]: end(connection, ids))
    assert (bites, changed) == (3, 1200)
    await _counts(served, array)
    assert await served.database.read(lambda connection: attempts.to_stop(connection, "here", 0)) == []


async def test_a_whole_array_whose_failures_are_a_full_bite_is_requeued_once(served: Served) -> None:
    array = await served.submit(array="0-599")
    ids = await served.do(lambda connection: run(connection, array, "0-599"))
    await served.do(lambda connection: end(connection, ids[: actions.BITE], Outcome.FAILED))
    await served.do(lambda connection: end(connection, ids[actions.BITE :]))
    first = await served.do(partial(actions.requeue, target=Target(JobRef(array)), who=ANNA, now=NOW))
    await served.do(lambda connection: end(connection, _start_queued(connection, array)))
    assert await _state(served, array) == "succeeded"
    second = await served.do(partial(actions.requeue, target=first.rest, who=ANNA, now=NOW))
    assert (first.changed, second.changed, second.rest) == (actions.BITE, 0, None)


async def test_a_task_that_another_person_requeues_meanwhile_is_cancelled_once(served: Served) -> None:
    array = await served.submit(array="0-999")
    await served.do(lambda connection: run(connection, array, "0-599"))
    first = await served.do(partial(actions.cancel, target=Target(JobRef(array)), who=ANNA, now=NOW))
    assert await _changed(served, "requeue", f"{array}[700]") == 1
    second = await served.do(partial(actions.cancel, target=first.rest, who=ANNA, now=NOW))
    assert (first.changed, second.changed, second.rest) == (400 + actions.BITE, 100, None)
    assert await _state(served, f"{array}[700]") == "queued"


def _start_queued(connection: Connection, array: int) -> list[str]:
    queued = [task.id for task in jobs.get_tasks(connection, array) if task.state == "queued"]
    return [attempt for row_id in queued for attempt in run(connection, row_id)]


async def test_a_task_of_a_held_array_that_is_to_run_again_holds_with_it(served: Served) -> None:
    array = await served.submit(array="0-3", retries=2)
    ids = await served.do(lambda connection: run(connection, array, "0-1"))
    assert await _changed(served, "hold", array) == 2
    await served.do(lambda connection: end(connection, ids[:1], Outcome.FAILED, retries=2))
    await served.do(lambda connection: end(connection, ids[1:], Outcome.FAILED))
    assert await _changed(served, "requeue", f"{array}[1]") == 1
    assert [await _state(served, f"{array}[{task}]") for task in range(4)] == ["held"] * 4
    await _counts(served, array)
    assert await _changed(served, "release", array) == 4
    assert [await _state(served, f"{array}[{task}]") for task in range(4)] == ["queued"] * 4
    await _counts(served, array)


async def test_changing_an_array_tells_the_scheduler_of_the_tasks_that_wait_and_reads_no_others(served: Served) -> None:
    array = await served.submit(array="0-19")
    ids = await served.do(lambda connection: run(connection, array, "0-14"))
    await served.do(lambda connection: end(connection, ids[:5]))
    await served.do(lambda connection: end(connection, ids[5:10], Outcome.EVICTED))
    before = await served.database.read(events.last_id)
    async with served.client() as client:
        with _reading_jobs() as statements:
            assert (await client.patch(f"{JOBS}/{array}", json={"name": "new", "priority": 7})).status_code == 200
    of_tasks = [text for text in statements if "jobs.array_id = " in text]
    assert of_tasks
    assert all("jobs.state = " in text and "LIMIT" in text and "jobs.spec" not in text for text in of_tasks)
    told = [event.task for event in await served.database.read(lambda connection: events.after(connection, before))]
    assert told == [None, *range(5, 10)]
    rows = await served.database.read(lambda connection: jobs.get_tasks(connection, array))
    assert {row.name for row in rows} == {"new"}
    assert [row.priority for row in rows] == [0] * 5 + [7] * 10


@contextmanager
def _reading_jobs() -> Iterator[list[str]]:
    """The statements that read jobs within the block."""
    found: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        if statement.startswith("SELECT") and "FROM jobs" in statement:
            found.append(statement)

    listen(Engine, "before_cursor_execute", note)
    try:
        yield found
    finally:
        remove(Engine, "before_cursor_execute", note)


@pytest.mark.parametrize("question", ["", "/why"])
async def test_the_jobs_that_one_waits_for_are_looked_up_together(served: Served, question: str) -> None:
    array = await served.submit(array="0-19")
    ids = await served.do(lambda connection: run(connection, array, "0-9"))
    others = [await served.submit() for _ in range(10)]
    many = await served.submit(dependencies=[*others, *(f"{array}[{task}]" for task in range(20))])
    one = await served.submit(dependencies=[others[0], others[9], f"{array}[0]", f"{array}[9]"])
    for job in others[:5]:
        await served.do(lambda connection, job=job: end(connection, run(connection, job)))
    await served.do(lambda connection: end(connection, ids[:5]))
    counts = []
    for job in (many, one):
        async with served.client() as client:
            with _reading_jobs() as statements:
                assert (await client.get(f"{JOBS}/{job}{question}")).status_code == 200
        counts.append(len(statements))
    assert counts[0] == counts[1] > 0
