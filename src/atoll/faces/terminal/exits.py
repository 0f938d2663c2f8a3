"""The exit codes of the command line, besides those in `core.errors`. docs/command-line.md lists them."""

from typing import TYPE_CHECKING

from atoll.core.states import JobState, Outcome

if TYPE_CHECKING:
    from atoll.client.models import Job

USAGE = 2
"""The command line itself is wrong."""
NO_EXIT_CODE = 121
"""A job ended without an exit code of its own: lost, refused, its node failed, or it could never start."""
TIMED_OUT = 124
"""A job was ended because its walltime was over; as of timeout(1)."""
CANCELLED = 125
"""A job was cancelled."""
OUT_OF_MEMORY = 137
"""A job was ended because it used too much memory; what a shell says of SIGKILL."""
INTERRUPTED = 130
"""The command was interrupted by Ctrl-C."""
READER_GONE = 141
"""Who read the output went away; what a shell says of SIGPIPE."""
SIGNALLED = 128
"""This much and the number of the signal that ended a job."""


def job_exit_code(job: "Job") -> int:
    """The exit code with which a command ends that waited for `job`, a single job or task that has ended."""
    if job.state == JobState.SUCCEEDED:
        return 0
    if job.state == JobState.CANCELLED:
        return CANCELLED
    last = job.last_attempt
    outcome = job.outcome or (last.outcome if last else None)
    if outcome == Outcome.TIMED_OUT:
        return TIMED_OUT
    if outcome == Outcome.OUT_OF_MEMORY:
        return OUT_OF_MEMORY
    if outcome == Outcome.FAILED:
        if last is not None and last.signal:
            return SIGNALLED + last.signal
        return (job.exit_code or (last.exit_code if last else None) or NO_EXIT_CODE) & 0xFF or 1
    return NO_EXIT_CODE
