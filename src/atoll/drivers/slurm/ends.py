"""How an attempt ended, from the two that know of it: Slurm, and what was written in the attempt's folder."""

from dataclasses import replace
from datetime import datetime

from atoll.core.clock import from_micros
from atoll.core.resources import format_seconds
from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase, StopReason
from atoll.drivers.slurm.jobs import SlurmJob
from atoll.drivers.slurm.reasons import ended_sentence
from atoll.drivers.slurm.records import SiteRecord
from atoll.drivers.wrapper import Record

_STOPPED = {
    StopReason.CANCELLED.value: Outcome.CANCELLED,
    StopReason.EVICTED.value: Outcome.EVICTED,
    StopReason.ORPHANED.value: Outcome.CANCELLED,
    "timed_out": Outcome.TIMED_OUT,
}
_BY_STATE = {
    "TIMEOUT": Outcome.TIMED_OUT,
    "DEADLINE": Outcome.TIMED_OUT,
    "OUT_OF_MEMORY": Outcome.OUT_OF_MEMORY,
    "NODE_FAIL": Outcome.NODE_FAILED,
    "BOOT_FAIL": Outcome.NODE_FAILED,
    "PREEMPTED": Outcome.EVICTED,
    "CANCELLED": Outcome.CANCELLED,
    "REVOKED": Outcome.CANCELLED,
}
"""Ends that Slurm decides; the others are the command's own."""
REQUEUED = "REQUEUED"
"""The state that is told of an attempt whose job Slurm put back into its queue."""


def moment(seconds: float | None) -> datetime | None:
    """A time of day from seconds since 1970."""
    return None if seconds is None else from_micros(round(seconds * 1_000_000))


def ended_status(attempt_id: str, job: SlurmJob | None, found: SiteRecord | None, status: AttemptStatus) -> (
    AttemptStatus | None
):  # fmt: skip
    """The end of an attempt that Slurm tells as ended (`job`) or no longer knows (None); None where nobody knows it.

    `status` carries what is known of it otherwise: ids and account.
    """
    lost_folder = found is None
    found = found or SiteRecord()
    record = found.record
    outcome = _outcome(job, found, lost_folder)
    if outcome is None:
        return None
    exit_code, signal = record.exit_code, record.signal
    if exit_code is None and job is not None and record.started_at is not None:
        exit_code, signal = job.exit_code, job.signal
    started = record.started_at
    if started is None and job is not None and outcome not in (Outcome.CANCELLED, Outcome.RECALLED):
        started = job.started
    ended = record.ended_at or (job.ended if job is not None else None) or found.stopped_at
    if started is not None and ended is not None:
        ended = max(started, ended)  # two clocks
    return replace(
        status,
        phase=Phase.ENDED,
        native_state=job.state if job is not None else "",
        started_at=moment(started),
        ended_at=moment(ended),
        outcome=outcome,
        exit_code=exit_code,
        signal=signal,
        message=_message(outcome, job, found),
        max_memory=found.peak,
        cpu_seconds=record.cpu_seconds,
    )


def begun_anew_status(job: SlurmJob, found: SiteRecord, status: AttemptStatus) -> AttemptStatus:
    """The end of an attempt that Slurm took back into its queue after it had begun: what it starts is another one."""
    record = found.record
    outcome = _STOPPED.get(found.stop or "")
    if outcome is None and record.ended and record.signal is None:
        outcome = Outcome.SUCCEEDED if record.exit_code == 0 else Outcome.FAILED
    why = f" ({job.reason})" if job.reason not in ("", "None") else ""
    return replace(
        status,
        phase=Phase.ENDED,
        native_state=REQUEUED,
        started_at=moment(record.started_at),
        ended_at=moment(record.ended_at),
        outcome=outcome or Outcome.NODE_FAILED,
        exit_code=record.exit_code,
        signal=record.signal,
        message="" if outcome else f"Slurm ended it and put it back into its queue by itself{why}.",
        max_memory=found.peak,
        cpu_seconds=record.cpu_seconds,
    )


def taken_out_status(status: AttemptStatus) -> AttemptStatus:
    """The end of an attempt that somebody took out of Slurm's queue before it began."""
    message = "Slurm says: it was cancelled at the cluster before it began."
    return replace(status, phase=Phase.ENDED, native_state="CANCELLED", outcome=Outcome.CANCELLED, message=message)


def _outcome(job: SlurmJob | None, found: SiteRecord, lost_folder: bool) -> Outcome | None:
    record = found.record
    if found.stop in _STOPPED and (job is None or job.over):
        # asked for before it ended; where Slurm knows it no more, this is all that anybody will know
        return _STOPPED[found.stop]
    if found.recalled and record.started_at is None and (job is None or job.over):
        return Outcome.RECALLED
    if job is not None and job.state in _BY_STATE and not _ended_before(job, record):
        return _BY_STATE[job.state]
    if record.ended:
        if found.oom_kills and record.exit_code:
            return Outcome.OUT_OF_MEMORY
        return Outcome.SUCCEEDED if record.exit_code == 0 else Outcome.FAILED
    if job is None:
        return None
    if lost_folder:
        return Outcome.LOST
    if record.started_at is None:
        # Slurm started something, and the command never began: the site's fault, and tried again
        return Outcome.NODE_FAILED
    # killed with all its processes, the one that writes the end too
    return Outcome.LOST if job.state == "COMPLETED" else Outcome.FAILED


def _ended_before(job: SlurmJob, record: Record) -> bool:
    """Whether the command had ended by itself before what Slurm tells of: so where slurmctld has lost its state."""
    if record.ended_at is None or record.signal is not None or job.ended is None:
        return False
    return record.ended_at < job.ended


def _message(outcome: Outcome, job: SlurmJob | None, found: SiteRecord) -> str:
    if outcome is Outcome.TIMED_OUT:
        limit = "" if found.walltime is None else f" of {format_seconds(found.walltime)}"
        return f"Was ended because its walltime{limit} was over."
    if outcome is Outcome.OUT_OF_MEMORY:
        return "Was ended because it used more memory than it asked for."
    if found.stop in _STOPPED or outcome is Outcome.RECALLED or job is None:
        return ""
    if outcome is Outcome.NODE_FAILED and job.state not in _BY_STATE:
        where = f" on node {job.node}" if job.node else ""
        return f"Slurm started it{where} and its command never began ({ended_sentence(job)})."
    if outcome is Outcome.LOST:
        return f"Slurm says that it ended ({ended_sentence(job)}), and what it wrote of its end is not there."
    if outcome in (Outcome.SUCCEEDED, Outcome.FAILED):
        return ""
    return f"Slurm says: {ended_sentence(job)}."
