"""Slurm's own answer about its jobs, as `squeue --json` and slurmrestd give it, from version 22.05 on.

Only the fields that are read become objects. What changed over the versions: a state was one word and is a list, a
number was a number or null and is `{set, infinite, number}`, an exit code was the raw wait status and is an object.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from atoll.core.errors import Invalid
from atoll.core.ranges import Ranges
from atoll.drivers.base import DriverError


class _Number(msgspec.Struct):
    set: bool = False
    infinite: bool = False
    number: int | float = 0


Wire = int | float | None | _Number
"""A number as any version writes it."""


class _WireJob(msgspec.Struct):
    """A job as the engine writes it. Defaults stand for what a version does not tell."""

    job_id: Wire = 0
    array_job_id: Wire = 0
    array_task_id: Wire = None
    array_task_string: str | None = ""
    name: str | None = ""
    command: str | None = ""
    job_state: str | list[str] = ""
    state_reason: str | None = ""
    state_description: str | None = ""
    exit_code: msgspec.Raw = msgspec.Raw(b"null")
    start_time: Wire = 0
    end_time: Wire = 0
    user_name: str | None = ""
    user_id: Wire = None
    nodes: str | None = ""
    batch_host: str | None = ""
    restart_cnt: Wire = 0


class _Answer(msgspec.Struct):
    jobs: list[_WireJob]
    errors: list[msgspec.Raw] = []


class _Signal(msgspec.Struct):
    id: Wire = None
    signal_id: Wire = None


class _Exit(msgspec.Struct):
    status: str | list[str] | None = None
    return_code: Wire = None
    signal: _Signal | None = None


class _Complaint(msgspec.Struct):
    description: str | None = ""
    error: str | int | None = ""


_decoder = msgspec.json.Decoder(_Answer)
_exits = msgspec.json.Decoder(int | _Exit | None)
_complaints = msgspec.json.Decoder(_Complaint)

FLAGS = frozenset(
    {
        "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING", "RESIZING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD",
        "SPECIAL_EXIT", "STOPPED", "RECONFIG_FAIL", "POWER_UP_NODE", "REVOKED", "RESV_DEL_HOLD", "LAUNCH_FAILED",
        "UPDATE_DB", "EXPEDITING",
    }
)  # fmt: skip
"""Words that stand beside a job's state."""
PENDING, RUNNING = "PENDING", "RUNNING"
ALIVE = frozenset({PENDING, RUNNING, "SUSPENDED"})


@dataclass(frozen=True, slots=True)
class SlurmJob:
    """A job, or a task of an array, or the tasks of an array that have not begun."""

    job_id: int
    """Its own number, which no other job and task has."""
    array_id: int
    """The array's number; 0 where it is no array."""
    task: int | None
    """Number in the array; None for no array, and where it stands for several."""
    tasks: Ranges | None
    """Of tasks that have not begun, as far as the engine names them."""
    tasks_cut: bool
    """Whether there are more than it names."""
    name: str
    command: str
    state: str
    """PENDING, RUNNING, SUSPENDED, or how it ended."""
    flags: frozenset[str]
    reason: str
    description: str
    exit_code: int | None
    """As a shell tells it."""
    signal: int | None
    started: float | None
    """Seconds since 1970; None before the start."""
    expected: float | None
    """When Slurm expects to start what waits, in seconds since 1970; None where it has not worked that out.

    Of tasks that share a record it is the last one's that it has planned (by default it plans twenty).
    """
    ended: float | None
    user: str
    node: str
    """The first node."""
    restarts: int = 0
    """How often Slurm began it anew."""

    @property
    def over(self) -> bool:
        """Whether it has ended and let go of its nodes."""
        return self.state not in ALIVE and "COMPLETING" not in self.flags

    @property
    def begun_anew(self) -> bool:
        """Whether Slurm took it back into its queue after it had run, and what ran has ended."""
        return self.restarts > 0 and "COMPLETING" not in self.flags

    @property
    def native(self) -> str:
        """What sbatch and scancel call it."""
        return str(self.job_id) if self.task is None else f"{self.array_id}_{self.task}"

    def natives(self) -> Iterator[tuple[int, str]]:
        """(index, name) of each job that this stands for, as far as the engine names them."""
        if self.tasks is None:
            yield self.task or 0, self.native
        else:
            for task in self.tasks:
                yield task, f"{self.array_id}_{task}"


def read_jobs(text: bytes | bytearray) -> list[SlurmJob]:
    """All jobs of an answer. Raises DriverError where it is no answer of Slurm's."""
    try:
        answer = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        begin = bytes(text[:80]).decode("utf-8", "replace")
        raise DriverError(f"Slurm's answer about its jobs cannot be read ({error}): {begin!r}.") from None
    if answer.errors and not answer.jobs:
        raise DriverError(f"Slurm does not tell of its jobs: {_complaint(answer.errors[0])}.")
    return [_job(job) for job in answer.jobs]


def _complaint(raw: msgspec.Raw) -> str:
    try:
        said = _complaints.decode(raw)
    except msgspec.DecodeError:
        return bytes(raw)[:200].decode("utf-8", "replace")
    return " ".join(str(word).strip(" .") for word in (said.error, said.description) if word)[:500]


def _number(value: Wire) -> int | None:
    if isinstance(value, _Number):
        return int(value.number) if value.set and not value.infinite else None
    return None if value is None else int(value)


def job_of(**fields: Any) -> SlurmJob:
    """A job of the fields that Slurm's listings have, each in the shape of any version."""
    return _job(_WireJob(**fields))


def _job(wire: _WireJob) -> SlurmJob:
    words = [wire.job_state] if isinstance(wire.job_state, str) else wire.job_state
    states = [word for word in words if word not in FLAGS]
    flags = frozenset(word for word in words if word in FLAGS)
    state = states[0] if states else _state_of_flags(flags)
    array = _number(wire.array_job_id) or 0
    task = _number(wire.array_task_id) if array else None
    tasks, cut = (None, False) if not array or task is not None else read_tasks(wire.array_task_string or "")
    exit_code, signal = _exit(wire.exit_code) if state not in (PENDING, RUNNING) else (None, None)
    # of what waits, Slurm writes here when it expects to start it
    began, start = state != PENDING, _number(wire.start_time) or None
    return SlurmJob(
        job_id=_number(wire.job_id) or 0,
        array_id=array,
        task=task,
        tasks=tasks,
        tasks_cut=cut,
        name=wire.name or "",
        command=wire.command or "",
        state=state,
        flags=flags,
        reason=wire.state_reason or "",
        description=wire.state_description or "",
        exit_code=exit_code,
        signal=signal,
        started=start if began else None,
        expected=None if began else start,
        ended=(_number(wire.end_time) or None) if state not in ALIVE else None,
        user=wire.user_name or "",
        node=wire.batch_host or _first_node(wire.nodes or ""),
        restarts=_number(wire.restart_cnt) or 0,
    )


def _state_of_flags(flags: frozenset[str]) -> str:
    """The state behind flags that stand alone, as 22.05 writes them."""
    if flags & {"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"}:
        return PENDING
    return "REVOKED" if "REVOKED" in flags else RUNNING


def read_tasks(text: str) -> tuple[Ranges | None, bool]:
    """The indexes that Slurm writes as `0-5,7%2`, and whether it left some out at the end."""
    plain, cut, _ = text.partition("%")[0].partition("...")
    if cut and not plain.endswith(","):
        plain = plain.rpartition(",")[0]  # the last number may lack digits
    plain = plain.rstrip(",")
    try:
        return Ranges.parse(plain) if plain else None, bool(cut)
    except Invalid:
        raise DriverError(f"Slurm writes the tasks of an array in a way that is not known: {text[:80]!r}.") from None


def _first_node(nodes: str) -> str:
    """`a1` of `a[1-3],b`; of `a01`, `a01`."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.partition(",")[0]
    number = rest.partition("]")[0].partition(",")[0].partition("-")[0]
    return head + number


def _exit(raw: msgspec.Raw) -> tuple[int | None, int | None]:
    """Exit code, as a shell tells it, and signal."""
    try:
        said = _exits.decode(raw)
    except msgspec.DecodeError:
        return None, None
    if said is None:
        return None, None
    if isinstance(said, int):  # the raw wait status
        signal = said & 0x7F
        return (128 + signal, signal) if signal else ((said >> 8) & 0xFF, None)
    number = None
    if said.signal is not None:
        number = _number(said.signal.id) or _number(said.signal.signal_id)
    if number:
        return 128 + number, number
    return _number(said.return_code), None
