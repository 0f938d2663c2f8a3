"""The project tree with its people and quotas, and what its projects use."""

import json
from collections.abc import Collection, Iterable, Sequence
from datetime import date

from sqlalchemy import Connection, and_, delete, insert, select, text, update

from atoll.core.project import Column, Limit, TreeNode
from atoll.core.resources import Resources
from atoll.core.states import ENDED, JobState
from atoll.store import events
from atoll.store.jobs import chunked
from atoll.store.tables import FIRST_TASK_ROW, counters, project_people, projects, quotas

EVENT = "tree"
"""Kind of the event that says: the tree has changed, in its people at least."""
_REVISION = "tree"


def revision(connection: Connection) -> int:
    """The number that rises with each change of the tree; 0 where there never was one. Cheap to ask again."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == _REVISION)).scalar() or 0)


def load(connection: Connection) -> list[TreeNode]:
    """All nodes, by name; none where there is no tree, and quotas govern nothing."""
    limits: dict[str, dict[Column, Limit]] = {}
    for row in connection.execute(select(quotas)):
        limits.setdefault(row.project, {})[row.flavor, row.resource] = Limit(row.nominal, row.borrowing, row.lending)
    people: dict[str, list[str]] = {}
    managers: dict[str, list[str]] = {}
    # sorted here: databases have other ideas of the order of letters
    for row in sorted(connection.execute(select(project_people)), key=lambda row: row.person):
        if row.member:
            people.setdefault(row.project, []).append(row.person)
        if row.manager:
            managers.setdefault(row.project, []).append(row.person)
    return [
        TreeNode(
            row.name, row.parent, row.weight, limits.get(row.name, {}), tuple(people.get(row.name, ())),
            tuple(managers.get(row.name, ())), tuple(json.loads(row.clearance)), row.description,
            date.fromisoformat(row.ends) if row.ends else None,
        )
        for row in sorted(connection.execute(select(projects)), key=lambda row: row.name)
    ]  # fmt: skip


def clearance_of(connection: Connection, project: str | None) -> frozenset[str]:
    """The words that jobs of a project need: its own, and those of all above it; none where it is not in the tree."""
    words: set[str] = set()
    passed: set[str] = set()
    while project is not None and project not in passed:
        passed.add(project)
        row = connection.execute(
            select(projects.c.parent, projects.c.clearance).where(projects.c.name == project)
        ).one_or_none()
        if row is None:
            break
        words.update(json.loads(row.clearance))
        project = row.parent
    return frozenset(words)


def managers(connection: Connection, project: str) -> set[str] | None:
    """Who may change the people of a project; None where there is no such project."""
    if connection.execute(select(projects.c.name).where(projects.c.name == project)).first() is None:
        return None
    table = project_people
    query = select(table.c.person).where(table.c.project == project, table.c.manager)
    return set(connection.execute(query).scalars())


def has_children(connection: Connection, project: str) -> bool:
    """Whether a project has others below it."""
    query = select(projects.c.name).where(projects.c.parent == project).limit(1)
    return connection.execute(query).first() is not None


def names(connection: Connection) -> list[str]:
    """The names of all nodes."""
    return sorted(connection.execute(select(projects.c.name)).scalars())


def replace(connection: Connection, nodes: Sequence[TreeNode], now: int) -> bool:
    """Make `nodes`, which are checked, the tree; whether that is a change. Only what differs is written."""
    before = {node.name: node for node in load(connection)}
    after = {node.name: node for node in nodes}
    gone = [name for name, node in before.items() if after.get(name) != node]
    new = [node for name, node in after.items() if before.get(name) != node]
    if not gone and not new:
        return False
    for piece in chunked(gone):
        connection.execute(delete(projects).where(projects.c.name.in_(piece)))
        connection.execute(delete(project_people).where(project_people.c.project.in_(piece)))
        connection.execute(delete(quotas).where(quotas.c.project.in_(piece)))
    _insert(connection, new)
    _changed(connection, sorted({*gone, *(node.name for node in new)}), now)
    return True


def _insert(connection: Connection, nodes: Iterable[TreeNode]) -> None:
    rows, members, limits = [], [], []
    for node in nodes:
        rows.append({
            "name": node.name, "parent": node.parent, "weight": node.weight,
            "clearance": json.dumps(list(node.clearance)), "description": node.description,
            "ends": node.ends.isoformat() if node.ends else None,
        })  # fmt: skip
        members += [
            {
                "project": node.name,
                "person": person,
                "member": person in node.people,
                "manager": person in node.managers,
            }
            for person in sorted({*node.people, *node.managers})
        ]
        limits += [
            {"project": node.name, "flavor": flavor, "resource": resource, "nominal": limit.nominal,
             "borrowing": limit.borrowing, "lending": limit.lending}
            for (flavor, resource), limit in node.quotas.items()
        ]  # fmt: skip
    for table, found in ((projects, rows), (project_people, members), (quotas, limits)):
        if found:
            connection.execute(insert(table), found)


def change_people(
    connection: Connection, project: str, add: Collection[str], remove: Collection[str], now: int
) -> bool:
    """Let people submit to a project, or no longer; whether that is a change."""
    table = project_people
    known = {
        row.person: row for row in connection.execute(select(table).where(table.c.project == project))
    }  # fmt: skip
    members = {person for person, row in known.items() if row.member}
    new, gone = set(add) - members, set(remove) & members
    for person in sorted(new | gone):
        here = and_(table.c.project == project, table.c.person == person)
        if person not in known:
            values = {"project": project, "person": person, "member": True, "manager": False}
            connection.execute(insert(table).values(values))
        elif person in gone and not known[person].manager:
            connection.execute(delete(table).where(here))
        else:
            connection.execute(update(table).where(here).values(member=person in new))
    if new or gone:
        _changed(connection, [project], now)
    return bool(new or gone)


_MOST_NAMED = 100


def _changed(connection: Connection, names: Sequence[str], now: int) -> None:
    """Count the change, and write the event that tells of it."""
    following = revision(connection) + 1
    statement = update(counters).where(counters.c.name == _REVISION).values(value=following)
    if connection.execute(statement).rowcount == 0:
        connection.execute(insert(counters).values(name=_REVISION, value=following))
    data = {"revision": following, "projects": list(names[:_MOST_NAMED]), "count": len(names)}
    events.append(connection, [{"at": now, "kind": EVENT, "state": "changed", "data": json.dumps(data)}])


def usage(connection: Connection) -> dict[tuple[str, str], Resources]:
    """What attempts hold room for, by project and flavor: all but those of opportunistic jobs, which have no quota."""
    query = text(
        "SELECT jobs.project AS project, flavor, sum(attempts.cpu * attempts.nodes) AS cpu, "
        "sum(attempts.memory * attempts.nodes) AS memory, sum(attempts.gpu * attempts.nodes) AS gpu "
        "FROM attempts JOIN jobs ON jobs.id = attempts.job_id "
        "WHERE kept AND attempts.state <> 'ended' AND class <> 'opportunistic' AND jobs.project IS NOT NULL "
        "GROUP BY jobs.project, flavor"
    )
    return {
        (row.project, row.flavor): Resources(int(row.cpu), int(row.memory), int(row.gpu))
        for row in connection.execute(query)
    }


def unended(connection: Connection) -> dict[str | None, int]:
    """How many jobs (arrays as one) have not ended, by project; those without one under None."""
    # written out, and by states, so that the databases go through the index of what has not ended and nothing else
    states = ", ".join(f"'{state}'" for state in sorted(JobState) if state not in ENDED)
    query = text(
        "SELECT project, count(*) AS number FROM jobs "  # noqa: S608 - constants of this module
        f"WHERE state NOT IN ('succeeded', 'failed', 'cancelled') AND state IN ({states}) "
        "AND array_id IS NULL AND id < :task GROUP BY project"
    ).bindparams(task=FIRST_TASK_ROW)
    return {row.project: row.number for row in connection.execute(query)}
