"""Use cases of sites: what the API says of them, and how operators add, change, drain and remove them."""

from collections.abc import Mapping
from typing import Any

import yaml
from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.errors import Conflict, NotFound
from atoll.core.resources import Resources, format_milli
from atoll.core.site import Flavor, Site, SiteReport
from atoll.core.site_file import SiteFile
from atoll.faces.http.times import moment, moment_or_none
from atoll.store import attempts, figures, sites

Document = dict[str, Any]
OWNER, MAPPED, SHARED = "owner", "mapped", "shared"
"""As whom jobs run at a site: of its owner only, of each person by an account of their own, of all by one account."""


def amounts(resources: Resources) -> Document:
    """Resources as specifications write them."""
    return {"cpu": format_milli(resources.cpu), "memory": resources.memory, "gpu": format_milli(resources.gpu)}


def _flavor(site: str, flavor: Flavor, used: Mapping[tuple[str, str], figures.Used]) -> Document:
    taken = used.get((site, flavor.name))
    return {
        "name": flavor.name, "nodes": flavor.nodes, "total": amounts(flavor.total), "node": amounts(flavor.node),
        "used": amounts(taken.resources if taken else Resources()), "others": amounts(flavor.others),
        "openings": [
            {"room": amounts(opening.room), "at": moment(to_micros(opening.at)),
             "asked_at": moment(to_micros(opening.asked_at))}
            for opening in flavor.openings
        ],
    }  # fmt: skip


def identity_of(site: Site) -> str:
    """As whom jobs run there."""
    return OWNER if site.identity is None else SHARED if site.identity.shared else MAPPED


def _nodes(site: Site) -> list[Document]:
    return [
        {"name": node.name, "flavor": node.flavor, "open": node.open, "resources": amounts(node.resources)}
        for node in (site.report.nodes if site.report else ())
    ]


def document(site: Site, drained: bool, used: Mapping[tuple[str, str], figures.Used]) -> Document:
    """A site."""
    return {
        "name": site.name, "driver": site.driver, "labels": site.all_labels, "health": site.health.value,
        "drained": drained, "identity": identity_of(site), "message": site.message,
        "seen_at": moment_or_none(to_micros(site.seen_at) if site.seen_at else None),
        "clearance": sorted(site.clearance), "price": site.price.model_dump() if site.price else None,
        "energy": site.energy, "usual_wait": {"all": site.wait.all, "of_class": dict(site.wait.of_class)},
        **(described(site.name, site.report, used) if site.report else {"flavors": [], "abilities": [], "notes": []}),
    }  # fmt: skip


def described(name: str, report: SiteReport, used: Mapping[tuple[str, str], figures.Used]) -> Document:
    """What a site has and can do, as its driver says."""
    return {
        "flavors": [_flavor(name, flavor, used) for flavor in report.flavors],
        "abilities": sorted(ability.value for ability in report.abilities), "notes": list(report.notes),
    }  # fmt: skip


def listed(connection: Connection) -> list[Document]:
    """All sites, by name."""
    used, drained = figures.used(connection), sites.drained(connection)
    return [document(site, site.name in drained, used) for site in sites.load(connection)]


def find(connection: Connection, name: str) -> Site:
    """One site. Raises NotFound."""
    for site in sites.load(connection):
        if site.name == name:
            return site
    raise _not_there(name)


def get(connection: Connection, name: str) -> Document:
    """One site, with the nodes that Atoll chooses there. Raises NotFound."""
    site = find(connection, name)
    found = document(site, name in sites.drained(connection), figures.used(connection))
    return found | {"nodes": _nodes(site)}


def file_of(connection: Connection, name: str) -> SiteFile:
    """The site as its operator configured it. Raises NotFound."""
    configured = sites.configured(connection).get(name)
    if configured is None:
        raise _not_there(name)
    site = next(site for site in sites.load(connection) if site.name == name)
    return SiteFile(
        name=name, driver=site.driver, labels=dict(site.labels), identity=site.identity, backlog=dict(site.backlog),
        clearance=sorted(site.clearance), price=site.price, energy=site.energy,
        config=dict(configured.config),
    )  # fmt: skip


def written(file: SiteFile) -> str:
    """A site file as an operator writes it, without what is not set."""
    document = file.model_dump(mode="json", exclude_defaults=True)
    text: str = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, default_flow_style=False)
    return text


def put(connection: Connection, file: SiteFile, now: int) -> bool | None:
    """Add a site (True) or change it (False); None where it was so before. Raises Conflict."""
    before = sites.configured(connection).get(file.name)
    if before is not None:
        _refuse_local(before)
        if before.driver != file.driver and attempts.any_live(connection, file.name):
            raise Conflict(
                "site_in_use",
                f"Jobs run at site {file.name} through the driver {before.driver!r}: drain it and wait for their end "
                "before it gets another driver, or give the new site another name.",
                field="driver",
            )
    added = sites.put(
        connection, file.name, file.driver, file.labels, file.config, identity=file.identity, backlog=file.backlog,
        clearance=file.clearance, price=file.price, energy=file.energy,
    )  # fmt: skip
    if added is not None:
        sites.tell(connection, file.name, "configured", "", now)
    return added


def set_drained(connection: Connection, name: str, drained: bool, now: int) -> None:
    """Let a site get no new work, or work again. Raises NotFound."""
    if name not in sites.revisions(connection):
        raise _not_there(name)
    if sites.set_drained(connection, name, drained):
        sites.tell(connection, name, "drained" if drained else "resumed", "", now)


def remove(connection: Connection, name: str, now: int) -> None:
    """Take a site out that has nothing of ours any more. Raises NotFound, Conflict."""
    configured = sites.configured(connection).get(name)
    if configured is None:
        raise _not_there(name)
    _refuse_local(configured)
    count = attempts.count_unfinished(connection, name)
    if count:
        raise Conflict(
            "site_in_use",
            f"{count} attempts of jobs are still at site {name}: drain it (atoll site drain {name}) and wait for "
            "their end, or cancel them.",
            field="name",
        )
    sites.remove(connection, name)
    sites.tell(connection, name, "removed", "", now)


def _refuse_local(site: sites.Configured) -> None:
    if site.local:
        raise Conflict(
            "local_site",
            f"Site {site.name} is the machine of a replica, and is configured where that is started (local: ...).",
            field="name",
        )


def _not_there(name: str) -> NotFound:
    return NotFound("no_such_site", f"There is no site {name!r}; see: atoll site ls.", field="name")
