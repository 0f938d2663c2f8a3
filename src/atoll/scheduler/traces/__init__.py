"""Records of what once ran, in several formats, as jobs that can be run again: `read_trace`.

Parsing only: text goes in, and who calls has read it. `simulate` replays what comes out.
"""

from collections.abc import Callable

from atoll.core.errors import Invalid
from atoll.scheduler.traces import history, openb, swf
from atoll.scheduler.traces.model import BrokenRow, Problem, Trace, TraceJob

__all__ = ["FORMATS", "BrokenRow", "Problem", "Trace", "TraceJob", "format_of", "read_trace"]

FORMATS: dict[str, Callable[[str], Trace]] = {
    "openb": openb.read_pods,
    "swf": swf.read,
    "history": history.read,
}
"""The formats by name, and what reads each."""


def format_of(text: str) -> str | None:
    """The format that a trace's first line shows; None for one that nobody here knows."""
    first = next((line.strip() for line in text.split("\n") if line.strip()), "")
    if first.startswith(("{", "[")):
        return "history"
    if openb.is_pod_list(first):
        return "openb"
    if first.startswith(";") or swf.is_row(first):
        return "swf"
    return None


def read_trace(text: str, where: str) -> Trace:
    """The jobs of a trace in whatever of the known formats; `where` names it in errors.

    Raises Invalid for a trace of no known format and for one without a job that can be run.
    """
    if not text.strip():
        raise Invalid("empty_trace", f"The trace {where} is empty.", field="trace")
    kind = format_of(text)
    if kind is None:
        raise Invalid(
            "unknown_trace",
            f"{where} is no trace that is known here: neither openb's list of pods, nor Standard Workload Format, "
            "nor a history of Atoll.",
            field="trace",
        )
    trace = FORMATS[kind](text)
    if not trace.jobs:
        first = f"; the first row that is wrong is line {trace.problems[0]}" if trace.problems else ""
        raise Invalid("empty_trace", f"The trace {where} has no job that can be run{first}.", field="trace")
    return trace
