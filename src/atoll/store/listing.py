"""The list of jobs as people look through it: sorted by a column, filtered, searched, and by page.

The ids of a page are found in the index `jobs_listed`, which has all that is asked for, and only their rows are read.
Arrays are one entry.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, func, or_, select

from atoll.core.states import JobState
from atoll.store.jobs import SUMMARY, JobRow, get_many
from atoll.store.tables import FIRST_TASK_ROW, jobs

_LIFE = list(JobState)
SORTS: dict[str, ColumnElement[Any]] = {
    # SQLite would go through all rows in the order of their ids, where it need but sort what it found in the index
    "id": jobs.c.id + 0,
    "name": jobs.c.name,
    "state": case({state.value: place for place, state in enumerate(_LIFE)}, value=jobs.c.state, else_=len(_LIFE)),
    "class": jobs.c.class_,
    "site": jobs.c.site,
    "project": jobs.c.project,
    "owner": jobs.c.owner,
    "started": jobs.c.started_at,
}
"""What the list may be sorted by. Ids rise as jobs are submitted, so that they are the order of that too."""


@dataclass(frozen=True)
class Listed:
    """Which jobs a list shows; None: whatever it is."""

    owner: str | None = None
    states: frozenset[JobState] = frozenset()
    class_: str | None = None
    site: str | None = None
    project: str | None = None
    text: str | None = None
    """Part of the name, in letters of any size."""
    job: int | None = None
    """Or this very job."""


def page(connection: Connection, wanted: Listed, sort: str, descending: bool, offset: int, limit: int) -> list[JobRow]:
    """At most `limit` rows after the first `offset`, sorted by a key of SORTS; what has no value comes last."""
    column = SORTS[sort]
    query = _filtered(connection, select(jobs.c.id), wanted)
    order = [(column.desc() if descending else column.asc()).nulls_last(), (jobs.c.id + 0).desc()]
    if sort == "id" and wanted == Listed(owner=wanted.owner):
        # nothing is to be left out: the first in the order of the ids are those of the page
        query = query.where(jobs.c.id < FIRST_TASK_ROW)
        order = [jobs.c.id.desc() if descending else jobs.c.id.asc()]
    query = query.order_by(*order).offset(offset).limit(limit)
    ids = list(connection.execute(query).scalars())
    rows = get_many(connection, ids, SUMMARY)
    return [rows[job_id] for job_id in ids if job_id in rows]


def count(connection: Connection, wanted: Listed) -> int:
    """How many jobs the list has."""
    query = _filtered(connection, select(func.count()).select_from(jobs), wanted)
    return int(connection.execute(query).scalar_one())


def _filtered(connection: Connection, query: Select[Any], wanted: Listed) -> Select[Any]:
    """The query with what is wanted, in words that have SQLite use the index."""
    query = query.where(jobs.c.array_id.is_(None))
    equal = (
        (jobs.c.owner, wanted.owner), (jobs.c.class_, wanted.class_), (jobs.c.site, wanted.site),
        (jobs.c.project, wanted.project),
    )  # fmt: skip
    for column, value in equal:
        if value is not None:
            query = query.where(column == value)
    if wanted.states:
        query = query.where(jobs.c.state.in_(sorted(wanted.states)))
    if wanted.text is not None or wanted.job is not None:
        named = [_has(connection, wanted.text)] if wanted.text is not None else []
        known = [jobs.c.id + 0 == wanted.job] if wanted.job is not None else []
        query = query.where(or_(*named, *known))
    return query


def _has(connection: Connection, text: str) -> ColumnElement[bool]:
    """Whether the name has a text in it; of SQLite itself, letters of any size are alike, if they are of ASCII."""
    if connection.dialect.name == "sqlite":
        return jobs.c.name.contains(text, autoescape=True)
    return jobs.c.name.icontains(text, autoescape=True)
