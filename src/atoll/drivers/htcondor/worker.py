"""The process in which HTCondor's bindings run, for one site and one account.

The bindings block, hold the interpreter's lock while they do, keep their settings and tokens for the whole process, and
may end it where something is badly wrong. So they get a process of their own, which `link.py` starts, asks one thing at
a time, and ends where it does not answer. Questions and answers are lines of JSON; nothing but the standard library and
the bindings is imported here.
"""

import contextlib
import json
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import classad2
import htcondor2

_MOST_HISTORY = 5000


def plain(ad: Any, names: Iterable[str]) -> dict[str, Any]:
    """The attributes of an ad as plain values; what is undefined, an error or no plain value is left out."""
    values: dict[str, Any] = {}
    for name in names:
        value = ad.get(name)
        if isinstance(value, classad2.ExprTree):
            try:
                value = ad.eval(name)
            except (classad2.ClassAdException, KeyError):
                continue
        if isinstance(value, str | bool | float) or type(value) is int:
            values[name] = value
    return values


class Worker:
    """Answers questions; each method is one."""

    def __init__(self, collector: str | None, schedd: str | None) -> None:
        self._collector = collector
        self._name = schedd
        self._located: Any = None

    def _schedd(self) -> Any:
        """The schedd, where the collector says that it is."""
        if self._located is None:
            collector = htcondor2.Collector(self._collector)
            if self._name is None and self._collector is None:
                self._located = collector.locate(htcondor2.DaemonType.Schedd)
            else:
                self._located = collector.locate(htcondor2.DaemonType.Schedd, self._name)
            if self._located is None:
                raise LookupError(f"the collector knows no schedd {self._name or ''}".rstrip())
        return htcondor2.Schedd(self._located)

    def forget_schedd(self) -> None:
        """Ask the collector again next time: it may have moved."""
        self._located = None

    def machines(self, projection: list[str]) -> list[dict[str, Any]]:
        """The pool's slots."""
        collector = htcondor2.Collector(self._collector)
        ads = collector.query(htcondor2.AdType.Startd, "DynamicSlot =!= true", projection)
        return [plain(ad, projection) for ad in ads]

    def queue(self, constraint: str, projection: list[str]) -> list[dict[str, Any]]:
        """The jobs of the queue that meet a constraint."""
        return [plain(ad, projection) for ad in self._schedd().query(constraint, projection)]

    def history(self, constraint: str, projection: list[str], most: int) -> list[dict[str, Any]]:
        """The jobs of the history that meet a constraint, the latest first."""
        ads = self._schedd().history(constraint, projection, min(most, _MOST_HISTORY))
        return [plain(ad, projection) for ad in ads]

    def submit(self, description: str, lines: list[dict[str, str]]) -> dict[str, Any]:
        """Queue one job for each line, in one transaction, and send their files."""
        schedd = self._schedd()
        result = schedd.submit(htcondor2.Submit(description), spool=True, itemdata=iter(lines))
        schedd.spool(result)
        return {"cluster": result.cluster(), "first": result.first_proc(), "count": result.num_procs()}

    def edit(self, jobs: list[str], attribute: str, value: str) -> int:
        """Set an attribute of jobs; `value` is an expression."""
        return int(self._schedd().edit(jobs, attribute, value) or 0)

    def remove(self, jobs: list[str] | str, reason: str) -> dict[str, Any]:
        """Remove jobs, or those that meet a constraint at that moment; those that have ended leave the queue."""
        result = self._schedd().act(htcondor2.JobAction.Remove, jobs, reason=(reason, 0))
        return plain(result, ("TotalError", "TotalSuccess", "TotalNotFound", "TotalPermissionDenied"))

    def retrieve(self, jobs: list[str]) -> None:
        """Bring the output of jobs into the folders that they were submitted from."""
        self._schedd().retrieve(jobs)


QUESTIONS = ("machines", "queue", "history", "submit", "edit", "remove", "retrieve")


def answer(worker: Worker, question: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to one question: `value`, or `error` with the bindings' words."""
    asked: Callable[..., Any] = getattr(worker, question["ask"])
    try:
        return {"value": asked(**question["with"])}
    except Exception as error:
        worker.forget_schedd()
        return {"error": " ".join(str(error).split()) or type(error).__name__, "kind": type(error).__name__}


def main() -> None:
    """Answer questions until there are no more."""
    settings = json.loads(sys.argv[1])
    warnings.simplefilter("ignore")  # warnings on a description go to nobody
    worker = Worker(settings["collector"], settings["schedd"])
    with Path(f"/proc/self/fd/{settings['answers']}").open("w", buffering=1) as answers:
        for line in sys.stdin:
            with contextlib.suppress(BrokenPipeError):
                answers.write(json.dumps(answer(worker, json.loads(line))) + "\n")


if __name__ == "__main__":
    main()
