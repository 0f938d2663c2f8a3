"""Each loop alone and all together, step by step, against a site that misbehaves on command."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest

from atoll.control import dispatch, finish, launches, news
from atoll.core.clock import to_micros
from atoll.core.reasons import ReasonCode
from atoll.core.states import JobState, Outcome
from atoll.drivers.base import AttemptStatus, DriverError, Held, LogChunk, Observation, Phase
from atoll.drivers.fake.behaviour import forgetful, glancing, refusing, unanswering, vanished
from atoll.store import attempts, events, rooms, sites
from atoll.store.attempts import AttemptState
from atoll.store.leases import StaleLease
from tests.control.harness import SITE, SlowMotion


async def test_a_job_goes_from_the_queue_to_its_end(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "3"}})
    await motion.round()
    assert (await motion.job(job_id)).state in (JobState.STARTING, JobState.RUNNING)
    await motion.settle()
    row = await motion.job(job_id)
    assert (row.state, row.exit_code, row.outcome, row.site) == ("succeeded", 0, "succeeded", SITE)
    assert row.started_at is not None
    assert row.ended_at - row.started_at == 3_000_000


async def test_more_than_one_transaction_places_follows_at_once(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dispatch, "MAX_PLACED", 3)
    one, array = await motion.insert({"cpu": "500m"}, {"cpu": "500m", "array": "0-3"})
    await motion.step("describe")
    await motion.tools.keeper.renew()
    assert await motion.dispatcher.step(motion.lease(dispatch.LEASE)) == 0
    assert ((await motion.job(one)).state, (await motion.job(array)).waiting_count) == (JobState.PLACED, 2)
    await motion.dispatch()
    assert (await motion.job(array)).waiting_count == 0


async def test_an_exit_code_and_its_reason_are_kept(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_EXIT": "3"}})
    await motion.settle()
    row = await motion.job(job_id)
    assert (row.state, row.exit_code, row.reason) == ("failed", 3, ReasonCode.NONZERO_EXIT)
    assert row.sentence == "Ended with exit code 3."


async def test_a_failure_is_retried_as_often_as_asked_with_a_back_off(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_EXIT": "1"}, "retries": 2})
    await motion.settle()
    tries = await motion.attempts(job_id)
    assert [attempt.number for attempt in tries] == [1, 2, 3]
    assert tries[1].placed_at - tries[0].ended_at >= 1_000_000
    assert (await motion.job(job_id)).state == "failed"


async def test_a_submission_that_landed_unanswered_is_not_repeated(motion: SlowMotion) -> None:
    motion.engine.behave(unanswering(lands_after=5))
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "60"}})
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    assert attempt.state == AttemptState.SUBMITTING
    motion.engine.behave()
    motion.clock.advance(6)
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    assert attempt.state == AttemptState.RUNNING
    await motion.settle(rounds=100)
    assert (await motion.job(job_id)).state == "succeeded"
    assert len(await motion.attempts(job_id)) == 1


async def test_a_submission_that_never_landed_is_repeated_only_after_its_deadline(motion: SlowMotion) -> None:
    motion.engine.behave(unanswering(lands_after=None))
    [job_id] = await motion.insert({})
    await motion.round()
    motion.engine.behave()
    motion.clock.advance(motion.work.call_seconds - 1)
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    assert attempt.state == AttemptState.SUBMITTING
    await motion.settle()
    assert (await motion.job(job_id)).state == "succeeded"
    assert len(await motion.attempts(job_id)) == 1


async def test_a_site_that_vanishes_fails_no_job(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "10"}})
    await motion.round()
    await motion.round()
    motion.engine.behave(vanished())
    for _ in range(5):
        motion.clock.advance(60)
        await motion.round()
    assert (await motion.job(job_id)).state == "running"
    motion.engine.behave()
    await motion.settle()
    assert (await motion.job(job_id)).state == "succeeded"


async def test_an_attempt_that_the_engine_forgot_is_lost_after_two_looks_not_succeeded(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "10"}})
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    motion.engine.lose(attempt.id)
    motion.clock.advance(1)
    await motion.step("observe")
    assert (await motion.job(job_id)).state in ("starting", "running")
    motion.clock.advance(1)
    await motion.step("observe", "finish")
    row = await motion.job(job_id)
    assert (row.state, row.outcome, row.reason) == ("failed", Outcome.LOST, ReasonCode.LOST)


async def test_a_lost_job_runs_again_only_where_it_said_so(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "10"}, "rerun": True})
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    motion.engine.lose(attempt.id)
    await motion.settle()
    assert (await motion.job(job_id)).state == "succeeded"
    assert [found.outcome for found in await motion.attempts(job_id)] == ["lost", "succeeded"]


async def test_absence_from_an_incomplete_answer_means_nothing(motion: SlowMotion) -> None:
    ids = await motion.insert(*[{"env": {"FAKE_RUNTIME": "30"}, "cpu": "500m"}] * 4)
    await motion.round()
    motion.engine.behave(glancing())
    for _ in range(4):
        motion.clock.advance(1)
        await motion.step("observe")
    assert {(await motion.job(job_id)).state for job_id in ids} <= {"starting", "running"}


async def test_a_refused_job_says_so_in_the_engines_words(motion: SlowMotion) -> None:
    motion.engine.behave(refusing("Invalid account."))
    [job_id] = await motion.insert({})
    await motion.settle(rounds=3)
    row = await motion.job(job_id)
    assert (row.state, row.reason) == ("failed", ReasonCode.REFUSED)
    assert "Invalid account." in row.sentence


async def test_a_passing_refusal_is_tried_again(motion: SlowMotion) -> None:
    motion.engine.behave(refusing("The queue is full.", for_good=False))
    [job_id] = await motion.insert({})
    await motion.round()
    motion.engine.behave()
    await motion.settle()
    assert [found.outcome for found in await motion.attempts(job_id)] == ["refused", "succeeded"]


async def test_a_job_that_is_cancelled_while_it_runs_stops(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "1000"}})
    await motion.round()
    await motion.database.write(
        lambda connection: attempts.ask_to_stop(connection, [job_id], "cancelled", {job_id: 0}, motion.tools.now())
    )
    assert (await motion.job(job_id)).state == "stopping"
    await motion.settle()
    assert (await motion.job(job_id)).state == "cancelled"


async def test_an_evicted_job_comes_back_at_once_and_keeps_its_age(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "5"}})
    await motion.round()
    submitted = (await motion.job(job_id)).submitted_at
    await motion.database.write(
        lambda connection: attempts.ask_to_stop(connection, [job_id], "evicted", {job_id: 0}, motion.tools.now())
    )
    await motion.settle()
    assert [found.outcome for found in await motion.attempts(job_id)] == ["evicted", "succeeded"]
    assert (await motion.job(job_id)).submitted_at == submitted


async def test_a_placed_job_is_cancelled_without_asking_the_site(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({})
    await motion.step("describe")
    await motion.dispatch()
    await motion.database.write(
        lambda connection: attempts.ask_to_stop(connection, [job_id], "cancelled", {}, motion.tools.now())
    )
    motion.engine.behave(vanished())
    await motion.step("stop", "finish")
    assert (await motion.job(job_id)).state == "cancelled"
    assert motion.engine.statuses(motion.tools.instance) == {}


async def test_arrays_keep_to_their_width_and_count_their_tasks(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"array": "0-9%3", "env": {"FAKE_RUNTIME": "2"}, "cpu": "100m"})
    row = await motion.job(job_id)
    for _ in range(30):
        await motion.round()
        row = await motion.job(job_id)
        assert row.active_count <= 3
        assert row.waiting_count + row.active_count + row.succeeded_count == 10
        motion.clock.advance(1)
    assert (row.state, row.succeeded_count, row.exit_code) == ("succeeded", 10, 0)


async def test_a_replica_that_takes_over_goes_on_where_the_other_died(motion: SlowMotion) -> None:
    ids = await motion.insert(*[{"env": {"FAKE_RUNTIME": "3"}}] * 8)
    for _ in range(4):
        await motion.round()
        motion.clock.advance(1)
        await motion.crash()
    await motion.settle()
    assert {(await motion.job(job_id)).state for job_id in ids} == {"succeeded"}
    assert {len(await motion.attempts(job_id)) for job_id in ids} == {1}


async def test_what_a_paused_leader_would_write_is_refused(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({})
    await motion.step("describe")
    stale = motion.lease()
    old = motion.work
    await motion.crash()
    with pytest.raises(StaleLease):
        await old.tools.guarded(stale, lambda connection: None)
    await motion.settle()
    assert (await motion.job(job_id)).state == "succeeded"


async def test_a_lease_is_not_relied_on_when_its_time_is_over(motion: SlowMotion) -> None:
    lease = motion.lease()
    motion.clock.advance(motion.ttl)
    with pytest.raises(StaleLease):
        motion.tools.check(lease)


async def test_what_runs_in_our_name_and_is_not_in_the_store_is_reaped(motion: SlowMotion) -> None:
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "1000"}})
    await motion.round()
    [attempt] = await motion.attempts(job_id)
    await motion.database.write(lambda connection: connection.exec_driver_sql("DELETE FROM attempts").rowcount)
    for _ in range(3):
        await motion.step("observe")
        motion.clock.advance(1)
    assert attempt.id not in motion.engine.statuses(motion.tools.instance)


async def test_an_engine_that_forgets_ended_attempts_loses_them(motion: SlowMotion) -> None:
    motion.engine.behave(forgetful())
    [job_id] = await motion.insert({})
    await motion.settle()
    assert (await motion.job(job_id)).outcome == Outcome.LOST


async def test_ended_attempts_are_forgotten_by_the_site(motion: SlowMotion) -> None:
    await motion.insert({}, {"env": {"FAKE_EXIT": "1"}})
    await motion.settle()
    await motion.step("forget")
    assert motion.engine.statuses(motion.tools.instance) == {}


async def test_output_that_cannot_be_collected_holds_up_no_other_job(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, well = await motion.insert({}, {})
    await motion.round()
    [attempt] = await motion.attempts(broken)
    read = motion.driver.read_log

    async def read_log(held: Held, stream: str, offset: int, limit: int) -> LogChunk:
        if held.attempt_id == attempt.id:
            raise OSError("The file system is not well.")
        return await read(held, stream, offset, limit)

    monkeypatch.setattr(motion.driver, "read_log", read_log)
    motion.clock.advance(2)
    for _ in range(3):
        await motion.step("observe", "finish")
    assert (await motion.job(broken)).state == "finishing"
    assert (await motion.job(well)).state == "succeeded"
    monkeypatch.setattr(finish, "_TRIES", 0)
    motion.finishers[0].forget_failures()
    await motion.step("finish")
    row = await motion.job(broken)
    assert row.state == "succeeded"
    [attempt] = await motion.attempts(broken)
    assert "The file system is not well" in attempt.message


async def test_nothing_is_placed_at_a_site_that_was_seen_not_to_answer(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.dispatch()
    motion.engine.behave(vanished("The login node is down."))
    await motion.step("observe")
    [job_id] = await motion.insert({})
    await motion.dispatch()
    row = await motion.job(job_id)
    assert (row.state, row.reason) == ("queued", ReasonCode.SITE_UNREACHABLE)
    motion.engine.behave()
    await motion.step("observe")
    await motion.dispatch()
    assert (await motion.job(job_id)).state == "placed"


async def test_no_decision_is_made_on_a_snapshot_that_lags_behind(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    await motion.step("describe")
    await motion.dispatch()
    real = events.changed
    monkeypatch.setattr(events, "changed", lambda connection, cursor, limit: real(connection, cursor, 10))
    monkeypatch.setattr(news, "EVENTS_AT_ONCE", 10)
    for priority in range(6):
        await motion.insert(*[{"env": {"FAKE_RUNTIME": "1000"}, "priority": priority}] * 8)
        await motion.dispatch()
    for _ in range(20):
        await motion.dispatch()
    taken = await motion.database.read(lambda connection: rooms.load(connection, None))
    assert len(taken) == 4  # as many as there are CPUs


async def test_what_waits_for_a_site_that_stays_silent_goes_back_to_the_queue(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.dispatch()
    [kept, cancelled] = await motion.insert({}, {})
    await motion.dispatch()
    motion.engine.behave(vanished("The login node is down."))
    await motion.step("observe")
    await motion.database.write(
        lambda connection: attempts.ask_to_stop(connection, [cancelled], "cancelled", {}, motion.tools.now())
    )
    motion.clock.advance(40)
    await motion.dispatch()
    assert (await motion.job(kept)).state == "placed"
    motion.clock.advance(40)
    await motion.dispatch()
    assert (await motion.job(cancelled)).state == "cancelled"
    row = await motion.job(kept)
    assert (row.state, row.failures) == ("queued", 0)
    assert "did not answer before it was handed over" in row.sentence
    motion.engine.behave()
    await motion.settle()
    assert (await motion.job(kept)).state == "succeeded"
    assert [attempt.number for attempt in await motion.attempts(kept)] == [1, 2]


async def test_what_reached_a_silent_site_stays_there(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.dispatch()
    [job_id] = await motion.insert({"env": {"FAKE_RUNTIME": "1000"}})
    await motion.dispatch()
    await motion.step("submit")
    motion.engine.behave(vanished("The login node is down."))
    await motion.step("observe")
    motion.clock.advance(500)
    await motion.dispatch()
    assert (await motion.job(job_id)).state == "starting"


async def test_what_was_placed_at_a_site_that_is_gone_goes_back_to_the_queue(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.dispatch()
    [job_id] = await motion.insert({})
    await motion.dispatch()
    await motion.database.write(lambda connection: sites.remove(connection, SITE))
    motion.clock.advance(20)
    await motion.dispatch()
    assert (await motion.job(job_id)).state == "queued"


async def test_why_an_attempt_waits_at_its_engine_is_told_in_the_engines_words(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job_id] = await motion.insert({})
    await motion.step("describe")
    await motion.dispatch()
    await motion.step("submit")
    [attempt] = await motion.attempts(job_id)

    async def observe(_held: object) -> Observation:
        status = AttemptStatus(attempt.id, Phase.STARTING, "7", message="Waits for 4 nodes of partition long.")
        return Observation(True, motion.clock(), {attempt.id: status})

    with monkeypatch.context() as patched:
        patched.setattr(motion.driver, "observe", observe)
        await motion.step("observe")
    assert (await motion.job(job_id)).sentence == "Waits for 4 nodes of partition long."
    await motion.settle()
    assert (await motion.job(job_id)).sentence == "Ended with exit code 0."


async def test_when_an_engine_expects_to_start_an_attempt_is_kept_where_it_changes_by_more_than_a_little(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job_id] = await motion.insert({})
    await motion.step("describe")
    await motion.dispatch()
    await motion.step("submit")
    [attempt] = await motion.attempts(job_id)
    told: datetime | None = None

    async def observe(_held: object) -> Observation:
        status = AttemptStatus(attempt.id, Phase.STARTING, "7", expected_at=told)
        return Observation(True, motion.clock(), {attempt.id: status})

    async def kept() -> int | None:
        await motion.step("observe")
        [row] = await motion.attempts(job_id)
        expected: int | None = row.expected_at
        return expected

    monkeypatch.setattr(motion.driver, "observe", observe)
    assert await kept() is None
    told = first = motion.clock() + timedelta(hours=1)
    assert await kept() == to_micros(first)
    told = first + timedelta(minutes=5)
    assert await kept() == to_micros(first), "it is less than a tenth of what is left"
    told = first + timedelta(minutes=7)
    assert await kept() == to_micros(told)
    told = None
    assert await kept() is None


async def test_what_was_refused_has_nothing_to_be_brought_home(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    motion.engine.behave(refusing("Invalid account."))
    [job_id] = await motion.insert({})
    await motion.step("describe")
    await motion.dispatch()

    async def read_log(*_: object) -> LogChunk:
        raise AssertionError("the site was asked for the output of what it refused")

    monkeypatch.setattr(motion.driver, "read_log", read_log)
    await motion.step("submit", "finish")
    assert (await motion.job(job_id)).state == "failed"


async def test_output_behind_an_error_that_lasts_is_given_up_and_told(
    motion: SlowMotion, monkeypatch: pytest.MonkeyPatch
) -> None:
    [job_id] = await motion.insert({})
    await motion.round()
    motion.clock.advance(2)

    class Gone(DriverError):
        lasting = True

    async def read_log(*_: object) -> LogChunk:
        raise Gone("The account is gone.")

    monkeypatch.setattr(motion.driver, "read_log", read_log)
    await motion.step("observe", "finish")
    assert (await motion.job(job_id)).state == "finishing"
    motion.clock.advance(23 * 3600)
    motion.finishers[0].forget_failures()
    await motion.step("finish")
    assert (await motion.job(job_id)).state == "finishing"
    motion.clock.advance(2 * 3600)
    motion.finishers[0].forget_failures()
    await motion.step("finish")
    assert (await motion.job(job_id)).state == "succeeded"
    [attempt] = await motion.attempts(job_id)
    assert "The account is gone" in attempt.message


async def test_a_launch_names_the_flavor_on_which_room_was_given(motion: SlowMotion) -> None:
    await motion.insert({})
    await motion.step("describe")
    await motion.dispatch()
    rows = await motion.database.read(
        lambda connection: attempts.at_site(connection, SITE, [AttemptState.PLACED], limit=10)
    )
    (launch,) = await motion.database.read(lambda connection: launches.load(connection, rows, motion.tools.files))
    assert (launch.flavor, launch.flavors) == ("cpu", ("cpu",))
