"""One cycle of the scheduler: from a snapshot and a time to decisions.

Jobs are looked at in the order of the queue. Each starts where it has quota and room; where it has not, others that
have to leave for it are asked to, or it gets a reservation that nobody who comes after it may break (EASY back-filling:
Lifka, "The ANL/IBM SP scheduling system", JSSPP 1995; here one reservation for each disjoint set of pools).
"""

from collections.abc import Hashable, Iterator

import numpy as np
from numpy.typing import NDArray

from atoll.core.reasons import Reason
from atoll.scheduler.explain import View, held_back, lacking
from atoll.scheduler.kinds import kinds_of
from atoll.scheduler.model import CLASSES, OPPORTUNISTIC, Decisions
from atoll.scheduler.order import Standing, Walk
from atoll.scheduler.round import Round
from atoll.scheduler.snapshot import Snapshot

HEAD = 1000
"""How many jobs, from the head of the queue, are told why they wait; others are told as they come near."""

Rows = NDArray[np.intp]


def cycle(snapshot: Snapshot, now: int, *, head: int = HEAD, most: int | None = None) -> Decisions:
    """What shall happen at `now` (microseconds). Of the snapshot only caches change, and what was told.

    When `most` attempts start, the rest of the queue is not looked at: it has its turn in the next cycle, which is to
    follow at once. What that rest was told, promised and reserved stays as it was.
    """
    # 1. Order the queue, and leave out what waits for a time.
    snapshot.learn_if_due()
    queue = snapshot.queue()
    due, wakeups = _due(snapshot, queue, now)
    # 2. Keep what was promised, and what is reserved.
    this = Round(snapshot, now, most)
    this.keep_bookings()
    this.keep_promises()
    this.keep_reservations()
    # 3. Choose a site for each in turn, or whom to evict for it, or a reservation.
    this.serve_overdue(due)
    ranks = snapshot.rows["rank"][due]
    for rank in range(len(CLASSES)):
        _serve(this, due[ranks == rank], rank)
    if not this.is_cut_short():
        this.ask_idle()
    # 4. Pull back what waits in a site's own queue before others with more right.
    recalls = this.recalls()
    # 5. Explain the rest.
    reasons = [] if this.is_cut_short() else _explain(this, queue[: head + len(this.started)], now)
    return Decisions(
        this.placements(), tuple(reasons), min([*wakeups, *this.wakeups()], default=None), recalls,
        tuple(this.evictions.chosen), this.promised(), this.reprieved(), this.reservations(),
        this.is_cut_short(),
    )  # fmt: skip


def _due(snapshot: Snapshot, queue: Rows, now: int) -> tuple[Rows, list[int]]:
    """The rows that may start at `now`, and the time of the next that will."""
    begins = snapshot.rows["not_before"][queue]
    due = begins <= now
    later = begins[~due]
    return queue[due], [int(later.min())] if later.size else []


def _serve(this: Round, rows: Rows, rank: int) -> None:
    """Look at the rows of one class in the order of the queue, as it changes with every start.

    Room only shrinks within a cycle: a demand that did not fit once does not fit again.
    """
    if not len(rows) or this.is_cut_short():
        return
    buckets = this.snapshot.buckets(this.worth_a_look(rows))
    parts = ((project, person, part) for (_, project, person), part in buckets)
    walk = Walk(Standing(this.shares, this.is_over), parts, rank == OPPORTUNISTIC, this.dead)
    for row in walk:
        started, more = this.serve(row, alone=walk.alone)
        if started:
            walk.charged(row if more else None)
        if this.is_cut_short():
            return
    this.close(rows)


def _explain(this: Round, rows: Rows, now: int) -> list[tuple[int, Reason]]:
    """Why these rows still wait, where that is news."""
    rows = rows[[bool(this.left_of(row)) for row in rows.tolist()]]
    jobs = this.snapshot.rows["job"][rows].tolist()
    reasons = zip(rows.tolist(), jobs, _reasons(this, rows, now), strict=True)
    return [(job_id, reason) for row, job_id, reason in reasons if this.snapshot.tell(row, reason)]


def _reasons(this: Round, rows: Rows, now: int) -> Iterator[Reason]:
    """Why each of these rows waits. Those that are alike wait for the same, so that few are looked at one by one."""
    snapshot, waiting = this.snapshot, this.snapshot.rows
    view = View(snapshot, this.room, this.quotas, now, this.promises)
    promised = np.isin(waiting["job"][rows], list(view.waits_for_others()))
    free_to_go = (waiting["not_before"][rows] <= now) & this.below_width(rows) & ~promised
    alike = zip(kinds_of(snapshot, rows).tolist(), waiting["priority"][rows].tolist(), strict=True)
    of_kind: dict[Hashable, Reason] = {}
    of_alike: dict[tuple[int, int], Reason] = {}
    for row, is_free, like in zip(rows.tolist(), free_to_go.tolist(), alike, strict=True):
        if not is_free:
            yield held_back(snapshot, row, now, this.holders) or lacking(view, row)
            continue
        if (reason := of_alike.get(like)) is None:
            kind = view.kind(row)
            if (reason := of_kind.get(kind)) is None:
                reason = of_kind[kind] = lacking(view, row)
            of_alike[like] = reason
        yield reason
