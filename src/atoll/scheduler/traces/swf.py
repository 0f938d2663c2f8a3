"""The Standard Workload Format of the Parallel Workloads Archive, version 2.2.

D. Feitelson et al., https://www.cs.huji.ac.il/labs/parallel/workload/swf.html: comments after `;`, of which those at
the head are `Key: value`, then a line of 18 numbers for each job, -1 where nothing is known.
"""

import re
from collections.abc import Iterator

from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.traces.model import (
    MOST_AMOUNT,
    MOST_MEMORY,
    SECOND,
    BrokenRow,
    Trace,
    TraceJob,
    gather,
    micros,
    number,
)

FIELDS = (
    "job number", "submit time", "wait time", "run time", "allocated processors", "average CPU time", "used memory",
    "requested processors", "requested time", "requested memory", "status", "user", "group", "executable", "queue",
    "partition", "preceding job", "think time",
)  # fmt: skip
_UNKNOWN = ("-1", "-1.0", "-1.00")
_PARTS = ("2", "3", "4")
"""The status of a line that tells of a part of a job, of which another line tells as a whole."""
_HEADER = re.compile(r";\s*([A-Za-z]+):\s*(.*?)\s*")
KIBIBYTE = 1024


def is_row(line: str) -> bool:
    """Whether a line may be one of this format: 18 words that begin with a number."""
    words = line.split()
    return len(words) == len(FIELDS) and re.fullmatch(r"-?\d+", words[0]) is not None


def header(text: str) -> dict[str, str]:
    """What the comments at the head say, by key: `MaxNodes`, `UnixStartTime` and others."""
    found = {}
    for line in text.split("\n"):
        if line.strip() and not line.startswith(";"):
            break
        if match := _HEADER.fullmatch(line.strip()):
            found[match[1]] = match[2]
    return found


def read(text: str) -> Trace:
    """The jobs of the trace; rows of parts of jobs, and of jobs that never ran, are left out."""
    return gather("swf", _rows(text), _job, passed_over="of parts of jobs, or of jobs that never ran")


def _rows(text: str) -> Iterator[tuple[int, list[str]]]:
    for line, written in enumerate(text.split("\n"), 1):
        if written.strip() and not written.lstrip().startswith(";"):
            yield line, written.split()


def _job(words: list[str]) -> TraceJob | None:
    if len(words) != len(FIELDS):
        raise BrokenRow(f"there are {len(words)} fields instead of {len(FIELDS)}")
    cells = dict(zip(FIELDS, words, strict=True))
    for field in FIELDS:
        _known(cells, field)
    submitted = micros(cells["submit time"], "submit time")
    processors = _known(cells, "requested processors") or _known(cells, "allocated processors")
    runtime = _known(cells, "run time")
    if cells["status"] in _PARTS or runtime is None or not processors:
        return None
    kibibytes = _known(cells, "requested memory")
    if kibibytes is None:
        kibibytes = _known(cells, "used memory") or 0
    memory = int(kibibytes * processors) * KIBIBYTE  # the format counts it by processor
    if memory > MOST_MEMORY:
        raise BrokenRow(f"its memory is beyond sense ({memory} bytes)")
    walltime = _known(cells, "requested time")
    return TraceJob(
        cells["job number"],
        submitted,
        round(runtime * SECOND),
        Resources(int(processors) * 1000, memory),
        walltime=int(walltime) if walltime else None,
        # the format has it that queue 0 is for interactive work
        job_class=JobClass.INTERACTIVE if cells["queue"] == "0" else JobClass.BATCH,
        project=_named(cells, "group") or _named(cells, "user"),
        person=_named(cells, "user"),
        spreads=True,
    )


def _known(cells: dict[str, str], field: str) -> float | None:
    """The number of a field, None where it is unknown. Raises BrokenRow."""
    if cells[field] in _UNKNOWN:
        return None
    return number(cells[field], field, most=MOST_MEMORY if "memory" in field else _MOST.get(field, 1e11))


_MOST = {
    "run time": 3e9, "requested time": 3e9, "requested processors": MOST_AMOUNT, "allocated processors": MOST_AMOUNT,
}  # fmt: skip


def _named(cells: dict[str, str], field: str) -> str:
    return "" if cells[field] in _UNKNOWN else f"{field}-{cells[field]}"
