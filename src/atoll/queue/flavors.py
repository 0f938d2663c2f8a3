"""Flavors over all sites: what there is, what is used and given out of it. And reservations, held against that."""

import json
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import Connection

from atoll.core.clock import to_micros
from atoll.core.errors import Invalid, NotFound
from atoll.core.resources import Resources, format_milli
from atoll.core.site import Site
from atoll.core.spec import suggestion
from atoll.faces.http.times import moment
from atoll.jobs.projects import Projects
from atoll.queue import model, service, sums
from atoll.scheduler.fit import amount
from atoll.scheduler.quota import RESOURCES, Amounts, Tree
from atoll.store import figures, idempotency, projects, reservations, sites
from atoll.store.idempotency import Claim
from atoll.store.people import Principal
from atoll.store.reservations import Reservation

Document = dict[str, Any]


def _amounts(resources: Resources) -> Document:
    """Resources as specifications write them."""
    return {resource: _written(resource, getattr(resources, resource)) for resource in RESOURCES}


def _written(resource: str, value: int) -> int | str:
    return value if resource == "memory" else format_milli(value)


def listed(connection: Connection, known: Projects) -> list[Document]:
    """All flavors that sites have reported, or that quotas name, by name."""
    found = sites.load(connection)
    _, tree = service.load_tree(connection, known)
    given = sums.nominal(tree)[0] if tree is not None else None
    used = figures.used(connection)
    names = {flavor.name for site in found if site.report for flavor in site.report.flavors}
    documents = []
    for name in sorted(names | set(tree.governed if tree else ())):
        here = [
            (site.name, flavor)
            for site in found if site.report for flavor in site.report.flavors if flavor.name == name
        ]  # fmt: skip
        ours = (taken.resources for (_, flavor), taken in used.items() if flavor == name)
        documents.append({
            "name": name, "nodes": sum(flavor.nodes for _, flavor in here), "used": _amounts(sum(ours, Resources())),
            "total": _amounts(sum((flavor.total for _, flavor in here), Resources())),
            "quota": _quota(tree, given, name),
            "sites": [
                {"site": site, "nodes": flavor.nodes, "total": _amounts(flavor.total)} for site, flavor in here
            ],
        })  # fmt: skip
    return documents


def _quota(tree: Tree | None, given: Amounts | None, flavor: str) -> Document:
    """What is `given` out by the whole tree, by resource; null for what is not governed."""
    if tree is None or given is None:
        return dict.fromkeys(RESOURCES)
    governed = dict(tree.governed.get(flavor, ()))
    return {
        resource: _written(resource, int(given[governed[resource]])) if resource in governed else None
        for resource in RESOURCES
    }


# ---- reservations


def told(kept: Reservation, who: Principal, known: Projects) -> Document:
    """A reservation, with its people only for administrators, themselves, and those in its project."""
    insider = who.administrator or who.person in kept.people or _is_in(kept.project, who.person, known)
    return document(kept) if insider else {**document(kept), "people": None}


def _is_in(project: str | None, person: str, known: Projects) -> bool:
    tree = known.tree
    if tree is None or project is None or project not in tree:
        return False
    manages = person in tree.nodes[tree.index[project]].managers
    return manages or any(project in tree.path(own) for own in known.of(person))


def document(kept: Reservation) -> Document:
    """A reservation, in full."""
    return {
        "id": kept.id, "name": kept.name, "purpose": kept.purpose, "flavor": kept.flavor, "site": kept.site,
        "nodes": kept.nodes, **_amounts(kept.resources), "project": kept.project, "people": list(kept.people),
        "starts_at": moment(kept.starts_at), "ends_at": moment(kept.ends_at), "created_by": kept.created_by,
        "created_at": moment(kept.created_at),
    }  # fmt: skip


def reserve(connection: Connection, wanted: model.ReservationRequest, who: Principal, now: int) -> Document:
    """Keep room. Raises Invalid where it is in the past, of what is not there, or of more than there is."""
    kept = Reservation(
        0, wanted.name, wanted.purpose, wanted.flavor, wanted.site, wanted.nodes,
        Resources(wanted.cpu, wanted.memory, wanted.gpu), wanted.project, tuple(sorted(set(wanted.people))),
        to_micros(wanted.starts_at), to_micros(wanted.ends_at), who.person, now,
    )  # fmt: skip
    _check_times(kept, now)
    _check_room(sites.load(connection), kept, reservations.load(connection, kept.starts_at))
    _check_project(connection, kept)
    number = reservations.add(connection, kept)
    made = reservations.get(connection, number)
    assert made is not None
    return document(made)


def reserve_once(
    connection: Connection, wanted: model.ReservationRequest, who: Principal, now: int, key: str, digest: bytes
) -> tuple[Document, bool]:
    """As `reserve`, with an idempotency key; whether this was answered before. Raises Conflict, too."""
    before = idempotency.find(connection, who.person, [key]).get(key)
    if before is None:
        made = reserve(connection, wanted, who, now)
        idempotency.claim(connection, [Claim(who.person, key, digest, json.dumps(made))], now)
        return made, False
    if bytes(before.request) != digest:
        raise idempotency.reused(key)
    return json.loads(before.answer), True


def release(connection: Connection, number: int, now: int) -> None:
    """Keep it no longer. Raises NotFound."""
    if not reservations.remove(connection, number, now):
        sentence = f"There is no reservation {number}; see: atoll reservation list."
        raise NotFound("no_such_reservation", sentence, field="id")


_LATEST = 32_503_680_000_000_000  # the year 3000


def _check_times(kept: Reservation, now: int) -> None:
    if kept.ends_at <= kept.starts_at:
        raise _wrong("ends_at", "it would end before it begins")
    if kept.ends_at <= now or kept.starts_at < now - 60_000_000:
        raise _wrong("starts_at", "this is in the past")
    if kept.ends_at >= _LATEST:
        raise _wrong("ends_at", "write a time before the year 3000")


def _check_room(found: Sequence[Site], kept: Reservation, others: Iterable[Reservation]) -> None:
    if kept.site is not None and all(site.name != kept.site for site in found):
        raise _wrong("site", f"there is no site {kept.site!r}.{suggestion(kept.site, [site.name for site in found])}")
    known = {flavor.name for site in found if site.report for flavor in site.report.flavors}
    if kept.flavor not in known:
        raise _wrong("flavor", f"no site has the flavor {kept.flavor!r}.{suggestion(kept.flavor, sorted(known))}")
    together = [kept, *(other for other in others if other.flavor == kept.flavor and other.starts_at < kept.ends_at)]
    for scope in {None, kept.site}:
        there = [
            flavor
            for site in found if site.report and scope in (None, site.name)
            for flavor in site.report.flavors if flavor.name == kept.flavor
        ]  # fmt: skip
        if not there:
            raise _wrong("flavor", f"site {scope} has no flavor {kept.flavor!r}")
        inside = [each for each in together if scope in (None, each.site)]
        total = sum((flavor.total for flavor in there), Resources())
        _check_peak(inside, kept, sum(flavor.nodes for flavor in there), total)


def _check_peak(together: Sequence[Reservation], kept: Reservation, nodes: int, total: Resources) -> None:
    """Refuse what, with others at the same time, is more than there is."""
    for instant in {max(each.starts_at, kept.starts_at) for each in together}:
        now = [each for each in together if each.starts_at <= instant < each.ends_at]
        asked = sum(each.nodes for each in now)
        if kept.nodes and asked > nodes:
            raise _wrong("nodes", f"{asked} nodes, with other reservations, are more than there are: {nodes}")
        for resource in RESOURCES:
            most = getattr(total, resource)
            # a node that is kept whole keeps its share of all that the nodes have
            whole = most * asked // nodes if nodes else 0
            both = whole + sum(getattr(each.resources, resource) for each in now)
            if (kept.nodes or getattr(kept.resources, resource)) and both > most:
                field = "nodes" if kept.nodes else resource
                words = f"{amount(resource, both)}, with other reservations, is more than there is: "
                raise _wrong(field, words + amount(resource, most))


def _check_project(connection: Connection, kept: Reservation) -> None:
    names = projects.names(connection)
    if kept.project is not None and names and kept.project not in names:
        raise _wrong("project", f"there is no project {kept.project!r}.{suggestion(kept.project, names)}")


def _wrong(field: str, words: str) -> Invalid:
    end = "" if words.endswith(("?", ".")) else "."
    return Invalid("bad_reservation", f"{field}: {words}{end}", field=field)
