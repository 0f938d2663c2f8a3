"""Holds attempts to what was agreed: walltime, signals before the end, grace, memory; called by the keeper."""

import heapq
import signal
import time

from atoll.drivers.process.supervisor.attempt import RUNNING, Attempt
from atoll.drivers.process.supervisor.cgroups import Groups
from atoll.drivers.process.supervisor.processes import descendants, families, kill_all, memory_of, send

WARN, DEADLINE, ASK_AGAIN, KILL = "warn", "deadline", "ask again", "kill"
_ASK_AGAIN_EVERY = 0.02
_KILL_AGAIN_EVERY = 0.2
_KILLS_BEFORE_WRAPPER = 5
_LOOK_EVERY = 0.2
_LOOK_SHARE = 50
"""At most one part in so many of a core goes into looking at memory."""


def human_bytes(size: int) -> str:
    """`size` for people, in powers of 1024."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} TiB"


def too_much(attempt: Attempt) -> str:
    """What is said of an attempt that was ended for its memory."""
    return f"It used more than the {human_bytes(attempt.request['memory'])} of memory that it had asked for."


def tree(attempt: Attempt) -> list[int]:
    """The processes of an attempt, with the commands beside its own; without its wrapper."""
    return descendants(attempt.pid) + families(attempt.commands)


class Limits:
    """The timers of all attempts, and what happens when one goes off."""

    def __init__(self, groups: Groups | None) -> None:
        self._groups = groups
        self._timers: list[tuple[float, int, str, Attempt]] = []
        self._count = 0
        self._watched: dict[str, Attempt] = {}
        self._look_at = 0.0
        self.decided: list[Attempt] = []
        """Attempts that got a verdict, or were warned, since the keeper last looked."""

    def watch(self, attempt: Attempt) -> None:
        """Begin to hold a running attempt to its limits; also after a restart."""
        if attempt.kill_at is not None:
            self._at(attempt.kill_at, KILL, attempt)
        elif (end := attempt.ends_at) is not None:
            self._at(end, DEADLINE, attempt)
            if attempt.request.get("signal") and not attempt.warned:
                self._at(max(end - attempt.request["before"], 0.0), WARN, attempt)
        if attempt.request["memory"]:
            self._watched[attempt.id] = attempt
            self._look_at = min(self._look_at, time.monotonic() + _LOOK_EVERY)

    def leave(self, attempt: Attempt) -> None:
        """The attempt has ended. Its timers do nothing any more."""
        self._watched.pop(attempt.id, None)

    def _at(self, when: float, what: str, attempt: Attempt) -> None:
        self._count += 1
        heapq.heappush(self._timers, (when, self._count, what, attempt))

    def next_at(self) -> float | None:
        """When `work` is to be called next, by the monotonic clock."""
        while self._timers and self._timers[0][3].phase != RUNNING:
            heapq.heappop(self._timers)
        times = [self._timers[0][0]] if self._timers else []
        if self._watched:
            times.append(self._look_at)
        return min(times, default=None)

    def work(self) -> None:
        """Do what is due."""
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            _, _, what, attempt = heapq.heappop(self._timers)
            if attempt.phase == RUNNING:
                self._due(what, attempt, now)
        if self._watched and self._look_at <= now:
            self._look_at_memory()

    def _due(self, what: str, attempt: Attempt, now: float) -> None:
        if what == WARN and attempt.verdict is None and not attempt.warned:
            attempt.warned = True
            self.decided.append(attempt)
            send(descendants(attempt.pid), attempt.request["signal"])
        elif what == DEADLINE and attempt.verdict is None:
            message = f"Its walltime of {attempt.request['walltime']} s was over."
            self.stop(attempt, "timed_out", message, attempt.request["grace"])
        elif what == ASK_AGAIN and attempt.kill_at is not None and now < attempt.kill_at:
            self._ask(attempt)
        elif what == KILL and attempt.kill_at is not None and now >= attempt.kill_at:
            self._kill(attempt)

    def stop(self, attempt: Attempt, verdict: str, message: str, grace: float) -> bool:
        """Ask a running attempt to end, and kill it after `grace` seconds; returns whether that is news.

        The first verdict counts; asking again may shorten the grace, never prolong it.
        """
        kill_at = time.monotonic() + grace
        news = attempt.kill_at is None or kill_at < attempt.kill_at
        if attempt.verdict is None:
            attempt.verdict, attempt.message = verdict, message
            if grace > 0:
                self._ask(attempt)
        if news:
            attempt.kill_at = kill_at
            self._at(kill_at, KILL, attempt)
            self.decided.append(attempt)
            if grace <= 0:
                self._kill(attempt)
        return news

    def _ask(self, attempt: Attempt) -> None:
        """Send TERM, and CONT to those that were stopped; again soon while there is nobody yet to get it."""
        pids = descendants(attempt.pid)
        if send(pids, signal.SIGTERM):
            send(pids, signal.SIGCONT)
        else:
            self._at(time.monotonic() + _ASK_AGAIN_EVERY, ASK_AGAIN, attempt)

    def _members(self, attempt: Attempt) -> list[int]:
        """All processes of an attempt except its wrapper, which is needed to write the end."""
        found = set(tree(attempt))
        if attempt.group is not None and self._groups is not None:
            found.update(self._groups.members(attempt.group))
        found.discard(attempt.pid)
        return list(found)

    def _kill(self, attempt: Attempt) -> None:
        """Kill everything of the attempt; the wrapper too where it does not end by that."""
        kill_all(lambda: self._members(attempt))
        attempt.again += 1
        if attempt.again > _KILLS_BEFORE_WRAPPER:
            send([attempt.pid], signal.SIGKILL)
        self._at(time.monotonic() + _KILL_AGAIN_EVERY, KILL, attempt)

    def _look_at_memory(self) -> None:
        """Look at the memory of attempts that no cgroup holds, and whether the kernel killed in those that one does.

        The whole attempt ends then: what is left of it would wait for the part that is gone.
        """
        begun = time.thread_time()
        for attempt in list(self._watched.values()):
            if attempt.group is not None and self._groups is not None:
                over = self._groups.kills(attempt.group) > 0
            else:
                limit = attempt.request["memory"]
                used = memory_of(tree(attempt), min(limit, attempt.peak or 0))
                attempt.peak = max(attempt.peak or 0, used)
                over = used > limit
            if over:
                del self._watched[attempt.id]
                self.stop(attempt, "out_of_memory", too_much(attempt), 0)
        spent = time.thread_time() - begun
        self._look_at = time.monotonic() + max(_LOOK_EVERY, spent * _LOOK_SHARE)
