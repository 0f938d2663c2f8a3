"""`atoll quota`, `atoll flavor`, `atoll queue`: who may use how much, of what, and how it stands."""

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, hint, say
from atoll.faces.terminal.tables import Column, print_facts, print_table
from atoll.queue.commands.amounts import bare, of, shown

if TYPE_CHECKING:
    from atoll.client.models import Borrowing, Flavor, FlavorSite, Project, QueueFigures, Quota
    from atoll.client.synchronous import Client

app = typer.Typer()
_RESOURCES = ("cpu", "memory", "gpu")


def quota(
    client: "Client",
    project: Annotated[
        str | None, typer.Argument(metavar="[PROJECT]", help="Only of this one. Default: the whole tree.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show what projects have, use, borrow and lend, by flavor and resource."""
    found = client.projects().items if project is None else (client.project(project),)
    rows = [(each, quota) for each in found for quota in each.quotas]

    def table() -> None:
        if rows:
            print_quotas(rows)
        elif found:
            say("No quotas are given out here.")
        else:
            say("There is no project tree: nothing is governed by quotas.")

    emit(output, [each.document() for each in found], names=lambda: [each.name for each in found], table=table)


def print_quotas(rows: "list[tuple[Project, Quota]]") -> None:
    """A line for each quota of each project."""

    def limits(quota: "Quota") -> str:
        parts = [f"borrowing {bare(quota.resource, quota.borrowing)}"] if quota.borrowing is not None else []
        parts += [f"lending {bare(quota.resource, quota.lending)}"] if quota.lending is not None else []
        return ", ".join(parts)

    def amount(what: str) -> "Column[tuple[Project, Quota]]":
        return Column(what.upper(), lambda row: bare(row[1].resource, getattr(row[1], what)), right=True)

    columns: list[Column[tuple[Project, Quota]]] = [
        Column("PROJECT", lambda row: row[0].name),
        Column("FLAVOR", lambda row: row[1].flavor),
        Column("RESOURCE", lambda row: row[1].resource),
        *(amount(what) for what in ("nominal", "quota", "usage", "available", "borrowed", "lent")),
        Column("LIMITS", lambda row: limits(row[1]), fill=True),
    ]
    print_table(columns, rows)


def flavor(
    client: "Client",
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="Only this one, with its sites.")] = None,
    output: Output = Format.TABLE,
) -> None:
    """Show the kinds of hardware over all sites: what there is, what is used, what quotas give out."""
    if name is not None:
        found = client.flavor(name)
        emit(output, found.document(), names=lambda: [found.name], table=lambda: _print_flavor(found))
        return
    all_ = client.flavors()
    columns: list[Column[Flavor]] = [
        Column("FLAVOR", lambda flavor: flavor.name),
        Column("NODES", lambda flavor: flavor.nodes, right=True),
        Column("TOTAL", lambda flavor: of(flavor.total)),
        Column("USED", lambda flavor: of(flavor.used)),
        Column("GIVEN OUT", _given_out),
        Column("SITES", lambda flavor: ", ".join(site.site for site in flavor.sites), fill=True),
    ]
    emit(
        output,
        [flavor.document() for flavor in all_],
        names=lambda: [flavor.name for flavor in all_],
        table=lambda: print_table(columns, all_),
    )


def _given_out(flavor: "Flavor") -> str:
    amounts = ((resource, getattr(flavor.quota, resource)) for resource in _RESOURCES)
    return ", ".join(shown(resource, amount) for resource, amount in amounts if amount is not None)


def _print_flavor(flavor: "Flavor") -> None:
    say(f"Flavor {flavor.name}")
    print_facts([
        ("nodes", flavor.nodes), ("total", of(flavor.total)), ("used", of(flavor.used)),
        ("given out", _given_out(flavor) or "nothing: no quota governs it"),
    ])  # fmt: skip
    columns: list[Column[FlavorSite]] = [
        Column("SITE", lambda site: site.site),
        Column("NODES", lambda site: site.nodes, right=True),
        Column("TOTAL", lambda site: of(site.total)),
    ]
    if flavor.sites:
        say()
        print_table(columns, flavor.sites)
    else:
        hint("no site has it now")


def queue(client: "Client", output: Output = Format.TABLE) -> None:
    """Show how many jobs and tasks wait and run, by class and project, and who borrows from whom."""
    found = client.queue()
    columns: list[Column[QueueFigures]] = [
        Column("CLASS", lambda row: row.class_),
        Column("PROJECT", lambda row: row.project or "-"),
        Column("HELD", lambda row: row.held, right=True),
        Column("WAITING", lambda row: row.waiting, right=True),
        Column("RUNNING", lambda row: row.running, right=True),
    ]

    def table() -> None:
        say(f"{found.waiting} waiting, {found.running} running, {found.held} held")
        if found.items:
            say()
            print_table(columns, found.items)
        if found.borrowing:
            say()
        for group in found.borrowing:
            say(_sentence(group))

    emit(output, found.document(), names=lambda: [row.project or "-" for row in found.items], table=table)


def _sentence(group: "Borrowing") -> str:
    def shares(which: str) -> str:
        return ", ".join(f"{share.project} {bare(group.resource, share.amount)}" for share in getattr(group, which))

    lenders = shares("lenders") or "what is above them"
    return f"{group.flavor} {group.resource}, below {group.below}: {shares('borrowers')} borrowed from {lenders}"


command(app, "quota")(quota)
command(app, "flavor")(flavor)
command(app, "queue")(queue)
