"""Changing what a job asked for, while that still matters."""

from typing import Annotated, Any

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError
from sqlalchemy import Connection, update

from atoll.core.errors import Conflict, Invalid
from atoll.core.ids import JobRef
from atoll.core.resources import Seconds
from atoll.core.spec import Document, Name, Text, explain_validation, read_spec
from atoll.core.states import ENDED, WAITING, JobState
from atoll.jobs.prepare import SitesView, begin_micros
from atoll.jobs.service import find_whole, spec_document
from atoll.scheduler.model import Demand
from atoll.store import arrays, events, jobs
from atoll.store.jobs import JobRow
from atoll.store.people import Principal
from atoll.store.tables import jobs as table

_WHILE_WAITING = frozenset({"walltime", "begin", "constraints", "priority"})
"""What decides where and when a job starts; it means nothing once it has."""
_ALWAYS = frozenset({"name", "labels"})


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
    """Write the changes. Raises Conflict where one comes too late, Invalid where no site could run the job then."""
    if ref.tasks is not None:
        raise Invalid(
            "whole_arrays_only", f"Tasks of an array cannot be changed one by one; change the array, {ref.job}.",
            field="id",
        )  # fmt: skip
    row = find_whole(connection, ref, who, lock=True)
    _refuse_late(row, changes)
    if not changes:
        return
    spec = read_spec({**spec_document(row), **changes})
    if changes.keys() & {"walltime", "constraints"}:
        view.check(Demand.of(spec, row.owner, row.memory))
    values: dict[str, Any] = {"spec": spec.to_json(), "name": spec.title, "priority": spec.priority}
    if "begin" in changes:
        values["not_before"] = begin_micros(spec.begin) if spec.begin is not None else 0
    connection.execute(update(table).where(table.c.id == row.id).values(values))
    if arrays.is_array(row):
        shared = {"name": spec.title, "priority": spec.priority}
        connection.execute(update(table).where(table.c.array_id == row.id).values(shared))
    # the row changed though its state did not: the scheduler looks at it anew
    rows = [events.event_row("job", now, row, row.state, reason=row.reason, changed=sorted(changes))]
    if arrays.is_array(row):
        waiting = [task for task in jobs.get_tasks(connection, row.id) if task.state == JobState.QUEUED]
        rows += [events.event_row("job", now, task, task.state, reason=task.reason) for task in waiting]
    events.append(connection, rows)


def _refuse_late(row: JobRow, changes: dict[str, Any]) -> None:
    state = JobState(row.state)
    waits = state in WAITING or row.waiting_count > 0
    for field in sorted(changes):
        if state in ENDED and field not in _ALWAYS:
            raise Conflict("has_ended", f"Job {row.id} has ended, so that its {field} means nothing.", field=field)
        if field in _WHILE_WAITING and not waits:
            raise Conflict(
                "started_already", f"Job {row.id} is {state}; its {field} could be changed only while it waited.",
                field=field,
            )  # fmt: skip
