"""The supervisor's life: becomes a daemon, takes the site's lock, recovers what ran, then waits for what happens.

FOLDER/supervisor holds its lock, socket, journal and log, and is closed to everybody else. It ends when it is told to
and nothing runs, when it is asked to make room for another version, when its folder vanishes, and when nothing ran and
nobody asked for a while; the journal lets the next one go on.
"""

import fcntl
import gc
import json
import os
import select
import signal
import sys
import time
from functools import partial
from typing import Any

from atoll.drivers.process.supervisor import mounts, processes
from atoll.drivers.process.supervisor.attempt import Journal
from atoll.drivers.process.supervisor.cgroups import Groups
from atoll.drivers.process.supervisor.devices import Devices
from atoll.drivers.process.supervisor.keeper import Keeper
from atoll.drivers.process.supervisor.server import Client, Server
from atoll.drivers.process.supervisor.spawn import Starter

PROTOCOL = 3
"""Raised when questions or answers change their meaning; the driver replaces a supervisor of another number."""
_LOOK_AT_FOLDER_EVERY = 2.0
_LEAVE_WHEN_IDLE_FOR = 60.0


class Supervisor:
    """The loop, and the answers to questions."""

    def __init__(self, folder: str, settings: dict[str, Any]) -> None:
        self._settings = settings
        self._state = os.stat(".")  # noqa: PTH116  # no pathlib in the supervisor
        groups = Groups.find(settings["name"]) if settings["cgroups"] else None
        self._groups = groups
        self._mounts = mounts.possible() if settings["mounts"] else ""
        starter = Starter(folder, groups, self._mounts, settings["state"])
        journal = Journal("journal", processes.boot_id())
        self._keeper = Keeper(journal, starter, groups, Devices(settings["gpus"]))
        self._poll = self._keeper.poll
        self._folder_at = 0.0
        self._idle_since = time.monotonic()
        self._leaving = False
        self._wake, wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _pass_over)
        signal.signal(signal.SIGTERM, self._asked_to_leave)
        self._keeper.recover()
        self._server = Server("socket", self._poll, self._answer, self._keeper.commands.abandon)

    def _asked_to_leave(self, number: int, frame: object) -> None:
        self._leaving = True

    def run(self) -> None:
        """Until there is a reason to end."""
        # what is there now stays: the collector need not walk it, nor forked children copy it
        gc.collect()
        gc.freeze()
        while not self._leaving:
            for descriptor, events in self._poll.poll(self._time_left()):
                if descriptor == self._wake:
                    self._drain()
                elif not self._server.handle(descriptor, events):
                    self._keeper.adopted_ended(descriptor)
            self._keeper.work()
            self._server.hint(self._keeper.version)
            self._look_around()
        self._server.close()
        if self._groups is not None:
            self._groups.close()

    def _drain(self) -> None:
        try:
            os.read(self._wake, 4096)
        except BlockingIOError:
            return

    def _time_left(self) -> float:
        at = self._keeper.next_at()
        soonest = self._folder_at if at is None else min(at, self._folder_at)
        return max(0.0, soonest - time.monotonic())

    def _look_around(self) -> None:
        """Whether there is still somebody and something to be there for."""
        now = time.monotonic()
        if self._keeper.busy or self._server.clients:
            self._idle_since = now
        if now < self._folder_at:
            return
        self._folder_at = now + _LOOK_AT_FOLDER_EVERY
        if now - self._idle_since > _LEAVE_WHEN_IDLE_FOR:
            self._leaving = True
        try:
            here = os.stat(self._settings["state"])  # noqa: PTH116
        except OSError:
            here = None
        if here is None or (here.st_dev, here.st_ino) != (self._state.st_dev, self._state.st_ino):
            self._keeper.end_all()
            self._leaving = True

    def _answer(self, question: dict[str, Any], client: Client) -> dict[str, Any]:
        keeper = self._keeper
        match question["ask"]:
            case "hello":
                return {
                    "protocol": PROTOCOL, "pid": os.getpid(), "settings": self._settings,
                    "mounts": self._mounts,
                    "memory": self._groups.kind if self._groups is not None else "sampling",
                }  # fmt: skip
            case "submit":
                return {"answers": keeper.submit(question["attempts"])}
            case "observe":
                self._server.looked()
                return keeper.observe(question["epoch"], question["since"])
            case "stop":
                keeper.stop(question["attempts"])
                return {}
            case "forget":
                return {"gone": keeper.forget(question["ids"])}
            case "signal":
                return {"sent": keeper.signal(question["id"], question["signal"])}
            case "members":
                return {"pids": keeper.members(question["id"])}
            case "execute":
                tell = partial(self._server.send, client)
                attempt = keeper.running(question["id"])
                return keeper.commands.execute(attempt, question, client.take_descriptors(), client, tell)
            case "shutdown":
                self._leaving = not keeper.busy
                return {"leaving": self._leaving}
            case "leave":
                self._leaving = True
                return {}
            case other:
                return {"error": f"there is no question {other!r}"}


def _pass_over(number: int, frame: object) -> None:
    """Handle a signal by doing nothing. Unlike an ignored one it is back at its default in what we start."""


def _become_daemon() -> int:
    """Two forks into a session of its own; returns where to write that the supervisor is ready.

    The process that was started waits for that, so that whoever started it knows; it ends with 1 where none came up.
    """
    ready, tell = os.pipe2(os.O_CLOEXEC)
    if os.fork() > 0:
        os.close(tell)
        said = os.read(ready, 1)
        os._exit(0 if said == b"1" else 1)
    os.close(ready)
    os.setsid()
    if os.fork() > 0:
        os._exit(0)
    return tell


def _redirect() -> None:
    nothing = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    # not descriptor 2, which attempts inherit
    log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    sys.stderr = os.fdopen(log, "w")


def main(words: list[str]) -> None:
    """Run the supervisor of FOLDER with SETTINGS, a JSON document: state, name, gpus, cgroups, mounts."""
    folder, settings = words[0], json.loads(words[1])
    os.umask(0o077)
    os.chdir(settings["state"])
    tell = _become_daemon()
    lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.write(tell, b"1")  # another one is there, or coming up: that one serves
        os._exit(0)
    _redirect()
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, _pass_over)
    os.umask(0o022)
    try:
        processes.become_reaper()
        supervisor = Supervisor(folder, settings)
        os.write(tell, b"1")
        os.close(tell)
        supervisor.run()
    except BaseException:
        import traceback  # large, and only needed here

        traceback.print_exc(file=sys.stderr)
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)
