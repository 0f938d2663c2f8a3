"""`atoll why` on a platform that has run nothing before, so that nothing is expected of jobs but their walltimes."""

from __future__ import annotations

import json
import time

from tests.cli.conftest import Atoll


def submit(there: Atoll, cpus: float, walltime: str) -> str:
    """The id of a job that sleeps."""
    size = ("--cpu", f"{cpus:g}", "--mem", "64M", "--time", walltime)
    done = there("submit", *size, "-o", "name", "--", "sleep", "3600")
    assert done.code == 0, done.err
    return done.out.strip()


def test_why_says_what_would_help(there: Atoll) -> None:
    """Half a CPU is free for six hours, until the next in line has them all: what would be done before may pass."""
    there("explain", "--", "true")  # waits until the site has reported
    cpus = float(json.loads(there("site", "show", "local", "-o", "json").out)["flavors"][0]["total"]["cpu"])
    running, first = submit(there, cpus - 0.5, "6h"), submit(there, cpus, "1h")
    last = submit(there, 0.5, "24h")
    told = there("why", last).out
    assert "What would help:\n    Give it a walltime of 4h instead of the 1d, if that is enough. It would " in told
    [remedy] = json.loads(there("why", last, "-o", "json").out)["remedies"]
    assert remedy["kind"] == "walltime"
    assert there("set", last, "--time", "4h").code == 0
    deadline = time.monotonic() + 20
    while (state := json.loads(there("show", last, "-o", "json").out)["state"]) == "queued":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert state in ("placed", "starting", "running")
    for job in (last, first, running):
        there("cancel", job)
