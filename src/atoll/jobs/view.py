"""From rows to what the API says of them."""

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select

from atoll.core.clock import to_micros
from atoll.core.ids import task_name
from atoll.core.reasons import Reason, ReasonCode, general_sentence
from atoll.core.resources import format_milli
from atoll.core.states import ENDED, JobState
from atoll.faces.http.times import moment, moment_or_none
from atoll.store import jobs
from atoll.store.arrays import is_array
from atoll.store.attempts import AttemptRow
from atoll.store.jobs import JobRow
from atoll.store.spots import read_spots
from atoll.store.tables import dependencies as dependency_table

Document = dict[str, Any]


def reason_of(row: JobRow) -> Document:
    """Code and sentence of a row's reason."""
    code = ReasonCode(row.reason)
    return {"code": code.value, "sentence": row.sentence or general_sentence(code)}


def name_of(row: JobRow) -> str:
    """How the row is written: `12`, `12[3]`."""
    return task_name(row.array_id or row.id, row.task)


def counts_of(row: JobRow) -> Document | None:
    """Where the tasks of an array are; None for what is no array."""
    if not is_array(row):
        return None
    return {
        "total": row.task_count, "waiting": row.waiting_count, "active": row.active_count,
        "succeeded": row.succeeded_count, "failed": row.failed_count, "cancelled": row.cancelled_count,
    }  # fmt: skip


def summary(row: JobRow) -> Document:
    """A row in short."""
    return {
        "id": name_of(row), "job": row.array_id or row.id, "task": row.task, "name": row.name, "owner": row.owner,
        "project": row.project, "class": row.class_, "state": row.state, "reason": reason_of(row),
        "cpu": format_milli(row.cpu), "memory": row.memory, "gpu": format_milli(row.gpu), "nodes": row.nodes,
        "priority": row.priority, "submitted_at": moment(row.submitted_at),
        "started_at": moment_or_none(row.started_at), "ended_at": moment_or_none(row.ended_at),
        "exit_code": row.exit_code, "outcome": row.outcome, "site": row.site, "attempts": row.attempts,
        "tasks": counts_of(row), "estimate": None,
    }  # fmt: skip


def unstarted(array: JobRow, task: int, *, dropped: bool) -> Document:
    """A task that has no row in short: it waits with its array, or was cancelled before it started."""
    held = array.hold or array.blockers > 0
    if dropped:
        state, reason = JobState.CANCELLED, Reason.of(ReasonCode.CANCELLED, "Was cancelled before it started.")
    elif held:
        state = JobState.HELD
        reason = Reason.of(ReasonCode.HELD_BY_USER if array.hold else ReasonCode.DEPENDENCY)
    else:
        state, reason = JobState.QUEUED, _waiting_reason(array)
    return {
        **summary(array), "id": task_name(array.id, task), "task": task, "state": state.value,
        "reason": {"code": reason.code.value, "sentence": reason.sentence}, "started_at": None,
        "ended_at": moment_or_none(array.ended_at) if dropped else None, "exit_code": None, "outcome": None,
        "site": None, "attempts": 0, "tasks": None,
    }  # fmt: skip


def _waiting_reason(array: JobRow) -> Reason:
    """Why the waiting tasks wait: the array's reason, unless that speaks of those that run."""
    if JobState(array.state) is JobState.QUEUED:
        return Reason.of(ReasonCode(array.reason), array.sentence)
    if array.width is not None and array.active_count >= array.width:
        return Reason.of(ReasonCode.ARRAY_LIMIT)
    return Reason.of(ReasonCode.PRIORITY)


def attempt(row: AttemptRow) -> Document:
    """An attempt."""
    return {
        "id": row.id, "number": row.number, "site": row.site, "flavor": row.flavor, "state": row.state,
        "placed_at": moment(row.placed_at), "submitted_at": moment_or_none(row.submitted_at),
        "started_at": moment_or_none(row.started_at), "ended_at": moment_or_none(row.ended_at),
        "outcome": row.outcome, "exit_code": row.exit_code, "signal": row.signal, "message": row.message,
        "native_id": row.native_id, "native_state": row.native_state, "max_memory": row.max_memory,
        "cpu_seconds": row.cpu_seconds, "on_nodes": [spot.node for spot in read_spots(row.spots)],
    }  # fmt: skip


def dependencies(connection: Connection, job_id: int) -> list[Document]:
    """What a job waits, or waited, for."""
    query = (
        select(dependency_table)
        .where(dependency_table.c.job_id == job_id)
        .order_by(dependency_table.c.on_job, dependency_table.c.on_task)
    )
    edges = list(connection.execute(query))
    known = awaited(connection, [edge for edge in edges if not edge.open])
    return [{"job": task_name(edge.on_job, edge.on_task), "on": edge.kind, "met": _met(edge, known)} for edge in edges]


def awaited(connection: Connection, edges: Sequence[Any]) -> dict[tuple[int, int | None], JobRow]:
    """The rows of the jobs and tasks that edges point to, by job and task; a task that never started has none."""
    found: dict[tuple[int, int | None], JobRow] = {}
    whole = jobs.get_many(connection, sorted({edge.on_job for edge in edges if edge.on_task is None}))
    found.update(((job_id, None), row) for job_id, row in whole.items())
    names = ((edge.on_job, edge.on_task) for edge in edges if edge.on_task is not None)
    found.update(jobs.get_named_tasks(connection, names).items())
    return found


def _met(edge: Any, known: Mapping[tuple[int, int | None], JobRow]) -> bool:
    if edge.open:
        return False
    row = known.get((edge.on_job, edge.on_task))
    if row is not None and JobState(row.state) in ENDED:
        return jobs.satisfied(edge.kind, JobState(row.state))
    return row is not None or edge.on_task is None or edge.kind != "ok"


def full(
    short: Document, whole: JobRow, attempts: Sequence[AttemptRow], edges: list[Document], outputs: int
) -> Document:
    """A job in full; `whole` has the specification (of a task: its array's row)."""
    spec = json.loads(whole.spec)
    begin = to_micros(datetime.fromisoformat(spec["begin"])) if "begin" in spec else None
    return {
        **short, "spec": spec, "attempt_list": [attempt(row) for row in attempts],
        "dependencies": edges, "begin": moment_or_none(begin), "outputs": outputs,
    }  # fmt: skip
