"""What the supervisor knows of one attempt, and the journal from which a restarted supervisor knows it again."""

import json
import os
from collections.abc import Iterable, Iterator
from typing import Any

STARTING, RUNNING, ENDED = "starting", "running", "ended"

Request = dict[str, Any]
"""What the driver asks for: id, uid, gid, groups, memory, walltime, signal, before, grace, gpu, volumes; and the
folders scratch, secrets, checkpoint."""

_KEPT = (
    "phase", "pid", "born", "started", "began", "group", "gpus", "verdict", "message", "kill_at",
    "ended", "outcome", "code", "signal", "peak", "cpu", "warned",
)  # fmt: skip


class Attempt:
    """One attempt. Times named *_at and `began` are of the monotonic clock, others seconds since 1970 in UTC."""

    __slots__ = ("again", "commands", "id", "request", "version", *_KEPT)

    def __init__(self, request: Request) -> None:
        self.id: str = request["id"]
        self.request = request
        self.version = 0
        self.warned = False
        self.again = 0
        self.commands: set[int] = set()
        """Processes that were started beside its own command."""
        self.phase = STARTING
        self.pid = 0
        self.born: int | None = None
        self.started: float | None = None
        self.began: float | None = None
        self.group: str | None = None
        self.gpus: list[tuple[int, int]] = []
        self.verdict: str | None = None
        """Why it is being stopped, as the outcome that this will give; None while it runs freely."""
        self.message = ""
        self.kill_at: float | None = None
        self.ended: float | None = None
        self.outcome: str | None = None
        self.code: int | None = None
        self.signal: int | None = None
        self.peak: int | None = None
        self.cpu: float | None = None

    @property
    def ends_at(self) -> float | None:
        """When its walltime is over."""
        walltime = self.request.get("walltime")
        return None if walltime is None or self.began is None else self.began + walltime

    def status(self) -> list[Any]:
        """What the driver is told of it."""
        return [
            self.id, self.phase, self.pid, self.started, self.ended, self.outcome, self.code, self.signal,
            self.message, self.peak, self.cpu,
        ]  # fmt: skip

    def state(self) -> dict[str, Any]:
        """What differs from a fresh attempt."""
        return {name: value for name in _KEPT if (value := getattr(self, name)) not in (None, "", [])}

    def restore(self, state: dict[str, Any]) -> None:
        """Set what `state` gave."""
        for name in _KEPT:
            if name in state:
                setattr(self, name, state[name])


class Journal:
    """An append-only file of what was promised and done. It outlives the supervisor; against a fall of the machine,
    which ends the attempts too, it is not synced."""

    def __init__(self, path: str, boot: str) -> None:
        self.path = path
        self.boot = boot
        self.lines = 0
        self._descriptor = -1

    def read(self) -> tuple[dict[str, Attempt], bool]:
        """The attempts that the journal tells of, and whether it was written since the machine started."""
        attempts: dict[str, Attempt] = {}
        same_boot = True
        for entry in self._entries():
            kind = entry["do"]
            if kind == "begin":
                same_boot = entry["boot"] == self.boot
            elif kind == "accept":
                attempt = Attempt(entry["request"])
                attempt.restore(entry.get("state", {}))
                attempts[attempt.id] = attempt
            elif kind == "set" and entry["id"] in attempts:
                attempts[entry["id"]].restore(entry["state"])
            elif kind == "forget":
                for name in entry["ids"]:
                    attempts.pop(name, None)
        return attempts, same_boot

    def _entries(self) -> Iterator[dict[str, Any]]:
        try:
            with open(self.path, encoding="utf-8") as file:  # noqa: PTH123  # no pathlib in the supervisor
                for line in file:
                    try:
                        yield json.loads(line)
                    except ValueError:
                        continue  # cut off while it was written: the supervisor was killed, or the disk was full
        except FileNotFoundError:
            return

    def rewrite(self, attempts: Iterable[Attempt]) -> None:
        """Begin the journal anew with what is known now; the old one counts until the new one is whole."""
        entries: list[dict[str, Any]] = [{"do": "begin", "boot": self.boot}]
        entries += [{"do": "accept", "request": each.request, "state": each.state()} for each in attempts]
        fresh = f"{self.path}.new"
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        descriptor = os.open(fresh, flags, 0o600)
        try:
            self._write_to(descriptor, entries)
        finally:
            os.close(descriptor)
        os.replace(fresh, self.path)  # noqa: PTH105
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC)
        self.lines = len(entries)

    def write(self, entries: list[dict[str, Any]]) -> None:
        """Append entries. Raises OSError, for example where the disk is full."""
        self._write_to(self._descriptor, entries)
        self.lines += len(entries)

    @staticmethod
    def _write_to(descriptor: int, entries: list[dict[str, Any]]) -> None:
        text = "".join([json.dumps(entry, separators=(",", ":")) + "\n" for entry in entries]).encode()
        view = memoryview(text)
        while view:
            view = view[os.write(descriptor, view) :]

    @staticmethod
    def accepted(attempt: Attempt) -> dict[str, Any]:
        """The entry that promises to run an attempt."""
        return {"do": "accept", "request": attempt.request, "state": attempt.state()}

    @staticmethod
    def changed(attempt: Attempt, *names: str) -> dict[str, Any]:
        """The entry that tells of new values."""
        return {"do": "set", "id": attempt.id, "state": {name: getattr(attempt, name) for name in names}}

    @staticmethod
    def forgotten(ids: list[str]) -> dict[str, Any]:
        """The entry after which attempts are no longer known."""
        return {"do": "forget", "ids": ids}
