"""The attempts that may have streams, for the relay, which only reads."""

from dataclasses import dataclass

from sqlalchemy import Connection, select

from atoll.core.spec import JobClass
from atoll.core.states import JobState
from atoll.store.attempts import AttemptState
from atoll.store.tables import attempts, jobs


@dataclass(frozen=True)
class RelayedAttempt:
    """A running attempt of a single job whose specification may name a port for the relay."""

    job_id: int
    spec: str
    attempt_id: str
    native_id: str | None
    account: str | None
    site: str


def running(connection: Connection, port_name: str) -> list[RelayedAttempt]:
    """The attempts that run, of jobs of class interactive or service in whose specification `port_name` appears.

    In the order in which they were placed.
    """
    query = (
        select(
            jobs.c.id.label("job_id"), jobs.c.spec, attempts.c.id.label("attempt_id"), attempts.c.native_id,
            attempts.c.account, attempts.c.site,
        )
        .join_from(jobs, attempts, attempts.c.id == jobs.c.attempt_id)
        .where(
            jobs.c.state.in_((JobState.RUNNING, JobState.STOPPING)),
            jobs.c.class_.in_((JobClass.INTERACTIVE, JobClass.SERVICE)),
            jobs.c.array_id.is_(None),
            jobs.c.spec.contains(f'"{port_name}"', autoescape=True),
            attempts.c.state == AttemptState.RUNNING,
        )
        .order_by(attempts.c.id)
    )  # fmt: skip
    return [RelayedAttempt(**row._mapping) for row in connection.execute(query)]
