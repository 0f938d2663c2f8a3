"""Placing on the nodes that a site lists: what was chosen is kept, told to the driver, and known to the next leader."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from atoll.core.site import NodeSpot
from atoll.scheduler.consistency import contents, validate
from atoll.scheduler.snapshot import Snapshot
from atoll.store import rooms
from atoll.store.spots import read_spots, write_spots
from tests.control.harness import SlowMotion


@pytest.fixture
def played() -> dict[str, Any]:
    return {"cpus": 4, "gpus": 2, "nodes": 3, "owned": True}


def lasting(seconds: int = 1000, **rest: Any) -> dict[str, Any]:
    return {"env": {"FAKE_RUNTIME": str(seconds)}, "memory": "1M", **rest}


async def nodes_of(motion: SlowMotion, *ids: int) -> list[list[str]]:
    """The nodes of each job's last attempt, as they are kept; the engine was told the same."""
    found = []
    for job_id in ids:
        attempt = (await motion.attempts(job_id))[-1]
        kept = [spot.node for spot in read_spots(attempt.spots)]
        assert motion.engine.nodes_of(attempt.id) == tuple(kept)
        found.append(kept)
    return found


async def picture(motion: SlowMotion) -> tuple[Snapshot, list[list[int]]]:
    """The dispatcher's snapshot, and milli-CPU, bytes and milli-GPU of each device free on each node."""
    await motion.dispatch()
    snapshot = motion.dispatcher._snapshot
    validate(snapshot)
    nodes = snapshot.owned.nodes
    return snapshot, [nodes.cpu.tolist(), nodes.memory.tolist(), nodes.gpu.tolist()]


async def test_driver_is_told_the_nodes_and_no_node_gets_more_than_it_has(motion: SlowMotion) -> None:
    ids = await motion.insert(*[lasting(cpu=3)] * 4)
    await motion.round()
    assert sorted(await nodes_of(motion, *ids[:3])) == [["node-0"], ["node-1"], ["node-2"]]
    assert (await motion.job(ids[3])).state == "queued", "9 of 12 CPUs are taken, and no node has three"


async def test_ranks_of_a_job_on_several_nodes_have_distinct_ones(motion: SlowMotion) -> None:
    (job,) = await motion.insert(lasting(nodes=3))
    await motion.round()
    assert sorted((await nodes_of(motion, job))[0]) == ["node-0", "node-1", "node-2"]


async def test_each_task_of_an_array_has_a_node(motion: SlowMotion) -> None:
    (array,) = await motion.insert(lasting(cpu=2, array="0-6"))
    await motion.round()
    taken = await motion.database.read(lambda connection: rooms.load(connection, None))
    assert Counter(spot.node for room in taken for spot in room.spots) == {"node-0": 2, "node-1": 2, "node-2": 2}
    assert {room.array_id for room in taken} == {array}


async def test_a_new_leader_has_the_same_picture_after_a_crash(motion: SlowMotion) -> None:
    share, pair, wide, whole = await motion.insert(
        lasting(gpu=0.5, cpu=1), lasting(gpu=2, cpu=1), lasting(nodes=3, cpu=2), lasting(cpu=4)
    )
    await motion.step("describe")
    await motion.dispatch()
    assert (await motion.attempts(share))[-1].state == "placed"
    before, free = await picture(motion)
    await motion.crash()
    after, same = await picture(motion)
    assert after is not before
    assert (contents(after), same) == (contents(before), free)
    await motion.round()
    assert [len(nodes) for nodes in await nodes_of(motion, share, pair, wide)] == [1, 1, 3]
    assert {spot.gpus for spot in read_spots((await motion.attempts(pair))[-1].spots)} == {((0, 1000), (1, 1000))}
    await motion.round()
    before, free = await picture(motion)
    await motion.crash()
    after, same = await picture(motion)
    assert (contents(after), same) == (contents(before), free)
    assert (await motion.job(whole)).state == "queued"


async def test_a_job_waits_that_only_pieces_of_several_nodes_could_hold_and_starts_when_one_is_free(
    motion: SlowMotion,
) -> None:
    await motion.insert(*[lasting(10, cpu=3)] * 3)
    (large,) = await motion.insert(lasting(cpu=4))
    await motion.round()
    assert (await motion.job(large)).state == "queued"
    motion.clock.advance(12)
    await motion.round()
    await motion.round()
    assert len(await nodes_of(motion, large)) == 1


def test_spots_come_back_as_they_were_written() -> None:
    spots = NodeSpot("a"), NodeSpot("b", ((0, 1000), (3, 1000)))
    assert read_spots(write_spots(spots)) == spots
    assert (write_spots(()), read_spots(None)) == (None, ())
