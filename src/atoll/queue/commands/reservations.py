"""`atoll reservation`: room that is kept for an event, or for maintenance."""

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, say
from atoll.faces.terminal.tables import Column, print_table
from atoll.queue.commands.amounts import shown

if TYPE_CHECKING:
    from datetime import datetime

    from atoll.client.models import Reservation
    from atoll.client.synchronous import Client

app = typer.Typer(
    name="reservation", help="Room that is kept for an event, or for maintenance.", no_args_is_help=True
)  # fmt: skip
_Text = str | None


def list_reservations(client: "Client", output: Output = Format.TABLE) -> None:
    """List the reservations that are not over, by begin."""
    from atoll.faces.terminal import times

    found = client.reservations()
    columns: list[Column[Reservation]] = [
        Column("ID", lambda kept: kept.id, right=True),
        Column("NAME", lambda kept: kept.name),
        Column("PURPOSE", lambda kept: kept.purpose),
        Column("FLAVOR", lambda kept: kept.flavor),
        Column("SITE", lambda kept: kept.site or "any"),
        Column("ROOM", _room),
        Column("FOR", lambda kept: kept.project or ", ".join(kept.people or ()), fill=True),
        Column("BEGINS", lambda kept: times.local(kept.starts_at)),
        Column("ENDS", lambda kept: times.local(kept.ends_at)),
    ]
    emit(
        output,
        [kept.document() for kept in found],
        names=lambda: [kept.id for kept in found],
        table=lambda: print_table(columns, found),
    )


def _room(kept: "Reservation") -> str:
    if kept.nodes:
        return f"{kept.nodes} nodes" if kept.nodes > 1 else "1 node"
    amounts = ((resource, getattr(kept, resource)) for resource in ("cpu", "memory", "gpu"))
    return ", ".join(shown(resource, value) for resource, value in amounts if value)


def add(
    client: "Client",
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)],
    flavor: Annotated[str, typer.Option("--flavor", metavar="NAME", help="The kind of hardware.", show_default=False)],
    begin: Annotated[str, typer.Option("--from", metavar="TIME", help="2026-05-01T12:00 or now+1hour.",
                                       show_default=False)],
    until: Annotated[_Text, typer.Option("--until", metavar="TIME", help="When it ends.")] = None,
    length: Annotated[_Text, typer.Option("--for", metavar="AGE", help="Or how long it takes: 8h, 2d.")] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=0, help="So many whole nodes.", show_default=False)] = 0,
    cpu: Annotated[_Text, typer.Option("--cpu", metavar="AMOUNT", help="Or so many CPUs.")] = None,
    memory: Annotated[_Text, typer.Option("--mem", metavar="SIZE", help="And so much memory.")] = None,
    gpu: Annotated[_Text, typer.Option("--gpu", metavar="AMOUNT", help="And so many GPUs.")] = None,
    site: Annotated[_Text, typer.Option("--site", metavar="NAME", help="Only there. Default: wherever it is.")] = None,
    project: Annotated[_Text, typer.Option("--project", metavar="NAME", help="For this project.")] = None,
    people: Annotated[list[str] | None, typer.Option("--person", metavar="PERSON", help="For them; may be repeated.",
                                                     show_default=False)] = None,
    maintenance: Annotated[bool, typer.Option("--maintenance", help="For nobody: nothing runs there then.")] = False,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Keep room from one time to another. For administrators."""
    from atoll.core.spec import parse_begin
    from atoll.faces.terminal import times

    starts_at = parse_begin(begin, times.now())
    fields = {"nodes": nodes or None, "cpu": cpu, "memory": memory, "gpu": gpu, "site": site, "project": project}
    kept = client.add_reservation(
        name=name, flavor=flavor, starts_at=starts_at, ends_at=_end(starts_at, until, length), people=people or [],
        purpose="maintenance" if maintenance else "event",
        **{field: value for field, value in fields.items() if value is not None},
    )  # fmt: skip

    def table() -> None:
        span = f"{times.local(kept.starts_at)} to {times.local(kept.ends_at)}"
        say(f"Reservation {kept.id}: {_room(kept)} of {kept.flavor}, {span}.")

    emit(output, kept.document(), names=lambda: [kept.id], table=table)


def _end(starts_at: "datetime", until: str | None, length: str | None) -> "datetime":
    from datetime import timedelta

    from atoll.core.resources import parse_seconds
    from atoll.core.spec import parse_begin
    from atoll.faces.terminal import times

    if (until is None) == (length is None):
        raise Invalid("bad_option", "Give either --until TIME or --for AGE.", field="--until")
    if until is not None:
        return parse_begin(until, times.now())
    try:
        return starts_at + timedelta(seconds=parse_seconds(length))
    except (ValueError, OverflowError) as error:
        raise Invalid("bad_option", f"--for: {error}.", field="--for") from None


def remove(
    client: "Client",
    number: Annotated[int, typer.Argument(metavar="ID", help="From: atoll reservation list.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Keep that room no longer. For administrators."""
    client.remove_reservation(number)
    emit(output, {"id": number}, names=lambda: [number], table=lambda: say(f"Removed reservation {number}."))


command(app, "list")(list_reservations)
command(app, "add")(add)
command(app, "remove")(remove)
