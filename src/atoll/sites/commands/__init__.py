"""`atoll site`: where jobs run."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, hint, one_or_many, printable, say
from atoll.faces.terminal.tables import Column, coloured, print_facts, print_table

if TYPE_CHECKING:
    from atoll.client.models import Amount, Site, SiteFlavor, SiteNode
    from atoll.client.synchronous import Client
    from atoll.sites.commands.check import Step

app = typer.Typer(name="site", help="The places that run jobs.", no_args_is_help=True)
_LARGEST = 1 << 20
_MOST_NODES = 20
"""So many nodes of a site are shown."""
SiteName = Annotated[str, typer.Argument(metavar="SITE", help="Its name.", show_default=False)]
_IDENTITY = {
    "owner": "the person to whom the platform belongs",
    "mapped": "each person, by an account of their own",
    "shared": "everybody, all by one account",
}


def list_sites(client: "Client", output: Output = Format.TABLE) -> None:
    """List the sites: how they do, what they have, and how much of it Atoll's jobs use."""
    from atoll.faces.terminal import times

    now = times.now()
    found = client.sites()
    columns: list[Column[Site]] = [
        Column("SITE", lambda site: site.name),
        Column("DRIVER", lambda site: site.driver),
        Column("HEALTH", lambda site: "drained" if site.drained else site.health, colour=True),
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
        ("jobs of", _IDENTITY.get(site.identity, site.identity)),
        ("drained", "yes: nothing new starts here" if site.drained else ""),
        ("message", site.message),
        ("last seen", times.local(site.seen_at)),
        ("labels", ", ".join(f"{key}={value}" for key, value in site.labels.items())),
        ("can do", ", ".join(site.abilities)),
        ("clearance", ", ".join(site.clearance)),
        ("price", f"{site.price.cpu:g} an hour of a CPU, {site.price.gpu:g} of a GPU" if site.price else ""),
        ("energy", f"{site.energy:g} g CO2e in a kWh" if site.energy is not None else ""),
        ("usual wait", _usual_wait(site)),
    ])  # fmt: skip
    for note in site.notes:
        say(f"note: {printable(note)}")
    columns: list[Column[SiteFlavor]] = [
        Column("FLAVOR", lambda flavor: flavor.name),
        Column("NODES", lambda flavor: flavor.nodes, right=True),
        Column("USED", lambda flavor: amount(flavor.used)),
        Column("BY OTHERS", lambda flavor: amount(flavor.others)),
        Column("TOTAL", lambda flavor: amount(flavor.total)),
        Column("LARGEST NODE", lambda flavor: amount(flavor.node)),
    ]
    if site.flavors:
        say()
        print_table(columns, site.flavors)
    now = times.now()
    for flavor in site.flavors:
        for opening in flavor.openings:
            say(
                f"{flavor.name}: room for {amount(opening.room)} on one node {times.ahead(opening.at, now)}, "
                "as the engine expects"
            )
    nodes: list[Column[SiteNode]] = [
        Column("NODE", lambda node: node.name),
        Column("FLAVOR", lambda node: node.flavor),
        Column("FOR JOBS OF ATOLL", lambda node: amount(node.resources)),
        Column("TAKES NEW", lambda node: "yes" if node.open else "no"),
    ]
    if site.nodes:
        say()
        print_table(nodes, site.nodes[:_MOST_NODES])
    if (more := len(site.nodes) - _MOST_NODES) > 0:
        hint(f"{more} more nodes: atoll site show {site.name} -o json")


def _usual_wait(site: "Site") -> str:
    """`batch 40m, interactive 2m, others 25m`; empty where nobody waits."""
    from atoll.core.resources import format_seconds

    wait = site.usual_wait
    if not wait.all and not any(wait.of_class.values()):
        return ""
    return ", ".join(
        f"{name} {format_seconds(seconds)}" for name, seconds in [*wait.of_class.items(), ("others", wait.all)]
    )


def add(
    client: "Client",
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="The site file, YAML; - is the input.",
                                      show_default=False)],
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Add a site, or change how it is configured: it is at work within seconds."""
    from atoll.core.site_file import read_site_file

    site, new = client.put_site(read_site_file(_read(file), f"site file {file}"))

    def table() -> None:
        say(f"Added site {site.name}." if new else f"Site {site.name} is now as the file says.")
        hint(f"try everything at it: atoll site check {site.name}")

    emit(output, site.document(), names=lambda: [site.name], table=table)


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(_LARGEST + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_LARGEST + 1)
    except OSError as error:
        raise Invalid("no_such_file", f"The site file {file} cannot be read: {error.strerror}.", field="file") from None


def drain(client: "Client", name: SiteName, output: Output = Format.TABLE) -> None:
    """Let a site get no new work; what runs there goes on."""
    _drained(client, name, True, output)


def resume(client: "Client", name: SiteName, output: Output = Format.TABLE) -> None:
    """Let a drained site get work again."""
    _drained(client, name, False, output)


def _drained(client: "Client", name: str, drained: bool, output: Format) -> None:
    site = client.drain_site(name, drained=drained)
    sentence = f"Site {name} gets nothing new." if drained else f"Site {name} gets work again."
    emit(output, site.document(), names=lambda: [site.name], table=lambda: say(sentence))


def remove(client: "Client", name: SiteName, output: Output = Format.TABLE) -> None:
    """Remove a site at which no job is any more."""
    client.remove_site(name)
    emit(output, {"name": name}, names=lambda: [name], table=lambda: say(f"Removed site {name}."))


def check(
    client: "Client",
    name: SiteName,
    patience: Annotated[int, typer.Option("--patience", metavar="SECONDS", help="For how long a job is waited for.",
                                          min=1)] = 120,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Try everything at a site, end to end, with small jobs of yours, and tell what works."""
    from atoll.sites.commands.check import FAILED, Check

    steps: list[Step] = []

    def tell(step: "Step") -> None:
        steps.append(step)
        if output is Format.TABLE:
            say(f"{coloured(step.result, step.result)}  {step.name}: {printable(step.words)}")

    Check(client, name, patience, tell).run()
    emit(output, [step.document() for step in steps], names=lambda: [step.name for step in steps], table=lambda: None)
    if any(step.result == FAILED for step in steps):
        raise typer.Exit(1)


command(app, "ls")(list_sites)
command(app, "show")(show_sites)
command(app, "add")(add)
command(app, "check")(check)
command(app, "drain")(drain)
command(app, "resume")(resume)
command(app, "rm")(remove)
