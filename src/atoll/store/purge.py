"""What is removed when it is old, in small bites; called by the purge loop with ages from the configuration."""

from collections.abc import Sequence

from sqlalchemy import Connection, delete, select

from atoll.store.tables import attempts, dependencies, inputs, jobs, logs, outputs


def old_jobs(connection: Connection, before: int, limit: int) -> list[int]:
    """Single jobs and arrays that ended before `before` (microseconds) and of which no site keeps anything."""
    kept = select(attempts.c.id).where(attempts.c.job_id == jobs.c.id, attempts.c.kept).exists()
    query = (
        select(jobs.c.id)
        .where(jobs.c.ended_at < before, jobs.c.array_id.is_(None), ~kept)
        .order_by(jobs.c.ended_at)
        .limit(limit)
    )
    return list(connection.execute(query).scalars())


def with_tasks(connection: Connection, ids: Sequence[int], limit: int) -> list[int]:
    """`ids` and the rows of their tasks, at most about `limit` rows; an array follows only after all its tasks."""
    tasks = list(
        connection.execute(select(jobs.c.id, jobs.c.array_id).where(jobs.c.array_id.in_(list(ids))).limit(limit))
    )
    if len(tasks) >= limit:
        return [row.id for row in tasks]
    return [*(row.id for row in tasks), *ids]


def remove_jobs(connection: Connection, ids: Sequence[int]) -> list[str]:
    """Remove jobs and all that belongs to them; returns the attempts whose logs are to go from the log store."""
    found = connection.execute(select(attempts.c.id).where(attempts.c.job_id.in_(list(ids)))).scalars()
    gone = list(found)
    for start in range(0, len(gone), 500):
        connection.execute(delete(logs).where(logs.c.attempt_id.in_(gone[start : start + 500])))
    for start in range(0, len(ids), 500):
        piece = list(ids[start : start + 500])
        connection.execute(delete(attempts).where(attempts.c.job_id.in_(piece)))
        connection.execute(delete(inputs).where(inputs.c.job_id.in_(piece)))
        connection.execute(delete(outputs).where(outputs.c.job_id.in_(piece)))
        connection.execute(delete(dependencies).where(dependencies.c.job_id.in_(piece)))
        connection.execute(delete(jobs).where(jobs.c.id.in_(piece)))
    return gone
