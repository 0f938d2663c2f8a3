"""Pictures of a job as numbers, for the templates to draw: the queue ahead of it, when it starts, its attempts."""

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.resources import format_seconds
from atoll.jobs.estimates import BY_QUEUE, Estimates
from atoll.store import jobs
from atoll.store.tables import jobs as table

WIDTH = 1000
"""Of every picture; heights and places are in the same unit."""
_MOST_AHEAD = 2000
"""So many right ahead of a job are looked at."""
_MOST_GROUPS = 5


@dataclass(frozen=True)
class Part:
    """Some of the queue ahead: those of one project and class."""

    name: str
    number: int
    x: float
    width: float


@dataclass(frozen=True)
class Ahead:
    """The queue ahead of a job."""

    position: int
    waiting: int
    looked_at: int
    """How many right ahead of it the parts are of."""
    parts: list[Part]


def ahead(connection: Connection, estimate: dict[str, Any] | None, estimates: Estimates) -> Ahead | None:
    """Who is ahead in Atoll's queue; None where the job is not in it."""
    if estimate is None or estimate["by"] != BY_QUEUE or estimate["position"] is None:
        return None
    forecast = estimates.current(connection)
    if forecast is None:
        return None
    position = estimate["position"]
    ids = forecast.jobs[max(0, position - 1 - _MOST_AHEAD) : position - 1].tolist()
    columns = (table.c.id, table.c.project, table.c.class_)
    rows = jobs.get_many(connection, ids, columns)
    groups = Counter(f"{row.project or 'no project'}, {row.class_}" for row in rows.values())
    largest = groups.most_common(_MOST_GROUPS)
    others = sum(groups.values()) - sum(number for _, number in largest)
    if others:
        largest.append(("others", others))
    return Ahead(position, estimate["waiting"], len(rows), _parts(largest))


def _parts(groups: list[tuple[str, int]]) -> list[Part]:
    total = sum(number for _, number in groups)
    found, x = [], 0.0
    for name, number in groups:
        width = WIDTH * number / total
        found.append(Part(name, number, round(x, 1), round(width, 1)))
        x += width
    return found


@dataclass(frozen=True)
class Axis:
    """When a job is expected to start, between now and the latest: places on a line of WIDTH."""

    earliest: float
    start: float
    latest: float


def axis(estimate: dict[str, Any] | None, now: int) -> Axis | None:
    """Places of the expected start and its range; None where nobody can say."""
    if estimate is None or estimate["start"] is None or estimate["latest"] is None:
        return None
    times = [max(0, _micros(estimate[name]) - now) for name in ("earliest", "start", "latest")]
    # the latest has room beside it, so that the line goes on
    span = max(times[-1] / 0.9, 1)
    return Axis(*(round(WIDTH * each / span, 1) for each in times))


@dataclass(frozen=True)
class Stretch:
    """An attempt on the line of all attempts: where it waited, and where it ran."""

    x: float
    waited: float
    ran: float
    took: str
    """How long it ran, for people; empty: it did not."""


def stretches(attempts: list[dict[str, Any]], now: int) -> list[Stretch]:
    """Where attempts are on one line, from the first's placing to the last's end."""
    if not attempts:
        return []
    begin = min(_micros(each["placed_at"]) for each in attempts)
    end = max(_micros(each["ended_at"]) if each["ended_at"] else now for each in attempts)
    unit = WIDTH / max(1, end - begin)
    found = []
    for each in attempts:
        placed = _micros(each["placed_at"])
        ended = _micros(each["ended_at"]) if each["ended_at"] else max(now, placed)
        started = _micros(each["started_at"]) if each["started_at"] else ended
        took = format_seconds(max(0, ended - started) / 1_000_000) if each["started_at"] else ""
        # what took but a moment is to be seen too
        found.append(
            Stretch(round(unit * (placed - begin), 1), round(unit * max(0, started - placed), 1),
                    max(4.0, round(unit * max(0, ended - started), 1)) if each["started_at"] else 0.0, took)
        )  # fmt: skip
    return found


def _micros(moment: str) -> int:
    return to_micros(datetime.fromisoformat(moment))
