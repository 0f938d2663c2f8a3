"""`atoll site`: where jobs run."""

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, one_or_many, printable, say
from atoll.faces.terminal.tables import Column, coloured, print_facts, print_table

if TYPE_CHECKING:
    from atoll.client.models import Amount, Site, SiteFlavor
    from atoll.client.synchronous import Client

app = typer.Typer(name="site", help="The places that run jobs.", no_args_is_help=True)


def list_sites(client: "Client", output: Output = Format.TABLE) -> None:
    """List the sites: how they do, what they have, and how much of it Atoll's jobs use."""
    from atoll.faces.terminal import times

    now = times.now()
    found = client.sites()
    columns: list[Column[Site]] = [
        Column("SITE", lambda site: site.name),
        Column("DRIVER", lambda site: site.driver),
        Column("HEALTH", lambda site: site.health, colour=True),
        Column("SEEN", lambda site: times.age(site.seen_at, now) + (" ago" if site.seen_at else "")),
        Column("NODES", lambda site: sum(flavor.nodes for flavor in site.flavors), right=True),
        Column("CPU USED", lambda site: _used(site, "cpu"), right=True),
        Column("MEMORY USED", lambda site: _used(site, "memory"), right=True),
        Column("GPU USED", lambda site: _used(site, "gpu"), right=True),
        Column("MESSAGE", lambda site: site.message, fill=True),
    ]
    emit(
        output,
        [site.document() for site in found],
        names=lambda: [site.name for site in found],
        table=lambda: print_table(columns, found),
    )


def _used(site: "Site", what: str) -> str:
    from atoll.core.resources import format_bytes, format_milli

    show = format_bytes if what == "memory" else format_milli
    used, total = (sum(getattr(amount, what) for amount in _amounts(site, which)) for which in ("used", "total"))
    return f"{show(used)} of {show(total)}" if total else ""


def _amounts(site: "Site", which: str) -> "list[Amount]":
    return [getattr(flavor, which) for flavor in site.flavors]


def show_sites(
    client: "Client",
    names: Annotated[list[str], typer.Argument(metavar="SITE", help="Its name.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Show all about a site: its flavors, labels and abilities."""
    found = [client.site(name) for name in names]

    def table() -> None:
        for place, site in enumerate(found):
            if place:
                say()
            _print_site(site)

    emit(
        output,
        one_or_many([site.document() for site in found]),
        names=lambda: [site.name for site in found],
        table=table,
    )


def _print_site(site: "Site") -> None:
    from atoll.core.resources import format_bytes, format_milli
    from atoll.faces.terminal import times

    def amount(value: "Amount") -> str:
        gpus = f", {format_milli(value.gpu)} GPU" if value.gpu else ""
        return f"{format_milli(value.cpu)} CPU, {format_bytes(value.memory)}{gpus}"

    say(f"Site {site.name}  {coloured(site.health, site.health)}")
    print_facts([
        ("driver", site.driver),
        ("message", site.message),
        ("last seen", times.local(site.seen_at)),
        ("labels", ", ".join(f"{key}={value}" for key, value in site.labels.items())),
        ("can do", ", ".join(site.abilities)),
    ])  # fmt: skip
    for note in site.notes:
        say(f"note: {printable(note)}")
    columns: list[Column[SiteFlavor]] = [
        Column("FLAVOR", lambda flavor: flavor.name),
        Column("NODES", lambda flavor: flavor.nodes, right=True),
        Column("USED", lambda flavor: amount(flavor.used)),
        Column("TOTAL", lambda flavor: amount(flavor.total)),
        Column("LARGEST NODE", lambda flavor: amount(flavor.node)),
    ]
    if site.flavors:
        say()
        print_table(columns, site.flavors)


command(app, "ls")(list_sites)
command(app, "show")(show_sites)
