"""The dispatch loop and what holds tasks back: the width of their array, what it waits for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, update

from atoll.core.ids import JobRef
from atoll.core.states import HOLDS_ROOM
from atoll.jobs import actions
from atoll.jobs.actions import Target
from atoll.store import jobs, rooms
from atoll.store.database import Database
from atoll.store.people import Principal
from atoll.store.tables import jobs as table
from tests.control.harness import SlowMotion

ADA = Principal("ada", False)


@pytest.fixture
async def motion(database_url: str, tmp_path: Path) -> AsyncIterator[SlowMotion]:
    database = Database.open(database_url)
    slow = SlowMotion(database, tmp_path, cpus=16)
    await slow.begin()
    await slow.step("describe")
    yield slow
    database.close()


async def _holding(motion: SlowMotion, array: int) -> int:
    tasks = await motion.database.read(lambda connection: jobs.get_tasks(connection, array))
    return sum(task.state in HOLDS_ROOM for task in tasks)


async def _to_its_end(motion: SlowMotion, array: int) -> list[int]:
    """Play until the array has ended; how many tasks held room after each round of the dispatch loop."""
    seen = []
    for _ in range(40):
        await motion.dispatch()
        seen.append(await _holding(motion, array))
        await motion.step("submit", "observe")
        motion.clock.advance(5)
        await motion.step("observe", "finish", "forget", "describe")
        if (await motion.job(array)).state == "succeeded":
            return seen
    raise AssertionError(f"the array does not end: {seen}")


async def test_an_array_keeps_to_its_width_when_it_runs_again(motion: SlowMotion) -> None:
    [array] = await motion.insert({"cpu": 1, "memory": "1M", "array": "0-6%2"})
    assert max(await _to_its_end(motion, array)) == 2
    target = Target(JobRef(array))
    await motion.database.write(lambda connection: actions.requeue(connection, target, ADA, motion.tools.now()))
    assert max(await _to_its_end(motion, array)) == 2


async def test_a_new_dispatcher_knows_what_holds_the_width(motion: SlowMotion) -> None:
    [array] = await motion.insert({"cpu": 1, "memory": "1M", "array": "0-6%2"})
    await motion.dispatch()
    await motion.crash()
    await motion.step("describe")
    await motion.dispatch()
    assert await _holding(motion, array) == 2


async def test_the_room_of_a_task_is_known_as_its_arrays(motion: SlowMotion) -> None:
    array, single = await motion.insert({"memory": "1M", "array": "3"}, {"memory": "1M"})
    await motion.dispatch()
    taken = await motion.database.read(lambda connection: rooms.load(connection, None))
    assert {(room.array_id, room.array_id is None and room.job_id) for room in taken} == {
        (array, False), (None, single),
    }  # fmt: skip


@pytest.mark.parametrize("column", ["hold", "blockers"])
async def test_what_is_held_back_is_not_even_tried(motion: SlowMotion, column: str) -> None:
    [job] = await motion.insert({"memory": "1M"})

    def hold_back(connection: Connection) -> None:
        connection.execute(update(table).where(table.c.id == job).values({column: 1 if column == "blockers" else True}))

    await motion.database.write(hold_back)
    await motion.dispatch()
    assert len(motion.dispatcher._snapshot) == 0
