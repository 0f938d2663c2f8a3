"""`atoll login` and `logout`: a token of this machine's own, kept in the login file."""

import contextlib
import os
import re
import socket
import sys
import time
import webbrowser
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import AtollError, Conflict, Denied, Exhausted, Invalid, NotFound, Unauthenticated
from atoll.faces.terminal.command import Output
from atoll.faces.terminal.output import Format, emit, hint, say

if TYPE_CHECKING:
    from atoll.client.models import DeviceCode, Token
    from atoll.client.synchronous import Client

app = typer.Typer()
_SLOWER = 5
"""Seconds by which to ask less often when told so (RFC 8628, section 3.5)."""


@app.command("login")
def login(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="The platform. Default: the one that commands "
                                              "would use.", show_default=False)] = None,
    token_stdin: Annotated[bool, typer.Option("--token-stdin", help="Read a token from the standard input: where there "
                                              "is no browser.")] = False,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Log in on this machine: shows a code that you confirm in a browser, and keeps a token for 90 days."""
    from atoll.client.logins import Login, LoginFile
    from atoll.client.synchronous import Client
    from atoll.faces.terminal import times

    file = LoginFile()
    with Client(url, _read_token() if token_stdin else None) as client:
        address = client.platform.url
        former = file.get(address)
        until = None
        if token_stdin:
            kept = Login(client.platform.token or "")
        else:
            made = _ask(client)
            kept, until = Login(made.token or "", str(made.id)), made.expires_at
    with Client(address, kept.token) as client:
        me = client.me()
        file.keep(address, kept)
        if former is not None and former.token_id and former.token_id != me.token_id:
            with contextlib.suppress(AtollError):  # it ends by itself, too
                client.revoke_token(former.token_id)

    def table() -> None:
        good = f", until {times.local(until)}" if until else ""
        say(f"Logged in to {address} as {me.person}{', an administrator' if me.administrator else ''}{good}.")

    document = {"url": address, "expires_at": until.isoformat() if until else None, **me.document()}
    emit(output, document, names=lambda: [me.person], table=table)


def _read_token() -> str:
    token = sys.stdin.readline().strip()
    if not token:
        raise Invalid("no_token", "There is no token on the standard input.", field="--token-stdin")
    return token


def _ask(client: "Client") -> "Token":
    """Have somebody let this command line in. Raises Denied where they do not."""
    code = client.begin_device_login(_machine())
    hint(f"to log in, open {code.verification_uri} and enter the code {code.user_code}")
    hint(f"or open {code.verification_uri_complete}")
    if _has_browser():
        with contextlib.suppress(webbrowser.Error):
            webbrowser.open(code.verification_uri_complete)
    return _wait(client, code)


def _wait(client: "Client", code: "DeviceCode") -> "Token":
    gap = float(code.interval)
    ends = time.monotonic() + code.expires_in
    while time.monotonic() < ends:
        time.sleep(gap)
        try:
            return client.ask_device_login(code.device_code)
        except Conflict as pending:
            if pending.code != "authorization_pending":
                raise
        except Exhausted as slower:
            gap = max(gap + _SLOWER, slower.retry_after or 0)
    raise Denied("expired_token", "Nobody confirmed the code in time; try again.")


def _machine() -> str:
    """This machine's name, of characters that the platform takes."""
    return re.sub(r"[^A-Za-z0-9._ @-]+", "-", socket.gethostname()).strip("-._ @")[:64] or "machine"


def _has_browser() -> bool:
    """Whether a browser can be opened beside the terminal, and not in it."""
    return sys.platform == "darwin" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))


@app.command("logout")
def logout(
    url: Annotated[str | None, typer.Argument(metavar="[URL]", help="The platform. Default: the last that was logged "
                                              "in to.", show_default=False)] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Make this machine's token useless and forget it."""
    from atoll.client.logins import LoginFile
    from atoll.client.place import check_url
    from atoll.client.synchronous import Client

    file = LoginFile()
    address = check_url(url, "URL") if url else file.default()
    kept = file.get(address) if address else None
    if address is None or kept is None:
        raise NotFound("not_logged_in", f"There is no login for {address or 'any platform'} in {file.path}.")
    with Client(address, kept.token) as client, contextlib.suppress(Unauthenticated, NotFound):
        # a token that is good no more is as good as revoked
        token_id = kept.token_id or client.me().token_id
        if token_id:
            client.revoke_token(token_id)
    file.drop(address)
    emit(output, {"url": address}, names=lambda: [address], table=lambda: say(f"Logged out of {address}."))
