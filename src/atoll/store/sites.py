"""Sites as configured, and what their drivers last reported."""

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from atoll.core.clock import from_micros, to_micros
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, Health, Node, Opening, Site, SiteReport, UsualWait
from atoll.core.site_file import Identity, Price
from atoll.core.spec import JobClass
from atoll.store import events
from atoll.store.tables import sites

_ALL = "all"


@dataclass(frozen=True)
class Configured:
    """How a site is configured. `revision` rises with each change."""

    name: str
    driver: str
    config: Mapping[str, Any]
    identity: Identity | None
    local: bool
    """Whether it is the machine of one replica, which alone works with it."""
    revision: int


def put(
    connection: Connection, name: str, driver: str, labels: Mapping[str, str], config: Mapping[str, Any], *,
    identity: Identity | None = None, backlog: Mapping[JobClass, int] | None = None, clearance: Collection[str] = (),
    price: Price | None = None, energy: float | None = None, local: bool = False,
) -> bool | None:  # fmt: skip
    """Add the site (True), or change how it is configured (False; its report stays); None: it was so before."""
    values: dict[str, Any] = {
        "driver": driver, "labels": json.dumps(dict(labels)), "config": json.dumps(dict(config)),
        "identity": json.dumps(identity.model_dump(mode="json")) if identity is not None else None,
        "backlog": json.dumps(dict(backlog or {})), "clearance": json.dumps(sorted(set(clearance))),
        "price": None if price is None else price.model_dump_json(), "energy": energy, "local": local,
    }  # fmt: skip
    before = connection.execute(select(sites).where(sites.c.name == name)).one_or_none()
    if before is None:
        connection.execute(insert(sites).values(name=name, health=Health.UNKNOWN, message="", revision=1, **values))
        return True
    if all(getattr(before, key) == value for key, value in values.items()):
        return None
    connection.execute(update(sites).where(sites.c.name == name).values(revision=before.revision + 1, **values))
    return False


def remove(connection: Connection, name: str) -> None:
    """Take the site out."""
    connection.execute(delete(sites).where(sites.c.name == name))


def set_drained(connection: Connection, name: str, drained: bool) -> bool:
    """Let the site get no new work, or work again; whether that is a change."""
    statement = update(sites).where(sites.c.name == name, sites.c.drained != drained)
    return connection.execute(statement.values(drained=drained)).rowcount == 1


def set_waits(connection: Connection, waits: Mapping[str, UsualWait]) -> None:
    """Note for how long attempts usually wait in sites' own queues; sites that are gone are passed over."""
    for name, wait in waits.items():
        text = json.dumps({_ALL: wait.all, **wait.of_class})
        connection.execute(update(sites).where(sites.c.name == name).values(wait=text))


def waits(connection: Connection) -> dict[str, UsualWait]:
    """For how long attempts usually wait in the sites' own queues, by site."""
    return {row.name: _wait(row.wait) for row in connection.execute(select(sites.c.name, sites.c.wait))}


def _wait(text: str) -> UsualWait:
    seconds = json.loads(text)
    return UsualWait(seconds.pop(_ALL, 0), {JobClass(name): usual for name, usual in seconds.items()})


def tell(connection: Connection, name: str, what: str, message: str, now: int) -> None:
    """Write the event that something about a site has changed: its health, or what an operator did."""
    data = json.dumps({"site": name, "health": what, "message": message})
    events.append(connection, [{"at": now, "kind": "site", "state": what, "data": data}])


def set_report(connection: Connection, name: str, report: SiteReport, now: int) -> None:
    """The site answered: it is well."""
    connection.execute(
        update(sites)
        .where(sites.c.name == name)
        .values(health=Health.OK, message="", report=_dump(report), seen_at=now)
    )


def set_seen(connection: Connection, name: str, now: int) -> None:
    """The site answered as it did before: it is well."""
    connection.execute(update(sites).where(sites.c.name == name).values(health=Health.OK, message="", seen_at=now))


def set_health(connection: Connection, name: str, health: Health, message: str) -> None:
    """The site did not answer, or does again; the last report stays with its age."""
    connection.execute(update(sites).where(sites.c.name == name).values(health=health, message=message[:1000]))


def get_health(connection: Connection, name: str) -> Health | None:
    """How a site is; None where it is not configured."""
    found = connection.execute(select(sites.c.health).where(sites.c.name == name)).scalar()
    return Health(found) if found is not None else None


def configured(connection: Connection) -> dict[str, Configured]:
    """How the sites are configured, by name."""
    columns = (sites.c.name, sites.c.driver, sites.c.config, sites.c.identity, sites.c.local, sites.c.revision)
    return {row.name: _configured(row) for row in connection.execute(select(*columns).order_by(sites.c.name))}


def revisions(connection: Connection) -> dict[str, int]:
    """The revision of each site, by name: cheap to ask again and again."""
    return {row.name: row.revision for row in connection.execute(select(sites.c.name, sites.c.revision))}


def get_identity(connection: Connection, name: str) -> Identity | None:
    """Whose accounts jobs at a site run as; None where that is the driver's matter."""
    text = connection.execute(select(sites.c.identity).where(sites.c.name == name)).scalar()
    return Identity.model_validate(json.loads(text)) if text else None


def load(connection: Connection) -> list[Site]:
    """All sites, by name."""
    return [_site(row) for row in connection.execute(select(sites).order_by(sites.c.name))]


def drained(connection: Connection) -> set[str]:
    """Names of the sites that get no new work."""
    return set(connection.execute(select(sites.c.name).where(sites.c.drained)).scalars())


def _configured(row: Row[*tuple[Any, ...]]) -> Configured:
    identity = Identity.model_validate(json.loads(row.identity)) if row.identity else None
    return Configured(row.name, row.driver, json.loads(row.config), identity, row.local, row.revision)


def _site(row: Row[*tuple[Any, ...]]) -> Site:
    return Site(
        name=row.name,
        driver=row.driver,
        labels=json.loads(row.labels),
        report=_read(row.name, row.report) if row.report else None,
        health=Health(row.health),
        seen_at=from_micros(row.seen_at) if row.seen_at is not None else None,
        message=row.message,
        identity=Identity.model_validate(json.loads(row.identity)) if row.identity else None,
        backlog={JobClass(name): depth for name, depth in json.loads(row.backlog).items()},
        clearance=frozenset(json.loads(row.clearance)),
        price=Price.model_validate_json(row.price) if row.price else None,
        energy=row.energy,
        wait=_wait(row.wait),
    )


def _dump(report: SiteReport) -> str:
    # nodes in few words: there may be ten thousand
    nodes = [
        (node.name, node.flavor, node.resources.cpu, node.resources.memory, node.resources.gpu, node.open)
        for node in report.nodes
    ]
    return json.dumps({**asdict(replace(report, nodes=())), "nodes": nodes}, default=_plain)


def _plain(value: Any) -> Any:
    """What JSON lacks: times as microseconds, sets as lists."""
    return to_micros(value) if isinstance(value, datetime) else sorted(value)


_known: dict[str, tuple[str, SiteReport]] = {}
"""By site the last text that was read, and what it says: reports are read far more often than they change."""


def _read(name: str, text: str) -> SiteReport:
    known = _known.get(name)
    if known is None or known[0] != text:
        known = _known[name] = text, _parse(text)
    return known[1]


def _parse(text: str) -> SiteReport:
    document = json.loads(text)
    flavors = tuple(
        Flavor(
            name=item["name"],
            total=Resources(**item["total"]),
            node=Resources(**item["node"]),
            nodes=item["nodes"],
            free=Resources(**item["free"]) if item["free"] else None,
            others=Resources(**item["others"]),
            openings=tuple(map(_opening, item.get("openings", ()))),  # older reports have none
        )
        for item in document.pop("flavors")
    )
    abilities = frozenset(Ability(item) for item in document.pop("abilities"))
    notes = tuple(document.pop("notes"))
    nodes = tuple(
        Node(name, flavor, Resources(cpu, memory, gpu), is_open)
        for name, flavor, cpu, memory, gpu, is_open in document.pop("nodes", ())
    )
    volumes = document.pop("volumes", None)  # older reports have none
    return SiteReport(
        flavors=flavors, abilities=abilities, notes=notes, nodes=nodes,
        volumes=None if volumes is None else frozenset(volumes), **document,
    )  # fmt: skip


def _opening(item: Mapping[str, Any]) -> Opening:
    return Opening(Resources(**item["room"]), from_micros(item["at"]), from_micros(item["asked_at"]))
