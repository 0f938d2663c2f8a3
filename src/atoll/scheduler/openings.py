"""Room that a site's own engine says will come, for the forecast: who else's work ends when, only the engine knows.

No cycle uses it: what is placed where is decided by what is free.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from atoll.core.clock import to_micros
from atoll.core.site import Opening
from atoll.scheduler.ahead import SECOND, Amounts, Part, RoomAhead, as_row, held_amounts
from atoll.scheduler.snapshot import Snapshot

_FRESH = 300 * SECOND
"""What an engine said longer ago than this counts for nothing."""


def parts_of_openings(snapshot: Snapshot, room: RoomAhead) -> Iterator[Part]:
    """What becomes free of each open pool by its engine's word, beyond what is known to come.

    From an opening on there is as much free as it says, and not as much more: one may take it. What is free now, what
    attempts of ours leave by then at the latest, and earlier openings are part of it.
    """
    for number, pool in enumerate(snapshot.pools):
        if not room.open[number]:
            continue
        report = snapshot.sites[pool.site].site.report
        # from the site itself: the pools are not made anew each time that its engine says something else
        told = [
            opening
            for flavor in (report.flavors if report else ())
            for opening in (flavor.openings if flavor.name == pool.flavor.name else ())
            if room.now - to_micros(opening.asked_at) <= _FRESH
        ]
        if told:
            yield from _of_pool(snapshot, room, number, sorted(told, key=lambda opening: opening.at))


def _of_pool(snapshot: Snapshot, room: RoomAhead, number: int, told: Sequence[Opening]) -> Iterator[Part]:
    rows = snapshot.holders_of(number)
    amounts, ends = held_amounts(snapshot, rows), snapshot.ends(rows, room.now)
    waits = snapshot.holding["waits"][rows]
    # what waits in the engine's queue holds nothing yet, and the engine knows of it
    known: Amounts = np.maximum(0, room.free[number] + amounts[waits].sum(axis=0))
    for opening in told:
        at = max(room.now, to_micros(opening.at))
        leaving = amounts[~waits & (ends <= at)].sum(axis=0)
        lacks = np.maximum(0, np.array(as_row(opening.room), np.int64) - known - leaving)
        if lacks.any():
            known = known + lacks
            yield Part(at, number, tuple(lacks.tolist()))
