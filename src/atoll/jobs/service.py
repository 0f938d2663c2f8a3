"""Finding jobs: one, a page of them, what they brought out. Nobody finds another person's job."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, func, select

from atoll.core.errors import Invalid, NotFound
from atoll.core.ids import JobRef
from atoll.core.ranges import Ranges
from atoll.core.states import JobState
from atoll.jobs import view
from atoll.jobs.estimates import Estimates
from atoll.store import attempts, files, jobs
from atoll.store.arrays import is_array, ranges_of
from atoll.store.jobs import JobRow, ListFilter
from atoll.store.people import Principal
from atoll.store.tables import jobs as table
from atoll.store.tables import outputs as output_table

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Found:
    """A job or one task of an array. `whole` is the row with the specification; `row` is the task's own.

    `row` is None for a task that has none because it never started; then `dropped` says that it was cancelled.
    """

    whole: JobRow
    row: JobRow | None
    task: int | None = None
    dropped: bool = False

    @property
    def state(self) -> JobState:
        """Where it is."""
        return JobState(self.summary()["state"])

    def summary(self) -> Document:
        """It in short."""
        if self.row is not None:
            return view.summary(self.row)
        assert self.task is not None
        return view.unstarted(self.whole, self.task, dropped=self.dropped)


def no_such(ref: JobRef) -> NotFound:
    """What is said of a job that is not there, and of other people's."""
    return NotFound("no_such_job", f"There is no job {ref}.", field="id")


def find_whole(connection: Connection, ref: JobRef, who: Principal, *, lock: bool = False) -> JobRow:
    """The row of a job or array that `who` may see. Raises NotFound."""
    row = jobs.get(connection, ref.job, lock=lock)
    # rows of tasks have ids of their own, which nobody is told
    if row is None or row.array_id is not None or not (who.administrator or row.owner == who.person):
        raise no_such(ref)
    return row


def find(connection: Connection, ref: JobRef, who: Principal) -> Found:
    """A job, or the one task that `ref` names. Raises NotFound, and Invalid where it names several."""
    whole = find_whole(connection, ref, who)
    if ref.tasks is None:
        return Found(whole, whole)
    if len(ref.tasks) != 1:
        raise Invalid("one_task", f"{ref} names several tasks; name one, as in {ref.job}[3].", field="id")
    task = next(iter(ref.tasks))
    row = jobs.get_task(connection, whole.id, task)
    if row is not None:
        return Found(whole, row, task)
    if task in ranges_of(whole.waiting):
        return Found(whole, None, task)
    if task in ranges_of(whole.dropped):
        return Found(whole, None, task, dropped=True)
    what = f"Job {whole.id} has no task {task}." if is_array(whole) else f"Job {whole.id} is no array."
    raise NotFound("no_such_task", what, field="id")


def get(connection: Connection, ref: JobRef, who: Principal, estimates: Estimates) -> Document:
    """A job in full."""
    found = find(connection, ref, who)
    short = found.summary()
    estimates.add(connection, [short])
    tried = attempts.of_job(connection, found.row.id) if found.row is not None else []
    edges = view.dependencies(connection, found.whole.id)
    count = 0
    if found.row is not None:
        query = select(func.count()).select_from(output_table).where(output_table.c.job_id == found.row.id)
        count = int(connection.execute(query).scalar_one())
    return view.full(short, found.whole, tried, edges, count)


def outputs(connection: Connection, ref: JobRef, who: Principal) -> list[tuple[str, str, int]]:
    """The files that a job or task brought out: (path, SHA-256, size)."""
    found = find(connection, ref, who)
    return files.get_outputs(connection, found.row.id) if found.row is not None else []


# ---- lists


def page(
    connection: Connection, wanted: ListFilter, who: Principal, position: int | None, limit: int, estimates: Estimates
) -> tuple[list[Document], int | None]:
    """A page of jobs, newest first, and the position where the next begins (None at the end).

    Members see their own. Where the filter names an array the items are its tasks, by number.
    """
    if not who.administrator:
        if wanted.owner is not None and wanted.owner != who.person:
            return [], None
        wanted = replace(wanted, owner=who.person)
    if wanted.array_id is not None:
        items, following = _task_page(connection, wanted, who, position, limit)
    else:
        rows = jobs.list_page(connection, wanted, position, limit + 1)
        items = [view.summary(row) for row in rows[:limit]]
        following = rows[limit - 1].id if len(rows) > limit else None
    estimates.add(connection, items)
    return items, following


def _task_page(
    connection: Connection, wanted: ListFilter, who: Principal, position: int | None, limit: int
) -> tuple[list[Document], int | None]:
    """Tasks of an array above number `position`: those with a row, and those that never started."""
    assert wanted.array_id is not None
    array = find_whole(connection, JobRef(wanted.array_id), who)
    after = -1 if position is None else position
    query = jobs.filtered(select(*jobs.SUMMARY), wanted, None).where(table.c.task > after)
    rows = connection.execute(query.order_by(table.c.task).limit(limit + 1))
    found = {row.task: view.summary(row) for row in rows}
    for ranges, dropped in ((ranges_of(array.waiting), False), (ranges_of(array.dropped), True)):
        numbers = _first(ranges, after, limit + 1)
        if numbers and _passes(view.unstarted(array, numbers[0], dropped=dropped), array, wanted):
            found |= {number: view.unstarted(array, number, dropped=dropped) for number in numbers}
    numbers = sorted(found)
    return [found[number] for number in numbers[:limit]], numbers[limit - 1] if len(numbers) > limit else None


def _passes(document: Document, array: JobRow, wanted: ListFilter) -> bool:
    """Whether the filter lets tasks through that never started; they agree in all that it looks at."""
    return (
        (not wanted.states or JobState(document["state"]) in wanted.states)
        and wanted.site is None
        and wanted.project in (None, array.project)
        and wanted.name in (None, array.name)
        and (wanted.since is None or max(array.submitted_at, array.ended_at or 0) >= wanted.since)
    )


def _first(ranges: Ranges, after: int, count: int) -> list[int]:
    """The first `count` numbers above `after`."""
    found: list[int] = []
    for part in ranges.parts:
        found += _above(part, after, count - len(found))
        if len(found) >= count:
            break
    return found


def _above(part: range, after: int, count: int) -> Iterator[int]:
    start = part.start
    if start <= after:
        start += ((after - start) // part.step + 1) * part.step
    return iter(range(start, part.stop, part.step)[:count])


def spec_document(row: JobRow) -> Document:
    """The specification in a row, as plain data."""
    document: Document = json.loads(row.spec)
    return document
