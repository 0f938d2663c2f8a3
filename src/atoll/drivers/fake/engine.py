"""The played engine behind `FakeDriver`: it outlives drivers, as a real one outlives the control plane.

Nothing runs. What an attempt does is written in its environment, see `Script`; when things happen is worked out from
the clock whenever somebody looks, so that a virtual clock may jump over days.
"""

import heapq
import signal as signals
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Self

from atoll.core.clock import Clock, system_clock
from atoll.core.errors import Exhausted, Invalid
from atoll.core.ids import task_name
from atoll.core.resources import Resources, parse_bytes
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Launch, LogChunk, Phase, StopReason, StopRequest
from atoll.drivers.fake.behaviour import HONEST, Behaviour

_DEADLY = frozenset({signals.SIGHUP, signals.SIGINT, signals.SIGQUIT, signals.SIGKILL, signals.SIGTERM})
_STOPPED = {
    StopReason.CANCELLED: Outcome.CANCELLED,
    StopReason.EVICTED: Outcome.EVICTED,
    StopReason.ORPHANED: Outcome.CANCELLED,
    StopReason.RECALLED: Outcome.RECALLED,
}


@dataclass(frozen=True)
class Script:
    """What an attempt plays, from variables of its specification: `FAKE_RUNTIME` and the like.

    The same names in small letters are read from its labels, where the environment does not have them.
    """

    runtime: float = 1.0
    """Seconds that it runs: FAKE_RUNTIME."""
    exit_code: int = 0
    """FAKE_EXIT."""
    stop_time: float = 0.0
    """Seconds that it takes to end when it is asked to: FAKE_STOP_TIME."""
    memory: int | None = None
    """Bytes that it uses; more than it asked for ends it: FAKE_MEMORY."""
    output: str = ""
    """What it writes to stdout: FAKE_OUTPUT."""
    error_output: str = ""
    """What it writes to stderr: FAKE_ERROR_OUTPUT."""

    @classmethod
    def of(cls, launch: Launch, runtime: float) -> Self:
        """Read it. Raises Invalid for a value that is none."""
        spec, honest = launch.spec, cls(runtime=runtime)

        def setting(name: str, default: object) -> str:
            return spec.env.get(name, spec.labels.get(name.lower(), str(default)))

        try:
            memory = setting("FAKE_MEMORY", "")
            return cls(
                runtime=max(0.0, float(setting("FAKE_RUNTIME", honest.runtime))),
                exit_code=int(setting("FAKE_EXIT", honest.exit_code)),
                stop_time=max(0.0, float(setting("FAKE_STOP_TIME", honest.stop_time))),
                memory=parse_bytes(memory) if memory else None,
                output=setting("FAKE_OUTPUT", f"{task_name(launch.job_id, launch.task)} runs\n"),
                error_output=setting("FAKE_ERROR_OUTPUT", ""),
            )
        except ValueError as error:
            raise Invalid("bad_script", f"A FAKE_ variable of the job is wrong: {error}.", field="env") from None


@dataclass
class Played:
    """One attempt at the engine."""

    launch: Launch
    native_id: str
    script: Script
    started_at: datetime | None = None
    ends_at: datetime | None = None
    """When it will have ended, or has; None while it waits for room."""
    outcome: Outcome | None = None
    """How it will end, or has."""
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    ended: bool = False

    @property
    def room(self) -> Resources:
        """What it holds while it runs."""
        return self.launch.request * self.launch.nodes

    def start(self, now: datetime) -> None:
        """Begin to run, and work out how it will end if nobody interferes."""
        script, launch = self.script, self.launch
        self.started_at = now
        if script.memory is not None and script.memory > launch.request.memory:
            message = "It used more memory than it asked for."
            self.end(now, Outcome.OUT_OF_MEMORY, signal=signals.SIGKILL, message=message)
        elif launch.walltime is not None and script.runtime > launch.walltime:
            over, message = now + timedelta(seconds=launch.walltime), "Its walltime was over."
            self.end(over, Outcome.TIMED_OUT, signal=signals.SIGTERM, message=message)
        else:
            outcome = Outcome.FAILED if script.exit_code else Outcome.SUCCEEDED
            self.end(now + timedelta(seconds=script.runtime), outcome, exit_code=script.exit_code)

    def end(
        self,
        when: datetime,
        outcome: Outcome,
        *,
        exit_code: int | None = None,
        signal: int | None = None,
        message: str = "",
    ) -> None:
        """Plan the end. A signal brings the exit code that shells give it."""
        self.ends_at, self.outcome, self.message = when, outcome, message
        self.exit_code, self.signal = exit_code if signal is None else 128 + signal, signal

    def status(self) -> AttemptStatus:
        """What the engine tells of it."""
        attempt_id = self.launch.attempt_id
        if self.started_at is None and not self.ended:
            return AttemptStatus(attempt_id, Phase.STARTING, self.native_id, "PENDING")
        if not self.ended:
            return AttemptStatus(attempt_id, Phase.RUNNING, self.native_id, "RUNNING", self.started_at)
        assert self.ends_at is not None
        assert self.outcome is not None
        ran = (self.ends_at - self.started_at).total_seconds() if self.started_at else 0.0
        return AttemptStatus(
            attempt_id, Phase.ENDED, self.native_id, self.outcome.name, self.started_at, self.ends_at, self.outcome,
            self.exit_code, self.signal, self.message, self.script.memory, ran * self.launch.request.cpu / 1000,
        )  # fmt: skip


@dataclass(order=True)
class _Event:
    when: datetime
    number: int
    attempt_id: str = field(compare=False)
    landing: Launch | None = field(compare=False, default=None)


class Engine:
    """Room for attempts and a memory of them. Give the same engine to several drivers to play a restart."""

    def __init__(
        self,
        node: Resources,
        nodes: int = 1,
        *,
        clock: Clock = system_clock,
        runtime: float = 1.0,
        max_jobs: int | None = None,
        behaviour: Behaviour = HONEST,
    ) -> None:
        self.node, self.nodes = node, nodes
        self.clock = clock
        self.runtime = runtime
        self.max_jobs = max_jobs
        self.behaviour = behaviour
        self.starts: Counter[str] = Counter()
        """How often each attempt has started: never more than once, unless the engine is broken."""
        self.signals: list[tuple[str, int]] = []
        """All signals that were sent, as (attempt id, signal)."""
        self._attempts: dict[str, Played] = {}
        self._queue: dict[str, None] = {}  # attempts without room, in their order
        self._events: list[_Event] = []
        self._numbers = 0
        self._free = node * nodes
        self._others = Resources()

    # ---- what it is asked

    @property
    def total(self) -> Resources:
        """What all nodes have together."""
        return self.node * self.nodes

    @property
    def free(self) -> Resources:
        """What nobody uses now."""
        self.settle()
        return self._free

    def nodes_of(self, attempt_id: str) -> tuple[str, ...]:
        """The nodes that an attempt was to run on. Raises KeyError for one that is not here."""
        return self._attempts[attempt_id].launch.on_nodes

    def used_by_others(self, amount: Resources) -> None:
        """Others than Atoll use so much from now on; what runs goes on."""
        self._free += self._others - amount
        self._others = amount
        self.settle()

    def accept(self, launch: Launch) -> str:
        """Take an attempt, unless it was taken before; its native id.

        Raises Invalid for one that can never run here, or did and was forgotten, Exhausted where too many are here.
        """
        self.settle()
        known = self._attempts.get(launch.attempt_id)
        if known is not None:
            return known.native_id
        if self.max_jobs is not None and self.active() >= self.max_jobs:
            raise Exhausted("too_many", f"The engine takes {self.max_jobs} jobs at once.")
        native_id = self._take(launch, self.clock())
        self.settle()
        return native_id

    def accept_later(self, launch: Launch, seconds: float) -> None:
        """Let an attempt arrive `seconds` from now. Raises Invalid as `accept` does."""
        self._check(launch)
        self._plan(self.clock() + timedelta(seconds=seconds), launch.attempt_id, launch)

    def _check(self, launch: Launch) -> Script:
        if launch.attempt_id in self.starts:  # what the wrapper's claim does at a real site
            raise Invalid("claimed", "This attempt has run here before.", field="attempt_id")
        for resource in ("cpu", "memory", "gpu"):
            if getattr(launch.request, resource) > getattr(self.node, resource):
                raise Invalid("too_large", f"{resource}: no node has {launch.request}.", field=resource)
        if launch.nodes > self.nodes:
            raise Invalid("too_large", f"nodes: there are {self.nodes}.", field="nodes")
        return Script.of(launch, self.runtime)

    def _take(self, launch: Launch, now: datetime) -> str:
        script = self._check(launch)
        native_id = f"fake-{self._number()}"
        self._attempts[launch.attempt_id] = Played(launch, native_id, script)
        self._queue[launch.attempt_id] = None
        self._start_waiting(now)
        return native_id

    def statuses(self, instance: str) -> dict[str, AttemptStatus]:
        """All that the engine still knows of one platform's attempts."""
        now = self.settle()
        memory = self.behaviour.remembers
        if memory is not None:
            for attempt_id, played in list(self._attempts.items()):
                if played.ended and played.ends_at and (now - played.ends_at).total_seconds() >= memory:
                    self.lose(attempt_id)
        return {
            attempt_id: played.status()
            for attempt_id, played in self._attempts.items()
            if attempt_id.startswith(f"{instance}-")
        }

    def active(self) -> int:
        """How many attempts wait or run."""
        self.settle()
        return sum(not played.ended for played in self._attempts.values())

    def stop(self, request: StopRequest) -> None:
        """Ask an attempt to end: within its own time, or when the grace is over. Unknown ones are ignored.

        Asking again keeps the first reason, and can only make the end come sooner. What is recalled ends only where it
        has not begun.
        """
        now = self.settle()
        played = self._attempts.get(request.attempt.attempt_id)
        if played is None or played.ended:
            return
        stopping = played.outcome if played.outcome in _STOPPED.values() else None
        outcome = stopping or _STOPPED[request.reason]
        if played.started_at is None:
            played.end(now, outcome)
            self._finish(played)
            return
        if request.reason is StopReason.RECALLED:
            return
        killed = played.script.stop_time > request.grace
        when = now + timedelta(seconds=request.grace if killed else played.script.stop_time)
        if played.ends_at is not None and when < played.ends_at:
            played.end(when, outcome, signal=signals.SIGKILL if killed else signals.SIGTERM)
            self._plan(when, request.attempt.attempt_id)
            self.settle()

    def signal(self, attempt_id: str, number: int) -> None:
        """Send a signal; the deadly ones end the attempt. Raises KeyError where it does not run."""
        now = self.settle()
        played = self._attempts[attempt_id]
        if played.ended or played.started_at is None:
            raise KeyError(attempt_id)
        self.signals.append((attempt_id, number))
        if number in _DEADLY:
            played.end(now, Outcome.FAILED, signal=number)
            self._finish(played)

    def read(self, attempt_id: str, stream: str, offset: int, limit: int) -> LogChunk:
        """A piece of the output. Raises KeyError for an unknown attempt or stream."""
        self.settle()
        played = self._attempts[attempt_id]
        script = played.script
        text = {"stdout": script.output, "stderr": script.error_output}[stream]
        data = text.encode() if played.started_at else b""
        begin = max(0, len(data) + offset) if offset < 0 else min(offset, len(data))
        return LogChunk(begin, data[begin : begin + limit], len(data))

    def lose(self, attempt_id: str) -> None:
        """Know nothing of an attempt any more, and end it if it runs."""
        played = self._attempts.get(attempt_id)
        if played is not None:
            if not played.ended:
                played.end(self.clock(), Outcome.LOST)
                self._finish(played)
            del self._attempts[attempt_id]

    def forget(self, attempt_ids: Iterable[str]) -> None:
        """Drop ended attempts."""
        self.settle()
        for attempt_id in attempt_ids:
            if attempt_id in self._attempts and self._attempts[attempt_id].ended:
                del self._attempts[attempt_id]

    # ---- what it is told by the test

    def behave(self, behaviour: Behaviour = HONEST) -> None:
        """Behave like this from now on; without an argument, as a site should."""
        self.behaviour = behaviour

    def restart(self) -> None:
        """Play a restart of the engine: what ran is broken off, what waited still waits, and nothing runs twice."""
        now = self.settle()
        running = [played for played in self._attempts.values() if played.started_at and not played.ended]
        for played in running:
            played.end(now, Outcome.NODE_FAILED, message="The engine was restarted.")
            self._finish(played, start_waiting=False)
        self._start_waiting(now)

    # ---- how time passes

    def settle(self) -> datetime:
        """Let all happen that is due, each thing at its own time; returns the clock's time."""
        now = self.clock()
        while self._events and self._events[0].when <= now:
            event = heapq.heappop(self._events)
            played = self._attempts.get(event.attempt_id)
            if event.landing is not None:
                if played is None and event.attempt_id not in self.starts:
                    self._take(event.landing, event.when)
            elif played is not None and not played.ended and played.ends_at == event.when:
                self._finish(played)
        return now

    def _start_waiting(self, now: datetime) -> None:
        for attempt_id in list(self._queue):
            played = self._attempts[attempt_id]
            if played.room.fits(self._free):
                del self._queue[attempt_id]
                self._free -= played.room
                self.starts[attempt_id] += 1
                played.start(now)
                assert played.ends_at is not None
                self._plan(played.ends_at, attempt_id)

    def _finish(self, played: Played, *, start_waiting: bool = True) -> None:
        assert played.ends_at is not None
        played.ended = True
        self._queue.pop(played.launch.attempt_id, None)
        if played.started_at is not None:
            self._free += played.room
        if start_waiting:
            self._start_waiting(played.ends_at)

    def _plan(self, when: datetime, attempt_id: str, landing: Launch | None = None) -> None:
        heapq.heappush(self._events, _Event(when, self._number(), attempt_id, landing))

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers
