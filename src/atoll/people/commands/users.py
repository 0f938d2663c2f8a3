"""`atoll user`: who may log in. For administrators."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.faces.terminal.command import Output, command, for_each
from atoll.faces.terminal.output import Format, emit, hint, one_or_many, say
from atoll.faces.terminal.tables import Column, print_table

if TYPE_CHECKING:
    from atoll.client.models import Link, Person
    from atoll.client.synchronous import Client

app = typer.Typer(name="user", help="Who may log in; for administrators.", no_args_is_help=True)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The name to log in with.", show_default=False)]
Names = Annotated[list[str], typer.Argument(metavar="NAME", help="The name to log in with.", show_default=False)]


def _print_link(output: Format, link: "Link") -> None:
    from atoll.faces.terminal import times

    def table() -> None:
        say(link.link)
        hint(f"for {link.person} to choose a password; good once, until {times.local(link.expires_at)}")

    emit(output, link.document(), names=lambda: [link.person], table=table)


def add(
    client: "Client",
    name: Name,
    administrator: Annotated[bool, typer.Option("--administrator", help="Who may do everything.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Add somebody, and print a link by which they choose a password."""
    _print_link(output, client.add_person(name, role="administrator" if administrator else "member"))


def link(client: "Client", name: Name, output: Output = Format.TABLE) -> None:
    """Print a new link, for somebody who has no password or forgot it; a former link is good no more."""
    _print_link(output, client.make_link(name))


def list_users(client: "Client", output: Output = Format.TABLE) -> None:
    """List everybody."""
    from atoll.faces.terminal import times

    found = client.people()
    columns: list[Column[Person]] = [
        Column("NAME", lambda person: person.person),
        Column("ROLE", lambda person: person.role),
        Column("STATE", _state),
        Column("SINCE", lambda person: times.local(person.created_at)),
    ]
    emit(
        output,
        [person.document() for person in found],
        names=lambda: [person.person for person in found],
        table=lambda: print_table(columns, found),
    )


def _state(person: "Person") -> str:
    if person.disabled:
        return "disabled"
    return "has a password" if person.has_password else "no password"


def role(
    client: "Client",
    name: Name,
    role: Annotated[str, typer.Argument(metavar="ROLE", help="member or administrator.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Give somebody a role."""
    _change([name], lambda person: client.change_person(person, role=role), output)


def disable(client: "Client", names: Names, output: Output = Format.TABLE) -> None:
    """Lock somebody out: every login ends, and no token is taken. Jobs go on."""
    _change(names, lambda person: client.change_person(person, disabled=True), output)


def enable(client: "Client", names: Names, output: Output = Format.TABLE) -> None:
    """Let somebody in again, with the same password and tokens."""
    _change(names, lambda person: client.change_person(person, disabled=False), output)


def _change(names: list[str], act: "Callable[[str], Person]", output: Format) -> None:
    changed: list[Person] = []

    def table() -> None:
        for person in changed:
            say(f"{person.person}: {person.role}, {_state(person)}.")

    try:
        for_each(names, lambda name: changed.append(act(name)))
    finally:
        if changed:
            emit(
                output,
                one_or_many([person.document() for person in changed]),
                names=lambda: [person.person for person in changed],
                table=table,
            )


command(app, "add")(add)
command(app, "ls")(list_users)
command(app, "link")(link)
command(app, "role")(role)
command(app, "disable")(disable)
command(app, "enable")(enable)
