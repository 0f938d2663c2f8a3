"""A real slurmrestd beside a test's cluster."""

from __future__ import annotations

import contextlib
import shutil
import socket
import time

from tests.support.engines import skip_without
from tests.support.ports import free_port
from tests.support.slurm import SlurmCluster

NAME = "slurmrestd"
_ACCOUNT = "games"
"""An ordinary account that every Debian has, as slurmrestd refuses to run as root."""
_START_SECONDS = 20.0


def need_slurmrestd() -> None:
    """Skip the running test where slurmrestd is not installed."""
    if shutil.which("slurmrestd", path="/usr/sbin:/usr/local/sbin:/usr/bin:/sbin") is None:
        skip_without("slurmrestd", "not installed (Debian: slurmrestd slurm-wlm-jwt-plugin)")


def start_slurmrestd(cluster: SlurmCluster) -> str:
    """Start it on a free port; its URL. It ends with the cluster, or by `cluster.stop("slurmrestd")`."""
    port = free_port()
    cluster.start(
        NAME,
        ["slurmrestd", "-f", str(cluster.conf), "-s", "openapi/v0.0.38", "-a", "rest_auth/jwt", f"127.0.0.1:{port}"],
        {"SLURM_JWT": "daemon"},
        user=_ACCOUNT,
    )
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return f"http://127.0.0.1:{port}"
        if time.monotonic() > deadline:
            said = (cluster.folder / "log" / f"{NAME}.out").read_text(errors="replace")
            raise RuntimeError(f"slurmrestd does not start: {said[-2000:]}")
        time.sleep(0.05)
