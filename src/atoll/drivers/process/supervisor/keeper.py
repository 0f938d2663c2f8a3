"""Knows every attempt of the site: takes it on, starts it, and finds its end. The supervisor's loop calls it."""

import errno
import os
import resource
import select
import time
from collections import OrderedDict
from contextlib import suppress
from typing import Any

from atoll.drivers.process.supervisor import processes
from atoll.drivers.process.supervisor.attempt import ENDED, RUNNING, STARTING, Attempt, Journal, Request
from atoll.drivers.process.supervisor.cgroups import Groups
from atoll.drivers.process.supervisor.commands import Commands
from atoll.drivers.process.supervisor.devices import Devices
from atoll.drivers.process.supervisor.limits import Limits, too_much, tree
from atoll.drivers.process.supervisor.spawn import CLAIMED_BEFORE, NO_RECORD, NOT_STARTED, Starter
from atoll.drivers.wrapper.record import CLAIM, read_record

_STARTS_AT_ONCE = 16
"""Attempts started between two looks at those that ended."""
_RETRY_EVERY = 1.0
_SEARCHES = 50
_SEARCH_EVERY = 0.1
_SPARE_LINES = 5000
_OWN_FILES = 200
_MOST_SECRETS = 100
"""As many as a job may ask for."""


class Keeper:
    """All attempts by id, and the processes they are."""

    def __init__(self, journal: Journal, starter: Starter, groups: Groups | None, devices: Devices) -> None:
        self.epoch = os.urandom(8).hex()
        self.version = 0
        self.attempts: dict[str, Attempt] = {}
        self.adopted: dict[int, Attempt] = {}
        """Attempts that an earlier supervisor started, by the descriptor that tells of their end."""
        self.poll = select.epoll()
        self.devices = devices
        self.limits = Limits(groups)
        self.commands = Commands(starter)
        self._journal = journal
        self._starter = starter
        self._groups = groups
        self._by_pid: dict[int, Attempt] = {}
        self._waiting: OrderedDict[str, Attempt] = OrderedDict()
        """Those to be started next, by id."""
        self._needing: OrderedDict[str, Attempt] = OrderedDict()
        """Those that wait for GPUs, by id."""
        self._devices_changed = False
        """Whether one that needs GPUs may find some now."""
        self._users: dict[str, int] = {}
        """How many attempts share each checkpoint folder."""
        self._start_again_at: float | None = None
        self._searched: dict[str, tuple[Attempt, int]] = {}
        self._search_at: float | None = None
        self._strays = False
        self._helpers: set[int] = set()
        self._swept_at: float | None = None
        self._rewrite_at: float | None = None
        self._unremoved: list[str] = []
        self._remove_at: float | None = None

    # -- what the driver asks ------------------------------------------------------------------------------------

    def submit(self, requests: list[Request]) -> list[Any]:
        """Take attempts on; for each None, or why this machine can never run it. They are started by `work`.

        Raises OSError, and takes none, where that cannot be written down.
        """
        answers: list[Any] = []
        taken: dict[str, Attempt] = {}
        for request in requests:
            if request["id"] in self.attempts or request["id"] in taken:
                answers.append(None)
                continue
            if not self.devices.fits(request["gpu"]):
                answers.append("gpu: more GPUs were asked for than this machine has.")
                continue
            taken[request["id"]] = Attempt(request)
            answers.append(None)
        try:
            self._journal.write([Journal.accepted(attempt) for attempt in taken.values()])
        except OSError:
            self._rewrite_at = time.monotonic()
            raise
        for attempt in taken.values():
            self._know(attempt)
            self._queue(attempt)
        return answers

    def _queue(self, attempt: Attempt) -> None:
        """Have an attempt started as soon as it has the GPUs that it asked for."""
        if attempt.request["gpu"] and not attempt.gpus:
            self._needing[attempt.id] = attempt
            self._devices_changed = True
        else:
            self._waiting[attempt.id] = attempt

    def _unqueue(self, attempt: Attempt) -> bool:
        """Have an attempt not started; whether it was still to be."""
        waited = self._waiting.pop(attempt.id, None) or self._needing.pop(attempt.id, None)
        return waited is not None

    def observe(self, epoch: str | None, since: int) -> dict[str, Any]:
        """All attempts, or those that changed after version `since` of this supervisor's `epoch`."""
        whole = epoch != self.epoch
        changed = [each.status() for each in self.attempts.values() if whole or each.version > since]
        return {
            "epoch": self.epoch, "version": self.version, "whole": whole, "count": len(self.attempts),
            "attempts": changed,
        }  # fmt: skip

    def stop(self, stops: list[dict[str, Any]]) -> None:
        """Begin to stop attempts; unknown and ended ones are passed over."""
        for entry in stops:
            attempt = self.attempts.get(entry["id"])
            if attempt is None or attempt.phase == ENDED:
                continue
            if attempt.phase == STARTING and self._unqueue(attempt):
                attempt.verdict = entry["outcome"]
                self._end(attempt, entry["outcome"], None, None, "It was stopped before it started.")
            elif attempt.phase == RUNNING and not read_record(self._starter.folder_of(attempt)).ended:
                self.limits.stop(attempt, entry["outcome"], "", entry["grace"])
        self._write_verdicts()

    def forget(self, ids: list[str]) -> list[str]:
        """Drop ended attempts; returns those that are not known any more."""
        gone = [name for name in ids if name not in self.attempts or self.attempts[name].phase == ENDED]
        dropped = [attempt for name in gone if (attempt := self.attempts.pop(name, None)) is not None]
        if dropped:
            self._note([Journal.forgotten([attempt.id for attempt in dropped])])
            for attempt in dropped:
                self._leave_checkpoint(attempt)
            if self._journal.lines > _SPARE_LINES + 6 * len(self.attempts):
                self._rewrite_at = time.monotonic()
        return gone

    def signal(self, name: str, number: int) -> bool:
        """Send a signal to all processes of a running attempt except its wrapper; whether it runs."""
        attempt = self.attempts.get(name)
        if attempt is None or attempt.phase != RUNNING:
            return False
        processes.send(processes.descendants(attempt.pid), number)
        return True

    def running(self, name: str) -> Attempt | None:
        """An attempt whose wrapper has not written its end; None where it does not run."""
        attempt = self.attempts.get(name)
        if attempt is None or attempt.phase != RUNNING or read_record(self._starter.folder_of(attempt)).ended:
            return None
        return attempt

    def members(self, name: str) -> list[int] | None:
        """The processes of a running attempt; None where it does not run."""
        attempt = self.running(name)
        return None if attempt is None else [*tree(attempt), attempt.pid]

    @property
    def busy(self) -> bool:
        """Whether an attempt has not ended."""
        return bool(self._by_pid or self._waiting or self._needing or self.adopted or self._searched)

    def end_all(self) -> None:
        """Kill everything, records and graces disregarded: the site's folder is gone, nobody can ask any more."""
        wrappers = [each.pid for each in self.attempts.values() if each.phase == RUNNING]
        self._waiting.clear()
        self._needing.clear()
        processes.kill_all(lambda: wrappers + [pid for wrapper in wrappers for pid in processes.descendants(wrapper)])
        for pid in self._by_pid:
            os.waitpid(pid, 0)
        self._kill_strays()
        if self._groups is not None:
            self._groups.clear(set())
            # a killed process leaves its group a moment after it is gone; no event tells when
            patience = time.monotonic() + 2.0
            while self._groups.sweep() and time.monotonic() < patience:
                time.sleep(0.01)

    # -- after a restart -----------------------------------------------------------------------------------------

    def recover(self) -> None:
        """Take up what an earlier supervisor left: its journal, the processes, and what the wrappers wrote."""
        found, same_boot = self._journal.read()
        self._make_room_for(len(found))
        self._journal.rewrite(found.values())
        for attempt in found.values():
            self._know(attempt)
            if attempt.phase == ENDED:
                continue
            self.devices.take(attempt.gpus)
            if not same_boot:
                # whoever has its process's number now has nothing to do with it
                self._conclude(attempt, None, "node_failed", "The machine was restarted while it ran.")
            elif attempt.phase == RUNNING:
                self._adopt(attempt, attempt.pid, attempt.born)
            elif read_record(self._starter.folder_of(attempt)).claimed:
                self._search_for(attempt)
            elif attempt.gpus or self.devices.fits(attempt.request["gpu"]):
                self._queue(attempt)
            else:
                self._end(attempt, "node_failed", None, None, "This machine has fewer GPUs now than it asked for.")
        if self._groups is not None:
            self._groups.clear(
                {each.group for each in found.values() if each.group is not None and each.phase != ENDED}
            )

    def _make_room_for(self, count: int) -> None:
        """An attempt that another supervisor started takes a descriptor."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if count + _OWN_FILES > soft != resource.RLIM_INFINITY:
            self._starter.file_limit = (soft, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

    def _search_for(self, attempt: Attempt) -> None:
        """Somebody claimed the attempt and we do not know who: look for its wrapper, now and a few times more."""
        self._searched[attempt.id] = (attempt, _SEARCHES)
        self._search_at = time.monotonic()

    def _search(self) -> None:
        self._search_at = time.monotonic() + _SEARCH_EVERY
        try:
            pids = processes.all_pids()
        except OSError:
            return  # no descriptor or no memory is left; later
        wrappers = {}
        for pid in pids:
            words = processes.command_line(pid)
            if len(words) > 2 and words[1] == self._starter.wrapper:
                wrappers[words[2]] = pid
        for attempt, left in list(self._searched.values()):
            folder = self._starter.folder_of(attempt)
            found = wrappers.get(folder)
            if found is not None and (born := processes.born(found)) is not None:
                del self._searched[attempt.id]
                attempt.phase, attempt.pid, attempt.born = RUNNING, found, born
                attempt.started, attempt.began = time.time(), time.monotonic()
                self._set(attempt, "phase", "pid", "born", "started", "began")
                self._adopt(attempt, found, born)
            elif (record := read_record(folder)).ended or (left == 0 and record.started_at is not None):
                del self._searched[attempt.id]
                self._end_unseen(attempt, "lost", "Its wrapper is gone and left no record of an end.")
            elif left == 0:
                # whoever claimed it ended before the wrapper's first line, so its command never ran
                del self._searched[attempt.id]
                self._take_claim_back(attempt, f"{folder}/{CLAIM}")
            else:
                self._searched[attempt.id] = (attempt, left - 1)
        if not self._searched:
            self._search_at = None

    def _take_claim_back(self, attempt: Attempt, claim: str) -> None:
        """Have an attempt started again that was claimed and never ran."""
        try:
            if os.path.isdir(claim):  # noqa: PTH112
                os.rmdir(claim)  # noqa: PTH106
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                message = f"This machine could not start it: its claim cannot be taken back: {error.strerror}."
                self._end(attempt, "node_failed", None, None, message)
            else:
                self._search_for(attempt)
            return
        self._queue(attempt)

    def _adopt(self, attempt: Attempt, pid: int, born: int | None) -> None:
        """Watch over a wrapper that is not our child."""
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            descriptor = -1
        # compared after the process is held fast: its number could have gone to another process
        if descriptor < 0 or born is None or processes.born(pid) != born:
            if descriptor >= 0:
                os.close(descriptor)
            self._end_unseen(attempt, "lost", "Its wrapper is gone and left no record of an end.")
            return
        self.adopted[descriptor] = attempt
        self.poll.register(descriptor, select.EPOLLIN)
        self.limits.watch(attempt)

    def adopted_ended(self, descriptor: int) -> None:
        """The wrapper behind `descriptor` has ended."""
        attempt = self.adopted.pop(descriptor)
        self.poll.unregister(descriptor)
        os.close(descriptor)
        self._end_unseen(attempt, "lost", "Its wrapper was ended and left no record of an end.")

    def _end_unseen(self, attempt: Attempt, otherwise: str, message: str) -> None:
        """The end of an attempt whose wrapper was not our child: as it wrote, else `otherwise`."""
        # a wrapper that came to its end has ended what its command left
        orderly = read_record(self._starter.folder_of(attempt)).ended
        processes.kill_all(lambda: self._left_by(attempt, orderly))
        self._conclude(attempt, None, otherwise, message)

    def _left_by(self, attempt: Attempt, orderly: bool) -> list[int]:
        """What an attempt left whose wrapper is gone and was not our child.

        It is known by its session, by its cgroup, and without one by the scratch folder in its environment.
        """
        left = [
            pid
            for pid in (processes.session_members(attempt.pid) if attempt.pid else ())
            if (processes.born(pid) or 0) >= (attempt.born or 0)
        ]
        if not orderly and attempt.group is None and attempt.request.get("scratch"):
            left += processes.carrying(f"ATOLL_SCRATCH={attempt.request['scratch']}", attempt.request["uid"])
        return left + [child for pid in left for child in processes.descendants(pid)]

    # -- the work of the loop ------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `work` is to be called next at the latest, by the monotonic clock; 0 for at once."""
        if self._start_again_at is None and (self._waiting or (self._needing and self._devices_changed)):
            return 0.0
        times = [
            self.limits.next_at(), self._start_again_at, self._search_at, self._swept_at, self._rewrite_at,
            self._remove_at,
        ]  # fmt: skip
        return min((when for when in times if when is not None), default=None)

    def work(self) -> None:
        """Collect what ended, start what waits, hold the rest to its limits."""
        self._reap()
        now = time.monotonic()
        if self._start_again_at is not None and now >= self._start_again_at:
            self._start_again_at = None
        if self._start_again_at is None and self._needing and self._devices_changed:
            self._give_devices()
        if self._start_again_at is None:
            self._start_some()
        if self._search_at is not None and now >= self._search_at:
            self._search()
        self.limits.work()
        self._write_verdicts()
        if self._swept_at is not None and now >= self._swept_at and self._groups is not None:
            self._swept_at = now + _RETRY_EVERY if self._groups.sweep() else None
        if self._remove_at is not None and now >= self._remove_at:
            paths, self._unremoved, self._remove_at = self._unremoved, [], None
            for path in paths:
                self._remove(path)
        if self._rewrite_at is not None and now >= self._rewrite_at:
            self._rewrite()

    def _give_devices(self) -> None:
        """Give GPUs to those that wait for them, in their order; one that finds no room lets the others pass."""
        if self._rewrite_at is not None:
            self._rewrite()
        given: list[Attempt] = []
        hopeless: set[int] = set()
        for attempt in self._needing.values():
            asked = attempt.request["gpu"]
            chosen = self.devices.choose(asked) if asked not in hopeless else None
            if chosen is None:
                hopeless.add(asked)
                continue
            self.devices.take(chosen)
            attempt.gpus = chosen
            given.append(attempt)
        try:
            # before they start: who takes them up after us must know which devices are not free
            if self._rewrite_at is not None:
                raise OSError(errno.EIO, "the journal is not whole")
            self._journal.write([Journal.changed(attempt, "gpus") for attempt in given])
        except OSError:
            for attempt in given:
                self.devices.give_back(attempt.gpus)
                attempt.gpus = []
            self._start_again_at = self._rewrite_at = time.monotonic() + _RETRY_EVERY
            return
        self._devices_changed = False
        for attempt in given:
            self._waiting[attempt.id] = self._needing.pop(attempt.id)

    def _start_some(self) -> None:
        entries = []
        for _ in range(min(_STARTS_AT_ONCE, len(self._waiting))):
            _, attempt = self._waiting.popitem(last=False)
            if self._groups is not None and attempt.request["memory"]:
                try:
                    attempt.group = self._groups.make(attempt.request["memory"])
                except OSError:
                    attempt.group = None  # its memory is sampled instead
            try:
                pid = self._starter.start(attempt, bool(self.devices))
            except OSError:
                self._waiting[attempt.id] = attempt
                self._waiting.move_to_end(attempt.id, last=False)
                self._start_again_at = time.monotonic() + _RETRY_EVERY
                break
            attempt.pid, attempt.born, attempt.phase = pid, processes.born(pid), RUNNING
            attempt.started, attempt.began = time.time(), time.monotonic()
            self._by_pid[pid] = attempt
            self._touch(attempt)
            entries.append(Journal.changed(attempt, "phase", "pid", "born", "started", "began", "group"))
            self.limits.watch(attempt)
        self._note(entries)

    def _reap(self) -> None:
        ended = False
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            ended = True
            self._helpers.discard(pid)
            self.commands.ended(pid, status)
            attempt = self._by_pid.pop(pid, None)
            if attempt is not None:
                self._child_ended(attempt, status, usage.ru_utime + usage.ru_stime)
        if ended or self._strays:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """A child that is neither a wrapper nor a helper was left by an attempt that ended: it ends, too."""
        mine = self._by_pid.keys() | self._helpers | self.commands.pids()
        strays = [pid for pid in processes.children(os.getpid()) if pid not in mine]
        self._strays = bool(strays)
        if strays:
            # all that stems from them; each end hands us the next generation, and another look
            processes.kill_all(lambda: strays + [pid for stray in strays for pid in processes.descendants(stray)])

    def _child_ended(self, attempt: Attempt, status: int, cpu: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        started = code not in (CLAIMED_BEFORE, NOT_STARTED, NO_RECORD)
        record = read_record(self._starter.folder_of(attempt)) if not started else None
        if record is None or record.ended or (code == NO_RECORD and record.started_at is not None):
            attempt.cpu = round(cpu, 6)
            self._conclude(attempt, code, "failed", "")
        elif code == CLAIMED_BEFORE:
            self._settle_memory(attempt)
            self.limits.leave(attempt)
            attempt.phase, attempt.pid, attempt.group = STARTING, 0, None
            self._search_for(attempt)
        else:
            self._settle_memory(attempt)
            reason = self._starter.reason(attempt) if code == NOT_STARTED else "its folder cannot be written"
            message = f"This machine could not start it: {reason}."
            self._end(attempt, attempt.verdict or "node_failed", None, None, message)

    def _conclude(self, attempt: Attempt, status: int | None, otherwise: str, message: str) -> None:
        """Decide how an attempt ended: from the wrapper's record, else from `status`, its own end as our child."""
        record = read_record(self._starter.folder_of(attempt))
        code, signal = record.exit_code, record.signal
        if code is None and status is not None:
            code, signal = (status, None) if status >= 0 else (128 - status, -status)
            message = f"Its wrapper was ended by signal {signal}." if signal else "Its end could not be recorded."
        if attempt.cpu is None:
            attempt.cpu = record.cpu_seconds
        kills = self._settle_memory(attempt)
        if attempt.verdict is not None:
            outcome, message = attempt.verdict, attempt.message
        elif kills:
            outcome, message = "out_of_memory", too_much(attempt)
        elif code is None:
            outcome = otherwise
        else:
            outcome, message = ("succeeded" if code == 0 else "failed"), message if record.exit_code is None else ""
        self._end(attempt, outcome, code, signal, message, record.ended_at)

    def _settle_memory(self, attempt: Attempt) -> int:
        """Read and remove the attempt's cgroup; returns how often the kernel killed in it."""
        if attempt.group is None or self._groups is None:
            return 0
        group, groups = attempt.group, self._groups
        kills, peak = groups.kills(group), groups.peak(group)
        if peak is not None:
            attempt.peak = max(peak, attempt.peak or 0)
        if groups.members(group):
            processes.kill_all(lambda: groups.members(group))
        if not groups.done(group, attempt.request["memory"]):
            self._swept_at = self._swept_at or time.monotonic() + _RETRY_EVERY
        return kills

    def _end(
        self,
        attempt: Attempt,
        outcome: str,
        code: int | None,
        signal: int | None,
        message: str,
        ended: float | None = None,
    ) -> None:
        self.limits.leave(attempt)
        self.commands.end_of(attempt)
        if attempt.request.get("secrets"):
            remove_secrets(attempt.request["secrets"])  # before anybody is told of the end
        if attempt.gpus:
            self.devices.give_back(attempt.gpus)
            self._devices_changed = True
        attempt.phase, attempt.outcome, attempt.message = ENDED, outcome, message
        attempt.code, attempt.signal = code, signal
        attempt.ended = ended or time.time()
        self._set(attempt, "phase", "outcome", "message", "code", "signal", "ended", "peak", "cpu")
        for name in ("secrets", "scratch"):
            if attempt.request.get(name):
                self._remove(attempt.request[name])

    def _remove(self, path: str) -> None:
        """Remove a folder of an attempt that ended; a filled one in a process of its own, so that the loop goes on."""
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            return
        except OSError:
            try:
                pid = os.fork()
            except OSError:
                self._unremoved.append(path)  # no room for a process; later
                self._remove_at = time.monotonic() + _RETRY_EVERY
                return
            if pid == 0:
                try:
                    from shutil import rmtree

                    rmtree(path, ignore_errors=True)
                finally:
                    os._exit(0)
            self._helpers.add(pid)

    # -- bookkeeping ---------------------------------------------------------------------------------------------

    def _know(self, attempt: Attempt) -> None:
        self.attempts[attempt.id] = attempt
        self._touch(attempt)
        checkpoint = self._starter.checkpoint_of(attempt)
        if checkpoint is not None:
            self._users[checkpoint] = self._users.get(checkpoint, 0) + 1

    def _leave_checkpoint(self, attempt: Attempt) -> None:
        """The attempt is forgotten: its checkpoint folder goes with it where nobody uses it and nothing is in it."""
        checkpoint = self._starter.checkpoint_of(attempt)
        if checkpoint is None:
            return
        self._users[checkpoint] -= 1
        if self._users[checkpoint]:
            return
        del self._users[checkpoint]
        with suppress(OSError):  # not empty, as a rule
            os.rmdir(checkpoint)  # noqa: PTH106

    def _touch(self, attempt: Attempt) -> None:
        self.version += 1
        attempt.version = self.version

    def _set(self, attempt: Attempt, *names: str) -> None:
        self._touch(attempt)
        self._note([Journal.changed(attempt, *names)])

    def _write_verdicts(self) -> None:
        if self.limits.decided:
            decided, self.limits.decided = self.limits.decided, []
            self._note([Journal.changed(each, "verdict", "message", "kill_at", "warned") for each in decided])

    def _note(self, entries: list[dict[str, Any]]) -> None:
        """Write down what was done. Where that fails (a full disk) the whole journal is written again, later."""
        if entries:
            try:
                self._journal.write(entries)
            except OSError:
                self._rewrite_at = time.monotonic() + _RETRY_EVERY

    def _rewrite(self) -> None:
        try:
            self._journal.rewrite(self.attempts.values())
            self._rewrite_at = None
        except OSError:
            self._rewrite_at = time.monotonic() + _RETRY_EVERY


def remove_secrets(folder: str) -> None:
    """Remove the files of an attempt's secrets, which its wrapper could not. The folder is hostile: no link counts."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return  # its wrapper did it
    try:
        for name in ("env", *map(str, range(_MOST_SECRETS))):
            with suppress(OSError):
                os.unlink(name, dir_fd=descriptor)
    finally:
        os.close(descriptor)
