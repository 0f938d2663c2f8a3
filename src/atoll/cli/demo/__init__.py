"""`atoll demo`: a department's busy day on sites that are only played, to look at and to learn with."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()
FOLDER = "atoll-demo"
_MOST_JOBS = 1_000_000


@app.command("demo")
def demo(
    speed: Annotated[float, typer.Option("--speed", min=1, max=3600, metavar="N", help="How many times as fast as life "
                                         "the day goes by.")] = 60,
    jobs: Annotated[int, typer.Option("--jobs", min=0, max=_MOST_JOBS, metavar="N", help="Fill the queue with so many "
                                      "jobs first.")] = 0,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Which day it is: the same seed brings the same "
                                      "jobs.")] = 0,
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="Folder of its own for all that is "
                                       "kept.")] = Path(FOLDER),
    port: Annotated[int | None, typer.Option("--port", "-p", min=0, max=65535, metavar="N", help="Where to listen; 0 "
                                             "takes a free one. Default: 8470.", show_default=False)] = None,
    host: Annotated[str | None, typer.Option("--host", metavar="ADDRESS", help="Address to listen on. Default: "
                                             "127.0.0.1, this machine only.", show_default=False)] = None,
) -> None:  # fmt: skip
    """Start a platform with five played sites, and thirty people who submit all day; Ctrl-C stops it."""
    from atoll.cli.demo.stage import Stage

    flags = {"--port": port, "--host": host}
    with Stage(data.absolute(), speed, [word for name, value in flags.items() if value is not None
                                        for word in (name, str(value))]) as stage:  # fmt: skip
        stage.play(seed, jobs)
