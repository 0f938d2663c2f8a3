"""`python -m bench [NAME...] [--json FILE] [--small] [--folder FOLDER]`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from bench import (
    array,
    bulk,
    estimates,
    eviction,
    footprint,
    opportunism,
    packing,
    queue,
    slurm_site,
    startup,
    submissions,
    trivial,
)
from bench.figures import Broken, Row, table
from bench.machine import describe

BENCHMARKS: dict[str, Callable[[Path, bool], Iterator[Row]]] = {
    "startup": startup.measure,
    "idle": footprint.idle,
    "memory": footprint.memory_use,
    "institution": footprint.institution,
    "submissions": submissions.measure,
    "bulk": bulk.measure,
    "array": array.measure,
    "trivial": trivial.measure,
    "slurm": slurm_site.measure,
    "packing": packing.measure,
    "queue": queue.measure,
    "estimates": estimates.measure,
    "opportunism": opportunism.measure,
    "eviction": eviction.measure,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks that are named; 0 however slow they were, 1 where one broke."""
    given = _parse(arguments)
    startup.compile_bytecode()
    with tempfile.TemporaryDirectory(prefix="atoll-bench-", dir=given.folder, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # jobs of other accounts pass through
        head = describe(folder)
        rows, broken = _run(given.names or list(BENCHMARKS), folder, given.small)
    for key, value in head.items():
        print(f"{key + ':':10}{value}")
    print("\n" + table(rows) if rows else "\nThere is nothing to show.")
    missed = [row.name for row in rows if row.met is False]
    print(f"\nmissed: {', '.join(missed)}" if missed else "\nno target missed")
    if broken:
        print(f"broken: {', '.join(broken)}")
    if given.json:
        document = {"head": head, "small": given.small, "rows": [row.document() for row in rows], "broken": broken}
        given.json.write_text(json.dumps(document, indent=2) + "\n")
    return 1 if broken else 0


def _parse(arguments: Sequence[str] | None) -> Any:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Atoll's benchmarks.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which: {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write head and rows there too")
    parser.add_argument("--small", action="store_true", help="quick and rough: to see that they work")
    parser.add_argument("--folder", type=Path, help="below which the platforms keep their data (default: $TMPDIR)")
    given = parser.parse_args(arguments)
    unknown = [name for name in given.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    return given


def _run(names: Sequence[str], folder: Path, small: bool) -> tuple[list[Row], list[str]]:
    """The rows of all that worked, and the names of what broke."""
    rows: list[Row] = []
    broken: list[str] = []
    for name in names:
        began = time.monotonic()
        print(f"{name} ...", end="", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name](folder, small)
        except Exception as error:
            broken.append(name)
            print(f"\n{name} broke: {error}", file=sys.stderr)
            if not isinstance(error, Broken):
                traceback.print_exception(error)
            continue
        print(f" {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    return rows, broken


if __name__ == "__main__":
    sys.exit(main())
