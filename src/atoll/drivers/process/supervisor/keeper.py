"""Knows every attempt of the site: takes it on, starts it, and finds its end. The supervisor's loop calls it."""

import os
import resource
import select
import time
from collections import deque
from typing import Any

from atoll.drivers.process.supervisor import processes
from atoll.drivers.process.supervisor.attempt import ENDED, RUNNING, STARTING, Attempt, Journal, Request
from atoll.drivers.process.supervisor.cgroups import Groups
from atoll.drivers.process.supervisor.devices import Devices
from atoll.drivers.process.supervisor.limits import Limits, too_much
from atoll.drivers.process.supervisor.spawn import CLAIMED_BEFORE, NO_RECORD, NOT_STARTED, Starter
from atoll.drivers.wrapper.record import CLAIM, read_record

_STARTS_AT_ONCE = 16
"""Attempts started between two looks at those that ended."""
_RETRY_EVERY = 1.0
_SEARCHES = 50
_SEARCH_EVERY = 0.1
_SPARE_LINES = 5000
_OWN_FILES = 200


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
        self._journal = journal
        self._starter = starter
        self._groups = groups
        self._by_pid: dict[int, Attempt] = {}
        self._waiting: deque[Attempt] = deque()
        self._start_again_at: float | None = None
        self._searched: dict[str, tuple[Attempt, int]] = {}
        self._search_at: float | None = None
        self._strays = False
        self._helpers: set[int] = set()
        self._swept_at: float | None = None
        self._rewrite_at: float | None = None

    # -- what the driver asks ------------------------------------------------------------------------------------

    def submit(self, requests: list[Request]) -> list[Any]:
        """Take attempts on; for each None, or the reason why not. They are started by `work`.

        Raises OSError, and takes none, where that cannot be written down.
        """
        answers: list[Any] = []
        taken: dict[str, Attempt] = {}
        for request in requests:
            if request["id"] in self.attempts or request["id"] in taken:
                answers.append(None)
                continue
            attempt = Attempt(request)
            if request["gpu"]:
                chosen = self.devices.choose(request["gpu"])
                if chosen is None:
                    answers.append("no GPU with that much room is free at this moment")
                    continue
                self.devices.take(chosen)
                attempt.gpus = chosen
            taken[attempt.id] = attempt
            answers.append(None)
        try:
            self._journal.write([Journal.accepted(attempt) for attempt in taken.values()])
        except OSError:
            self._rewrite_at = time.monotonic()
            for attempt in taken.values():
                self.devices.give_back(attempt.gpus)
            raise
        for attempt in taken.values():
            self._know(attempt)
            self._waiting.append(attempt)
        return answers

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
            if attempt.phase == STARTING and attempt in self._waiting:
                self._waiting.remove(attempt)
                attempt.verdict = entry["outcome"]
                self._end(attempt, entry["outcome"], None, None, "It was stopped before it started.")
            elif attempt.phase == RUNNING and not read_record(self._starter.folder_of(attempt)).ended:
                self.limits.stop(attempt, entry["outcome"], "", entry["grace"])
        self._write_verdicts()

    def forget(self, ids: list[str]) -> list[str]:
        """Drop ended attempts; returns those that are not known any more."""
        gone = [name for name in ids if name not in self.attempts or self.attempts[name].phase == ENDED]
        dropped = [name for name in gone if self.attempts.pop(name, None) is not None]
        if dropped:
            self._note([Journal.forgotten(dropped)])
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

    @property
    def busy(self) -> bool:
        """Whether an attempt has not ended."""
        return bool(self._by_pid or self._waiting or self.adopted or self._searched)

    def end_all(self) -> None:
        """Kill everything, records and graces disregarded: the site's folder is gone, nobody can ask any more."""
        wrappers = [each.pid for each in self.attempts.values() if each.phase == RUNNING]
        self._waiting.clear()
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
                self._end_unseen(attempt, "node_failed", "The machine was restarted while it ran.")
            elif attempt.phase == RUNNING:
                self._adopt(attempt, attempt.pid, attempt.born)
            elif read_record(self._starter.folder_of(attempt)).claimed:
                self._search_for(attempt)
            else:
                self._waiting.append(attempt)
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
        wrappers = {}
        for pid in processes.all_pids():
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
                os.rmdir(f"{folder}/{CLAIM}")  # noqa: PTH106
                self._waiting.append(attempt)
            else:
                self._searched[attempt.id] = (attempt, left - 1)
        self._search_at = time.monotonic() + _SEARCH_EVERY if self._searched else None

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
        if attempt.pid:
            # without a parent that we are, what it left is known by its session only, and by its cgroup
            left = [
                pid
                for pid in processes.session_members(attempt.pid)
                if (processes.born(pid) or 0) >= (attempt.born or 0)
            ]
            processes.kill_all(lambda: left)
        self._conclude(attempt, None, otherwise, message)

    # -- the work of the loop ------------------------------------------------------------------------------------

    def next_at(self) -> float | None:
        """When `work` is to be called next at the latest, by the monotonic clock; 0 for at once."""
        if self._waiting and self._start_again_at is None:
            return 0.0
        times = [self.limits.next_at(), self._start_again_at, self._search_at, self._swept_at, self._rewrite_at]
        return min((when for when in times if when is not None), default=None)

    def work(self) -> None:
        """Collect what ended, start what waits, hold the rest to its limits."""
        self._reap()
        now = time.monotonic()
        if self._start_again_at is not None and now >= self._start_again_at:
            self._start_again_at = None
        if self._start_again_at is None:
            self._start_some()
        if self._search_at is not None and now >= self._search_at:
            self._search()
        self.limits.work()
        self._write_verdicts()
        if self._swept_at is not None and now >= self._swept_at and self._groups is not None:
            self._swept_at = now + _RETRY_EVERY if self._groups.sweep() else None
        if self._rewrite_at is not None and now >= self._rewrite_at:
            self._rewrite()

    def _start_some(self) -> None:
        entries = []
        for _ in range(min(_STARTS_AT_ONCE, len(self._waiting))):
            attempt = self._waiting.popleft()
            if self._groups is not None and attempt.request["memory"]:
                try:
                    attempt.group = self._groups.make(attempt.request["memory"])
                except OSError:
                    attempt.group = None  # its memory is sampled instead
            try:
                pid = self._starter.start(attempt, bool(self.devices))
            except OSError:
                self._waiting.appendleft(attempt)
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
            attempt = self._by_pid.pop(pid, None)
            if attempt is not None:
                self._child_ended(attempt, status, usage.ru_utime + usage.ru_stime)
        if ended or self._strays:
            self._kill_strays()

    def _kill_strays(self) -> None:
        """A child that is neither a wrapper nor a helper was left by an attempt that ended: it ends, too."""
        mine = self._by_pid.keys() | self._helpers
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
        self.devices.give_back(attempt.gpus)
        attempt.phase, attempt.outcome, attempt.message = ENDED, outcome, message
        attempt.code, attempt.signal = code, signal
        attempt.ended = ended or time.time()
        self._set(attempt, "phase", "outcome", "message", "code", "signal", "ended", "peak", "cpu")
        if attempt.request.get("scratch"):
            self._remove(attempt.request["scratch"])

    def _remove(self, path: str) -> None:
        """Remove a scratch folder; a filled one in a process of its own, so that the loop goes on."""
        try:
            os.rmdir(path)  # noqa: PTH106
        except FileNotFoundError:
            return
        except OSError:
            pid = os.fork()
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
