"""Whether a snapshot is right: all that it says, as objects, and each of its caches held against what it is made from.

For tests and for whoever looks for a fault; so it reads what the snapshot keeps to itself.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from atoll.scheduler.demands import Demands
from atoll.scheduler.fit import Pool, lasting, pools_of
from atoll.scheduler.model import Running, SiteState, Waiting
from atoll.scheduler.order import Standing
from atoll.scheduler.snapshot import Snapshot


def contents(snapshot: Snapshot) -> tuple[dict[int, Waiting], dict[str, Running], dict[str, SiteState]]:
    """All that the changes said: what waits by job, what holds room by attempt, the sites by name.

    Snapshots with equal contents hold the same, however they came to it; what was told does not count.
    """
    return (
        {job: snapshot.waiting(job) for job in snapshot.jobs},
        {attempt: snapshot.running(attempt) for attempt in snapshot.attempts},
        dict(sorted(snapshot.sites.items())),
    )


def validate(snapshot: Snapshot) -> None:
    """Hold every cache against what it is made from. Raises AssertionError."""
    waiting, running, _ = contents(snapshot)
    _check_order(snapshot, waiting)
    _check_use(snapshot)
    arrays = sum(job.tasks is not None for job in waiting.values())
    assert len(snapshot._tasks) == arrays, "tasks without a job"
    snapshot.owned.validate()
    snapshot._held.validate()
    _check_holders(snapshot, waiting, running)
    _check_demands(snapshot, waiting)


def _check_order(snapshot: Snapshot, waiting: Mapping[int, Waiting]) -> None:
    order = [int(snapshot.rows["job"][row]) for row in snapshot.queue()]
    standing = Standing(snapshot.shares, snapshot.is_over)
    keys = standing.sort_keys((job.rank, job.project, job.placement.person) for job in waiting.values())
    expected = sorted(
        (key, -job.priority, job.submitted, job.job_id) for key, job in zip(keys, waiting.values(), strict=True)
    )
    assert order == [key[-1] for key in expected], "the queue is not in order"


def _check_use(snapshot: Snapshot) -> None:
    shares, usage = snapshot.shares.amounts(), None if snapshot.quotas is None else snapshot.quotas.usage.copy()
    snapshot._count_all()
    assert snapshot.shares.amounts() == shares, "the fair shares are miscounted"
    assert snapshot.quotas is None or (snapshot.quotas.usage == usage).all(), "the quotas' use is miscounted"


def _check_holders(snapshot: Snapshot, waiting: Mapping[int, Waiting], running: Mapping[str, Running]) -> None:
    """How many attempts of each job and array hold room, and those that are limited."""
    holders = Counter(attempt.job_id for attempt in running.values())
    assert snapshot._holders == holders, "those that hold room are miscounted"
    limited = Counter(
        job.job_id if job.group is None else job.group for job in waiting.values() if job.width is not None
    )
    limits = {group: snapshot._limits.rows[number].item() for group, number in snapshot._limits.index.items()}
    assert limits == {group: (holders[group], uses) for group, uses in limited.items()}, "limits are miscounted"


def _check_demands(snapshot: Snapshot, waiting: Iterable[int]) -> None:
    """Who demands what, which are alike, and what could run each."""
    rows = snapshot.rows[np.array([snapshot.row_of(job) for job in waiting], np.intp)]
    users = Counter[int](rows["demand"].tolist())
    assert len(snapshot.demands) == len(users), "a demand without a job is kept"
    assert users == {number: snapshot.demands.uses(number) for number in users}, "users are miscounted"
    kinds = Counter(zip(rows["bucket"].tolist(), rows["demand"].tolist(), strict=True))
    assert snapshot._kinds.counts() == kinds, "rows that are alike are miscounted"
    snapshot.demands.validate()
    fresh, pools = Demands(), pools_of(snapshot.sites.values())
    fresh.place(pools, snapshot.sites)
    # what others hold at a site changes often, and its pools are not made anew for it
    assert _lasting(snapshot.pools) == _lasting(pools), "the pools are stale"
    for number in users:
        judged = fresh.possible[fresh.hold(snapshot.demands[number])]
        assert (snapshot.demands.possible[number] == judged).all(), "a demand is judged by what was"


def _lasting(pools: Iterable[Pool]) -> list[Pool]:
    return [replace(pool, flavor=lasting(pool.flavor)) for pool in pools]
