"""What attempts that have not ended hold at sites: by class for pages, and of each node that Atoll chose."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, bindparam, text

from atoll.core.resources import Resources
from atoll.core.site import NodeSpot
from atoll.store.spots import read_spots


@dataclass(frozen=True, slots=True)
class Held:
    """What attempts of one class hold, or will, of one flavor at one site; `running` are those that have begun."""

    site: str
    flavor: str
    class_: str
    running: bool
    attempts: int
    resources: Resources


def by_class(connection: Connection) -> list[Held]:
    """All that is held, by site, flavor and class."""
    query = text(
        "SELECT a.site, a.flavor, j.class AS class_, a.state = 'running' AS running, count(*) AS number, "
        "sum(a.cpu * a.nodes) AS cpu, sum(a.memory * a.nodes) AS memory, sum(a.gpu * a.nodes) AS gpu "
        "FROM attempts a JOIN jobs j ON j.id = a.job_id WHERE a.kept AND a.state <> 'ended' "
        "GROUP BY a.site, a.flavor, j.class, a.state = 'running'"
    )
    return [
        Held(row.site, row.flavor, row.class_, bool(row.running), int(row.number),
             Resources(int(row.cpu), int(row.memory), int(row.gpu)))
        for row in connection.execute(query)
    ]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Spots:
    """What one attempt holds of the nodes that Atoll chose for it: `resources` of each of them."""

    site: str
    class_: str
    resources: Resources
    nodes: tuple[NodeSpot, ...]


def on_nodes(connection: Connection, sites: Sequence[str]) -> list[Spots]:
    """What is held of the nodes of some sites."""
    if not sites:
        return []
    query = text(
        "SELECT a.site, a.cpu, a.memory, a.gpu, a.spots, j.class AS class_ FROM attempts a JOIN jobs j "
        "ON j.id = a.job_id WHERE a.kept AND a.state <> 'ended' AND a.spots IS NOT NULL AND a.site IN :sites"
    ).bindparams(bindparam("sites", expanding=True))
    return [
        Spots(row.site, row.class_, Resources(row.cpu, row.memory, row.gpu), read_spots(row.spots))
        for row in connection.execute(query, {"sites": list(sites)})
    ]
