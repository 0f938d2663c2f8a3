"""Pulling attempts back out of a site's own queue: what becomes of them, and of those that came for their place."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.control import work
from atoll.core.ids import JobRef
from atoll.core.reasons import ReasonCode
from atoll.core.spec import JobClass
from atoll.drivers.base import StopReason, StopRequest
from atoll.drivers.fake.behaviour import unanswering, vanished
from atoll.jobs import actions
from atoll.jobs.actions import Target
from atoll.jobs.estimates import Estimates
from atoll.jobs.why import why
from atoll.store import attempts, events, sites
from atoll.store.people import Principal
from tests.control.harness import SITE, SlowMotion

ADA = Principal("ada", administrator=False)


@pytest.fixture
def played() -> dict[str, Any]:
    return {"cpus": 1, "queues": True}


def lasting(seconds: int, **rest: Any) -> dict[str, Any]:
    return {"env": {"FAKE_RUNTIME": str(seconds)}, **rest}


async def queued_up(motion: SlowMotion, count: int = 2, **rest: Any) -> list[int]:
    """A job that runs for 10 seconds and others that wait behind it at the site."""
    ids = await motion.insert(lasting(10), *[lasting(1, **rest)] * count)
    await motion.round()
    await motion.round()
    assert [(await motion.job(job_id)).state for job_id in ids] == ["running"] + ["starting"] * count
    return ids


async def stop_reasons(motion: SlowMotion, ids: list[int]) -> list[str | None]:
    return [(await motion.attempts(job_id))[-1].stop_reason for job_id in ids]


async def order_of_starts(motion: SlowMotion, ids: list[int]) -> list[int]:
    began = [((await motion.job(job_id)).started_at, job_id) for job_id in ids]
    return [job_id for _, job_id in sorted(began)]


async def test_how_long_attempts_wait_at_the_site_is_learnt_and_kept(motion: SlowMotion) -> None:
    ids = await motion.insert(*[lasting(1800)] * 4)
    for _ in range(130):
        await motion.round()
        motion.clock.advance(60)
    assert (await motion.job(ids[-1])).state == "succeeded"
    [site] = await motion.database.read(sites.load)
    # the four waited 0, 30, 60 and 90 minutes, each counts an eighth, and it is forty minutes ago
    assert 10 * 60 < site.wait.all < 20 * 60
    assert site.wait.of_class == {JobClass.BATCH: site.wait.all}
    await motion.crash()
    await motion.dispatch()
    [state] = motion.dispatcher._snapshot.sites.values()
    assert state.site.wait == site.wait
    motion.clock.advance(10 * 3600)
    await motion.dispatch()
    await motion.dispatch()
    [site] = await motion.database.read(sites.load)
    assert site.wait.of(JobClass.BATCH) == 0, "it is long ago"


async def test_what_waits_at_the_site_is_pulled_back_for_a_job_of_higher_priority(motion: SlowMotion) -> None:
    runs, *waiting = await queued_up(motion, 3)
    [urgent] = await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    assert (await motion.job(urgent)).state == "placed"
    assert await stop_reasons(motion, [runs, *waiting]) == [None, "recalled", "recalled", "recalled"]
    assert [(await motion.job(job_id)).state for job_id in waiting] == ["starting"] * 3
    await motion.step("submit", "stop", "observe", "finish")
    for job_id in waiting:
        row = await motion.job(job_id)
        assert (row.state, row.reason, row.failures, row.faults) == ("queued", ReasonCode.RECALLED, 0, 0)
        assert row.not_before <= motion.tools.now()
        assert row.sentence == (
            f"Was pulled back from the queue of site {SITE}: a job with more right to the next place came."
        )
    await motion.settle()
    assert await order_of_starts(motion, [urgent, *waiting]) == [urgent, *waiting]
    for job_id in (runs, urgent, *waiting):
        assert (await motion.job(job_id)).state == "succeeded"
    assert set(motion.engine.starts.values()) == {1}
    assert [attempt.outcome for attempt in await motion.attempts(waiting[0])] == ["recalled", "succeeded"]


async def test_nothing_more_is_pulled_back_once_it_was(motion: SlowMotion) -> None:
    ids = await queued_up(motion)
    await motion.insert(lasting(1, priority=5))
    for _ in range(6):
        await motion.round()
    assert [len(await motion.attempts(job_id)) for job_id in ids] == [1, 2, 2]
    assert await stop_reasons(motion, ids) == [None, None, None]


async def test_one_event_says_why_and_none_says_that_it_stops(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    before = await motion.database.read(events.last_id)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    await motion.step("stop", "observe", "finish")
    found = await motion.database.read(lambda connection: events.after(connection, before))
    told = [(event.state, event.data.get("reason")) for event in found if event.job_id == waits]
    assert told == [("starting", None), ("finishing", "Finishing"), ("queued", "Recalled")]


async def test_one_that_has_begun_runs_on_and_is_asked_for_no_more(motion: SlowMotion) -> None:
    runs, waits = await queued_up(motion, 1)
    [urgent] = await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    motion.clock.advance(10.5)  # its turn came before the site heard of it
    await motion.step("stop")
    assert await stop_reasons(motion, [waits]) == ["recalled"]
    await motion.step("observe")
    row = await motion.job(waits)
    assert (row.state, row.reason) == ("running", ReasonCode.RUNNING)
    assert await stop_reasons(motion, [waits]) == [None]
    await motion.settle()
    assert [attempt.outcome for attempt in await motion.attempts(waits)] == ["succeeded"]
    assert (await motion.job(urgent)).state == "succeeded"
    assert (await motion.job(runs)).state == "succeeded"


async def test_what_was_not_handed_over_yet_comes_back_without_asking_the_site(motion: SlowMotion) -> None:
    await queued_up(motion, 0)
    [waits] = await motion.insert(lasting(1))
    await motion.dispatch()
    [urgent] = await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    assert await stop_reasons(motion, [waits]) == ["recalled"]
    await motion.step("submit", "stop", "finish")
    assert (await motion.job(waits)).reason == ReasonCode.RECALLED
    assert (await motion.attempts(waits))[0].submit_began_at is None
    assert (await motion.job(urgent)).state == "starting"


async def test_one_of_which_nobody_knows_whether_it_landed_comes_back_when_it_did_not(motion: SlowMotion) -> None:
    await queued_up(motion, 0)
    motion.engine.behave(unanswering(None))
    [waits] = await motion.insert(lasting(1))
    await motion.dispatch()
    await motion.step("submit")
    motion.engine.behave()
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    await motion.step("stop")
    motion.clock.advance(motion.work.call_seconds + 1)
    await motion.step("observe", "stop", "finish")
    row = await motion.job(waits)
    assert (row.state, row.reason, row.faults) == ("queued", ReasonCode.RECALLED, 0)


@pytest.mark.parametrize("told", [False, True])
async def test_a_cancellation_wins_over_a_recall(motion: SlowMotion, told: bool) -> None:
    _, waits = await queued_up(motion, 1)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    if told:
        await motion.step("stop")
    await motion.database.write(partial(actions.cancel, target=Target(JobRef(waits)), who=ADA, now=motion.tools.now()))
    await motion.step("stop", "observe", "finish")
    row = await motion.job(waits)
    assert (row.state, row.reason, row.outcome) == ("cancelled", ReasonCode.CANCELLED, "cancelled")


async def test_a_site_that_is_down_keeps_nobody_from_cancelling_what_was_to_be_pulled_back(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    motion.engine.behave(vanished())
    await motion.step("stop", "observe")
    await motion.database.write(partial(actions.cancel, target=Target(JobRef(waits)), who=ADA, now=motion.tools.now()))
    assert await stop_reasons(motion, [waits]) == ["cancelled"]
    motion.engine.behave()
    await motion.step("stop", "observe", "finish")
    assert (await motion.job(waits)).state == "cancelled"


async def test_one_that_ran_and_ended_while_the_site_was_away_keeps_its_end(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    motion.engine.behave(vanished())
    await motion.step("stop", "observe")
    motion.clock.advance(60)
    motion.engine.behave()
    await motion.step("stop", "observe", "finish")
    row = await motion.job(waits)
    assert (row.state, row.reason) == ("succeeded", ReasonCode.COMPLETED)


async def test_a_job_that_is_to_run_again_does_so_although_it_is_pulled_back(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    requeue = partial(actions.requeue, target=Target(JobRef(waits)), who=ADA, now=motion.tools.now())
    assert (await motion.database.write(requeue)).changed == 1
    assert await stop_reasons(motion, [waits]) == ["evicted"]


async def test_why_tells_that_it_was_pulled_back(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    await motion.step("stop", "observe", "finish")
    now = motion.tools.now()
    answer = await motion.database.read(lambda connection: why(connection, JobRef(waits), ADA, now, Estimates()))
    told = f"pulled back from the queue of site {SITE}: a job with more right to the next place came."
    assert answer["sentence"] == f"Was {told}"
    assert f"Attempt 1 was {told}" in answer["facts"]


async def test_a_replica_that_takes_over_asks_for_nobody_twice(motion: SlowMotion) -> None:
    _, first, second = await queued_up(motion)
    [urgent] = await motion.insert(lasting(1, priority=5))
    await motion.dispatch()
    await motion.crash()
    await motion.dispatch()
    assert await stop_reasons(motion, [first, second]) == ["recalled"] * 2
    assert [len(await motion.attempts(job_id)) for job_id in (first, second, urgent)] == [1, 1, 1]
    await motion.step("stop")
    await motion.crash()
    await motion.settle()
    assert await order_of_starts(motion, [first, second, urgent]) == [urgent, first, second]
    assert set(motion.engine.starts.values()) == {1}


async def test_only_what_has_not_begun_is_asked_for(motion: SlowMotion) -> None:
    runs, waits = await queued_up(motion, 1)
    found = {job_id: (await motion.attempts(job_id))[0].id for job_id in (runs, waits)}
    await motion.database.write(
        lambda connection: attempts.pull_back(connection, list(found.values()), motion.tools.now())
    )
    assert await stop_reasons(motion, [runs, waits]) == [None, "recalled"]


async def test_a_stop_that_was_told_meanwhile_for_another_reason_is_told_again(motion: SlowMotion) -> None:
    _, waits = await queued_up(motion, 1)
    [attempt] = await motion.attempts(waits)

    def cancelled_while_told(connection: Connection) -> int:
        attempts.pull_back(connection, [attempt.id], motion.tools.now())
        attempts.ask_to_stop(connection, [waits], "cancelled", {}, motion.tools.now())
        attempts.stop_sent(connection, {attempt.id: "recalled"}, motion.tools.now())
        return len(attempts.to_stop(connection, SITE, 0))

    assert await motion.database.write(cancelled_while_told) == 1


async def test_the_played_site_takes_back_only_what_waits(motion: SlowMotion) -> None:
    runs, waits = await queued_up(motion, 1)
    held = [(await motion.attempts(job_id))[0] for job_id in (runs, waits)]
    requests = [StopRequest(work.held(each), StopReason.RECALLED, 0) for each in held]
    await motion.driver.stop(requests)
    states = (await motion.driver.observe([])).states
    assert [(states[each.id].phase, states[each.id].outcome) for each in held] == [
        ("running", None), ("ended", "recalled"),
    ]  # fmt: skip


async def test_attempt_that_nobody_asked_back_comes_again_after_a_pause_and_counts_as_a_fault(
    motion: SlowMotion,
) -> None:
    """Else a site, or an account there, could have one job handed over for ever."""
    _, waits = await queued_up(motion, 1)
    (attempt,) = await motion.attempts(waits)
    motion.engine.stop(StopRequest(work.held(attempt), StopReason.RECALLED, 0))
    await motion.step("observe", "finish")
    row = await motion.job(waits)
    assert (row.state, row.reason, row.faults) == ("queued", ReasonCode.BACKOFF, 1)
    await motion.settle()
    assert [attempt.outcome for attempt in await motion.attempts(waits)] == ["node_failed", "succeeded"]
