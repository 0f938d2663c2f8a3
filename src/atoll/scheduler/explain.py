"""Why a job waits: the reason that a cycle tells, and the full answer to `why`.

What is told is written to the store, so its sentence holds no figure that changes with every job that starts
or ends; `explain` looks the current figures up.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from atoll.core.clock import from_micros
from atoll.core.project import RESOURCES
from atoll.core.reasons import Reason, ReasonCode
from atoll.core.resources import Resources, format_seconds
from atoll.core.site import Health, Site
from atoll.scheduler.fit import Obstacle, amount, bare, clauses, is_open, obstacle
from atoll.scheduler.line import Right
from atoll.scheduler.model import OPPORTUNISTIC, Demand, Promise, SiteState
from atoll.scheduler.quota import Quotas
from atoll.scheduler.room import Room
from atoll.scheduler.round import Round
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


@dataclass(frozen=True, slots=True)
class View:
    """What a reason is looked for in: what is left of room and quotas, and what is promised."""

    snapshot: Snapshot
    room: Room
    quotas: Quotas | None
    now: int
    promises: Mapping[int, Promise] = field(default_factory=dict)
    """Those that the snapshot does not have yet."""

    def demand(self, row: int) -> Demand:
        """What a row demands."""
        return self.snapshot.demands[int(self.snapshot.rows["demand"][row])]

    def choices(self, row: int) -> list[int]:
        """The pools that are open and could run a row, the preferred first."""
        return [choice for choice in self.snapshot.preference(row) if self.room.open[choice]]

    def waits_for_others(self) -> frozenset[int]:
        """The jobs for which others may leave, see `promise`."""
        return frozenset(self.promises) | frozenset(self.snapshot.promised())

    def kind(self, row: int) -> Hashable:
        """What decides what a row lacks, apart from a promise: rows with equal ones lack the same."""
        demand, choices = self.demand(row), tuple(self.choices(row))
        return (demand.request, demand.nodes, choices, _right(self.snapshot, row)) if choices else demand

    def promise(self, row: int) -> Promise | None:
        """The room that others leave for a row; None once they have left."""
        job_id = int(self.snapshot.rows["job"][row])
        if (promise := self.promises.get(job_id)) is not None:
            return promise
        promise, holding = self.snapshot.promise(job_id), self.snapshot.holding
        if promise is None or not np.any((holding["leaves_for"] == job_id) & (holding["nodes"] > 0)):
            return None
        return promise


def explain(snapshot: Snapshot, job_id: int, now: int) -> Explanation | None:
    """Why a job waits at `now` (microseconds), with current figures; None where it does not wait."""
    row = snapshot.row_of(job_id)
    if row is None:
        return None
    queue = snapshot.queue()
    this = Round(snapshot, now)
    this.keep_bookings()
    this.keep_promises()
    this.keep_reservations()
    view = View(snapshot, this.room, this.quotas, now)
    reason = held_back(snapshot, row, now, snapshot.limits()) or lacking(view, row, exact=True)
    facts = _standing(view, row)
    facts += [_site_fact(view, row, state) for _, state in sorted(snapshot.sites.items())]
    tasks = snapshot.tasks(row)
    if tasks is not None:
        facts.insert(0, f"Of its tasks {len(tasks)} wait and {snapshot.holders(row)} hold room.")
    return Explanation(reason, int(np.flatnonzero(queue == row)[0]) + 1, len(queue), tuple(facts))


def _standing(view: View, row: int) -> list[str]:
    """What a job may expect of the queue."""
    snapshot, facts = view.snapshot, []
    if snapshot.rows["rank"][row] == OPPORTUNISTIC:
        facts.append("It is opportunistic: it runs on what is idle, and has no promise of when that is.")
    reservation = snapshot.reservations.get(int(snapshot.rows["job"][row]))
    if reservation is not None:
        moment = f"{from_micros(reservation.start):%Y-%m-%d %H:%M:%S} UTC"
        facts.append(f"It has a reservation: it starts at site {reservation.site} at {moment} at the latest.")
    return facts


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


def lacking(view: View, row: int, *, exact: bool = False) -> Reason:
    """What a row lacks now.

    `exact`: in current figures, so that the sentence changes with them.
    """
    promise = view.promise(row)
    if promise is not None:
        sentence = f"Waits for others to leave: they make room for it at site {promise.site}, flavor {promise.flavor}."
        return Reason.of(ReasonCode.MAKING_ROOM, sentence)
    openings = view.choices(row)
    if not openings:
        return _closed(view.demand(row), view.snapshot)
    short = {choice: found for choice in openings if (found := _quota_short(view, row, choice)) is not None}
    if len(short) == len(openings):
        return Reason.of(ReasonCode.QUOTA, _quota_shortage(view, row, short[openings[0]], exact))
    openings = [choice for choice in openings if choice not in short]
    demand, right = view.demand(row), _right(view.snapshot, row)
    if any(view.room.count_queued(choice, 1, right) for choice in openings):
        return Reason.of(ReasonCode.NONE)
    taking = [choice for choice in openings if view.room.slots[view.room.pools[choice].site] > 0]
    if any(view.room.has_room(choice, demand) for choice in taking):
        if not any(view.room.is_held(choice) for choice in taking):
            return Reason.of(ReasonCode.NONE)
        return Reason.of(ReasonCode.PRIORITY, "Waits for its turn: what is free is kept for jobs before it.")
    nearest = (taking or openings)[0]
    return Reason.of(ReasonCode.RESOURCES, _shortage(demand, view.room, nearest, exact))


def _right(snapshot: Snapshot, row: int) -> Right:
    rank, project, _ = snapshot.bucket(row)
    return Right(rank, project, snapshot.rows["priority"].item(row))


def _quota_short(view: View, row: int, choice: int) -> tuple[str, str, int, int] | None:
    """The flavor, resource, amount wanted and available, of what the project lacks to start in a pool."""
    quotas, snapshot = view.quotas, view.snapshot
    if quotas is None or snapshot.rows["rank"][row] == OPPORTUNISTIC:
        return None
    flavor, total = view.room.pools[choice].flavor.name, view.demand(row).total
    number = quotas.tree.index.get(snapshot.bucket(row)[1])
    for name, column in quotas.tree.governed.get(flavor, ()):
        wanted = getattr(total, name)
        left = 0 if number is None else quotas.available_at(number, column)
        if wanted > left:
            return flavor, name, wanted, left
    return None


def _quota_shortage(view: View, row: int, short: tuple[str, str, int, int], exact: bool) -> str:
    flavor, name, wanted, left = short
    project = view.snapshot.bucket(row)[1]
    lack = f"Waits for quota: project {project} has less than {amount(name, wanted)} of flavor {flavor} left"
    if not exact:
        return f"{lack}."
    quotas = view.quotas
    assert quotas is not None
    number, column = quotas.tree.index.get(project), quotas.tree.column[flavor, name]
    if number is None:
        return f"Waits for quota: there is no project {project or '(none)'} in the tree any more."
    used, own = quotas.usage.item(number, column), quotas.subtree.item(number, column)
    figures = f"it uses {bare(name, used)}, its own quota is {bare(name, own)}"
    return f"{lack}: {figures}, and {bare(name, max(0, left))} is available."


def _shortage(demand: Demand, room: Room, number: int, exact: bool) -> str:
    pool = room.pools[number]
    if room.slots[pool.site] <= 0:
        return f"Waits for its turn at site {pool.site}, which has as many attempts as it is given at once."
    several = sum(other.site == pool.site for other in room.pools) > 1
    where = f"site {pool.site}" + (f", flavor {pool.flavor.name}," if several else "")
    total, is_owned = demand.total, room.nodes_of(number) is not None
    if not exact:
        if is_owned:
            return f"Waits for {_nodes_with(demand)}; {where} has less than that free."
        return f"Waits for {_listed(total)}{_on(demand)}; {where} has less than that free."
    free = room.free[number]
    if total.fits(free):
        if not is_owned:
            return "Waits for its turn: what is free is kept for jobs before it."
        found = room.with_room(number, demand)
        return f"Waits for {_nodes_with(demand)}; {where} has {found} such nodes, the rest is in smaller pieces."
    short = next(name for name in RESOURCES if getattr(total, name) > getattr(free, name))
    left, whole = max(0, getattr(free, short)), getattr(pool.flavor.total, short)
    wanted = f"{amount(short, getattr(total, short))}{_on(demand)}"
    return f"Waits for {wanted}; {where} has {amount(short, left)} free of {bare(short, whole)}."


@lru_cache(maxsize=4096)
def _listed(amounts: Resources) -> str:
    parts = [amount(name, size) for name in RESOURCES if (size := getattr(amounts, name))]
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)


def _nodes_with(demand: Demand) -> str:
    return f"{'one node' if demand.nodes == 1 else f'{demand.nodes} nodes'} with {_listed(demand.request)} free"


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


def _site_fact(view: View, row: int, state: SiteState) -> str:
    """One sentence on one site, seen by one demand."""
    site, room = state.site, view.room
    found: Obstacle | None = obstacle(view.demand(row), site)
    if found is not None:
        return found.sentence
    if not is_open(state):
        if state.drained:
            return f"Site {site.name} is drained: nothing new starts there."
        if site.health is Health.OK or site.health is Health.UNKNOWN:
            return f"Site {site.name} has not reported yet."
        message = f": {site.message.rstrip('.')}" if site.message else ""
        return f"Site {site.name} does not answer{message}."
    here = [choice for choice in view.choices(row) if room.pools[choice].site == site.name]
    if not here:
        usual = format_seconds(site.wait.of(view.demand(row).placement.class_))
        return f"Site {site.name} has a usual wait of {usual}, longer than the job runs; it stays local."
    parts = [f"{room.pools[choice].flavor.name} has {_free(room, choice)}" for choice in here]
    return f"Site {site.name} could run it: {clauses(parts)}."


def _free(room: Room, number: int) -> str:
    total, free = room.pools[number].flavor.total, room.free[number]
    return ", ".join(
        f"{amount(name, max(0, getattr(free, name)))} free of {bare(name, whole)}"
        for name in RESOURCES
        if (whole := getattr(total, name))
    )
