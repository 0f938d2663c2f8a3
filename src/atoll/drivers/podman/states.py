"""From what Podman lists and what the folders say to the state of an attempt. Pure.

What the wrapper and the keeper wrote, the job could have written too: what it says of success or failure is the job's
own word anyway. Whatever gives a right, as being stopped by the platform does, needs the platform's own word for it.
"""

import re
from datetime import UTC, datetime

import msgspec

from atoll.core.clock import from_micros
from atoll.core.resources import format_bytes, format_seconds
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase, StopReason
from atoll.drivers.podman.container import ACCOUNT, LIMIT, name_of
from atoll.drivers.podman.folders import Told

OUTCOMES = {
    StopReason.CANCELLED: Outcome.CANCELLED,
    StopReason.EVICTED: Outcome.EVICTED,
    StopReason.ORPHANED: Outcome.CANCELLED,
}
_STOP = re.compile(r"([a-z]{1,20}) (\d{1,9}) (\d{1,15})\n?")
_PEAK = re.compile(r"^peak (\d{1,18})$", re.MULTILINE)
_KILL = 9
ENDED = frozenset({"exited", "stopped", "dead"})
"""States in which a container's processes are gone; a state that nobody knows here is no end."""
BEGINNING = frozenset({"created", "configured", "initialized"})


class Listed(msgspec.Struct, frozen=True):
    """A container as the list has it; what else is said of it is not read."""

    id: str = msgspec.field(name="Id")
    names: list[str] = msgspec.field(name="Names", default_factory=list)
    labels: dict[str, str] | None = msgspec.field(name="Labels", default=None)
    state: str = msgspec.field(name="State", default="unknown")
    exit_code: int = msgspec.field(name="ExitCode", default=0)
    exited_at: int = msgspec.field(name="ExitedAt", default=0)
    started_at: int = msgspec.field(name="StartedAt", default=0)
    created: str | int = msgspec.field(name="Created", default="")

    @property
    def ended(self) -> bool:
        """Whether its processes are gone."""
        return self.state in ENDED


LISTING: msgspec.json.Decoder[list[Listed]] = msgspec.json.Decoder(list[Listed])


class State(msgspec.Struct, frozen=True):
    """How a container's first process ended, as inspect has it."""

    oom: bool = msgspec.field(name="OOMKilled", default=False)
    finished: str = msgspec.field(name="FinishedAt", default="")
    error: str = msgspec.field(name="Error", default="")


class Port(msgspec.Struct, frozen=True):
    """Where a published port is found at the host."""

    host_port: str = msgspec.field(name="HostPort", default="")


class Joined(msgspec.Struct, frozen=True):
    """A network that the container is in."""

    address: str = msgspec.field(name="IPAddress", default="")


class Networking(msgspec.Struct, frozen=True):
    """How the container is reached."""

    ports: dict[str, list[Port] | None] | None = msgspec.field(name="Ports", default=None)
    networks: dict[str, Joined] | None = msgspec.field(name="Networks", default=None)
    address: str = msgspec.field(name="IPAddress", default="")


class Inspected(msgspec.Struct, frozen=True):
    """What inspect says beyond the list."""

    state: State = msgspec.field(name="State", default_factory=State)
    networking: Networking = msgspec.field(name="NetworkSettings", default_factory=Networking)


INSPECTED: msgspec.json.Decoder[Inspected] = msgspec.json.Decoder(Inspected)


def stop_text(reason: StopReason, seconds: int, at: float) -> str:
    """The file `stop`: why, how long until the kill, and when that will be by the platform's clock."""
    return f"{reason.value} {seconds} {round((at + seconds) * 1000)}\n"


def read_stop(text: str) -> tuple[StopReason, float] | None:
    """Why, and when the kill will be, in seconds since 1970; None where nothing was ordered."""
    match = _STOP.fullmatch(text)
    if match is None:
        return None
    try:
        reason = StopReason(match[1])
    except ValueError:
        return None
    return (reason, int(match[3]) / 1000) if reason in OUTCOMES else None


def moment(seconds: float | None) -> datetime | None:
    """Seconds since 1970 as a time; None for what is none."""
    return from_micros(round(seconds * 1_000_000)) if seconds is not None and seconds > 0 else None


def read_time(text: str) -> datetime | None:
    """A time as inspect writes it, with nanoseconds; None for the year 1 that stands for none."""
    match = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", text)
    if match is None or match[1] < "1970":
        return None
    zone = "+00:00" if match[3] == "Z" else match[3]
    return datetime.fromisoformat(f"{match[1]}{(match[2] or '.0')[:7].ljust(7, '0')}{zone}").astimezone(UTC)


def came_too_late(container: Listed, told: Told) -> bool:
    """Whether a container ended at once as the attempt had begun in another one: its end is not the attempt's.

    The other one is gone, or it would have kept the name. Both times are the host's.
    """
    record, made = told.record, read_time(str(container.created))
    if not container.ended or record.ended or record.started_at is None or made is None:
        return False
    return made.timestamp() > record.started_at


def alive(attempt: str, container: Listed, told: Told | None) -> AttemptStatus:
    """An attempt whose container has not ended."""
    record = told.record if told is not None else None
    # Podman that was killed in the midst of a start calls what runs "initialized"
    running = container.state not in BEGINNING or (
        container.state == "initialized" and record is not None and record.claimed
    )
    started = record.started_at if record is not None else None
    return AttemptStatus(
        attempt,
        Phase.RUNNING if running else Phase.STARTING,
        native_id=name_of(attempt),
        native_state=container.state,
        started_at=moment(started or container.started_at) if running else None,
        account=(container.labels or {}).get(ACCOUNT),
    )


def ended(attempt: str, container: Listed | None, inspected: Inspected | None, told: Told) -> AttemptStatus | None:
    """An attempt whose container has ended, or is gone; None where it is gone and nothing was written of an end."""
    record = told.record
    if container is None and not record.ended:
        return None
    labels = (container.labels if container is not None else None) or {}
    state = inspected.state if inspected is not None else State()
    native = f"{container.state} ({container.exit_code})" if container is not None else "removed"
    code = record.exit_code
    if code is None and container is not None:
        # the wrapper did not come to write: it was killed with all others, or the host went down
        code = container.exit_code or None
    signal = record.signal
    if not record.ended and code == 128 + _KILL:
        signal = _KILL
    started = moment(record.started_at) or moment(container.started_at if container is not None else None)
    finished = moment(record.ended_at) or read_time(state.finished)
    finished = finished or moment(container.exited_at if container is not None else None)
    outcome, message = _outcome(told, labels, state, code, started, finished)
    peak = _PEAK.findall(told.verdict)
    return AttemptStatus(
        attempt,
        Phase.ENDED,
        native_id=name_of(attempt),
        native_state=native,
        started_at=started,
        ended_at=finished,
        outcome=outcome,
        exit_code=code,
        signal=signal,
        message=message,
        max_memory=max(map(int, peak), default=None),
        cpu_seconds=record.cpu_seconds,
        account=labels.get(ACCOUNT),
    )


def _outcome(
    told: Told, labels: dict[str, str], state: State, code: int | None, started: datetime | None,
    finished: datetime | None,
) -> tuple[Outcome, str]:  # fmt: skip
    """Who or what ended the attempt. Evidence of the platform and the engine goes before what the job could write."""
    record, said = told.record, told.verdict.splitlines()
    stop = read_stop(told.stop)
    limit = int(labels[LIMIT]) if labels.get(LIMIT, "").isdecimal() else None
    ran = (finished - started).total_seconds() if started is not None and finished is not None else 0.0
    by_stop = any(line.startswith("stopped ") for line in said)
    over_time = limit is not None and ran >= limit - 1
    if stop is not None and (by_stop or not record.ended) and "timed_out" not in said:
        return OUTCOMES[stop[0]], f"It was stopped: {stop[0].value}."
    if limit is not None and over_time and ("timed_out" in said or not record.ended):
        return Outcome.TIMED_OUT, f"It ran longer than its walltime of {format_seconds(limit)}."
    if code != 0 and ("out_of_memory" in said or state.oom):
        peak = _PEAK.findall(told.verdict)
        used = f" of {format_bytes(int(peak[-1]))}" if peak else ""
        return Outcome.OUT_OF_MEMORY, f"The kernel killed it because its memory{used} was all used."
    if not record.ended:
        words = f" ({state.error})" if state.error else ""
        return Outcome.NODE_FAILED, f"Its container was ended from outside, or its host went down{words}."
    return (Outcome.SUCCEEDED if code == 0 else Outcome.FAILED), ""


def never_started(attempt: str, outcome: Outcome, message: str, account: str | None = None) -> AttemptStatus:
    """An attempt that ended before it had a container."""
    return AttemptStatus(
        attempt, Phase.ENDED, native_id=name_of(attempt), outcome=outcome, message=message, account=account
    )


def waits(attempt: str, why: str, account: str | None = None) -> AttemptStatus:
    """An attempt that was taken on, and has no container yet."""
    return AttemptStatus(attempt, Phase.STARTING, native_id=name_of(attempt), native_state=why, account=account)
