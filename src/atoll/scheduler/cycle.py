"""One cycle of the scheduler: from a snapshot and a time to decisions.

First come, first fits: in the order of the queue each job starts if any site has room for it now, and one
that does not fit holds nobody up.
"""

import numpy as np
from numpy.typing import NDArray

from atoll.core.ranges import Ranges
from atoll.core.reasons import Reason
from atoll.scheduler.explain import held_back, lacking
from atoll.scheduler.fit import Room
from atoll.scheduler.model import CLASSES, Decisions, Place
from atoll.scheduler.snapshot import Snapshot

HEAD = 1000
"""How many jobs, from the head of the queue, are told why they wait; others are told as they come near."""
_BLOCK = 1024

Rows = NDArray[np.intp]
Holders = NDArray[np.int32]
"""How many tasks hold room, by the number of their limit, see `Snapshot.limits`."""


def cycle(snapshot: Snapshot, now: int, *, head: int = HEAD) -> Decisions:
    """What shall happen at `now` (microseconds). Of the snapshot only caches change, and what was told."""
    # 1. Order the queue.
    queue = snapshot.queue()
    # 2. Leave out what waits for a time, or for its own limit.
    ready, next_wakeup = _ready(snapshot, queue, now)
    # 3. Choose a site.
    room = snapshot.room()
    placements, started = _choose(snapshot, room, ready)
    # 4. Pull back what waits in a site's own queue before others with more right.
    recalls = room.recalls()
    # 5. Explain the rest.
    reasons = _explain(snapshot, room, queue[: head + len(started)], started, now)
    return Decisions(tuple(placements), tuple(reasons), next_wakeup, recalls)


def _ready(snapshot: Snapshot, queue: Rows, now: int) -> tuple[Rows, int | None]:
    """The rows that may start at `now`, and the time of the next that will."""
    rows = snapshot.rows
    begins = rows["not_before"][queue]
    due = begins <= now
    later = begins[~due]
    return queue[due & _below_width(snapshot, queue, snapshot.limits())], int(later.min()) if later.size else None


def _below_width(snapshot: Snapshot, rows: Rows, holders: Holders) -> NDArray[np.bool_]:
    """Which rows' own arrays let one more task hold room."""
    width = snapshot.rows["width"][rows]
    # what has no width has limit -1, the last of all: it does not matter
    below: NDArray[np.bool_] = (width < 0) | (holders[snapshot.rows["limit"][rows]] < width)
    return below


def _choose(snapshot: Snapshot, room: Room, ready: Rows) -> tuple[list[Place], dict[int, int]]:
    """Places for the rows in their order, and how many tasks (1 for a single job) of each row start.

    Room only shrinks within a cycle: a demand that did not fit once does not fit again, so that all its jobs
    are passed over at the cost of looking them up in an array.
    """
    placements: list[Place] = []
    started: dict[int, int] = {}
    holders = snapshot.limits()
    ranks = snapshot.rows["rank"][ready]
    for rank in range(len(CLASSES)):
        # what a site's own queue takes differs from class to class
        rows = ready[ranks == rank]
        _choose_of_rank(snapshot, room, rows, rank, holders, placements, started)
        if room.recalling:
            room.close(_still_wanted(snapshot, rows, holders, started))
    return placements, started


def _still_wanted(snapshot: Snapshot, rows: Rows, holders: Holders, started: dict[int, int]) -> NDArray[np.bool_]:
    """Which pools (a column for each) some of the rows wait for that were not placed, or not with all tasks."""
    demands = snapshot.demands
    waits = np.zeros(len(snapshot.rows), np.bool_)
    waits[rows[_below_width(snapshot, rows, holders)]] = True
    waits[[row for row, count in started.items() if count == _size(snapshot, row)]] = False
    numbers = np.zeros(len(demands.totals), np.bool_)
    numbers[snapshot.rows["demand"][waits]] = True
    return np.asarray(demands.possible[numbers].any(axis=0), np.bool_)


def _size(snapshot: Snapshot, row: int) -> int:
    """How many tasks of a row wait; 1 for a single job."""
    tasks = snapshot.tasks(row)
    return 1 if tasks is None else len(tasks)


def _choose_of_rank(
    snapshot: Snapshot, room: Room, ready: Rows, rank: int, holders: Holders, placements: list[Place],
    started: dict[int, int],
) -> None:  # fmt: skip
    demands = snapshot.demands
    column = snapshot.rows["demand"]
    priorities = snapshot.rows["priority"]
    if not len(ready):
        return
    fits = room.fitting(demands.totals, demands.possible, rank, int(priorities[ready[0]]))
    ready = ready[fits[column[ready]]]
    for begin in range(0, len(ready), _BLOCK):
        block = ready[begin : begin + _BLOCK]
        block = block[fits[column[block]] & _below_width(snapshot, block, holders)]
        full = False
        for row, number in zip(block.tolist(), column[block].tolist(), strict=True):
            if not fits[number] or not (wanted := _wanted(snapshot, row, holders)):
                continue
            places = _place(snapshot, room, row, number, wanted)
            placements += places
            count = sum(1 if place.tasks is None else len(place.tasks) for place in places)
            if count:
                started[row] = count
                if (limit := snapshot.rows["limit"][row]) >= 0:
                    holders[limit] += count
            if count < wanted:
                fits[number] = False
                full = True
        if full and begin + _BLOCK < len(ready):
            highest = int(priorities[ready[begin + _BLOCK]])
            fits = room.fitting(demands.totals, demands.possible, rank, highest)
            if not fits.any():
                break


def _wanted(snapshot: Snapshot, row: int, holders: Holders) -> int:
    """How many tasks of a row may start now; at most 1 for a single job."""
    wanted = _size(snapshot, row)
    width = snapshot.rows["width"][row]
    return wanted if width < 0 else max(0, min(wanted, int(width - holders[snapshot.rows["limit"][row]])))


def _place(snapshot: Snapshot, room: Room, row: int, number: int, wanted: int) -> list[Place]:
    """Give a row as much room as it wants and there is, in the pools that it prefers; then places in sites' queues."""
    job_id, tasks = int(snapshot.rows["job"][row]), snapshot.tasks(row)
    rank, priority = int(snapshot.rows["rank"][row]), int(snapshot.rows["priority"][row])
    total = snapshot.demands[number].total
    places: list[Place] = []
    for queued in (False, True):
        for choice in snapshot.demands.preference(number):
            if not wanted:
                return places
            if queued:
                count = room.count_queued(choice, wanted, rank, priority)
            else:
                count = room.count(choice, total, wanted)
            if count:
                if queued:
                    room.take_queued(choice, total, count, rank, priority)
                else:
                    room.take(choice, total, count)
                wanted -= count
                taken: Ranges | None = None
                if tasks is not None:
                    taken, tasks = tasks.take(count)
                pool = room.pools[choice]
                places.append(Place(job_id, taken, pool.site, pool.flavor.name))
    return places


def _explain(snapshot: Snapshot, room: Room, rows: Rows, started: dict[int, int], now: int) -> list[tuple[int, Reason]]:
    """Why these rows still wait, where that is news."""
    jobs = snapshot.rows["job"][rows].tolist()
    numbers = snapshot.rows["demand"][rows].tolist()
    known: dict[tuple[int, int], Reason] = {}
    holders = snapshot.limits()
    for row, count in started.items():
        if (limit := snapshot.rows["limit"][row]) >= 0:
            holders[limit] += count
    news = []
    for row, job_id, number in zip(rows.tolist(), jobs, numbers, strict=True):
        count = started.get(row, 0)
        tasks = snapshot.tasks(row)
        if count and (tasks is None or count == len(tasks)):
            continue
        reason = held_back(snapshot, row, now, holders)
        if reason is None:
            kind = number, int(snapshot.rows["rank"][row])
            if kind not in known:
                known[kind] = lacking(snapshot, room, *kind)
            reason = known[kind]
        if snapshot.tell(row, reason):
            news.append((job_id, reason))
    return news
