"""Others make room for jobs with a claim: what is asked of them, what they are told, and that they come back."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import Connection

from atoll.core.ids import JobRef
from atoll.core.project import Limit, TreeNode
from atoll.core.reasons import ReasonCode
from atoll.jobs import actions
from atoll.jobs.actions import Target
from atoll.jobs.estimates import Estimates
from atoll.jobs.why import why
from atoll.scheduler.model import Policy
from atoll.store import events, evictions, projects, reserved
from atoll.store.evictions import Eviction
from atoll.store.people import Principal
from tests.control.harness import SlowMotion

ADA = Principal("ada", administrator=False)
CPU = ("cpu", "cpu")


def job(seconds: Any = 1000, **rest: Any) -> dict[str, Any]:
    """A job that runs for so long, and ends at once when it is asked to unless `stop` (seconds) is given."""
    stop = rest.pop("stop", 0)
    return {"env": {"FAKE_RUNTIME": str(seconds), "FAKE_STOP_TIME": str(stop)}, "memory": "1M", **rest}


def idle(**rest: Any) -> dict[str, Any]:
    return job(**{"class": "opportunistic", "cpu": 1, **rest})


def tree(**nominal: int) -> list[TreeNode]:
    """Projects side by side, each with so many CPUs of its own that all others may borrow."""
    leaves = [TreeNode(name, "root", quotas={CPU: Limit(cpus * 1000)}) for name, cpus in nominal.items()]
    return [TreeNode("root"), *leaves]


async def plant(motion: SlowMotion, nodes: list[TreeNode]) -> None:
    await motion.database.write(lambda connection: projects.replace(connection, nodes, motion.tools.now()))


async def running(motion: SlowMotion, *documents: dict[str, Any], owner: str = "ada") -> list[int]:
    ids = await motion.insert(*documents, owner=owner)
    await motion.round()
    await motion.step("observe")
    assert await states(motion, ids) == ["running"] * len(ids)
    return ids


async def states(motion: SlowMotion, ids: list[int]) -> list[str]:
    return [(await motion.job(job_id)).state for job_id in ids]


async def reasons_to_stop(motion: SlowMotion, ids: list[int]) -> list[str | None]:
    return [(await motion.attempts(job_id))[-1].stop_reason for job_id in ids]


async def told(motion: SlowMotion, job_id: int) -> dict[str, Any]:
    now = motion.tools.now()
    return await motion.database.read(lambda connection: why(connection, JobRef(job_id), ADA, now, Estimates()))


# ---- evictions


async def test_idle_work_makes_room_and_comes_back(motion: SlowMotion) -> None:
    victims = await running(motion, *[idle(seconds=30, checkpoint={})] * 4)
    submitted = (await motion.job(victims[0])).submitted_at
    motion.clock.advance(5)
    [claim] = await motion.insert(job(10, cpu=2, **{"class": "interactive"}))
    await motion.dispatch()
    assert sorted(await states(motion, victims)) == ["running", "running", "stopping", "stopping"]
    row = await motion.job(claim)
    assert (row.state, row.reason) == ("queued", ReasonCode.MAKING_ROOM)
    assert (row.promised_site, row.promised_flavor, row.promised_count) == ("played", "cpu", 1)
    [leaves, _] = [each for each in victims if (await motion.job(each)).state == "stopping"]
    assert "it makes room for a job with a claim" in ((await motion.job(leaves)).sentence or "")
    assert (await motion.attempts(leaves))[0].evicted_for == claim
    await motion.dispatch()  # nobody else is chosen while they leave
    await motion.step("stop", "observe")
    await motion.dispatch()
    row = await motion.job(claim)
    assert (row.state, row.promised_count) == ("placed", None)
    await motion.step("submit", "observe", "finish")
    row = await motion.job(leaves)
    assert (row.state, row.reason, row.evictions, row.submitted_at) == ("queued", ReasonCode.EVICTED, 1, submitted)
    answer = await told(motion, leaves)
    assert "Attempt 1 was evicted for a job with a claim." in answer["facts"]
    await motion.dispatch()
    assert motion.dispatcher._snapshot.waiting(leaves).placement.kept_at == "played", "its checkpoints are there"
    await motion.settle()
    for job_id in (*victims, claim):
        assert (await motion.job(job_id)).state == "succeeded"
    assert [attempt.outcome for attempt in await motion.attempts(leaves)] == ["evicted", "succeeded"]
    assert set(motion.engine.starts.values()) == {1}


async def test_the_owner_hears_of_the_project_and_of_nothing_else(motion: SlowMotion) -> None:
    await plant(motion, tree(astro=4, physics=0))
    [victim] = await running(motion, idle(cpu=4, project="physics"))
    await motion.insert(job(cpu=4, name="secret", project="astro"), owner="eve")
    await motion.dispatch()
    answer = await told(motion, victim)
    assert answer["sentence"] == "Is being stopped: it makes room for a job with a claim of project astro."
    await motion.step("stop", "observe", "finish")
    answer = await told(motion, victim)
    assert answer["sentence"] == "Was evicted for a job with a claim of project astro."
    assert not any("secret" in fact or "eve" in fact for fact in answer["facts"])


async def test_a_promise_holds_when_another_replica_takes_over(motion: SlowMotion) -> None:
    [victim] = await running(motion, idle(cpu=4, stop=20, grace=60))
    [claim] = await motion.insert(job(5, cpu=4))
    await motion.dispatch()
    await motion.step("stop")
    await motion.crash()
    [late] = await motion.insert(job(5, cpu=4, **{"class": "interactive"}))
    await motion.dispatch()
    motion.clock.advance(21)
    await motion.step("observe", "finish")
    await motion.dispatch()
    assert await states(motion, [claim, late]) == ["placed", "queued"]
    await motion.settle(rounds=100, seconds=20)
    assert await states(motion, [victim, claim, late]) == ["succeeded"] * 3


async def test_a_promise_to_a_job_that_does_not_wait_any_more_is_dropped(motion: SlowMotion) -> None:
    await running(motion, idle(cpu=4, stop=20))
    [claim] = await motion.insert(job(cpu=4))
    await motion.dispatch()
    hold = partial(actions.hold, target=Target(JobRef(claim)), who=ADA, now=motion.tools.now())
    await motion.database.write(hold)
    row = await motion.job(claim)
    assert (row.state, row.promised_site, row.promised_count) == ("held", None, None)
    release = partial(actions.release, target=Target(JobRef(claim)), who=ADA, now=motion.tools.now())
    await motion.database.write(release)
    await motion.dispatch()
    await motion.step("stop")
    motion.clock.advance(21)
    for _ in range(3):
        await motion.round()
    assert (await motion.job(claim)).state == "running"


async def test_tasks_of_an_array_are_promised_room_one_by_one(motion: SlowMotion) -> None:
    victims = await running(motion, *[idle()] * 4)
    [array] = await motion.insert(job(5, cpu=1, array="0-2"))
    await motion.dispatch()
    assert (await motion.job(array)).promised_count == 3
    assert (await states(motion, victims)).count("stopping") == 3
    await motion.step("stop", "observe")
    await motion.dispatch()
    row = await motion.job(array)
    assert (row.promised_count, row.waiting_count, row.active_count) == (None, 0, 3)


async def test_an_attempt_that_just_ended_is_left_alone(motion: SlowMotion) -> None:
    [victim] = await running(motion, idle(seconds=50, cpu=4))
    [claim] = await motion.insert(job(5, cpu=4))
    [attempt] = await motion.attempts(victim)
    motion.clock.advance(60)
    await motion.step("observe")  # its end is in the store, and not yet in what the dispatcher knows
    now = motion.tools.now()
    await motion.database.write(lambda c: evictions.evict(c, [Eviction(attempt.id, claim)], now))
    await motion.step("finish")
    row = await motion.job(victim)
    assert (row.state, row.evictions) == ("succeeded", 0)
    assert (await motion.attempts(victim))[0].evicted_for is None


async def test_nobody_leaves_for_a_job_that_does_not_wait(motion: SlowMotion) -> None:
    [victim] = await running(motion, idle(cpu=4))
    [claim] = await motion.insert(job(5, cpu=4))
    await motion.database.write(partial(actions.cancel, target=Target(JobRef(claim)), who=ADA, now=motion.tools.now()))
    [attempt] = await motion.attempts(victim)
    now = motion.tools.now()
    await motion.database.write(lambda c: evictions.evict(c, [Eviction(attempt.id, claim)], now))
    assert await reasons_to_stop(motion, [victim]) == [None]


async def test_one_that_is_cancelled_while_it_leaves_does_not_come_back(motion: SlowMotion) -> None:
    [victim] = await running(motion, idle(cpu=4, stop=20))
    [claim] = await motion.insert(job(5, cpu=4))
    await motion.dispatch()
    await motion.step("stop")
    await motion.database.write(partial(actions.cancel, target=Target(JobRef(victim)), who=ADA, now=motion.tools.now()))
    assert await reasons_to_stop(motion, [victim]) == ["cancelled"]
    motion.clock.advance(21)
    for _ in range(3):
        await motion.round()
    row = await motion.job(victim)
    assert (row.state, row.reason) == ("cancelled", ReasonCode.CANCELLED)
    assert (await motion.job(claim)).state == "running"


async def test_what_was_not_handed_over_goes_back_without_an_eviction(motion: SlowMotion) -> None:
    await motion.step("describe")
    [victim] = await motion.insert(idle(cpu=4))
    await motion.dispatch()
    [claim] = await motion.insert(job(5, cpu=4))
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == ["recalled"]
    await motion.step("stop", "finish")
    row = await motion.job(victim)
    assert (row.state, row.reason, row.evictions) == ("queued", ReasonCode.RECALLED, 0)
    await motion.dispatch()
    assert (await motion.job(claim)).state == "placed"


async def test_idle_work_that_is_evicted_again_and_again_waits_longer_each_time(motion: SlowMotion) -> None:
    await motion.step("describe")
    [victim] = await motion.insert(idle(cpu=4))
    waits: list[int] = []
    words: list[str | None] = []
    for _ in range(6):
        row = await motion.job(victim)
        motion.clock.advance(max(0, row.not_before - motion.tools.now()) / 1_000_000)
        await motion.round()
        await motion.step("observe")
        assert (await motion.job(victim)).state == "running"
        await motion.insert(job(1, cpu=4))
        await motion.dispatch()
        await motion.step("stop", "observe", "finish")
        row = await motion.job(victim)
        words.append(row.sentence)
        waits.append(max(0, round((row.not_before - motion.tools.now()) / 1_000_000)))
        for _ in range(2):
            await motion.round()
            motion.clock.advance(0.5)
        await motion.step("observe", "finish")
    assert waits == [0, 0, 0, 1, 2, 4]
    assert words[2:4] == [
        "Was evicted for a job with a claim.",
        "Waits a while, because it was evicted 4 times: there is little that is idle.",
    ]


async def test_a_batch_job_runs_its_minute_before_it_is_evicted(motion: SlowMotion) -> None:
    [victim] = await running(motion, job(cpu=4))
    [urgent] = await motion.insert(job(5, cpu=4, priority=5))
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == [None]
    motion.clock.advance(61)
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == ["evicted"]
    for _ in range(3):
        await motion.round()
    assert await states(motion, [victim, urgent]) == ["queued", "running"]


# ---- quotas


async def test_quotas_are_enforced_and_told(motion: SlowMotion) -> None:
    nodes = [TreeNode("root"), TreeNode("astro", "root", quotas={CPU: Limit(2000, borrowing=0)}), *tree(bio=2)[1:]]
    await plant(motion, nodes)
    first, second, third = await motion.insert(*[job(cpu=1, project="astro")] * 3)
    await motion.round()
    assert await states(motion, [first, second, third]) == ["running", "running", "queued"]
    row = await motion.job(third)
    assert row.reason == ReasonCode.QUOTA
    assert row.sentence == "Waits for quota: project astro has less than 1 CPU of flavor cpu left."


async def test_who_borrows_leaves_when_the_owner_comes(motion: SlowMotion) -> None:
    await plant(motion, tree(astro=2, bio=2))
    borrowers = await running(motion, *[job(cpu=1, project="astro")] * 4)
    motion.clock.advance(61)
    [owner] = await motion.insert(job(5, cpu=2, project="bio"))
    for _ in range(3):
        await motion.round()
    assert (await motion.job(owner)).state == "running"
    assert sorted(await states(motion, borrowers)) == ["queued", "queued", "running", "running"]


async def test_a_tree_that_changes_while_jobs_wait_counts_at_once(motion: SlowMotion) -> None:
    await plant(motion, tree(astro=1, bio=0))
    await motion.step("describe")
    ids = await motion.insert(*[job(cpu=1, project="astro")] * 3)
    await motion.dispatch()
    assert await states(motion, ids) == ["placed", "queued", "queued"]
    await plant(motion, tree(astro=2, bio=0))
    await motion.dispatch()
    assert await states(motion, ids) == ["placed", "placed", "queued"]
    await plant(motion, [])
    await motion.dispatch()
    assert await states(motion, ids) == ["placed"] * 3
    assert not motion.dispatcher._mirror.has_tree


async def test_a_tree_that_appears_governs_what_waits_already(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.insert(job(cpu=4, project="astro"))
    await motion.dispatch()
    [waiting] = await motion.insert(job(cpu=1, project="astro"))
    await plant(motion, tree(astro=4, bio=0))
    await motion.dispatch()
    assert (await motion.job(waiting)).reason == ReasonCode.QUOTA


async def test_what_waits_goes_only_where_its_data_may_as_the_tree_says_now(motion: SlowMotion) -> None:
    await plant(motion, tree(astro=4))
    await motion.step("describe")
    await motion.insert(job(cpu=4, project="astro"))
    await motion.dispatch()
    [waiting] = await motion.insert(job(cpu=4, project="astro"))
    await motion.dispatch()
    root, astro = tree(astro=8)
    await plant(motion, [root, replace(astro, clearance=("patients",))])
    await motion.dispatch()
    found = await motion.job(waiting)
    assert (found.state, found.reason) == ("queued", ReasonCode.NO_SITE)
    assert "is not cleared for patients" in found.sentence
    await plant(motion, [root, astro])
    await motion.dispatch()
    assert (await motion.job(waiting)).reason == ReasonCode.RESOURCES


# ---- notices


@pytest.fixture
async def noticed(motion: SlowMotion) -> tuple[SlowMotion, int, int]:
    """A borrower's interactive job that was told to leave, and the job that it was told to leave for."""
    motion.tools = replace(motion.tools, policy=Policy(notice=60))
    motion.dispatcher = type(motion.dispatcher)(motion.tools)
    await plant(motion, tree(astro=0, bio=4))
    [victim] = await running(motion, job(cpu=4, project="astro", **{"class": "interactive"}))
    [claim] = await motion.insert(job(5, cpu=4, project="bio", **{"class": "interactive"}), owner="bob")
    before = await motion.database.read(events.last_id)
    await motion.dispatch()
    found = await motion.database.read(lambda connection: events.after(connection, before))
    assert victim in [event.job_id for event in found]
    return motion, victim, claim


async def test_a_borrower_is_told_before_it_is_asked(noticed: tuple[SlowMotion, int, int]) -> None:
    motion, victim, claim = noticed
    [attempt] = await motion.attempts(victim)
    assert attempt.stop_reason is None
    assert (attempt.evicted_for, attempt.notice_at > motion.tools.now()) == (claim, True)
    words = (await told(motion, victim))["sentence"]
    assert words == "Runs, and will be asked to leave at 2026-01-01 00:01 UTC for a job with a claim of project bio."
    await motion.crash()
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == [None]
    motion.clock.advance(61)
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == ["evicted"]
    for _ in range(3):
        await motion.round()
    assert await states(motion, [victim, claim]) == ["queued", "running"]


async def test_a_borrower_may_stay_when_nobody_needs_its_room_any_more(noticed: tuple[SlowMotion, int, int]) -> None:
    motion, victim, claim = noticed
    cancel = partial(actions.cancel, target=Target(JobRef(claim)), who=ADA, now=motion.tools.now())
    await motion.database.write(partial(cancel, who=Principal("bob", administrator=False)))
    await motion.dispatch()
    [attempt] = await motion.attempts(victim)
    assert (attempt.stop_reason, attempt.evicted_for, attempt.notice_at) == (None, None, None)
    assert (await told(motion, victim))["sentence"] == "Is running."
    motion.clock.advance(100)
    await motion.dispatch()
    assert await reasons_to_stop(motion, [victim]) == [None]


# ---- reservations and shares


async def test_a_reserved_start_outlives_the_replica_that_gave_it(motion: SlowMotion) -> None:
    await running(motion, job(100, cpu=3, walltime=200))
    [large] = await motion.insert(job(5, cpu=4, walltime=10))
    await motion.dispatch()
    [start] = await motion.database.read(reserved.load)
    assert (start.job_id, start.site, start.flavor) == (large, "played", "cpu")
    assert "It has a reservation" in str((await told(motion, large))["facts"])
    await motion.crash()
    long, short = await motion.insert(job(5, cpu=1, walltime=5000), job(5, cpu=1, walltime=20))
    await motion.dispatch()
    assert await states(motion, [large, long, short]) == ["queued", "queued", "placed"]
    assert await motion.database.read(reserved.load) == [start]
    motion.clock.advance(101)
    for _ in range(3):
        await motion.round()
        motion.clock.advance(6)
    await motion.settle(rounds=60, seconds=20)
    assert await states(motion, [large, long, short]) == ["succeeded"] * 3
    assert await motion.database.read(reserved.load) == []


async def test_a_row_that_cannot_be_read_stops_nobody(motion: SlowMotion) -> None:
    await motion.step("describe")
    broken, fine = await motion.insert(job(), job())

    def break_it(connection: Connection) -> None:
        connection.exec_driver_sql(f"UPDATE jobs SET spec = 'nonsense' WHERE id = {broken}")

    await motion.database.write(break_it)
    await motion.dispatch()
    assert (await motion.job(fine)).state == "placed"


async def test_who_used_less_goes_first_also_after_a_restart(motion: SlowMotion) -> None:
    await plant(motion, tree(astro=2, bio=2))
    await running(motion, job(50, cpu=4, project="astro"))
    motion.clock.advance(60)
    await motion.step("observe", "finish")
    [heavy] = await motion.insert(job(cpu=4, project="astro"))
    [light] = await motion.insert(job(cpu=4, project="bio"), owner="bob")
    await motion.crash()
    await motion.dispatch()
    assert await states(motion, [heavy, light]) == ["queued", "placed"]


async def test_what_began_and_ended_unseen_counts_as_after_a_restart(motion: SlowMotion) -> None:
    await motion.step("describe")
    await motion.insert(job(50, cpu=4))
    await motion.dispatch()
    await motion.dispatch()
    await motion.step("submit")
    motion.clock.advance(60)
    await motion.step("observe", "finish")
    await motion.dispatch()
    kept = motion.dispatcher._snapshot.shares.share(("ada", "ada"))
    await motion.crash()
    await motion.dispatch()
    assert kept == pytest.approx(motion.dispatcher._snapshot.shares.share(("ada", "ada")), rel=0.1)
    assert kept > 0
