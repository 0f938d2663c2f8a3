"""`atoll up`, `doctor` and `version`: the platform itself, and the machine that it is to run on."""

import os
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import AtollError, Unavailable
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, say

if TYPE_CHECKING:
    from atoll.client.synchronous import Client

app = typer.Typer()
SERVER = "atoll.api.server"
"""Run as a module: the command line knows no more of the server than its name and flags."""
_NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "alembic", "numpy", "structlog", "uvloop")
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
    stop_jobs: Annotated[bool, typer.Option("--stop-jobs", help="At the end, end the jobs that run on this machine "
                                            "too.")] = False,
) -> None:  # fmt: skip
    """Start a platform on this machine, in the foreground; Ctrl-C stops it and leaves running jobs running."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
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
    os.execv(sys.executable, [sys.executable, "-m", SERVER, *flags, *(["--stop-jobs"] if stop_jobs else [])])


def version(
    connect: "typer.Context",
    output: Output = Format.TABLE,
) -> None:
    """Print the versions of Atoll, here and of the platform."""
    import atoll

    found: dict[str, str | None] = {"client": atoll.__version__, "platform": None, "url": None}
    problem = ""
    try:
        with connect() as client:  # type: ignore[operator]
            found |= {"url": client.platform.url, "platform": client.version().version}
    except AtollError as error:
        problem = error.sentence

    def table() -> None:
        say(f"atoll {found['client']}")
        say(f"platform {found['platform']} at {found['url']}" if found["platform"] else f"no platform: {problem}")

    emit(output, found, names=lambda: [found["client"]], table=table)
