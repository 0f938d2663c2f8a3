"""The platform's own history: a line of JSON for each job that has ended, so that it can be run again.

`of_job` makes such a line of what the HTTP API says of a job; a list of these, as `atoll ps --all -o json` prints it,
is read as it is. Fields that nobody here knows are passed over, so that a later Atoll may add some.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from atoll.core.clock import to_micros
from atoll.core.resources import Resources, parse_bytes, parse_milli, parse_seconds
from atoll.core.spec import JobClass
from atoll.scheduler.traces.model import MOST_MEMORY, BrokenRow, Trace, TraceJob, gather

FIELDS = (
    "id", "person", "project", "class", "submitted", "started", "ended", "cpu", "memory", "gpu", "nodes", "flavors",
    "walltime", "grace", "checkpoint", "outcome",
)  # fmt: skip
"""What a line may say. `submitted` and `ended` it must; a job without `started` never ran."""


def of_job(job: Mapping[str, Any]) -> dict[str, Any]:
    """The line, as plain data, for a job as the HTTP API tells of it."""
    spec = job.get("spec") or {}
    checkpoint = spec.get("checkpoint") or {}
    line = {
        "id": job.get("id"),
        "person": job.get("owner"),
        "project": job.get("project"),
        "class": job.get("class"),
        "submitted": job.get("submitted_at"),
        "started": job.get("started_at"),
        "ended": job.get("ended_at"),
        "cpu": job.get("cpu"),
        "memory": job.get("memory"),
        "gpu": job.get("gpu"),
        "nodes": job.get("nodes"),
        "flavors": spec.get("flavor"),
        "walltime": spec.get("walltime"),
        "grace": spec.get("grace"),
        "checkpoint": checkpoint.get("every"),
        "outcome": job.get("outcome") or job.get("state"),
    }
    return {field: value for field, value in line.items() if value is not None}


def read(text: str) -> Trace:
    """The jobs of a history, or of a list of jobs as the HTTP API tells of them; what never ran is left out."""
    rows = _listed(text) if text.lstrip().startswith("[") else _lines(text)
    return gather("history", rows, _job, passed_over="of arrays as a whole, or of jobs that never ran or still run")


def _lines(text: str) -> Iterator[tuple[int, Any]]:
    for line, written in enumerate(text.split("\n"), 1):
        if written.strip():
            yield line, written


def _listed(text: str) -> Iterator[tuple[int, Any]]:
    """The jobs of a list, each as a line, numbered by its place."""
    try:
        jobs = json.loads(text)
    except (ValueError, RecursionError):
        jobs = ["the list is no JSON"]
    for place, job in enumerate(jobs, 1):
        if isinstance(job, dict) and job.get("tasks"):
            yield place, "{}"  # an array: its tasks run, it does not
        else:
            yield place, json.dumps(of_job(job)) if isinstance(job, dict) else "?"


def _job(written: str) -> TraceJob | None:
    try:
        line = json.loads(written)
    except (ValueError, RecursionError):
        raise BrokenRow("it is no JSON") from None
    if not isinstance(line, dict):
        raise BrokenRow("it is no object with fields")
    if line.get("started") is None or line.get("ended") is None:
        return None
    submitted, started, ended = (_moment(line, field) for field in ("submitted", "started", "ended"))
    if ended < started:
        raise BrokenRow("it ends before it starts")
    nodes = line.get("nodes", 1)
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= 1_000_000:
        raise BrokenRow(f"nodes is {_shown(nodes)}, which is no number of nodes")
    request = Resources(
        _amount(line, "cpu", parse_milli), _amount(line, "memory", parse_bytes), _amount(line, "gpu", parse_milli)
    )
    if request.memory > MOST_MEMORY:
        raise BrokenRow(f"memory is beyond sense ({request.memory} bytes)")
    if request.gpu > 1000 and request.gpu % 1000:
        raise BrokenRow(f"gpu is {_shown(line['gpu'])}, which is neither whole GPUs nor a part of one")
    return TraceJob(
        str(line.get("id", "")),
        submitted,
        ended - started,
        request,
        nodes,
        _seconds(line, "walltime"),
        _class(line),
        str(line.get("project") or ""),
        str(line.get("person") or ""),
        _flavors(line),
        _seconds(line, "grace"),
        _seconds(line, "checkpoint"),
    )


def _moment(line: dict[str, Any], field: str) -> int:
    """Microseconds since 1970 UTC."""
    try:
        moment = datetime.fromisoformat(line[field])
    except KeyError:
        raise BrokenRow(f"it does not say {field}") from None
    except (TypeError, ValueError):
        raise BrokenRow(f"{field} is {_shown(line[field])}, which is no time") from None
    if moment.tzinfo is None:
        raise BrokenRow(f"{field} is {_shown(line[field])}, which lacks its time zone")
    return to_micros(moment)


def _amount(line: dict[str, Any], field: str, parse: Callable[[Any], int]) -> int:
    value = line.get(field)
    try:
        return 0 if value is None else parse(value)
    except ValueError as error:
        raise BrokenRow(f"{field}: {error}") from None


def _seconds(line: dict[str, Any], field: str) -> int | None:
    return None if line.get(field) is None else _amount(line, field, parse_seconds)


def _class(line: dict[str, Any]) -> JobClass:
    try:
        return JobClass(line.get("class") or JobClass.BATCH)
    except ValueError:
        raise BrokenRow(f"class is {_shown(line['class'])}, and not one of {', '.join(JobClass)}") from None


def _flavors(line: dict[str, Any]) -> tuple[str, ...]:
    flavors = line.get("flavors") or []
    if not isinstance(flavors, list) or not all(isinstance(flavor, str) for flavor in flavors):
        raise BrokenRow(f"flavors is {_shown(flavors)}, and not a list of names")
    return tuple(flavors)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
