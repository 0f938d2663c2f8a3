"""`atoll token`: the tokens that let programs and other machines in."""

from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Output, command, for_each
from atoll.faces.terminal.output import Format, emit, hint, say
from atoll.faces.terminal.tables import Column, print_table

if TYPE_CHECKING:
    from atoll.client.models import Token
    from atoll.client.synchronous import Client

app = typer.Typer(name="token", help="Tokens, for programs and other machines.", no_args_is_help=True)


def create(
    client: "Client",
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is for.", show_default=False)],
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="AGE", help="How long it is good for: 30d, 12h. Default: for ever."),
    ] = None,
    person: Annotated[
        str | None, typer.Option("--person", metavar="PERSON", help="For somebody else; administrators only.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Make a token and print it; it is shown only this once."""
    from atoll.core.resources import parse_seconds

    try:
        seconds = parse_seconds(expires) if expires is not None else None
    except ValueError as error:
        raise Invalid("bad_option", f"--expires: {error}.", field="--expires") from None
    token = client.create_token(name, expires_in=seconds, person=person)

    def table() -> None:
        say(token.token or "")
        hint(f"token {token.id} ({token.name}) of {token.person}; keep it, it is not shown again")

    emit(output, token.document(), names=lambda: [token.id], table=table)


def list_tokens(client: "Client", output: Output = Format.TABLE) -> None:
    """List your tokens, without what is secret about them."""
    from atoll.faces.terminal import times

    found = client.tokens()
    columns: list[Column[Token]] = [
        Column("TOKEN", lambda token: token.id),
        Column("NAME", lambda token: token.name),
        Column("PERSON", lambda token: token.person),
        Column("CREATED", lambda token: times.local(token.created_at)),
        Column("EXPIRES", lambda token: times.local(token.expires_at) or "never"),
    ]
    emit(
        output,
        [token.model_dump(mode="json", by_alias=True, exclude={"token"}) for token in found],
        names=lambda: [token.id for token in found],
        table=lambda: print_table(columns, found),
    )


def revoke(
    client: "Client",
    tokens: Annotated[list[str], typer.Argument(metavar="TOKEN", help="Its id, from: atoll token ls.",
                                                show_default=False)],
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Make tokens useless, at once and for good."""
    revoked: list[str] = []

    def act(token: str) -> None:
        client.revoke_token(token)
        revoked.append(token)

    def table() -> None:
        for token in revoked:
            say(f"Revoked token {token}.")

    try:
        for_each(tokens, act)
    finally:
        emit(output, [{"id": token} for token in revoked], names=lambda: revoked, table=table)


command(app, "create")(create)
command(app, "ls")(list_tokens)
command(app, "revoke")(revoke)
