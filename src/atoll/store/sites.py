"""Sites as configured, and what their drivers last reported."""

import json
from dataclasses import asdict

from sqlalchemy import Connection, Row, delete, insert, select, update

from atoll.core.clock import from_micros
from atoll.core.resources import Resources
from atoll.core.site import Ability, Flavor, Health, Site, SiteReport
from atoll.store.tables import sites


def put(connection: Connection, name: str, driver: str, labels: dict[str, str], config: dict[str, object]) -> None:
    """Add the site, or change how it is configured; its report stays."""
    values = {"driver": driver, "labels": json.dumps(labels), "config": json.dumps(config)}
    if connection.execute(update(sites).where(sites.c.name == name).values(values)).rowcount == 0:
        connection.execute(insert(sites).values(name=name, health=Health.UNKNOWN, message="", **values))


def remove(connection: Connection, name: str) -> None:
    """Take the site out."""
    connection.execute(delete(sites).where(sites.c.name == name))


def set_report(connection: Connection, name: str, report: SiteReport, now: int) -> None:
    """The site answered: it is well."""
    connection.execute(
        update(sites)
        .where(sites.c.name == name)
        .values(health=Health.OK, message="", report=_dump(report), seen_at=now)
    )


def set_health(connection: Connection, name: str, health: Health, message: str) -> None:
    """The site did not answer, or does again; the last report stays with its age."""
    connection.execute(update(sites).where(sites.c.name == name).values(health=health, message=message[:1000]))


def get_health(connection: Connection, name: str) -> Health | None:
    """How a site is; None where it is not configured."""
    found = connection.execute(select(sites.c.health).where(sites.c.name == name)).scalar()
    return Health(found) if found is not None else None


def get_config(connection: Connection, name: str) -> Row[str, str] | None:
    """Driver and configuration (JSON) of a site."""
    return connection.execute(select(sites.c.driver, sites.c.config).where(sites.c.name == name)).one_or_none()


def load(connection: Connection) -> list[Site]:
    """All sites, by name."""
    return [
        Site(
            name=row.name,
            driver=row.driver,
            labels=json.loads(row.labels),
            report=_parse(row.report) if row.report else None,
            health=Health(row.health),
            seen_at=from_micros(row.seen_at) if row.seen_at is not None else None,
            message=row.message,
        )
        for row in connection.execute(select(sites).order_by(sites.c.name))
    ]


def drained(connection: Connection) -> set[str]:
    """Names of the sites that get no new work."""
    return set(connection.execute(select(sites.c.name).where(sites.c.drained)).scalars())


def _dump(report: SiteReport) -> str:
    return json.dumps(asdict(report), default=sorted)


def _parse(text: str) -> SiteReport:
    document = json.loads(text)
    flavors = tuple(
        Flavor(
            name=item["name"],
            total=Resources(**item["total"]),
            node=Resources(**item["node"]),
            nodes=item["nodes"],
            free=Resources(**item["free"]) if item["free"] else None,
        )
        for item in document.pop("flavors")
    )
    abilities = frozenset(Ability(item) for item in document.pop("abilities"))
    notes = tuple(document.pop("notes"))
    return SiteReport(flavors=flavors, abilities=abilities, notes=notes, **document)
