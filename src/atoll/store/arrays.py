"""Tasks of arrays that have no row: cancelling them, and putting them back among those that wait.

Each function is given the array's locked row.
"""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select, update

from atoll.core.ranges import Ranges
from atoll.core.states import JobState
from atoll.store.jobs import Ended, JobRow, chunked, count_blockers, follow_up, get, is_array, summarise_arrays
from atoll.store.tables import dependencies, jobs


def ranges_of(text: str | None) -> Ranges:
    """The tasks in a column of ranges."""
    return Ranges.stored(text or "")


def drop_waiting(connection: Connection, array: JobRow, tasks: Ranges | None, now: int) -> int:
    """Cancel tasks (all, or those of `tasks`) that wait in the ranges; returns how many. No rows are made."""
    waiting = ranges_of(array.waiting)
    taken = waiting if tasks is None else waiting.common(tasks)
    if not taken:
        return 0
    rest = waiting.without(taken) if len(taken) < len(waiting) else Ranges()
    values = {"waiting": str(rest) or None, "dropped": str(ranges_of(array.dropped).union(taken))}
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(values))
    shift = {"waiting_count": -len(taken), "cancelled_count": len(taken)}
    ended = summarise_arrays(connection, {array.id: shift}, now)
    query = select(dependencies.c.on_task).where(
        dependencies.c.on_job == array.id, dependencies.c.on_task.is_not(None), dependencies.c.open
    )
    awaited = {task for task in connection.execute(query).scalars() if task in taken}
    ended += [Ended(array.id, array.id, task, JobState.CANCELLED) for task in sorted(awaited)]
    follow_up(connection, ended, now)
    return len(taken)


def restore_dropped(connection: Connection, array: JobRow, tasks: Ranges | None, now: int) -> int:
    """Have tasks that were cancelled before they started wait again; returns how many."""
    dropped = ranges_of(array.dropped)
    taken = dropped if tasks is None else dropped.common(tasks)
    if not taken:
        return 0
    rest = dropped.without(taken) if len(taken) < len(dropped) else Ranges()
    values = {"dropped": str(rest) or None, "waiting": str(ranges_of(array.waiting).union(taken))}
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(values))
    count_blockers(connection, [array.id])
    shift = {"waiting_count": len(taken), "cancelled_count": -len(taken)}
    summarise_arrays(connection, {array.id: shift}, now)
    return len(taken)


def put_back(
    connection: Connection, array: JobRow, rows: Sequence[JobRow], now: int, *, cancelled: bool = False
) -> int:
    """Turn rows of held (or else of `cancelled`) tasks that were never placed back into waiting ones without a row.

    So what holds back the array holds them back too. Returns how many.
    """
    state = JobState.CANCELLED if cancelled else JobState.HELD
    unplaced = [row for row in rows if row.attempts == 0 and row.state == state]
    if not unplaced:
        return 0
    for piece in chunked([row.id for row in unplaced]):
        connection.execute(delete(jobs).where(jobs.c.id.in_(piece)))
    back = Ranges.of(row.task for row in unplaced)
    waiting = str(ranges_of(array.waiting).union(back))
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(waiting=waiting))
    shift = {"waiting_count": len(back), "cancelled_count" if cancelled else "active_count": -len(back)}
    summarise_arrays(connection, {array.id: shift}, now)
    return len(back)


def set_hold(connection: Connection, array: JobRow, hold: bool, now: int) -> None:
    """Hold the waiting tasks of an array, or let them go."""
    connection.execute(update(jobs).where(jobs.c.id == array.id).values(hold=hold, sentence=None))
    summarise_arrays(connection, {array.id: {}}, now)


def reload(connection: Connection, array: JobRow) -> JobRow:
    """The array's row as it is now, in the same transaction."""
    row = get(connection, array.id)
    assert row is not None
    return row


__all__ = ["drop_waiting", "is_array", "put_back", "ranges_of", "reload", "restore_dropped", "set_hold"]
