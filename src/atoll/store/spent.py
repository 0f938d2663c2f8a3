"""What ended attempts used, summed up by day: fair shares are made of it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from atoll.core.resources import Resources
from atoll.store.tables import spent

DAY = 86_400 * 1_000_000
"""Microseconds."""
_MIB = 2**20
_MOST = 2**50
"""No attempt counts more than this of anything, so that whatever a site says, sums stay inside 64 bits."""
_Key = tuple[str, str, str, bool, int]
_COLUMNS = ("project", "person", "flavor", "opportunistic", "day")


@dataclass(frozen=True, slots=True)
class Use:
    """What one attempt used: `total` for so many seconds. It counts to the day on which it was placed."""

    project: str
    """Empty: none."""
    person: str
    flavor: str
    opportunistic: bool
    placed_at: int
    total: Resources
    seconds: int


@dataclass(frozen=True, slots=True)
class DayOfUse:
    """What attempts of a person that were placed on one day used of a flavor for a project."""

    project: str
    person: str
    flavor: str
    opportunistic: bool
    day: int
    """Since 1970 UTC."""
    used: Resources
    """Resources times seconds."""


def add(connection: Connection, uses: Sequence[Use]) -> None:
    """Count what was used."""
    sums: dict[_Key, list[int]] = {}
    for use in uses:
        key = (use.project, use.person, use.flavor, use.opportunistic, use.placed_at // DAY)
        known = sums.setdefault(key, [0, 0, 0])
        amounts = (use.total.cpu * use.seconds, use.total.memory * use.seconds // _MIB, use.total.gpu * use.seconds)
        sums[key] = [before + min(amount, _MOST) for before, amount in zip(known, amounts, strict=True)]
    dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
    statement = dialect.insert(spent)
    more = {name: spent.c[name] + statement.excluded[name] for name in ("cpu", "memory", "gpu")}
    upsert = statement.on_conflict_do_update(index_elements=list(_COLUMNS), set_=more)
    for key, (cpu, memory, gpu) in sorted(sums.items()):
        if cpu or memory or gpu:
            values = dict(zip(_COLUMNS, key, strict=True))
            connection.execute(upsert, {**values, "cpu": cpu, "memory": memory, "gpu": gpu})


def load(connection: Connection) -> Iterator[DayOfUse]:
    """All that is still known."""
    for row in connection.execute(select(spent)):
        used = Resources(row.cpu, row.memory * _MIB, row.gpu)
        yield DayOfUse(row.project, row.person, row.flavor, row.opportunistic, row.day, used)


def by_project(connection: Connection, since: int) -> dict[tuple[str, str], Resources]:
    """Resources times seconds that were used with a claim since a day, by project and flavor."""
    columns = (func.sum(spent.c.cpu).label("cpu"), func.sum(spent.c.memory).label("memory"),
               func.sum(spent.c.gpu).label("gpu"))  # fmt: skip
    query = (
        select(spent.c.project, spent.c.flavor, *columns)
        .where(spent.c.day >= since // DAY, spent.c.opportunistic.is_(False))
        .group_by(spent.c.project, spent.c.flavor)
    )
    return {
        (row.project, row.flavor): Resources(int(row.cpu), int(row.memory) * _MIB, int(row.gpu))
        for row in connection.execute(query)
    }


def purge(connection: Connection, before: int) -> int:
    """Forget the days that ended before `before` (microseconds); returns how many rows."""
    return connection.execute(delete(spent).where(spent.c.day < before // DAY)).rowcount
