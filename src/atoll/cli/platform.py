"""`atoll up`, `doctor` and `version`: the platform itself, and the machine that it is to run on."""

import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import AtollError, Unavailable
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, printable, say
from atoll.faces.terminal.tables import coloured

if TYPE_CHECKING:
    from atoll.client.synchronous import Client

app = typer.Typer()
Connect = Callable[[], "Client"]
FRONT, SERVER = "atoll.front.main", "atoll.api.server"
"""Run as modules: the platform behind its proxy, or alone. The command line knows only their names and flags."""
NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "numpy", "uvloop")
"""Some of what the extra `server` brings."""


@app.command("up")
def up(
    data: Annotated[str | None, typer.Option(metavar="DIR", help="Folder for all that is kept. Default: ATOLL_DATA, or "
                                             "./atoll-data.", show_default=False)] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Where to listen; 0 "
                                             "takes a free one. Default: 8470.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option(metavar="ADDRESS", help="Address to listen on. Default: 127.0.0.1, this "
                                             "machine only.", show_default=False)] = None,
    database: Annotated[str | None, typer.Option(metavar="URL", help="postgresql://USER@HOST/NAME. Default: SQLite in "
                                                 "the data folder.", show_default=False)] = None,
    config: Annotated[str | None, typer.Option(metavar="FILE", help="Configuration. Default: atoll.yaml in the data "
                                               "folder, if it is there.", show_default=False)] = None,
    bare: Annotated[bool, typer.Option("--bare", help="The platform alone: no proxy before it. Then it listens "
                                       "itself.")] = False,
    stop_jobs: Annotated[bool, typer.Option("--stop-jobs", help="At the end, end the jobs that run on this machine "
                                            "too.")] = False,
) -> None:  # fmt: skip
    """Start a platform on this machine, in the foreground; Ctrl-C stops it and leaves running jobs running."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise Unavailable(
            "no_server",
            f"The platform's own parts are not installed here ({missing[0]} is missing); install them with: "
            "pip install 'atoll[server]'.",
        )
    given = {"--data": data, "--port": port, "--host": host, "--database": database, "--config": config}
    flags = [word for name, value in given.items() if value is not None for word in (name, str(value))]
    sys.stdout.flush()
    # in this very process, so that whoever started it stops the platform itself
    ending = ["--stop-jobs"] if stop_jobs else []
    os.execv(sys.executable, [sys.executable, "-m", SERVER if bare else FRONT, *flags, *ending])  # noqa: S606  (no shell, as intended)


def version(connect: "Connect", output: Output = Format.TABLE) -> None:
    """Print the versions of Atoll, here and of the platform."""
    import atoll

    found: dict[str, str | None] = {"client": atoll.__version__, "platform": None, "url": None}
    problem = ""
    try:
        with connect() as client:
            found |= {"url": client.platform.url, "platform": client.version().version}
    except AtollError as error:
        problem = error.sentence

    def table() -> None:
        say(f"atoll {found['client']}")
        say(f"platform {found['platform']} at {found['url']}" if found["platform"] else f"no platform: {problem}")

    emit(output, found, names=lambda: [found["client"]], table=table)


def doctor(
    connect: "Connect",
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", help="Data folder to look at. Default: ATOLL_DATA, or ./atoll-data.", show_default=False
        ),
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what this machine can and cannot do; fails where something is broken."""
    from atoll.cli.doctor import Status, examine

    folder = Path(data or os.environ.get("ATOLL_DATA") or "atoll-data")
    findings = list(examine(folder, connect, NEEDED))

    def table() -> None:
        width = max(len(finding.check) for finding in findings)
        for finding in findings:
            status = coloured(finding.status, finding.status) + " " * (5 - len(finding.status))
            say(f"{status} {finding.check:<{width}}  {printable(finding.sentence)}")

    emit(
        output,
        [{"check": item.check, "status": item.status.value, "sentence": item.sentence} for item in findings],
        names=lambda: [item.check for item in findings],
        table=table,
    )
    if any(finding.status is Status.FAIL for finding in findings):
        raise typer.Exit(Unavailable.exit_code)


command(app, "doctor", lazy=True)(doctor)
command(app, "version", lazy=True)(version)
