"""When waiting jobs are expected to start: lists, details, `why` and events say the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from sqlalchemy import Connection

from atoll.client.models import Estimate
from atoll.core.clock import to_micros
from atoll.core.ids import JobRef
from atoll.core.site import UsualWait
from atoll.core.spec import JobClass
from atoll.faces.http.sse import ServerEvent
from atoll.faces.http.times import moment
from atoll.jobs import watch
from atoll.jobs.commands.looking import expectation
from atoll.scheduler.forecast import Forecast
from atoll.store import attempts, forecasts, sites
from atoll.store.attempts import Start
from atoll.store.forecasts import Kept
from atoll.store.people import Principal
from tests.support.http import Served
from tests.support.rows import place, run

JOBS = "/api/v1/jobs"
MINUTE = 60_000_000
ANNA = Principal("anna", False)


async def forecast(served: Served, jobs: Sequence[int], minutes: Sequence[int | None]) -> int:
    """Have the queue forecast that these jobs, the first first, start in so many minutes (None: nobody can say)."""
    now = to_micros(served.clock())
    starts = np.array([-1 if each is None else now + each * MINUTE for each in minutes], np.int64)
    known = starts >= 0
    made = Forecast(
        now, np.array(jobs, np.int64), starts,
        np.where(known, starts - MINUTE, -1), np.where(known, starts + MINUTE, -1),
        np.zeros(len(jobs), np.int64), np.zeros(len(jobs), np.int8),
    )  # fmt: skip
    await served.do(lambda connection: forecasts.write(connection, Kept(now, made.to_bytes())))
    return now


async def ask(served: Served, path: str) -> Any:
    async with served.client() as anna:
        answer = await anna.get(path)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_lists_details_and_why_say_the_same(served: Served) -> None:
    first, second = await served.submit(), await served.submit()
    now = await forecast(served, [second, first], [0, 12])
    expected = {
        "position": 2, "waiting": 2, "start": moment(now + 12 * MINUTE), "earliest": moment(now + 11 * MINUTE),
        "latest": moment(now + 13 * MINUTE), "at": moment(now), "by": "queue", "site": None,
    }  # fmt: skip
    listed = {job["job"]: job["estimate"] for job in (await ask(served, JOBS))["items"]}
    assert listed[first] == expected
    assert listed[second]["position"] == 1
    assert (await ask(served, f"{JOBS}/{first}"))["estimate"] == expected
    assert (await ask(served, f"{JOBS}/{first}/why"))["estimate"] == expected


async def test_what_came_since_or_waits_no_more_has_no_estimate(served: Served) -> None:
    old = await served.submit()
    await forecast(served, [old], [3])
    new = await served.submit()
    assert (await ask(served, f"{JOBS}/{new}"))["estimate"] is None
    assert (await ask(served, f"{JOBS}/{new}/why"))["estimate"] is None
    await served.do(lambda connection: run(connection, old))
    assert (await ask(served, f"{JOBS}/{old}"))["estimate"] is None


async def test_before_the_first_forecast_nothing_is_expected(served: Served) -> None:
    job = await served.submit()
    assert (await ask(served, f"{JOBS}/{job}"))["estimate"] is None


async def test_nobody_can_say_when_opportunistic_work_starts(served: Served) -> None:
    job = await served.submit(**{"class": "opportunistic"})
    await forecast(served, [job], [None])
    answer = await ask(served, f"{JOBS}/{job}/why")
    assert "It is opportunistic: it runs on what is idle, and has no promise of when that is." in answer["facts"]
    told = answer["estimate"]
    assert (told["position"], told["start"], told["earliest"], told["latest"]) == (1, None, None, None)


async def test_a_newer_forecast_is_seen_at_once(served: Served) -> None:
    job = await served.submit()
    await forecast(served, [job], [3])
    assert (await ask(served, f"{JOBS}/{job}"))["estimate"]["start"] is not None
    served.clock.advance(10)
    now = await forecast(served, [job], [7])
    assert (await ask(served, f"{JOBS}/{job}"))["estimate"]["start"] == moment(now + 7 * MINUTE)


async def test_tasks_and_arrays_of_which_some_run_are_told_when_the_next_task_starts(served: Served) -> None:
    array = await served.submit(array="0-9")
    await served.do(lambda connection: run(connection, array, "4"))
    now = await forecast(served, [array], [2])
    for path in (f"{JOBS}/{array}", f"{JOBS}/{array}[7]", f"{JOBS}/{array}/why"):
        assert (await ask(served, path))["estimate"]["start"] == moment(now + 2 * MINUTE)
    assert (await ask(served, f"{JOBS}/{array}[4]"))["estimate"] is None


async def hand_over(served: Served, job: int, wait: int = 0, tasks: str | None = None) -> list[str]:
    """Place a job at the site `far`, where attempts usually wait for so many seconds, and hand it over."""
    now = to_micros(served.clock())

    def work(connection: Connection) -> list[str]:
        sites.put(connection, "far", "slurm", {}, {})
        sites.set_waits(connection, {"far": UsualWait(0, {JobClass.BATCH: wait})})
        ids = place(connection, job, tasks, site="far", now=now)
        attempts.submitted(connection, dict.fromkeys(ids, "17"), now)
        return ids

    found: list[str] = await served.do(work)
    return found


async def test_what_waits_in_an_engines_queue_starts_when_the_engine_says_so(served: Served) -> None:
    job, other = await served.submit(), await served.submit()
    await forecast(served, [job, other], [3, 4])
    [attempt] = await hand_over(served, job, wait=600)
    now = to_micros(served.clock())
    word = now + 70 * MINUTE
    await served.do(lambda connection: attempts.set_expected(connection, {attempt: word}))
    expected = {
        "position": None, "waiting": None, "start": moment(word), "earliest": moment(now), "latest": moment(word),
        "at": moment(now), "by": "site", "site": "far",
    }  # fmt: skip
    listed = {item["job"]: item["estimate"] for item in (await ask(served, JOBS))["items"]}
    assert listed[job] == expected
    assert listed[other]["by"] == "queue"
    assert (await ask(served, f"{JOBS}/{job}"))["estimate"] == expected
    assert (await ask(served, f"{JOBS}/{job}/why"))["estimate"] == expected
    served.clock.advance(71 * 60)
    overdue = (await ask(served, f"{JOBS}/{job}"))["estimate"]
    assert overdue["by"] == "usual_wait", "what is over means nothing"
    assert overdue["start"] > moment(now + 71 * MINUTE)


async def test_where_the_engine_does_not_say_the_usual_wait_counts(served: Served) -> None:
    job = await served.submit()
    await hand_over(served, job, wait=600)
    placed = to_micros(served.clock())
    told = (await ask(served, f"{JOBS}/{job}"))["estimate"]
    assert (told["by"], told["start"], told["latest"]) == (
        "usual_wait", moment(placed + 10 * MINUTE), moment(placed + 23 * MINUTE),
    )  # fmt: skip
    served.clock.advance(20 * 60)
    late = (await ask(served, f"{JOBS}/{job}"))["estimate"]
    assert late["start"] == moment(placed + 30 * MINUTE), "half as long again as it has waited"
    assert late["earliest"] == moment(placed + 20 * MINUTE)


async def test_nothing_is_said_of_a_site_whose_queue_nobody_knows(served: Served) -> None:
    job = await served.submit()
    await hand_over(served, job)
    assert (await ask(served, f"{JOBS}/{job}"))["estimate"] is None


async def test_tasks_in_an_engines_queue_have_estimates_of_their_own(served: Served) -> None:
    array = await served.submit(array="0-9")
    attempt, _ = await hand_over(served, array, tasks="2-3")
    word = to_micros(served.clock()) + 5 * MINUTE
    await served.do(lambda connection: attempts.set_expected(connection, {attempt: word}))
    listed = {item["task"]: item["estimate"] for item in (await ask(served, f"{JOBS}?array={array}"))["items"]}
    assert listed[2]["start"] == moment(word)
    assert (listed[3], listed[4]) == (None, None)
    assert (await ask(served, f"{JOBS}/{array}[2]/why"))["estimate"]["start"] == moment(word)


async def test_an_array_in_an_engines_queue_starts_with_its_first_task_and_up_to_its_last(served: Served) -> None:
    array, other = await served.submit(array="0-9"), await served.submit(array="0-3")
    await forecast(served, [array, other], [30, 40])
    first, second, _ = await hand_over(served, array, tasks="2-4", wait=600)
    now = to_micros(served.clock())
    await served.do(
        lambda connection: attempts.set_expected(connection, {first: now + 50 * MINUTE, second: now + 5 * MINUTE})
    )
    expected = {
        "position": None, "waiting": None, "start": moment(now + 5 * MINUTE), "earliest": moment(now),
        "latest": moment(now + 50 * MINUTE), "at": moment(now), "by": "site", "site": "far",
    }  # fmt: skip
    listed = {item["job"]: item["estimate"] for item in (await ask(served, JOBS))["items"]}
    assert (listed[array], listed[other]["by"]) == (expected, "queue")
    assert (await ask(served, f"{JOBS}/{array}"))["estimate"] == expected
    assert (await ask(served, f"{JOBS}/{array}/why"))["estimate"] == expected
    assert (await ask(served, f"{JOBS}/{array}[7]/why"))["estimate"]["start"] == moment(now + 30 * MINUTE)


async def test_an_array_that_waits_there_as_a_whole_has_an_estimate(served: Served) -> None:
    array = await served.submit(array="0-2")
    ids = await hand_over(served, array, tasks="0-2", wait=600)
    placed = to_micros(served.clock())
    for path in (f"{JOBS}/{array}", f"{JOBS}/{array}/why"):
        told = (await ask(served, path))["estimate"]
        assert (told["by"], told["start"], told["latest"]) == (
            "usual_wait", moment(placed + 10 * MINUTE), moment(placed + 23 * MINUTE),
        )  # fmt: skip
    begun = [Start(attempt, placed, "17", "R") for attempt in ids]
    await served.do(lambda connection: attempts.started(connection, begun, placed))
    assert (await ask(served, f"{JOBS}/{array}"))["estimate"] is None, "all of it runs"


async def test_who_watches_hears_the_engines_word_and_when_it_is_put_off(served: Served) -> None:
    job = await served.submit()
    [attempt] = await hand_over(served, job)
    word = to_micros(served.clock()) + 5 * MINUTE
    stream = watch.watch(served.platform, [JobRef(job)], ANNA, 10**6, served.app.state.estimates)
    await served.do(lambda connection: attempts.set_expected(connection, {attempt: word}))
    async with asyncio.timeout(20):
        _opened, told = await anext(stream), await anext(stream)
        assert (told.data["estimate"]["start"], told.data["estimate"]["by"]) == (moment(word), "site")
        following = asyncio.create_task(_next(stream))
        await served.do(lambda connection: attempts.set_expected(connection, {attempt: word - MINUTE}))  # in its range
        await served.do(lambda connection: attempts.set_expected(connection, {attempt: word + MINUTE}))
        assert (await following).data["estimate"]["start"] == moment(word + MINUTE)


async def _next(stream: AsyncIterator[ServerEvent]) -> ServerEvent:
    return await anext(stream)


async def test_who_watches_a_job_hears_when_it_is_expected_to_start_at_another_time(served: Served) -> None:
    job, other = await served.submit(), await served.submit()
    first = await forecast(served, [job, other], [5, 6])
    stream = watch.watch(served.platform, [JobRef(job)], ANNA, 10**6, served.app.state.estimates)
    async with asyncio.timeout(20):
        opened, told = await anext(stream), await anext(stream)
        assert (opened.name, told.name) == ("opened", "estimate")
        assert (told.data["job"], told.data["estimate"]["start"]) == (job, moment(first + 5 * MINUTE))
        following = asyncio.create_task(_next(stream))
        served.clock.advance(1)
        await forecast(served, [job], [5])  # a second later, which the range allows for
        served.clock.advance(1)
        later = await forecast(served, [job], [9])
        assert (await following).data["estimate"]["start"] == moment(later + 9 * MINUTE)


def test_people_read_whose_word_it_is() -> None:
    start = datetime.now(UTC) + timedelta(minutes=20, seconds=30)
    word = expectation(Estimate(start=start, by="site", site="alps"))
    assert word.startswith("Site alps expects to start it at ")
    assert re.search(r" \(in 20m \d+s\), or sooner\.$", word)
    usual = expectation(Estimate(start=start, by="usual_wait", site="alps"))
    assert usual.startswith("It waits in the queue of site alps; by the usual wait there it starts at ")
    assert (
        expectation(Estimate(position=2, waiting=7))
        == "It is number 2 of 7 in the queue; nobody can say when it starts."
    )
