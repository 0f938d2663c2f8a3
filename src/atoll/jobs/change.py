"""Changing what a job asked for, while that still matters."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError
from sqlalchemy import Connection, select, update

from atoll.core.clock import from_micros
from atoll.core.errors import Conflict, Invalid
from atoll.core.ids import JobRef
from atoll.core.resources import Seconds
from atoll.core.spec import Document, JobSpec, Name, Text, explain_validation, read_spec
from atoll.core.states import ENDED, WAITING, JobState
from atoll.jobs.prepare import SitesView, begin_micros
from atoll.jobs.service import find_whole, spec_document
from atoll.jobs.submit import TreeChanged
from atoll.scheduler.model import Demand
from atoll.store import arrays, events, projects
from atoll.store.jobs import JobRow
from atoll.store.people import Principal
from atoll.store.tables import jobs as table

_WHILE_WAITING = frozenset({"walltime", "begin", "constraints", "priority", "project"})
"""What decides where and when a job starts; it means nothing once it has."""
_ALWAYS = frozenset({"name", "labels"})
_BITE = 1000
"""Rows of tasks that are looked at together."""


class JobChanges(Document):
    """The fields that may change; those left out stay."""

    name: Text | None = None
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000)] = 0
    walltime: Seconds | None = None
    begin: AwareDatetime | None = None
    retries: Annotated[int, Field(ge=0, le=100)] = 0
    rerun: bool = False
    labels: Annotated[
        dict[Name, Annotated[str, StringConstraints(max_length=255)]], Field(max_length=100, default_factory=dict)
    ]
    grace: Annotated[Seconds, Field(le=86_400)] = 30
    constraints: Annotated[list[str], Field(max_length=100, default_factory=list)]
    project: Name | None = None


def read_changes(text: bytes) -> dict[str, Any]:
    """The fields that a request changes, as plain data. Raises Invalid."""
    try:
        changes = JobChanges.model_validate_json(text)
    except ValidationError as error:
        raise explain_validation(error, {"": list(JobChanges.model_fields)}, "change") from None
    return changes.model_dump(mode="json", exclude_unset=True)


def change(
    connection: Connection, ref: JobRef, who: Principal, changes: dict[str, Any], view: SitesView, now: int
) -> None:
    """Write the changes.

    Raises Conflict where one comes too late, Invalid where no site could run the job then or its project could never
    have so much, Denied where the job's owner may not submit to that project, TreeChanged where `view` is too old.
    """
    if ref.tasks is not None:
        raise Invalid(
            "whole_arrays_only", f"Tasks of an array cannot be changed one by one; change the array, {ref.job}.",
            field="id",
        )  # fmt: skip
    row = find_whole(connection, ref, who, lock=True)
    _refuse_late(connection, row, changes)
    if not changes:
        return
    spec = read_spec({**spec_document(row), **changes})
    project = _project(connection, row, spec, view, now) if "project" in changes else row.project
    if changes.keys() & {"walltime", "constraints", "project"}:
        demand = Demand.of(spec, row.owner, row.memory, view.projects.clearance(project))
        view.check(demand)
        view.check_size(project, spec, demand)
    values: dict[str, Any] = {
        "spec": spec.to_json(), "name": spec.title, "project": project, "priority": spec.priority,
        "walltime": spec.walltime, "grace": spec.grace,
    }  # fmt: skip
    if "begin" in changes:
        values["not_before"] = begin_micros(spec.begin) if spec.begin is not None else 0
    connection.execute(update(table).where(table.c.id == row.id).values(values))
    # the row changed though its state did not: the scheduler looks at it anew
    said = events.event_row("job", now, row, row.state, reason=row.reason, changed=sorted(changes))
    events.append(connection, [said])
    if arrays.is_array(row):
        _change_tasks(connection, row, spec, project, changes, now)


def _project(connection: Connection, row: JobRow, spec: JobSpec, view: SitesView, now: int) -> str | None:
    """The project that a job goes to, as at its submission."""
    governing = view.projects
    if projects.revision(connection) != governing.revision:
        raise TreeChanged
    return governing.choose(spec.project, row.owner, from_micros(now).date())


def _change_tasks(
    connection: Connection, array: JobRow, spec: JobSpec, project: str | None, changes: dict[str, Any], now: int
) -> None:
    """Pass on to the rows of tasks what they have of their array, and tell the scheduler of those that wait."""
    own = table.c.array_id == array.id
    if "name" in changes:
        connection.execute(update(table).where(own, table.c.name != spec.title).values(name=spec.title))
    if "grace" in changes:
        connection.execute(update(table).where(own, table.c.state.not_in(sorted(ENDED))).values(grace=spec.grace))
    if not changes.keys() & _WHILE_WAITING:
        return
    if "priority" in changes:
        unended = own & table.c.state.not_in(sorted(ENDED))
        connection.execute(update(table).where(unended).values(priority=spec.priority))
    if "walltime" in changes:
        waiting = own & table.c.state.in_(sorted(WAITING))
        connection.execute(update(table).where(waiting).values(walltime=spec.walltime))
    if "project" in changes:  # what runs stays where it has been counted
        waiting = own & table.c.state.in_(sorted(WAITING))
        connection.execute(update(table).where(waiting).values(project=project))
    columns = (table.c.id, table.c.array_id, table.c.task, table.c.owner, table.c.state, table.c.reason)
    after, rows = -1, [array]
    while rows:
        query = select(*columns).where(own, table.c.state == JobState.QUEUED, table.c.task > after)
        rows = list(connection.execute(query.order_by(table.c.task).limit(_BITE)))
        told = [events.event_row("job", now, task, task.state, reason=task.reason) for task in rows]
        events.append(connection, told)
        after = rows[-1].task if rows else after


def _refuse_late(connection: Connection, row: JobRow, changes: dict[str, Any]) -> None:
    state = JobState(row.state)
    waits = state in WAITING or row.waiting_count > 0 or _has_waiting_task(connection, row)
    for field in sorted(changes):
        if state in ENDED and field not in _ALWAYS:
            raise Conflict("has_ended", f"Job {row.id} has ended, so that its {field} means nothing.", field=field)
        if field in _WHILE_WAITING and not waits:
            raise Conflict(
                "started_already", f"Job {row.id} is {state}; its {field} could be changed only while it waited.",
                field=field,
            )  # fmt: skip


def _has_waiting_task(connection: Connection, row: JobRow) -> bool:
    """Whether a task of an array waits to be tried again."""
    if not row.active_count:
        return False
    query = select(table.c.id).where(table.c.array_id == row.id, table.c.state.in_(sorted(WAITING))).limit(1)
    return connection.execute(query).first() is not None
