"""What the figures were measured on: the lines above the table."""

from __future__ import annotations

import os
import platform
import sqlite3
import statistics
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from tests.support.postgres import PostgresUnavailable, find_binaries

_FLUSHES = 50


def describe(folder: Path) -> dict[str, str]:
    """Date, machine and versions; `folder` is where the platforms keep their data."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} x {_processor()}, {psutil.virtual_memory().total / 1e9:.0f} GB memory, "
        f"load {os.getloadavg()[0]:.1f} before",
        "system": f"{_distribution()}, Linux {platform.release()}",
        "disk": f"{_file_system(folder)} at {folder}; a flush of 4 KiB takes {_flush_seconds(folder) * 1e6:,.0f} µs",
        "software": f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {_postgresql()}, "
        f"{_wrk()}, psij-python {version('psij-python')}, Atoll {version('atoll')} ({_commit()})",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _distribution() -> str:
    return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")


def _file_system(folder: Path) -> str:
    """Kind of the file system that holds `folder`: the mount point that is the longest beginning of its path."""
    place = folder.resolve()
    mounts = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    return max(mounts, key=lambda part: len(part.mountpoint)).fstype if mounts else "unknown file system"


def _flush_seconds(folder: Path) -> float:
    """Median time of appending 4 KiB and having the disk take it: what each commit has to pay at least."""
    seconds = []
    with tempfile.TemporaryFile(dir=folder) as file:
        for _ in range(_FLUSHES):
            began = time.perf_counter()
            file.write(bytes(4096))
            file.flush()
            os.fdatasync(file.fileno())
            seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _postgresql() -> str:
    try:
        command = [str(find_binaries() / "postgres"), "--version"]
    except PostgresUnavailable as error:
        return f"no PostgreSQL ({error})"
    words = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return f"PostgreSQL {words[2]}"


def _wrk() -> str:
    try:
        # it prints its version with its usage, and ends with 1
        done = subprocess.run(["wrk", "--version"], check=False, capture_output=True, text=True)
    except FileNotFoundError:
        return "no wrk"
    return " ".join(done.stdout.split()[:2])


def _commit() -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent)
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "no git here"
    return done.stdout.strip()
