"""Figures that answers are made of: room in use, jobs by state."""

from dataclasses import dataclass

from sqlalchemy import Connection, text

from atoll.core.resources import Resources

_RANKS = {"interactive": 0, "service": 1, "batch": 2}


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
