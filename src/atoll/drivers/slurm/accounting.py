"""What slurmdbd remembers of jobs that slurmctld has forgotten, as `sacct --json` tells it from version 22.05 on.

Asked only for attempts that are in no listing and that wrote no end: killed with all their processes, or cancelled
before they began, during a long outage.
"""

from collections.abc import Sequence
from dataclasses import replace

import msgspec

from atoll.drivers.base import DriverError
from atoll.drivers.slurm.jobs import SlurmJob, Wire, job_of

MOST = 500
"""Jobs that one question is about."""


class _Array(msgspec.Struct):
    job_id: Wire = 0
    task_id: Wire = None


class _State(msgspec.Struct):
    current: str | list[str] = ""
    reason: str | None = ""


class _Time(msgspec.Struct):
    start: Wire = 0
    end: Wire = 0


class _Record(msgspec.Struct):
    job_id: Wire = 0
    array: _Array | None = None
    name: str | None = ""
    state: _State | None = None
    time: _Time | None = None
    exit_code: msgspec.Raw = msgspec.Raw(b"null")
    user: str | None = ""
    nodes: str | None = ""


class _Answer(msgspec.Struct):
    jobs: list[_Record]


_decoder = msgspec.json.Decoder(_Answer)


def question(natives: Sequence[str]) -> list[str]:
    """The words that ask about jobs by what sbatch called them."""
    return ["sacct", "--json", "--allocations", f"--jobs={','.join(natives)}"]


def read_records(text: bytes) -> dict[str, SlurmJob]:
    """Jobs that have ended, by what sbatch called them. Raises DriverError where it is no answer of sacct's."""
    try:
        answer = _decoder.decode(text)
    except (msgspec.DecodeError, UnicodeError) as error:
        begin = text[:80].decode("utf-8", "replace")
        raise DriverError(f"sacct's answer cannot be read ({error}): {begin!r}.") from None
    jobs = [_job(record) for record in answer.jobs]
    return {job.native: job for job in jobs if job.over}


def _job(record: _Record) -> SlurmJob:
    array, state, time = record.array or _Array(), record.state or _State(), record.time or _Time()
    job = job_of(
        job_id=record.job_id, array_job_id=array.job_id, array_task_id=array.task_id, name=record.name,
        job_state=state.current, state_reason=state.reason, exit_code=record.exit_code, start_time=time.start,
        end_time=time.end, user_name=record.user, nodes=record.nodes,
    )  # fmt: skip
    if job.state == "FAILED" and not job.exit_code:
        return replace(job, exit_code=None, signal=None)  # 22.05 tells 0 of every job
    return job
