"""The flags of `atoll up`, as the server process reads them."""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

from atoll.core.config import PlatformConfig, read_config


def parse(arguments: Sequence[str]) -> tuple[PlatformConfig, bool]:
    """The configuration and whether to end the jobs at the end. Raises Invalid."""
    parser = argparse.ArgumentParser(prog="atoll up")
    parser.add_argument("--data")
    parser.add_argument("--host")
    parser.add_argument("--port")
    parser.add_argument("--database")
    parser.add_argument("--config", type=Path)
    parser.add_argument("--stop-jobs", action="store_true")
    given = parser.parse_args(arguments)
    flags = {"data": given.data, "host": given.host, "port": given.port, "database": given.database}
    return read_config(given.config, os.environ, flags), given.stop_jobs
