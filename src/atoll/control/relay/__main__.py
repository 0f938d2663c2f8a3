"""`python -m atoll.control.relay`: reads flags and configuration, and serves."""

import argparse
import logging
import os
import sys
from pathlib import Path

from atoll.control.relay.server import serve
from atoll.core.config import read_config
from atoll.core.errors import AtollError


def main() -> None:
    """Serve, and tell in one sentence what went wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m atoll.control.relay", description="Carries streams between people and what runs at sites."
    )
    parser.add_argument("--data", help="the platform's data folder")
    parser.add_argument("--database", help="the platform's database, where it is not in the data folder")
    parser.add_argument("--config", type=Path, help="the platform's configuration")
    parser.add_argument(
        "--port", type=int, help="port of all jobs' addresses; default: relay.port of the configuration"
    )
    parser.add_argument("--target", help="HOST:PORT that is reached backwards; default: relay.target")
    parser.add_argument("--reserved", type=int, metavar="FD", help="the reserved port, as a descriptor")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("asyncssh").setLevel(logging.WARNING)
    try:
        flags = {"data": given.data, "database": given.database}
        config = read_config(given.config, os.environ, flags)
        import uvloop

        uvloop.run(serve(config, given.port or config.relay_port, given.target or config.relay.target, given.reserved))
    except AtollError as error:
        logging.getLogger("relay").error("%s", error.sentence)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
