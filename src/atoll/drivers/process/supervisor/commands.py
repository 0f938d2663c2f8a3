"""Commands that people start beside an attempt's own; the keeper tells it what ended, the server who went away."""

import os
from collections.abc import Callable, KeysView
from functools import partial
from typing import Any, NamedTuple

from atoll.drivers.process.supervisor import processes
from atoll.drivers.process.supervisor.attempt import Attempt
from atoll.drivers.process.supervisor.spawn import Starter


class _Command(NamedTuple):
    attempt: Attempt
    client: object
    """Who asked for it."""
    tell: Callable[[dict[str, Any]], None]
    """Gets its end."""


class Commands:
    """The commands that run now, by process id. They end with their attempt, with who asked, and with us."""

    def __init__(self, starter: Starter) -> None:
        self._starter = starter
        self._running: dict[int, _Command] = {}

    def pids(self) -> KeysView[int]:
        """The processes that are commands."""
        return self._running.keys()

    def execute(
        self,
        attempt: Attempt | None,
        question: dict[str, Any],
        descriptors: list[int],
        client: object,
        tell: Callable[[dict[str, Any]], None],
    ) -> dict[str, Any]:
        """Start a command beside an attempt's own; `descriptors`, its pipes or its terminal, are closed here."""
        try:
            if attempt is None:
                return {"started": 0}
            if len(descriptors) != (1 if question["terminal"] else 2) or not question["words"]:
                return {"error": "its words, input and output did not all come with the question"}
            beside = self._process_of(attempt)
            if beside is None:
                return {"error": "the attempt's own command has not begun yet, or has just ended"}
            pid = self._starter.execute(attempt, beside, question["words"], descriptors)
            attempt.commands.add(pid)
            self._running[pid] = _Command(attempt, client, tell)
            return {"started": pid}
        except OSError as error:
            return {"error": str(error.strerror)}
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _process_of(self, attempt: Attempt) -> int | None:
        """The process that an attempt's command became; None while its wrapper still prepares."""
        for pid in processes.children(attempt.pid):
            words = processes.command_line(pid)
            if words and not self._starter.is_wrapper(attempt, words):
                return pid
        return None

    def ended(self, pid: int, status: int) -> None:
        """A child has ended; it may have been a command."""
        command = self._running.pop(pid, None)
        if command is not None:
            command.attempt.commands.discard(pid)
            code = os.waitstatus_to_exitcode(status)
            command.tell({"ended": code if code >= 0 else 128 - code})

    def end_of(self, attempt: Attempt) -> None:
        """An attempt has ended: so do the commands beside its own."""
        if attempt.commands:
            processes.kill_all(partial(processes.families, attempt.commands))

    def abandon(self, client: object) -> None:
        """Whoever asked for commands is gone: so are they."""
        theirs = [pid for pid, command in self._running.items() if command.client is client]
        if theirs:
            processes.kill_all(partial(processes.families, theirs))
