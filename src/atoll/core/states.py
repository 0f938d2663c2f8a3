"""The life of a job: its states, the table of transitions, and what the end of an attempt means for its job.

Nothing else in Atoll may decide a change of state; the store refuses a write that this table does not allow.
"""

from dataclasses import dataclass
from enum import StrEnum


class JobState(StrEnum):
    """Where a job is on its way from submission to its end."""

    HELD = "held"
    QUEUED = "queued"
    PLACED = "placed"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    FINISHING = "finishing"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Outcome(StrEnum):
    """How an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EVICTED = "evicted"
    TIMED_OUT = "timed_out"
    OUT_OF_MEMORY = "out_of_memory"
    NODE_FAILED = "node_failed"
    LOST = "lost"
    REFUSED = "refused"
    RECALLED = "recalled"


_S = JobState

WAITING = frozenset({_S.HELD, _S.QUEUED})
"""States in which a job has no attempt."""
ACTIVE = frozenset({_S.PLACED, _S.STARTING, _S.RUNNING, _S.STOPPING, _S.FINISHING})
"""States in which a job has a current attempt."""
HOLDS_ROOM = frozenset({_S.PLACED, _S.STARTING, _S.RUNNING, _S.STOPPING})
"""States in which the current attempt takes room at its site."""
ENDED = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
"""States that a job leaves only when a person asks for it to run again."""

TRANSITIONS: dict[JobState, frozenset[JobState]] = {
    _S.HELD: frozenset({_S.QUEUED, _S.CANCELLED}),
    _S.QUEUED: frozenset({_S.HELD, _S.PLACED, _S.CANCELLED}),
    # placed -> finishing: the site refused it, or it was cancelled before anything reached the site
    _S.PLACED: frozenset({_S.STARTING, _S.FINISHING, _S.STOPPING}),
    _S.STARTING: frozenset({_S.RUNNING, _S.FINISHING, _S.STOPPING}),
    _S.RUNNING: frozenset({_S.FINISHING, _S.STOPPING}),
    _S.STOPPING: frozenset({_S.FINISHING}),
    # finishing -> queued or held: requeued
    _S.FINISHING: frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED, _S.QUEUED, _S.HELD}),
    # an ended job runs again only because a person said so
    _S.SUCCEEDED: frozenset({_S.QUEUED, _S.HELD}),
    _S.FAILED: frozenset({_S.QUEUED, _S.HELD}),
    _S.CANCELLED: frozenset({_S.QUEUED, _S.HELD}),
}


def may(before: JobState, after: JobState) -> bool:
    """Whether a job may go from `before` to `after`."""
    return after in TRANSITIONS[before]


def sources(after: JobState) -> frozenset[JobState]:
    """The states from which a job may come to `after`."""
    return frozenset(before for before, targets in TRANSITIONS.items() if after in targets)


@dataclass(frozen=True)
class RetryPolicy:
    """What a job asked for in case an attempt ends badly, and what it has used of it.

    `retries` failures are forgiven (`failures` already were); `rerun` says whether a lost attempt may run again;
    `faults` counts the attempts that ended through no fault of the job, which are repeated up to `MAX_FAULTS`.
    """

    retries: int = 0
    rerun: bool = False
    failures: int = 0
    faults: int = 0


MAX_FAULTS = 8
"""Attempts that a site may refuse or a node may break before the job is given up."""

FAULTS = frozenset({Outcome.NODE_FAILED, Outcome.REFUSED, Outcome.LOST})
"""Ends that are the site's doing."""
_NOBODYS_FAULT = frozenset({Outcome.EVICTED, Outcome.RECALLED})


def after_end(outcome: Outcome, policy: RetryPolicy, *, cancel_asked: bool, permanent: bool = False) -> JobState:
    """The state of a job after its attempt ended with `outcome`: QUEUED where it runs again, else its final state.

    Evicted and recalled jobs always come back; node failures and refusals do up to MAX_FAULTS times, unless the refusal
    is `permanent`; lost ones only where the job said `rerun`; failures as often as the job said `retries`. A job whose
    owner asked to cancel it does not come back, and is `cancelled` unless it had ended by itself before.
    """
    if outcome is Outcome.SUCCEEDED:
        return JobState.SUCCEEDED
    if outcome is Outcome.CANCELLED:
        return JobState.CANCELLED
    if cancel_asked:
        return JobState.CANCELLED if outcome in FAULTS | _NOBODYS_FAULT else JobState.FAILED
    if outcome in _NOBODYS_FAULT:
        return JobState.QUEUED
    if outcome in FAULTS:
        again = policy.faults < MAX_FAULTS and not permanent and (outcome is not Outcome.LOST or policy.rerun)
        return JobState.QUEUED if again else JobState.FAILED
    return JobState.QUEUED if policy.failures < policy.retries else JobState.FAILED


def backoff(repeats: int) -> float:
    """Seconds to wait before the next attempt after `repeats` bad ends in a row: 1, 2, 4 ... at most 300."""
    return float(min(300, 2 ** max(0, repeats - 1))) if repeats else 0.0
