"""Jobs as rows: inserting, finding, and the one function that changes a state (`move`).

A single job is one row. An array is one row whose waiting tasks are ranges; a task becomes a row of its own, with
`array_id` and `task`, when it leaves them. An array's own state is a summary of its tasks.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Integer, Row, Select, bindparam, func, insert, select, text, tuple_, update
from sqlalchemy import Sequence as Sequence_

from atoll.core.errors import Internal
from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.states import ENDED, WAITING, JobState, may
from atoll.store import events
from atoll.store.database import lock_order
from atoll.store.tables import FIRST_TASK_ROW, counters, dependencies, job_ids, jobs, task_ids

_MANY = 50
_CHUNK = 500
"""Ids in one IN list."""
JobRow = Row[*tuple[Any, ...]]

# written as in the partial index, so that both databases use it
UNENDED = text("jobs.state NOT IN ('succeeded', 'failed', 'cancelled')")

# the ids alone tell tasks from jobs; said so, the databases need not read a million task rows to leave them out
_NO_TASK = jobs.c.array_id.is_(None) & (jobs.c.id < FIRST_TASK_ROW)

SUMMARY = tuple(column for column in jobs.c if column.name not in ("spec", "waiting", "dropped"))
"""The columns that lists show: all but the large ones."""


def chunked(items: Sequence[Any], size: int = _CHUNK) -> Iterable[Sequence[Any]]:
    """`items` in pieces of at most `size`."""
    return (items[start : start + size] for start in range(0, len(items), size))


@dataclass(frozen=True)
class NewDependency:
    """A job (or one task of it) that the new job waits for."""

    on_job: int
    on_task: int | None
    kind: str
    open: bool = True
    """Whether the end that the new job waits for is still to come."""


@dataclass
class NewJob:
    """A job to insert: its columns, and what it waits for."""

    columns: dict[str, Any]
    depends_on: Sequence[NewDependency] = ()


_DEFAULTS: dict[str, Any] = {
    "project": None, "width": None, "waiting": None, "waiting_count": 0, "task_count": 1, "hold": False,
    "blockers": 0, "not_before": 0, "priority": 0, "array_id": None, "task": None, "ended_at": None,
    "sentence": None, "attempts": 0, "attempt_id": None, "site": None, "cancelled_count": 0, "dropped": None,
    "walltime": None, "grace": 30,
}  # fmt: skip
"""What an inserted row has where nothing else is said; every row has the same keys, so that many go in one call."""


def allocate_ids(connection: Connection, count: int) -> list[int]:
    """`count` job ids that nobody has, rising."""
    return _allocate(connection, job_ids, count, 1)


def _allocate(connection: Connection, sequence: Sequence_, count: int, first: int) -> list[int]:
    """The next `count` numbers of `sequence`, which began at `first`."""
    if connection.dialect.name == "postgresql":
        query = select(sequence.next_value()).select_from(func.generate_series(1, count))
        return sorted(connection.execute(query).scalars())
    statement = (
        update(counters)
        .where(counters.c.name == sequence.name)
        .values(value=counters.c.value + count)
        .returning(counters.c.value)
    )
    last = connection.execute(statement).scalar()
    if last is None:
        last = first + count - 1
        connection.execute(insert(counters).values(name=sequence.name, value=last))
    return list(range(last - count + 1, last + 1))


def insert_many(connection: Connection, new: Sequence[NewJob], ids: Sequence[int]) -> None:
    """Insert jobs under ids from `allocate_ids`, with their dependencies and events."""
    rows = [{**_DEFAULTS, **job.columns, "id": job_id} for job, job_id in zip(new, ids, strict=True)]
    _insert_rows(connection, rows)
    edges = [
        {"job_id": job_id, "on_job": edge.on_job, "on_task": edge.on_task, "kind": edge.kind, "open": edge.open}
        for job, job_id in zip(new, ids, strict=True)
        for edge in job.depends_on
    ]
    if edges:
        connection.execute(insert(dependencies), edges)
    _insert_events(connection, ids)


def _insert_rows(connection: Connection, rows: list[dict[str, Any]]) -> None:
    if len(rows) < _MANY:
        connection.execute(insert(jobs), rows)
        return
    # many rows go past SQLAlchemy, at a fraction of the cost
    keys = list(rows[0])
    names = ", ".join(f'"{jobs.c[key].name}"' for key in keys)
    values = map(itemgetter(*keys), rows)
    if connection.dialect.name == "postgresql":
        driver = connection.connection.driver_connection
        assert driver is not None
        with driver.cursor() as cursor, cursor.copy(f"COPY jobs ({names}) FROM STDIN") as copy:
            for row in values:
                copy.write_row(row)
    else:
        places = ", ".join("?" * len(keys))
        connection.exec_driver_sql(f"INSERT INTO jobs ({names}) VALUES ({places})", list(values))  # noqa: S608


def _insert_events(connection: Connection, ids: Sequence[int]) -> None:
    """One event for each new job, made by the database from the rows."""
    lock_order(connection)
    statement = text(
        "INSERT INTO events (at, kind, job_id, array_id, task, owner, state) "
        "SELECT submitted_at, 'job', id, array_id, task, owner, state FROM jobs "
        "WHERE id >= :first AND id <= :last AND id IN :ids ORDER BY id"
    ).bindparams(bindparam("ids", expanding=True))
    if len(ids) == ids[-1] - ids[0] + 1:
        statement = text(str(statement.text).replace("AND id IN :ids ", ""))
        connection.execute(statement, {"first": ids[0], "last": ids[-1]})
    else:
        for piece in chunked(ids):
            connection.execute(statement, {"first": piece[0], "last": piece[-1], "ids": list(piece)})


def get(connection: Connection, job_id: int, *, lock: bool = False) -> JobRow | None:
    """The whole row of a job, locked until the end of the transaction where `lock` is set; None where there is none."""
    query = select(jobs).where(jobs.c.id == job_id)
    return connection.execute(query.with_for_update() if lock else query).one_or_none()


def get_many(connection: Connection, ids: Sequence[int], columns: Sequence[Any] = SUMMARY) -> dict[int, JobRow]:
    """The rows of `ids` that exist, by id; `columns` must hold jobs.c.id."""
    found: dict[int, JobRow] = {}
    for piece in chunked(ids):
        for row in connection.execute(select(*columns).where(jobs.c.id.in_(piece))):
            found[row.id] = row
    return found


def get_task(connection: Connection, array_id: int, task: int) -> JobRow | None:
    """The row of an array's task; None while the task has none of its own."""
    query = select(jobs).where(jobs.c.array_id == array_id, jobs.c.task == task)
    return connection.execute(query).one_or_none()


def get_named_tasks(connection: Connection, names: Iterable[tuple[int, int]]) -> dict[tuple[int, int], JobRow]:
    """Those of the tasks named by (array id, task) that have a row, without the large columns."""
    found: dict[tuple[int, int], JobRow] = {}
    for piece in chunked(sorted(set(names))):
        query = select(*SUMMARY).where(tuple_(jobs.c.array_id, jobs.c.task).in_(piece))
        found.update(((row.array_id, row.task), row) for row in connection.execute(query))
    return found


def get_tasks(connection: Connection, array_id: int, tasks: Ranges | None = None) -> list[JobRow]:
    """The rows of an array's tasks (all, or those of `tasks`) that have one, by number."""
    query = select(jobs).where(jobs.c.array_id == array_id).order_by(jobs.c.task)
    if tasks is None:
        return list(connection.execute(query))
    rows: list[JobRow] = []
    for piece in chunked(list(tasks)):
        rows += connection.execute(query.where(jobs.c.task.in_(piece)))
    return rows


@dataclass(frozen=True)
class ListFilter:
    """Which jobs a list shows. Arrays are one entry; their tasks are listed by `array_id`."""

    owner: str | None = None
    states: frozenset[JobState] = frozenset()
    project: str | None = None
    name: str | None = None
    since: int | None = None
    """Submitted, or ended, at this time or later (microseconds)."""
    array_id: int | None = None
    site: str | None = None


def list_page(connection: Connection, wanted: ListFilter, before: int | None, limit: int) -> list[JobRow]:
    """The newest `limit` jobs that `wanted` lets through, with ids below `before`, newest first."""
    query = select(*SUMMARY).order_by(jobs.c.id.desc()).limit(limit)
    return list(connection.execute(filtered(query, wanted, before)))


def list_ended(connection: Connection, owner: str, since: int, limit: int) -> list[JobRow]:
    """The person's jobs, arrays as one, that ended at `since` (microseconds) or later, the last to end first."""
    query = select(*SUMMARY).where(jobs.c.owner == owner, jobs.c.ended_at >= since, jobs.c.array_id.is_(None))
    return list(connection.execute(query.order_by(jobs.c.ended_at.desc()).limit(limit)))


def filtered(query: Select[Any], wanted: ListFilter, before: int | None) -> Select[Any]:
    """`query` with what `wanted` and `before` ask for."""
    query = query.where(jobs.c.array_id == wanted.array_id) if wanted.array_id is not None else query.where(_NO_TASK)
    if before is not None:
        query = query.where(jobs.c.id < before)
    if wanted.owner is not None:
        query = query.where(jobs.c.owner == wanted.owner)
    if wanted.states:
        query = query.where(jobs.c.state.in_(sorted(wanted.states)))
        if not wanted.states & ENDED:
            query = query.where(UNENDED)
    if wanted.project is not None:
        query = query.where(jobs.c.project == wanted.project)
    if wanted.name is not None:
        query = query.where(jobs.c.name == wanted.name)
    if wanted.site is not None:
        query = query.where(jobs.c.site == wanted.site)
    if wanted.since is not None:
        query = query.where((jobs.c.submitted_at >= wanted.since) | (jobs.c.ended_at >= wanted.since))
    return query


@dataclass(slots=True)
class Move:
    """A change of state that is wanted: it happens if the row is in one of `before` when it is written."""

    job_id: int
    before: frozenset[JobState]
    after: JobState
    reason: ReasonCode
    sentence: str | None = None
    values: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """A row (or a task without one) that came to its end: what its dependents need to know."""

    id: int
    array_id: int | None
    task: int | None
    state: JobState


def move(connection: Connection, moves: Sequence[Move], now: int) -> set[int]:
    """Change states, all at once; returns the ids of the rows that were in a state which allowed it.

    Writes the events, keeps the arrays' counts and summaries, and lets go (or cancels) the jobs that waited for one
    that ended. Raises Internal for a change that the table of transitions forbids.
    """
    return _move_all(connection, moves, [], now)


def follow_up(connection: Connection, ended: Sequence["Ended"], now: int) -> None:
    """Let go, or cancel, the jobs that waited for rows which came to their end by other ways than `move`."""
    _move_all(connection, [], ended, now)


def _move_all(connection: Connection, moves: Sequence[Move], ended: Sequence[Ended], now: int) -> set[int]:
    """Make the moves, and all that follows from them and from `ended`; returns the ids of the rows that moved."""
    moved: set[int] = set()
    while moves or ended:
        done, further = _move_once(connection, moves, now)
        moved |= done
        moves, ended = _dependents(connection, [*ended, *further], now)
    return moved


def _move_once(connection: Connection, moves: Sequence[Move], now: int) -> tuple[set[int], list[Ended]]:
    columns = (jobs.c.id, jobs.c.array_id, jobs.c.task, jobs.c.owner, jobs.c.state)
    current: dict[int, JobRow] = {}
    for piece in chunked(sorted({change.job_id for change in moves})):
        query = select(*columns).where(jobs.c.id.in_(piece)).order_by(jobs.c.id).with_for_update()
        current.update((row.id, row) for row in connection.execute(query))
    updates: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    rows: list[dict[str, Any]] = []
    ended: list[Ended] = []
    moved: set[int] = set()
    shifts: dict[int, dict[str, int]] = {}
    for change in moves:
        row = current.get(change.job_id)
        if row is None or change.job_id in moved or JobState(row.state) not in change.before:
            continue
        state = JobState(row.state)
        if not may(state, change.after):
            raise Internal("forbidden_transition", f"Job {row.id} may not go from {state} to {change.after}.")
        moved.add(row.id)
        values = {**change.values, "state": change.after, "reason": change.reason, "sentence": change.sentence}
        if state is JobState.QUEUED:
            values |= _UNPROMISED
        if change.after in ENDED:
            values.setdefault("ended_at", now)
            ended.append(Ended(row.id, row.array_id, row.task, change.after))
        updates.setdefault(tuple(sorted(values)), []).append({**values, "key": row.id})
        rows.append(events.event_row("job", now, row, change.after, reason=change.reason))
        if row.array_id is not None:
            _count_shift(shifts.setdefault(row.array_id, {}), state, change.after)
    for keys, group in updates.items():
        assignments: dict[Any, Any] = {jobs.c[key]: bindparam(key) for key in keys}
        connection.execute(update(jobs).where(jobs.c.id == bindparam("key")).values(assignments), group)
    events.append(connection, rows)
    ended += summarise_arrays(connection, shifts, now)
    return moved, ended


_UNPROMISED: dict[str, Any] = {"promised_site": None, "promised_flavor": None, "promised_count": None}
"""Of what does not wait any more, no room is promised to."""


def _bucket(state: JobState) -> str:
    """The count of the array in which a task with a row of its own is: one that waits to run again keeps its slot."""
    return f"{state}_count" if state in ENDED else "active_count"


def _count_shift(shift: dict[str, int], before: JobState, after: JobState) -> None:
    shift[_bucket(before)] = shift.get(_bucket(before), 0) - 1
    shift[_bucket(after)] = shift.get(_bucket(after), 0) + 1


def summarise_arrays(
    connection: Connection, shifts: Mapping[int, Mapping[str, int]], now: int, why: ReasonCode = ReasonCode.TASKS_ENDED
) -> list[Ended]:
    """Add `shifts` to the arrays' counts and bring their own states up to date; returns the arrays that ended.

    `why` is the reason of those that end.
    """
    ended: list[Ended] = []
    rows: list[dict[str, Any]] = []
    for array_id, shift in sorted(shifts.items()):
        row = get(connection, array_id, lock=True)
        if row is None:
            continue
        counts = {name: getattr(row, name) + shift.get(name, 0) for name in _COUNTS}
        state, reason = _summary(row, counts)
        if state in ENDED and JobState(row.state) not in ENDED:
            reason = why
        values: dict[str, Any] = {**counts, "state": state, "reason": reason}
        if reason != row.reason:
            values["sentence"] = None
        if row.promised_count and (row.hold or row.blockers or not counts["waiting_count"]):
            values |= _UNPROMISED
        if state is JobState.RUNNING and row.started_at is None:
            values["started_at"] = now
        if state in ENDED and JobState(row.state) not in ENDED:
            values |= {"ended_at": now, "sentence": None, "exit_code": _worst_exit(connection, array_id, state)}
            ended.append(Ended(row.id, None, None, state))
        elif state not in ENDED and JobState(row.state) in ENDED:
            values |= {"ended_at": None, "exit_code": None}
        connection.execute(update(jobs).where(jobs.c.id == array_id).values(values))
        rows.append(events.event_row("job", now, row, state, reason=reason, **counts))
    events.append(connection, rows)
    return ended


_COUNTS = ("waiting_count", "active_count", "succeeded_count", "failed_count", "cancelled_count")


def _summary(row: JobRow, counts: Mapping[str, int]) -> tuple[JobState, ReasonCode]:
    if counts["active_count"]:
        return JobState.RUNNING, ReasonCode.RUNNING
    if counts["waiting_count"]:
        if row.hold or row.blockers:
            return JobState.HELD, ReasonCode.HELD_BY_USER if row.hold else ReasonCode.DEPENDENCY
        started = counts["succeeded_count"] + counts["failed_count"] > 0
        return (JobState.RUNNING if started else JobState.QUEUED), ReasonCode.PRIORITY
    if counts["failed_count"]:
        return JobState.FAILED, ReasonCode.TASKS_ENDED
    if counts["cancelled_count"]:
        return JobState.CANCELLED, ReasonCode.TASKS_ENDED
    return JobState.SUCCEEDED, ReasonCode.TASKS_ENDED


def _worst_exit(connection: Connection, array_id: int, state: JobState) -> int | None:
    if state is JobState.SUCCEEDED:
        return 0
    query = text("SELECT max(exit_code) FROM jobs WHERE array_id = :array AND state = 'failed'")
    found = connection.execute(query, {"array": array_id}).scalar()
    return int(found) if found is not None else None


def satisfied(kind: str, state: JobState) -> bool:
    """Whether a job that waited for an end of this kind ("ok", "any", "not_ok") may go on after `state`."""
    return kind == "any" or (state is JobState.SUCCEEDED) == (kind == "ok")


def _dependents(connection: Connection, ended: Sequence[Ended], now: int) -> tuple[list[Move], list[Ended]]:
    """Take note in the jobs that waited for `ended`.

    Returns the moves of those that now can go on, or never can, and the arrays that came to their end by it.
    """
    by_id = {(row.array_id or row.id, row.task): JobState(row.state) for row in ended}
    waiting: dict[int, list[bool]] = {}
    closed: list[dict[str, int | None]] = []
    for piece in chunked(sorted({key[0] for key in by_id})):
        query = select(dependencies).where(dependencies.c.on_job.in_(piece), dependencies.c.open)
        for edge in connection.execute(query):
            state = by_id.get((edge.on_job, edge.on_task))
            if state is None and (edge.on_job, None) in by_id:
                state = JobState.CANCELLED  # a task of an array that ended, which has no row because it never started
            if state is not None:
                waiting.setdefault(edge.job_id, []).append(satisfied(edge.kind, state))
                closed.append({"job": edge.job_id, "on": edge.on_job, "number": edge.on_task})
    if closed:
        statement = update(dependencies).where(
            dependencies.c.job_id == bindparam("job"), dependencies.c.on_job == bindparam("on"),
            dependencies.c.on_task.is_not_distinct_from(bindparam("number", type_=Integer)),
        )  # fmt: skip
        connection.execute(statement.values(open=False), closed)
    moves: list[Move] = []
    arrays: list[Ended] = []
    for job_id, met in sorted(waiting.items()):
        further, gone = _unblock(connection, job_id, met, now)
        moves += further
        arrays += gone
    return moves, arrays


def _unblock(connection: Connection, job_id: int, met: Sequence[bool], now: int) -> tuple[list[Move], list[Ended]]:
    """One job heard of the end of jobs it waited for, each as it hoped or not.

    What it waits for is counted in every state: a cancelled job may be requeued, and an array with tasks that were
    held by number is no longer `held` itself.
    """
    row = get(connection, job_id, lock=True)
    if row is None:
        return [], []
    blockers = max(0, row.blockers - len(met))
    connection.execute(update(jobs).where(jobs.c.id == job_id).values(blockers=blockers))
    if JobState(row.state) in ENDED:
        return [], []
    never = not all(met)
    if is_array(row):
        if never:
            return _never(connection, row, now)
        # its waiting tasks may go on, whatever those that have rows do
        return [], [] if blockers else summarise_arrays(connection, {row.id: {}}, now)
    if never:
        return [Move(job_id, _HELD, JobState.CANCELLED, ReasonCode.DEPENDENCY_NEVER)], []
    if blockers or row.hold:
        return [], []
    return [Move(job_id, _HELD, JobState.QUEUED, ReasonCode.NONE)], []


_HELD = frozenset({JobState.HELD})


def _never(connection: Connection, array: JobRow, now: int) -> tuple[list[Move], list[Ended]]:
    """What waits of an array waits for what never comes: end it, without rows where it has none."""
    query = select(jobs.c.id).where(jobs.c.array_id == array.id, jobs.c.state.in_(sorted(WAITING)))
    rows = [
        Move(row_id, WAITING, JobState.CANCELLED, ReasonCode.DEPENDENCY_NEVER)
        for row_id in connection.execute(query.order_by(jobs.c.id)).scalars()
    ]
    gone = Ranges.stored(array.waiting or "")
    if not gone:
        return rows, []
    values = {"waiting": None, "dropped": str(Ranges.stored(array.dropped or "").union(gone))}
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(values))
    shift = {"waiting_count": -len(gone), "cancelled_count": len(gone)}
    return rows, summarise_arrays(connection, {array.id: shift}, now, ReasonCode.DEPENDENCY_NEVER)


def is_array(row: JobRow) -> bool:
    """Whether a row is an array: its counts say where its tasks are, and those of a single job are all 0."""
    return row.array_id is None and any(getattr(row, name) for name in _COUNTS)


def count_blockers(connection: Connection, ids: Sequence[int]) -> dict[int, int]:
    """Write down anew for how many ends jobs still wait; returns those that wait for any."""
    found: dict[int, int] = {}
    for piece in chunked(sorted(ids)):
        query = select(dependencies.c.job_id, func.count().label("number")).where(
            dependencies.c.job_id.in_(piece), dependencies.c.open
        )
        found.update((row.job_id, row.number) for row in connection.execute(query.group_by(dependencies.c.job_id)))
        connection.execute(update(jobs).where(jobs.c.id.in_(piece), jobs.c.blockers != 0).values(blockers=0))
    if found:
        statement = update(jobs).where(jobs.c.id == bindparam("key")).values(blockers=bindparam("number"))
        connection.execute(statement, [{"key": key, "number": number} for key, number in found.items()])
    return found


def set_reasons(connection: Connection, reasons: Sequence[tuple[int, ReasonCode, str | None]]) -> None:
    """Say why queued jobs wait. No event: a reason is read with its job."""
    if reasons:
        statement = (
            update(jobs)
            .where(jobs.c.id == bindparam("key"), jobs.c.state == JobState.QUEUED)
            .values(reason=bindparam("why"), sentence=bindparam("words"))
        )
        connection.execute(statement, [{"key": key, "why": why, "words": words} for key, why, words in reasons])


@dataclass(frozen=True)
class Promised:
    """Room that others leave for a waiting job: `count` times its size, at one flavor of a site."""

    job_id: int
    site: str
    flavor: str
    count: int


def set_promises(connection: Connection, promises: Sequence[Promised], now: int) -> None:
    """Promise room to jobs, where they still wait; what was promised to them before no longer is."""
    rows = lock_states(connection, [promise.job_id for promise in promises])
    kept = [promise for promise in promises if promise.job_id in rows and waits(rows[promise.job_id])]
    if kept:
        statement = update(jobs).where(jobs.c.id == bindparam("key"))
        values: dict[str, Any] = {
            "promised_site": bindparam("at"), "promised_flavor": bindparam("on"), "promised_count": bindparam("times")
        }  # fmt: skip
        connection.execute(
            statement.values(values),
            [{"key": one.job_id, "at": one.site, "on": one.flavor, "times": one.count} for one in kept],
        )
        told = (rows[promise.job_id] for promise in kept)
        events.append(connection, [events.event_row("job", now, row, row.state) for row in told])


def keep_promise(connection: Connection, array: JobRow, started: int) -> None:
    """So many more tasks of an array have their places: less of what it was promised is still to come."""
    if array.promised_count is not None:
        left = array.promised_count - started
        values: dict[str, Any] = {"promised_count": left} if left > 0 else _UNPROMISED
        connection.execute(update(jobs).where(jobs.c.id == array.id).values(values))


def waits(row: JobRow) -> bool:
    """Whether a row, or something of an array, waits to start."""
    states = (JobState.QUEUED, JobState.RUNNING) if row.waiting_count else (JobState.QUEUED,)
    return JobState(row.state) in states and not row.hold and not row.blockers


def take_tasks(
    connection: Connection, array: JobRow, tasks: Ranges, state: JobState, reason: ReasonCode, now: int,
    columns: Mapping[int, Mapping[str, Any]] | None = None,
) -> dict[int, int]:  # fmt: skip
    """Make rows in `state` of tasks that wait in an array's ranges; returns their row ids by task number.

    `array` is the array's locked row. Tasks that do not wait any more are left out. `columns` adds values by task.
    """
    waiting = Ranges.stored(array.waiting or "")
    taken = waiting.common(tasks)
    if not taken:
        return {}
    rest = waiting.without(taken)
    values = {"waiting": str(rest) or None}
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(values))
    ids = _allocate(connection, task_ids, len(taken), FIRST_TASK_ROW)
    copied = (
        "owner", "project", "name", "class_", "priority", "cpu", "memory", "gpu", "nodes", "submitted_at", "walltime",
        "grace",
    )  # fmt: skip
    common = {key: getattr(array, key) for key in copied}
    rows = [
        {**_DEFAULTS, **common, "id": row_id, "array_id": array.id, "task": task, "spec": None, "state": state,
         "reason": reason, "ended_at": now if state in ENDED else None, **((columns or {}).get(task, {}))}
        for row_id, task in zip(ids, taken, strict=True)
    ]  # fmt: skip
    _insert_rows(connection, rows)
    events.append(
        connection,
        [
            {"at": now, "kind": "job", "job_id": row["id"], "array_id": array.id, "task": row["task"],
             "owner": array.owner, "state": state}
            for row in rows
        ],
    )  # fmt: skip
    summarise_arrays(connection, {array.id: {"waiting_count": -len(taken), _bucket(state): len(taken)}}, now)
    return {row["task"]: row["id"] for row in rows}


def unended_dependencies(connection: Connection, job_id: int) -> list[JobRow]:
    """What a job still waits for: rows with on_job, on_task, kind."""
    columns = (dependencies.c.on_job, dependencies.c.on_task, dependencies.c.kind)
    return list(connection.execute(select(*columns).where(dependencies.c.job_id == job_id, dependencies.c.open)))


def lock_states(connection: Connection, ids: Sequence[int]) -> dict[int, JobRow]:
    """The rows of `ids`, locked until the end of the transaction."""
    found: dict[int, JobRow] = {}
    for piece in chunked(sorted(ids)):
        query = select(jobs).where(jobs.c.id.in_(piece)).order_by(jobs.c.id).with_for_update()
        found.update((row.id, row) for row in connection.execute(query))
    return found


def load_unended(connection: Connection, after: int, limit: int) -> list[JobRow]:
    """Jobs that have not ended, with ids above `after`, by id: what a new scheduler begins with."""
    query = select(jobs).where(jobs.c.id > after, UNENDED).order_by(jobs.c.id).limit(limit)
    return list(connection.execute(query))


def count_by_state(connection: Connection, owner: str | None = None) -> dict[str, int]:
    """How many jobs (arrays as one) are in each state that is not an end."""
    unended = sorted(state for state in JobState if state not in ENDED)
    query = select(jobs.c.state, func.count().label("number"))
    query = query.where(_NO_TASK, UNENDED, jobs.c.state.in_(unended))  # a stretch of the index for each state
    if owner is not None:
        query = query.where(jobs.c.owner == owner)
    return {row.state: row.number for row in connection.execute(query.group_by(jobs.c.state))}


__all__ = [
    "SUMMARY", "Ended", "JobRow", "ListFilter", "Move", "NewDependency", "NewJob", "Promised", "allocate_ids",
    "chunked",
    "count_blockers", "count_by_state", "filtered", "follow_up", "get", "get_many", "get_named_tasks", "get_task",
    "get_tasks", "insert_many", "is_array", "keep_promise", "list_ended", "list_page", "load_unended", "lock_states",
    "move",
    "satisfied", "set_promises", "set_reasons", "summarise_arrays", "take_tasks", "unended_dependencies", "waits",
]  # fmt: skip
