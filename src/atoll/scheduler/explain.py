"""Why a job waits: the reason that a cycle tells, and the full answer to `why`.

What is told is written to the store, so its sentence holds no figure that changes with every job that starts
or ends; `explain` looks the current figures up.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atoll.core.clock import from_micros
from atoll.core.reasons import Reason, ReasonCode
from atoll.core.site import Health, Site
from atoll.scheduler.fit import RESOURCES, Room, amount, bare, clauses, is_open, obstacle
from atoll.scheduler.model import Demand, SiteState
from atoll.scheduler.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Explanation:
    """The full answer to why a job waits."""

    reason: Reason
    position: int
    """Its place in the queue; 1 is the head."""
    waiting: int
    """How many entries wait in all; an array is one."""
    facts: tuple[str, ...]
    """What else is to know, each a sentence: of its tasks, and of each site."""


def explain(snapshot: Snapshot, job_id: int, now: int) -> Explanation | None:
    """Why a job waits at `now` (microseconds), with current figures; None where it does not wait."""
    row = snapshot.row_of(job_id)
    if row is None:
        return None
    queue = snapshot.queue()
    room = snapshot.room()
    number = int(snapshot.rows["demand"][row])
    reason = held_back(snapshot, row, now, snapshot.limits()) or lacking(
        snapshot, room, number, int(snapshot.rows["rank"][row]), exact=True
    )
    facts = [_site_fact(snapshot, room, number, state) for _, state in sorted(snapshot.sites.items())]
    tasks = snapshot.tasks(row)
    if tasks is not None:
        facts.insert(0, f"Of its tasks {len(tasks)} wait and {snapshot.holders(row)} hold room.")
    return Explanation(reason, int(np.flatnonzero(queue == row)[0]) + 1, len(queue), tuple(facts))


def held_back(snapshot: Snapshot, row: int, now: int, holders: NDArray[np.int32]) -> Reason | None:
    """The reason of what may not start yet, room or not; `holders` of room as in `Snapshot.limits`."""
    job = snapshot.rows[row]
    if job["not_before"] > now:
        return _too_early(int(job["not_before"]), bool(job["backing_off"]))
    width = int(job["width"])
    if 0 <= width <= holders[job["limit"]]:
        sentence = f"Waits because the array has as many active tasks as it allows at once, {width}."
        return Reason.of(ReasonCode.ARRAY_LIMIT, sentence)
    return None


@lru_cache(maxsize=4096)
def _too_early(not_before: int, backing_off: bool) -> Reason:
    moment = f"{from_micros(not_before):%Y-%m-%d %H:%M:%S} UTC"
    if backing_off:
        return Reason.of(ReasonCode.BACKOFF, f"Waits until {moment} before it is tried again.")
    return Reason.of(ReasonCode.BEGIN_TIME, f"Waits for its begin time, {moment}.")


def lacking(snapshot: Snapshot, room: Room, number: int, rank: int, *, exact: bool = False) -> Reason:
    """What the demand `number` of a class (its rank) lacks now.

    `exact`: in current figures, so that the sentence changes with them.
    """
    demand, choices = snapshot.demands[number], snapshot.demands.preference(number)
    openings = [choice for choice in choices if room.open[choice]]
    if not openings:
        return _closed(demand, snapshot)
    if any(room.count(choice, demand.total, 1) or room.count_queued(choice, 1, rank) for choice in openings):
        return Reason.of(ReasonCode.NONE)
    nearest = next((choice for choice in openings if room.slots[room.pools[choice].site] > 0), openings[0])
    return Reason.of(ReasonCode.RESOURCES, _shortage(demand, room, nearest, exact))


def _shortage(demand: Demand, room: Room, number: int, exact: bool) -> str:
    pool = room.pools[number]
    if room.slots[pool.site] <= 0:
        return f"Waits for its turn at site {pool.site}, which has as many attempts as it is given at once."
    several = sum(other.site == pool.site for other in room.pools) > 1
    where = f"site {pool.site}" + (f", flavor {pool.flavor.name}," if several else "")
    total = demand.total
    if not exact:
        amounts = [amount(name, size) for name in RESOURCES if (size := getattr(total, name))]
        listed = " and ".join([", ".join(amounts[:-1]), amounts[-1]] if len(amounts) > 1 else amounts)
        return f"Waits for {listed}{_on(demand)}; {where} has less than that free."
    free = room.free[number]
    short = next(name for name in RESOURCES if getattr(total, name) > getattr(free, name))
    left, whole = max(0, getattr(free, short)), getattr(pool.flavor.total, short)
    wanted = f"{amount(short, getattr(total, short))}{_on(demand)}"
    return f"Waits for {wanted}; {where} has {amount(short, left)} free of {bare(short, whole)}."


def _on(demand: Demand) -> str:
    return f" on {demand.nodes} nodes" if demand.nodes > 1 else ""


def _closed(demand: Demand, snapshot: Snapshot) -> Reason:
    """The reason of what no open site could ever run."""
    if not snapshot.sites:
        return Reason.of(ReasonCode.NO_SITE, "No site can run it: there is no site yet.")
    obstacles, silent, drained = [], [], []
    for name, state in sorted(snapshot.sites.items()):
        found = obstacle(demand, state.site)
        if found is not None:
            obstacles.append(found.clause)
        elif state.drained:
            drained.append(name)
        else:
            silent.append(state.site)
    if silent:
        return Reason.of(ReasonCode.SITE_UNREACHABLE, f"Waits for {clauses(map(_silence, silent))}.")
    if drained:
        names = clauses(f"site {name}" for name in drained)
        return Reason.of(ReasonCode.RESOURCES, f"Waits for {names}, drained by its operator.")
    return Reason.of(ReasonCode.NO_SITE, f"No site can run it: {clauses(obstacles)}.")


def _silence(site: Site) -> str:
    silence = "does not answer" if site.health is Health.UNREACHABLE else "has not answered yet"
    return f"site {site.name}, which {silence}"


def _site_fact(snapshot: Snapshot, room: Room, number: int, state: SiteState) -> str:
    """One sentence on one site, seen by one demand."""
    site = state.site
    found = obstacle(snapshot.demands[number], site)
    if found is not None:
        return found.sentence
    if not is_open(state):
        if state.drained:
            return f"Site {site.name} is drained: nothing new starts there."
        if site.health is Health.OK or site.health is Health.UNKNOWN:
            return f"Site {site.name} has not reported yet."
        message = f": {site.message.rstrip('.')}" if site.message else ""
        return f"Site {site.name} does not answer{message}."
    choices = snapshot.demands.preference(number)
    here = [choice for choice in choices if room.pools[choice].site == site.name]
    parts = [f"{room.pools[choice].flavor.name} has {_free(room, choice)}" for choice in here]
    return f"Site {site.name} could run it: {clauses(parts)}."


def _free(room: Room, number: int) -> str:
    total, free = room.pools[number].flavor.total, room.free[number]
    return ", ".join(
        f"{amount(name, max(0, getattr(free, name)))} free of {bare(name, whole)}"
        for name in RESOURCES
        if (whole := getattr(total, name))
    )
