"""What the outbox says has changed, as changes of the scheduler's snapshot and as news for the forecasts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from atoll.control.forecasting import Forecaster
from atoll.control.mirror import Mirror
from atoll.control.pace import Pace
from atoll.control.waits import Waits
from atoll.core.project import TreeNode
from atoll.core.spec import JobClass
from atoll.scheduler.model import Change, JobGone, RoomFreed, RoomTaken
from atoll.store import events, projects, rooms
from atoll.store.rooms import Room, Span

EVENTS_AT_ONCE = 20_000
"""Most events that are caught up with in one go."""


@dataclass(frozen=True)
class News:
    """What a stretch of events turned out to mean."""

    changed: events.Changed
    changes: list[Change]
    """Of jobs, and of the room that they hold."""
    nodes: list[TreeNode] | None = None
    """The project tree, where it has changed."""
    more: bool = False
    """Whether more has changed."""


@dataclass(frozen=True)
class _Rooms:
    """Who of some jobs holds room now, and from when to when those ran who hold it no longer."""

    held: list[Room]
    spans: Mapping[str, Span]


class Newsreader:
    """Follows the outbox from `cursor` on, and remembers who holds room: of those that end nothing else tells."""

    def __init__(
        self, cursor: int, taken: Sequence[Room], mirror: Mirror, forecaster: Forecaster, pace: Pace, waits: Waits
    ) -> None:
        """`taken` is the room that is held at `cursor`."""
        self.cursor = cursor
        self._rooms: dict[int, dict[str, Room]] = {}  # by row of the job, and attempt
        for room in taken:
            self._rooms.setdefault(room.job_id, {})[room.attempt_id] = room
        self._mirror = mirror
        self._forecaster = forecaster
        self._pace = pace
        self._waits = waits

    def read(self, connection: Connection, now: int) -> tuple[News, _Rooms]:
        """What has changed since the last time, for `take`."""
        changed = events.changed(connection, self.cursor, EVENTS_AT_ONCE)
        more = changed.cursor - self.cursor >= EVENTS_AT_ONCE
        nodes = projects.load(connection) if changed.tree else None
        if not changed.jobs:
            return News(changed, [], nodes, more), _Rooms([], {})
        held = rooms.load(connection, changed.jobs)
        known = {attempt_id for job_id in changed.jobs for attempt_id in self._rooms.get(job_id, ())}
        freed = known - {room.attempt_id for room in held}
        spans = rooms.spans(connection, sorted(freed), now)
        return News(changed, self._mirror.changes(connection, changed.jobs), nodes, more), _Rooms(held, spans)

    def take(self, found: tuple[News, _Rooms], now: int) -> News:
        """Take in what was read, and learn from it; the news with all changes."""
        news, taken = found
        self.cursor = news.changed.cursor
        begun = [room for room in taken.held if room.started and not self._has_begun(room)]
        freed = self._exchange(news.changed.jobs, taken.held)
        # what was refused or taken back has freed no room at the site
        self._pace.count(Counter(room.site for room in freed.values() if not room.waits), now)
        changes: list[Change] = []
        for attempt_id, room in freed.items():
            span = taken.spans.get(attempt_id, Span())
            if span.began != room.started:
                # nobody had seen it begin, or the site says better when it did: so much counts as used
                room = replace(room, started=span.began)
                changes.append(RoomTaken(self._mirror.running(room)))
                if span.began:
                    begun.append(room)
            changes.append(RoomFreed(attempt_id, span.ended))
        changes += [RoomTaken(self._mirror.running(room)) for room in taken.held]
        for room in begun:
            self._waits.began(room.site, JobClass(room.class_), room.placed, room.started)
        learnt = self._learn(news, taken, freed)
        return replace(news, changes=[*news.changes, *changes, *learnt])

    def _has_begun(self, room: Room) -> bool:
        """Whether an attempt was known to have begun before."""
        known = self._rooms.get(room.job_id, {}).get(room.attempt_id)
        return known is not None and known.started > 0

    def _exchange(self, jobs: Sequence[int], rooms_now: Sequence[Room]) -> dict[str, Room]:
        """Remember who of some jobs holds room now; who did before and does no longer."""
        held: dict[int, dict[str, Room]] = {}
        for room in rooms_now:
            held.setdefault(room.job_id, {})[room.attempt_id] = room
        freed: dict[str, Room] = {}
        for job_id in jobs:
            now, before = held.get(job_id, {}), self._rooms.pop(job_id, {})
            freed |= {attempt_id: room for attempt_id, room in before.items() if attempt_id not in now}
            if now:
                self._rooms[job_id] = now
        return freed

    def _learn(self, news: News, taken: _Rooms, freed: Mapping[str, Room]) -> list[Change]:
        """Have the forecasts know what began, ended and went; what is expected now of what waits."""
        learnt: list[Change] = []
        for room in taken.held:
            if room.started:
                self._forecaster.started(room, room.started)
        for attempt_id, room in freed.items():
            span = taken.spans.get(attempt_id, Span())
            if span.began:
                self._forecaster.started(room, span.began)
            if (expects := self._forecaster.ran(room, span)) is not None:
                learnt.append(expects)
        placed = {room.job_id for room in (*taken.held, *freed.values())}
        for change in news.changes:
            if isinstance(change, JobGone) and change.job_id not in placed:
                self._forecaster.gone(change.job_id)
        return learnt
