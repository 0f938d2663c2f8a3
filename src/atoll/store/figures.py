"""Figures that answers are made of: places in the queue, room in use, jobs by state."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from atoll.core.resources import Resources
from atoll.store.jobs import JobRow

_RANK = "CASE class WHEN 'interactive' THEN 0 WHEN 'service' THEN 1 WHEN 'batch' THEN 2 ELSE 3 END"
_WAITS = (
    "(state = 'queued' OR (state = 'running' AND waiting_count > 0)) AND NOT hold AND blockers = 0 "
    "AND state NOT IN ('succeeded', 'failed', 'cancelled')"
)
_RANKS = {"interactive": 0, "service": 1, "batch": 2}


def queue_position(connection: Connection, row: JobRow) -> tuple[int, int]:
    """The place of a waiting job (1: next) and how many entries wait in all; an array is one entry.

    The order is the scheduler's: class, priority (high first), age, id.
    """
    query = text(
        "SELECT count(*) AS waiting, coalesce(sum(CASE WHEN "  # noqa: S608 - constants of this module
        f"{_RANK} < :rank OR ({_RANK} = :rank AND (priority > :priority OR (priority = :priority AND "
        "(submitted_at < :submitted OR (submitted_at = :submitted AND id < :id))))) "
        f"THEN 1 ELSE 0 END), 0) AS ahead FROM jobs WHERE {_WAITS}"
    )
    values = {
        "rank": _RANKS.get(row.class_, 3), "priority": row.priority, "submitted": row.submitted_at, "id": row.id,
    }  # fmt: skip
    found = connection.execute(query, values).one()
    return int(found.ahead) + 1, int(found.waiting)


@dataclass(frozen=True, slots=True)
class Used:
    """What attempts of ours hold of one flavor at one site."""

    resources: Resources
    attempts: int


def used(connection: Connection, *, running: bool = False) -> dict[tuple[str, str], Used]:
    """Room in use, by site and flavor: by all that was placed, or only by what runs."""
    query = text(
        "SELECT site, flavor, count(*) AS number, sum(cpu * nodes) AS cpu, sum(memory * nodes) AS memory, "
        "sum(gpu * nodes) AS gpu FROM attempts WHERE kept AND state <> 'ended' AND (state = 'running' OR NOT :running) "
        "GROUP BY site, flavor"
    ).bindparams(running=running)
    return {
        (row.site, row.flavor): Used(Resources(int(row.cpu), int(row.memory), int(row.gpu)), int(row.number))
        for row in connection.execute(query)
    }


@dataclass(frozen=True, slots=True)
class Standing:
    """How many jobs and tasks of a class and project are held, wait, or have a place."""

    class_: str
    project: str | None
    held: int = 0
    waiting: int = 0
    running: int = 0


def by_class_and_project(connection: Connection) -> list[Standing]:
    """How the queue stands, by class and project; what has none last. Tasks count one by one."""
    # a row that is an array counts by its waiting tasks; its others have rows of their own
    query = text(
        "SELECT class, project, state, hold OR blockers > 0 AS stopped, sum(waiting_count) AS tasks, "
        "sum(CASE WHEN waiting_count = 0 AND active_count = 0 THEN 1 ELSE 0 END) AS single "
        "FROM jobs WHERE state NOT IN ('succeeded', 'failed', 'cancelled') GROUP BY class, project, state, stopped"
    )
    found: dict[tuple[str, str | None], dict[str, int]] = {}
    for row in connection.execute(query):
        counts = found.setdefault((row._mapping["class"], row.project), {"held": 0, "waiting": 0, "running": 0})
        waits = {"held": "held", "queued": "waiting"}.get(row.state)
        counts[waits or "running"] += int(row.single)
        counts["held" if row.stopped else waits or "waiting"] += int(row.tasks)
    ordered = sorted(found.items(), key=lambda item: (_RANKS.get(item[0][0], 3), item[0][1] is None, item[0][1]))
    return [Standing(class_, project, **counts) for (class_, project), counts in ordered]
