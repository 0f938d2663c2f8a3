"""What the API says of sites."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.errors import NotFound
from atoll.core.resources import Resources, format_milli
from atoll.core.site import Flavor, Site
from atoll.faces.http.times import moment_or_none
from atoll.store import figures, sites

Document = dict[str, Any]


def amounts(resources: Resources) -> Document:
    """Resources as specifications write them."""
    return {"cpu": format_milli(resources.cpu), "memory": resources.memory, "gpu": format_milli(resources.gpu)}


def _flavor(site: str, flavor: Flavor, used: Mapping[tuple[str, str], figures.Used]) -> Document:
    taken = used.get((site, flavor.name))
    return {
        "name": flavor.name, "nodes": flavor.nodes, "total": amounts(flavor.total), "node": amounts(flavor.node),
        "used": amounts(taken.resources if taken else Resources()),
    }  # fmt: skip


def document(site: Site, used: Mapping[tuple[str, str], figures.Used]) -> Document:
    """A site."""
    report = site.report
    return {
        "name": site.name, "driver": site.driver, "labels": site.all_labels, "health": site.health.value,
        "message": site.message, "seen_at": moment_or_none(to_micros(site.seen_at) if site.seen_at else None),
        "flavors": [_flavor(site.name, flavor, used) for flavor in report.flavors] if report else [],
        "abilities": sorted(ability.value for ability in report.abilities) if report else [],
        "notes": list(report.notes) if report else [],
    }  # fmt: skip


def listed(connection: Connection) -> list[Document]:
    """All sites, by name."""
    used = figures.used(connection)
    return [document(site, used) for site in sites.load(connection)]


def get(connection: Connection, name: str) -> Document:
    """One site. Raises NotFound."""
    for site in sites.load(connection):
        if site.name == name:
            return document(site, figures.used(connection))
    raise NotFound("no_such_site", f"There is no site {name!r}; see: atoll site ls.", field="name")
