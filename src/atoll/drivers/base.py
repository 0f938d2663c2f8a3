"""The protocol between Atoll and an engine: small, batch-first, and the same for every driver.

Called by the loops in `control`. A driver keeps no state that it could not find again after a restart: what runs is
known to the engine and to the attempts' folders. Optional abilities are protocols of their own; a driver has one by
having its methods.
"""

import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from atoll.core.resources import Resources
from atoll.core.site import SiteReport
from atoll.core.spec import JobSpec
from atoll.core.states import Outcome


@dataclass(frozen=True)
class Held:
    """An attempt that a site may hold, with what control knows of it: all that a driver needs to find it there."""

    attempt_id: str
    native_id: str | None = None
    """What the engine calls it; None while nobody knows whether the engine took it."""
    account: str | None = None
    """The account that it runs as; None for the account that the site itself runs as."""


@dataclass(frozen=True)
class StagedFile:
    """A file to lay into the working directory before the start. `source` is readable by the control plane only."""

    path: str
    source: Path
    executable: bool = False
    size: int = 0
    """Bytes."""


@dataclass(frozen=True)
class Launch:
    """One attempt, with all that a driver needs to run it."""

    attempt_id: str
    job_id: int
    """The job's id; of an array, the array's."""
    task: int | None
    """Number of the task in its array, None for a single job."""
    task_count: int
    number: int
    """1 for the first attempt, 2 for the second, ..."""
    checkpoint_key: str
    """Names the checkpoint folder at the site; the same for all attempts that shall share it."""
    person: str
    project: str
    account: str | None
    """The person's account at the site; None for the account that the site itself runs as."""
    spec: JobSpec
    request: Resources
    """On each node: milli-CPU, bytes, milli-GPU. Memory is never 0 here: the default is filled in."""
    nodes: int
    walltime: int | None
    """Seconds."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """ATOLL_* and SLURM_* variables that the control plane knows; the driver adds what only the site knows."""
    files: tuple[StagedFile, ...] = ()
    secrets: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Values of the specification's secrets, by name."""
    flavor: str = ""
    """The flavor on which room was given; empty where that does not matter."""
    on_nodes: tuple[str, ...] = ()
    """Names of the nodes that Atoll chose, by rank, of those that `describe` listed; empty where the engine chooses.

    An engine that cannot tell ranks apart may give them to the ranks in any order, one to each.
    """

    @property
    def flavors(self) -> tuple[str, ...]:
        """The flavors that will do; none for any."""
        return (self.flavor,) if self.flavor else tuple(self.spec.flavor)

    @property
    def held(self) -> Held:
        """The attempt as it is before the engine has named it."""
        return Held(self.attempt_id, None, self.account)


def sending_seconds(launches: Iterable[Launch]) -> float:
    """What sending their files may take on top of a call: whatever is slower than a megabyte a second is stuck."""
    return sum(file.size for launch in launches for file in launch.files) / 1e6


@dataclass(frozen=True)
class Submitted:
    """The engine took the attempt. Also the answer when it had taken the same attempt before."""

    attempt_id: str
    native_id: str


@dataclass(frozen=True)
class Refused:
    """The engine did not take the attempt and will not run it. `message` is in the engine's words."""

    attempt_id: str
    message: str
    permanent: bool = True
    """Whether the same attempt would be refused again."""


@dataclass(frozen=True)
class Unknown:
    """Nobody knows whether the engine took the attempt; it may still land."""

    attempt_id: str
    message: str


Answer = Submitted | Refused | Unknown


class Phase(StrEnum):
    """Where the engine has an attempt."""

    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"


@dataclass(frozen=True)
class AttemptStatus:
    """What the engine, or what the wrapper wrote, says of an attempt. The second half is set once it ended."""

    attempt_id: str
    phase: Phase
    native_id: str = ""
    native_state: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    outcome: Outcome | None = None
    exit_code: int | None = None
    signal: int | None = None
    message: str = ""
    max_memory: int | None = None
    """Largest use of memory seen, in bytes."""
    cpu_seconds: float | None = None
    account: str | None = None
    """The account that it runs as, where that is not the site's own."""
    expected_at: datetime | None = None
    """When the engine expects to start what waits in its queue; None where it does not say."""


@dataclass(frozen=True)
class Observation:
    """All that is ours at the site. An attempt that a complete observation lacks is unknown to the engine."""

    complete: bool
    as_of: datetime
    """When the question was begun; what happened later may be missing."""
    states: Mapping[str, AttemptStatus]


class StopReason(StrEnum):
    """Why an attempt is stopped; decides the outcome that the driver reports for it."""

    CANCELLED = "cancelled"
    EVICTED = "evicted"
    ORPHANED = "orphaned"
    RECALLED = "recalled"
    """Only if it has not begun: then it never does, and its outcome is `recalled`. What has begun is left alone."""


@dataclass(frozen=True)
class StopRequest:
    """Stop this attempt: signal, `grace` seconds, kill. Repeating it is harmless, and never prolongs the grace."""

    attempt: Held
    reason: StopReason
    grace: float
    """Seconds."""


class DriverError(Exception):
    """The site could not be asked, or did not answer. The message is one sentence in the engine's words."""

    lasting = False
    """Whether it will be so until an operator changes something, so that nobody should wait for it."""


@runtime_checkable
class Driver(Protocol):
    """Runs attempts at one site. Every method raises DriverError where the site does not answer."""

    async def describe(self) -> SiteReport:
        """What the site has and can do."""

    async def submit(self, attempts: Sequence[Launch]) -> list[Answer]:
        """Hand attempts to the engine; one answer for each, in their order. The same attempt runs at most once."""

    async def observe(self, held: Sequence[Held]) -> Observation:
        """All attempts of this platform that the site knows, ended ones included until they are forgotten.

        `held` are those that control believes to be there, for engines that must be asked by name, or whose memory is
        short. What else of this platform the engine has is to be told all the same.
        """

    async def stop(self, attempts: Sequence[StopRequest]) -> None:
        """Begin to stop attempts; returns when the engine knows, not when they have ended."""

    async def forget(self, attempts: Sequence[Held]) -> None:
        """Remove what the site keeps of ended attempts, now that their end and output are stored."""

    async def close(self) -> None:
        """Let go of connections. Attempts go on."""


@dataclass(frozen=True)
class LogChunk:
    """A piece of an attempt's output."""

    offset: int
    data: bytes
    size: int
    """Bytes written so far."""


@runtime_checkable
class Logs(Protocol):
    """Reads output, while it is written and until the attempt is forgotten."""

    async def read_log(self, attempt: Held, stream: str, offset: int, limit: int) -> LogChunk:
        """At most `limit` bytes of `stream` ("stdout" or "stderr") from `offset`; negative: from the end.

        An attempt without output yet gives an empty chunk. Raises DriverError where the site does not answer and
        KeyError where it does not know the attempt.
        """


@runtime_checkable
class Signals(Protocol):
    """Sends signals to running attempts."""

    async def signal(self, attempt: Held, signal: int) -> None:
        """Send `signal` to the attempt's processes. Raises KeyError where it does not run."""


@runtime_checkable
class Watch(Protocol):
    """Hints that something changed at the site; observe stays the truth."""

    def changes(self) -> AsyncIterator[None]:
        """Yields after something may have changed."""


@runtime_checkable
class Stage(Protocol):
    """Takes files out of an attempt that ended."""

    async def take_out(self, attempt: Held, patterns: Sequence[str], into: Path) -> list[str]:
        """Copy the files of the working directory that match `patterns` into the folder `into`.

        Links that lead out of the working directory are not followed. Returns the relative paths, sorted.
        """


class Channel(Protocol):
    """A stream of bytes in both directions."""

    async def read(self, limit: int) -> bytes:
        """At most `limit` bytes, at least one; empty at the end of the stream."""

    async def write(self, data: bytes) -> None:
        """Send; returns when there is room for more. Raises DriverError where the other side is gone."""

    async def end(self) -> None:
        """Say that nothing more will be sent; reading goes on."""

    async def close(self) -> None:
        """Let go of both directions."""


@runtime_checkable
class PlainChannel(Protocol):
    """A channel that is a socket of this machine and nothing more: who has large streams may use that directly.

    Not beside a call of `read` or `write` that is still under way; `close` still closes it.
    """

    @property
    def socket(self) -> socket.socket:
        """The socket, which does not block."""


@runtime_checkable
class Connect(Protocol):
    """Reaches ports inside running attempts."""

    async def connect(self, attempt: Held, port: int) -> Channel:
        """A stream to TCP `port` of the attempt's first node, wherever the control plane is.

        Raises KeyError where the attempt does not run, DriverError where nobody listens or the site does not answer.
        """


class Execution(Channel, Protocol):
    """A command inside an attempt: its input and output as a channel. With a terminal both outputs are one."""

    async def resize(self, columns: int, lines: int) -> None:
        """Tell the terminal its size."""

    async def wait(self) -> int:
        """The command's exit code, 128 + n where signal n ended it."""


@runtime_checkable
class Exec(Protocol):
    """Runs commands inside running attempts."""

    async def execute(self, attempt: Held, command: Sequence[str], *, terminal: bool = False) -> Execution:
        """Start `command` beside the attempt's own, with its environment and working directory.

        Raises KeyError where the attempt does not run.
        """


@dataclass(frozen=True)
class DriverSetup:
    """What a driver is made with."""

    site: str
    instance: str
    """The platform's id: only attempts that carry it are ours."""
    folder: Path
    """A folder of the control plane's for this site."""
    config: Mapping[str, Any] = field(default_factory=dict)
    """The site file's `config`, which the driver validates."""
    owner: str = ""
    """The person to whom the platform belongs."""
    shared: bool = False
    """Whether everybody's jobs run as the site's own account: the site file says `identity: shared`."""


class DriverFactory(Protocol):
    """What the entry point group `atoll.drivers` names: makes a driver. Raises Invalid for a wrong config."""

    def __call__(self, setup: DriverSetup) -> Driver:
        """The driver; it does not talk to its engine yet."""
