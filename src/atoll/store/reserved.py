"""The starts that the queue has reserved for waiting jobs; only the dispatcher writes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, delete, insert, select

from atoll.store.jobs import chunked
from atoll.store.tables import reserved


@dataclass(frozen=True, slots=True)
class Start:
    """A reserved start, in microseconds, and where."""

    job_id: int
    site: str
    flavor: str
    start: int


def load(connection: Connection) -> list[Start]:
    """All of them, the first first."""
    query = select(reserved).order_by(reserved.c.start, reserved.c.job_id)
    return [Start(row.job_id, row.site, row.flavor, row.start) for row in connection.execute(query)]


def get(connection: Connection, job_id: int) -> Start | None:
    """The start of one job; None where it has none."""
    row = connection.execute(select(reserved).where(reserved.c.job_id == job_id)).one_or_none()
    return Start(row.job_id, row.site, row.flavor, row.start) if row is not None else None


def replace(connection: Connection, before: Mapping[int, Start], after: Iterable[Start]) -> None:
    """Make `after` all that there are; `before`, by job, is what was written last. Only what differs is touched."""
    wanted = {start.job_id: start for start in after}
    gone = [job_id for job_id, start in before.items() if wanted.get(job_id) != start]
    new = [start for job_id, start in wanted.items() if before.get(job_id) != start]
    for piece in chunked(sorted({*gone, *(start.job_id for start in new)})):
        connection.execute(delete(reserved).where(reserved.c.job_id.in_(piece)))
    if new:
        rows = [
            {"job_id": start.job_id, "site": start.site, "flavor": start.flavor, "start": start.start} for start in new
        ]
        connection.execute(insert(reserved), rows)
