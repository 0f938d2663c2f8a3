"""What people do to jobs: cancel, hold, release, requeue.

Each action takes a job, an array or a set of tasks, and says how many it changed. Those on arrays go in bites: a
function is called in transaction after transaction until it leaves no rest. The bites go up the numbers of the
tasks, so that each task is acted on at most once for one request, whatever becomes of it meanwhile.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select, update

from atoll.core.errors import Conflict, NotFound
from atoll.core.ids import JobRef
from atoll.core.ranges import Ranges
from atoll.core.reasons import ReasonCode
from atoll.core.states import ENDED, HOLDS_ROOM, WAITING, JobState
from atoll.jobs.service import find_whole, spec_document
from atoll.jobs.view import name_of
from atoll.store import arrays, attempts, jobs
from atoll.store.attempts import AttemptRow
from atoll.store.jobs import JobRow, Move, chunked
from atoll.store.people import Principal
from atoll.store.tables import attempts as attempt_table
from atoll.store.tables import jobs as table

BITE = 500
"""Most rows that one transaction changes."""
MOST_HELD_TASKS = 10_000
"""Most tasks that may be held by number; whole arrays of any size may be."""
_DEFAULT_GRACE = 30
_FEW = 2000
"""So many tasks are looked for by number; more by scanning from the first to the last."""
_HELD = frozenset({JobState.HELD})


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be acted on: a job, an array or tasks of it, and how far earlier bites of the request have come."""

    ref: JobRef
    after: int | None = None
    """The last task that an earlier bite took; None in the first, which also takes the tasks without a row."""


@dataclass(frozen=True, slots=True)
class Bite:
    """What one transaction did, and what is left for another one."""

    changed: int
    rest: Target | None = None
    """What the next bite is to be taken from; None where all is done."""


Action = Callable[[Connection, Target, Principal, int], Bite]


def _tasks_of(
    connection: Connection, array: JobRow, target: Target, states: Sequence[JobState], *, uncancelled: bool = False
) -> list[JobRow]:
    """At most BITE rows of an array's tasks in some states, by number: those of the target that are left."""
    query = select(table).where(table.c.array_id == array.id, table.c.state.in_([str(state) for state in states]))
    if uncancelled:
        query = query.where(~table.c.cancel)
    query = query.order_by(table.c.task).limit(BITE)
    after, tasks = -1 if target.after is None else target.after, target.ref.tasks
    if tasks is None:
        return list(connection.execute(query.where(table.c.task > after)))
    found: list[JobRow] = []
    if len(tasks) <= _FEW:
        for piece in chunked([task for task in tasks if task > after]):
            found += connection.execute(query.where(table.c.task.in_(piece)))
        return found[:BITE]
    after, last = max(after, tasks.parts[0][0] - 1), max(part[-1] for part in tasks.parts)
    while len(found) < BITE:
        rows = list(connection.execute(query.where(table.c.task > after, table.c.task <= last)))
        found += [row for row in rows if row.task in tasks]
        if len(rows) < BITE:
            break
        after = rows[-1].task
    return found[:BITE]


def _find(connection: Connection, target: Target, who: Principal) -> JobRow:
    """The locked row of the target's job or array. Raises NotFound, also for tasks that it does not have."""
    whole = find_whole(connection, target.ref, who, lock=True)
    if target.after is None:
        _check_tasks(whole, target.ref.tasks)
    return whole


def _check_tasks(array: JobRow, tasks: Ranges | None) -> None:
    """Refuse (NotFound) tasks that the array does not have."""
    if tasks is None:
        return
    if not arrays.is_array(array):
        raise NotFound("no_such_task", f"Job {array.id} is no array, so it has no tasks.", field="id")
    missing = tasks.without(_all_tasks(array))
    if missing:
        raise NotFound("no_such_task", f"Job {array.id} has no task {next(iter(missing))}.", field="id")


def _grace(row: JobRow) -> int:
    found = spec_document(row).get("grace", _DEFAULT_GRACE)
    return int(found)


def _rest(target: Target, rows: Sequence[JobRow]) -> Target | None:
    """The next bite's target: there may be more where this one was full."""
    return Target(target.ref, rows[-1].task) if len(rows) == BITE else None


# ---- cancel


def cancel(connection: Connection, target: Target, who: Principal, now: int) -> Bite:
    """End jobs that have not ended: at once where they wait, else their site is asked to stop them."""
    ref, whole = target.ref, _find(connection, target, who)
    if not arrays.is_array(whole):
        return Bite(_cancel_rows(connection, [whole], _grace(whole), who, now))
    changed = arrays.drop_waiting(connection, whole, ref.tasks, now) if target.after is None else 0
    unended = [state for state in JobState if state not in ENDED]
    rows = _tasks_of(connection, whole, target, unended, uncancelled=True)
    changed += _cancel_rows(connection, rows, _grace(whole), who, now)
    return Bite(changed, _rest(target, rows))


def _cancel_rows(connection: Connection, rows: Sequence[JobRow], grace: int, who: Principal, now: int) -> int:
    sentence = f"Was cancelled by {who.person}."
    waiting = [row for row in rows if JobState(row.state) in WAITING]
    moves = [Move(row.id, WAITING, JobState.CANCELLED, ReasonCode.CANCELLED, sentence, {"cancel": True})
             for row in waiting]  # fmt: skip
    moved = jobs.move(connection, moves, now)
    others = [
        row for row in rows if JobState(row.state) not in WAITING | ENDED and not row.cancel
    ]  # fmt: skip
    for piece in chunked([row.id for row in others]):
        connection.execute(update(table).where(table.c.id.in_(piece)).values(cancel=True))
    live = [row.id for row in others if JobState(row.state) in HOLDS_ROOM]
    if live:
        attempts.ask_to_stop(connection, live, "cancelled", dict.fromkeys(live, grace), now)
    return len(moved) + len(others)


# ---- hold and release


def hold(connection: Connection, target: Target, who: Principal, now: int) -> Bite:
    """Keep waiting jobs from starting. Raises Conflict for a job that does not wait."""
    ref, whole = target.ref, _find(connection, target, who)
    if not arrays.is_array(whole):
        return Bite(_hold_rows(connection, [whole], now))
    if ref.tasks is None:
        return _hold_array(connection, whole, target, now)
    if len(ref.tasks) > MOST_HELD_TASKS:
        raise Conflict(
            "too_many_tasks",
            f"{len(ref.tasks)} tasks are more than the {MOST_HELD_TASKS} that may be held by number; "
            f"hold the whole array {whole.id}.",
            field="id",
        )
    columns = {task: {"hold": True} for task in ref.tasks}
    taken = jobs.take_tasks(connection, whole, ref.tasks, JobState.HELD, ReasonCode.HELD_BY_USER, now, columns)
    rows = [row for row in jobs.get_tasks(connection, whole.id, ref.tasks) if row.id not in set(taken.values())]
    waiting = [row for row in rows if JobState(row.state) in WAITING]
    if rows and not taken and not waiting:
        raise _cannot_hold(rows[0])
    return Bite(len(taken) + _hold_rows(connection, waiting, now))


def _hold_array(connection: Connection, whole: JobRow, target: Target, now: int) -> Bite:
    rows = _tasks_of(connection, whole, target, [JobState.QUEUED])
    changed = 0
    if target.after is None:
        if not whole.waiting_count and not rows:
            if whole.hold or _tasks_of(connection, whole, target, [JobState.HELD]):
                return Bite(0)
            raise _cannot_hold(whole)
        if whole.waiting_count and not whole.hold:
            arrays.set_hold(connection, whole, True, now)
            changed = whole.waiting_count
    return Bite(changed + _hold_rows(connection, rows, now), _rest(target, rows))


def _hold_rows(connection: Connection, rows: Sequence[JobRow], now: int) -> int:
    moves = []
    for row in rows:
        if JobState(row.state) not in WAITING:
            raise _cannot_hold(row)
        if JobState(row.state) is JobState.QUEUED:
            values = {"hold": True}
            moves.append(
                Move(row.id, frozenset({JobState.QUEUED}), JobState.HELD, ReasonCode.HELD_BY_USER, values=values)
            )
    changed = len(jobs.move(connection, moves, now))
    depends = [row.id for row in rows if JobState(row.state) is JobState.HELD and not row.hold]
    for piece in chunked(depends):
        connection.execute(
            update(table)
            .where(table.c.id.in_(piece))
            .values(hold=True, reason=ReasonCode.HELD_BY_USER.value, sentence=None)
        )
    return changed + len(depends)


def _cannot_hold(row: JobRow) -> Conflict:
    name = name_of(row)
    if JobState(row.state) in ENDED:
        return Conflict("has_ended", f"Job {name} has ended; only what waits can be held.", field="id")
    return Conflict(
        "not_waiting",
        f"Job {name} is {row.state}; only what waits can be held. Stop it with: atoll cancel {name}, or have it "
        f"wait again with: atoll requeue {name}, and hold it then.",
        field="id",
    )


def release(connection: Connection, target: Target, who: Principal, now: int) -> Bite:
    """Let held jobs go on; those that wait for others go on waiting."""
    ref, whole = target.ref, _find(connection, target, who)
    if not arrays.is_array(whole):
        return Bite(_release_rows(connection, [whole], now))
    first = target.after is None
    if ref.tasks is not None and whole.hold and first:
        raise Conflict(
            "array_is_held", f"The array {whole.id} is held as a whole; release it with: atoll release {whole.id}.",
            field="id",
        )  # fmt: skip
    changed = 0
    if whole.hold and first:
        arrays.set_hold(connection, whole, False, now)
        changed = whole.waiting_count
        whole = arrays.reload(connection, whole)
    rows = _tasks_of(connection, whole, target, [JobState.HELD])
    changed += arrays.put_back(connection, whole, rows, now)
    return Bite(changed + _release_rows(connection, [row for row in rows if row.attempts], now), _rest(target, rows))


def _release_rows(connection: Connection, rows: Sequence[JobRow], now: int) -> int:
    held = [row for row in rows if JobState(row.state) is JobState.HELD and row.hold]
    blocked = [row.id for row in held if row.blockers]
    for piece in chunked(blocked):
        connection.execute(
            update(table)
            .where(table.c.id.in_(piece))
            .values(hold=False, reason=ReasonCode.DEPENDENCY.value, sentence=None)
        )
    moves = [
        Move(row.id, _HELD, JobState.QUEUED, _reason_to_wait(row, now), values={"hold": False})
        for row in held if not row.blockers
    ]  # fmt: skip
    return len(jobs.move(connection, moves, now)) + len(blocked)


def _reason_to_wait(row: JobRow, now: int) -> ReasonCode:
    """What is known before the queue has looked at it."""
    return ReasonCode.BEGIN_TIME if row.not_before > now else ReasonCode.NONE


# ---- requeue

_STOPPABLE = HOLDS_ROOM - {JobState.STOPPING}
_AFRESH = {
    "failures": 0, "faults": 0, "cancel": False, "outcome": None, "exit_code": None, "started_at": None,
    "ended_at": None, "not_before": 0,
}  # fmt: skip


def requeue(connection: Connection, target: Target, who: Principal, now: int) -> Bite:
    """Have jobs run again: those that ended, and those that run, which are stopped first.

    Of a whole array the tasks that failed or were cancelled; where all succeeded, all of them.
    """
    ref, whole = target.ref, _find(connection, target, who)
    if not arrays.is_array(whole):
        return Bite(_requeue_rows(connection, [whole], _grace(whole), now))
    changed = 0
    if target.after is None:
        if ref.tasks is None and not _unsuccessful(whole):
            ref = JobRef(ref.job, _all_tasks(whole))
            target = Target(ref)
        changed = arrays.restore_dropped(connection, whole, ref.tasks, now)
        whole = arrays.reload(connection, whole)
    if ref.tasks is None:
        states = [JobState.FAILED, JobState.CANCELLED]
    else:
        states = [*ENDED, *_STOPPABLE]
        if len(ref.tasks) == 1:
            states += [JobState.STOPPING, JobState.FINISHING]  # these are told why it cannot be
    rows = _tasks_of(connection, whole, target, states)
    changed += arrays.put_back(connection, whole, rows, now, cancelled=True)
    tried = [row for row in rows if row.attempts]
    changed += _requeue_rows(connection, tried, _grace(whole), now, held=whole.hold)
    return Bite(changed, _rest(target, rows))


def _unsuccessful(array: JobRow) -> bool:
    """Whether some of the tasks did not succeed, or have not yet."""
    return bool(array.waiting_count + array.active_count + array.failed_count + array.cancelled_count)


def _all_tasks(array: JobRow) -> Ranges:
    return Ranges.parse(str(spec_document(array)["array"]).partition("%")[0])


def _requeue_rows(connection: Connection, rows: Sequence[JobRow], grace: int, now: int, *, held: bool = False) -> int:
    """Have rows run again; `held`: they are tasks of an array that is held, which hold with it."""
    ended = [row for row in rows if JobState(row.state) in ENDED]
    blocked = jobs.count_blockers(connection, [row.id for row in ended if row.array_id is None])
    moves = []
    for row in ended:
        after, reason = JobState.QUEUED, ReasonCode.NONE
        if held:
            after, reason = JobState.HELD, ReasonCode.HELD_BY_USER
        elif row.id in blocked:
            after, reason = JobState.HELD, ReasonCode.DEPENDENCY
        moves.append(Move(row.id, ENDED, after, reason, values={**_AFRESH, "hold": held}))
    changed = len(jobs.move(connection, moves, now))
    live = [row for row in rows if JobState(row.state) not in ENDED | WAITING]
    for row in live:
        if row.cancel or JobState(row.state) is JobState.FINISHING:
            doing = "is being cancelled" if row.cancel else "has just ended and its output is being collected"
            raise Conflict(
                "not_now", f"Job {name_of(row)} {doing}; requeue it when it has ended: atoll wait {name_of(row)}.",
                field="id",
            )  # fmt: skip
    asked = _already_stopping(connection, [row.id for row in live])
    stopping = [row.id for row in live if row.id not in asked]
    if stopping:
        attempts.ask_to_stop(connection, stopping, "evicted", dict.fromkeys(stopping, grace), now)
    return changed + len(stopping)


def _already_stopping(connection: Connection, ids: Sequence[int]) -> set[int]:
    """Those whose current attempt was asked to stop before."""
    found: set[int] = set()
    for piece in chunked(ids):
        query = (
            select(table.c.id)
            .join(attempt_table, attempt_table.c.id == table.c.attempt_id)
            .where(table.c.id.in_(piece), attempt_table.c.stop_reason.in_(("cancelled", "evicted")))
        )
        found |= set(connection.execute(query).scalars())
    return found


# ---- signals


def running_attempts(connection: Connection, ref: JobRef, who: Principal, limit: int) -> list[AttemptRow]:
    """The current attempts of what runs of a job or of tasks. Raises NotFound, and Conflict where nothing runs."""
    whole = find_whole(connection, ref, who)
    _check_tasks(whole, ref.tasks)
    running = [JobState.RUNNING, JobState.STOPPING]
    if arrays.is_array(whole):
        rows = _tasks_of(connection, whole, Target(ref), running)
    else:
        rows = [whole] if JobState(whole.state) in running else []
    if not rows:
        raise Conflict(
            "not_running", f"Job {ref} does not run, so that nothing gets the signal; see: atoll why {whole.id}.",
            field="id",
        )  # fmt: skip
    if len(rows) >= limit:
        raise Conflict("too_many", f"More than {limit} tasks of {ref} run; name fewer of them.", field="id")
    ids = [row.attempt_id for row in rows if row.attempt_id]
    known = attempts.known(connection, ids)
    return [known[attempt_id] for attempt_id in ids if attempt_id in known]
