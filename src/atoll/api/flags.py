"""The flags of `atoll up`, as the server process reads them."""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.core.config import PlatformConfig, read_config


@dataclass(frozen=True)
class Flags:
    """What the platform is started with."""

    config: PlatformConfig
    stop_jobs: bool
    """Whether it ends the jobs of this machine when it ends."""
    listen_on: int | None
    """The file descriptor of a socket that is listened on already."""
    url: str | None
    """Where people find it, where that is not where it listens."""
    places: tuple[str, ...]
    """Those of the flags, as they were given, that say where configuration and state are: what other parts need too."""
    tell_ready: int | None
    """The file descriptor of a pipe that gets a byte once it is up."""


def parse(arguments: Sequence[str]) -> Flags:
    """Flags, environment and configuration file together. Raises Invalid."""
    parser = argparse.ArgumentParser(prog="atoll up")
    parser.add_argument("--data")
    parser.add_argument("--host")
    parser.add_argument("--port")
    parser.add_argument("--database")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--stop-jobs", action="store_true")
    parser.add_argument("--listen-on", type=int)
    parser.add_argument("--url")
    parser.add_argument("--tell-ready", type=int)
    given = parser.parse_args(arguments)
    settings = {"data": given.data, "host": given.host, "port": given.port, "database": given.database}
    config = read_config(given.config, os.environ, settings)
    named = {"--data": given.data, "--database": given.database, "--config": given.config}
    places = tuple(word for flag, value in named.items() if value is not None for word in (flag, str(value)))
    return Flags(config, given.stop_jobs, given.listen_on, given.url, places, given.tell_ready)
