"""What others hold at a site counts as far as two looks at it agree."""

from __future__ import annotations

from itertools import pairwise

from sqlalchemy import Connection, select, update

from atoll.core.resources import Resources
from atoll.store import sites
from atoll.store.tables import sites as table
from tests.control.harness import SlowMotion


async def others(motion: SlowMotion) -> int:
    """Look at the site; the CPUs that then count as used by others."""
    await motion.step("describe")
    (site,) = await motion.database.read(sites.load)
    assert site.report is not None
    return site.report.flavors[0].others.cpu // 1000


async def look_again_in(motion: SlowMotion) -> float:
    """Look at the site; the seconds until the next look."""
    pause = await motion.describer.step(motion.lease())
    assert pause is not None
    return pause


async def test_load_of_others_counts_at_the_first_look_and_later_once_it_is_confirmed(motion: SlowMotion) -> None:
    motion.engine.used_by_others(Resources(cpu=1000))
    assert await others(motion) == 1
    motion.engine.used_by_others(Resources(cpu=3000))
    assert [await others(motion), await others(motion)] == [1, 3]
    motion.engine.used_by_others(Resources())
    assert await others(motion) == 0


async def test_unconfirmed_load_is_looked_at_again_soon(motion: SlowMotion) -> None:
    steady = await look_again_in(motion)
    motion.engine.used_by_others(Resources(cpu=2000))
    soon = await look_again_in(motion)
    assert soon < steady / 5
    assert await look_again_in(motion) == steady


async def test_load_that_never_rests_is_looked_at_twice_a_minute_at_most(motion: SlowMotion) -> None:
    steady = await look_again_in(motion)
    pauses = []
    for busy in (1, 2, 3, 4, 0, 1, 2, 3):
        motion.engine.used_by_others(Resources(cpu=1000 * busy))
        pauses.append(await look_again_in(motion))
    assert not [pair for pair in pairwise(pauses) if max(pair) < steady]


async def test_our_own_jobs_that_begin_and_end_unseen_are_not_taken_for_others(motion: SlowMotion) -> None:
    assert await others(motion) == 0
    await motion.insert({"cpu": 3, "env": {"FAKE_RUNTIME": "30"}})
    await motion.dispatch()
    await motion.step("submit")
    assert (motion.engine.free.cpu, await others(motion)) == (1000, 0)  # it runs, and nobody has looked yet
    await motion.step("observe")
    assert [await others(motion), await others(motion)] == [0, 0]


async def test_jobs_of_others_leave_no_room_for_ours(motion: SlowMotion) -> None:
    motion.engine.used_by_others(Resources(cpu=3000))
    await motion.step("describe")
    small, large = await motion.insert({"cpu": 1}, {"cpu": 2})
    await motion.dispatch()
    assert [(await motion.job(job)).site is not None for job in (small, large)] == [True, False]


async def test_a_report_is_written_only_where_it_says_something_new(motion: SlowMotion) -> None:
    async def written() -> tuple[str, int]:
        def read(connection: Connection) -> tuple[str, int]:
            row = connection.execute(select(table.c.report, table.c.seen_at)).one()
            return row.report, row.seen_at

        return await motion.database.read(read)

    await others(motion)
    first, seen = await written()
    # what nobody but us could have written stays there
    await motion.database.write(lambda connection: connection.execute(update(table).values(report=first + " ")))
    motion.clock.advance(60)
    await others(motion)
    assert await written() == (first + " ", seen + 60_000_000)
    motion.engine.used_by_others(Resources(cpu=1000))
    await others(motion)
    assert (await written())[0] not in (first, first + " ")
