"""Ports for what tests start."""

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

_PORTS = range(15_000, 30_000)
"""Below the ports that the kernel gives to outgoing connections: no client takes one between asking and listening."""

_given: set[int] = set()
# never closed: a lock on byte N, which ends with this process, says that port N is its own
_claims = (Path(tempfile.gettempdir()) / f"atoll-tests-ports-{os.getuid()}").open("ab")


def free_port() -> int:
    """A port of the loopback address that nobody uses now, and that no other test is given until this process ends."""
    for port in random.sample(_PORTS, len(_PORTS)):
        if port not in _given and _claim(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no port from {_PORTS.start} to {_PORTS.stop - 1} is free")


def _claim(port: int) -> bool:
    try:
        fcntl.lockf(_claims, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except BlockingIOError:
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:  # of somebody who is not a test; the claim stays, which costs nothing
            return False
    return True
