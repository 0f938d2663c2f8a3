"""Why a job waits, and why it ended: a code for programs and one sentence for people, the same on every face.

Codes are Slurm's where Slurm has one. A reason is kept as its code and the few values that its sentence needs.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from signal import Signals

from atoll.core.states import Outcome


class ReasonCode(StrEnum):
    """Every reason there is."""

    # waiting
    NONE = "None"
    PRIORITY = "Priority"
    RESOURCES = "Resources"
    QUOTA = "Quota"
    MAKING_ROOM = "MakingRoom"
    BEGIN_TIME = "BeginTime"
    BACKOFF = "Backoff"
    DEPENDENCY = "Dependency"
    HELD_BY_USER = "JobHeldUser"
    ARRAY_LIMIT = "JobArrayTaskLimit"
    NO_SITE = "NoSite"
    SITE_UNREACHABLE = "SiteUnreachable"
    RECALLED = "Recalled"
    # on its way
    PLACED = "Placed"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    FINISHING = "Finishing"
    # ended
    COMPLETED = "Completed"
    NONZERO_EXIT = "NonZeroExitCode"
    KILLED_BY_SIGNAL = "RaisedSignal"
    CANCELLED = "Cancelled"
    EVICTED = "Evicted"
    TIME_LIMIT = "TimeLimit"
    OUT_OF_MEMORY = "OutOfMemory"
    NODE_FAIL = "NodeFail"
    LOST = "Lost"
    REFUSED = "Refused"
    DEPENDENCY_NEVER = "DependencyNeverSatisfied"
    TASKS_ENDED = "TasksEnded"


_SENTENCES: dict[ReasonCode, str] = {
    ReasonCode.NONE: "Waits for its turn in the queue.",
    ReasonCode.PRIORITY: "Waits for its turn behind other jobs.",
    ReasonCode.RESOURCES: "Waits for enough free resources.",
    ReasonCode.QUOTA: "Waits for quota of its project.",
    ReasonCode.MAKING_ROOM: "Waits for others to leave, who make room for it.",
    ReasonCode.BEGIN_TIME: "Waits for its begin time.",
    ReasonCode.BACKOFF: "Waits before it is tried again.",
    ReasonCode.DEPENDENCY: "Waits for other jobs to end.",
    ReasonCode.HELD_BY_USER: "Is held; release it with: atoll release.",
    ReasonCode.ARRAY_LIMIT: "Waits because the array's limit of tasks at once is reached.",
    ReasonCode.NO_SITE: "No site can run it as it is.",
    ReasonCode.SITE_UNREACHABLE: "The site does not answer; the last known state is shown.",
    ReasonCode.RECALLED: "Was pulled back from a site's queue: a job with more right to the next place came.",
    ReasonCode.PLACED: "Has a place and is about to be handed to the site.",
    ReasonCode.STARTING: "Was handed to the site and is starting.",
    ReasonCode.RUNNING: "Is running.",
    ReasonCode.STOPPING: "Is being stopped.",
    ReasonCode.FINISHING: "Has ended; its output is being collected.",
    ReasonCode.COMPLETED: "Ended with exit code 0.",
    ReasonCode.NONZERO_EXIT: "Ended with an exit code other than 0.",
    ReasonCode.KILLED_BY_SIGNAL: "Was ended by a signal.",
    ReasonCode.CANCELLED: "Was cancelled.",
    ReasonCode.EVICTED: "Was evicted for a job with a claim.",
    ReasonCode.TIME_LIMIT: "Was ended because its walltime was over.",
    ReasonCode.OUT_OF_MEMORY: "Was ended because it used more memory than it asked for.",
    ReasonCode.NODE_FAIL: "Its node failed.",
    ReasonCode.LOST: "The site no longer knows it and nobody knows how it ended.",
    ReasonCode.REFUSED: "The site refused it.",
    ReasonCode.DEPENDENCY_NEVER: "Cannot start any more: a job that it depends on ended otherwise.",
    ReasonCode.TASKS_ENDED: "All its tasks have ended.",
}


@dataclass(frozen=True)
class Reason:
    """A code and its sentence."""

    code: ReasonCode
    sentence: str

    @classmethod
    def of(cls, code: ReasonCode, sentence: str | None = None) -> "Reason":
        """The reason `code`, with its general sentence unless a more exact one is given."""
        return cls(code, sentence or _SENTENCES[code])


def recalled_from(site: str) -> Reason:
    """Why a job that waited in the queue of `site` waits in ours again."""
    sentence = f"Was pulled back from the queue of site {site}: a job with more right to the next place came."
    return Reason.of(ReasonCode.RECALLED, sentence)


def _claim(project: str | None) -> str:
    """For what somebody has to leave. Of another's job no more than its project is told."""
    return f"a job with a claim of project {project}" if project else "a job with a claim"


def leaving_for(project: str | None) -> Reason:
    """Why a job is stopped that makes room for one of `project`."""
    return Reason.of(ReasonCode.STOPPING, f"Is being stopped: it makes room for {_claim(project)}.")


def told_to_leave(moment: datetime, project: str | None) -> Reason:
    """What a running job is told that will make room for one of `project`."""
    sentence = f"Runs, and will be asked to leave at {moment:%Y-%m-%d %H:%M} UTC for {_claim(project)}."
    return Reason.of(ReasonCode.RUNNING, sentence)


def evicted_for(project: str | None) -> Reason:
    """Why an attempt ended that made room for a job of `project`."""
    return Reason.of(ReasonCode.EVICTED, f"Was evicted for {_claim(project)}.")


def general_sentence(code: ReasonCode) -> str:
    """What `code` means where nothing more exact is known."""
    return _SENTENCES[code]


def reason_of_end(outcome: Outcome, exit_code: int | None, signal: int | None, message: str = "") -> Reason:
    """Why an attempt ended so; `message` is in the engine's words and ends the sentence where there is one."""
    code, sentence = ReasonCode.NONZERO_EXIT, None
    if outcome is Outcome.FAILED and signal:
        code, sentence = ReasonCode.KILLED_BY_SIGNAL, f"Was ended by signal {signal} ({_signal_name(signal)})."
    elif outcome is Outcome.FAILED:
        sentence = f"Ended with exit code {exit_code}." if exit_code is not None else "Failed."
    else:
        code = _ENDS[outcome]
    if message and code in (ReasonCode.OUT_OF_MEMORY, ReasonCode.TIME_LIMIT):
        sentence = message.strip()[:500]
    elif message:
        sentence = f"{sentence or _SENTENCES[code]} {message.strip()[:500]}"
    return Reason.of(code, sentence)


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return "unnamed"


_ENDS = {
    Outcome.SUCCEEDED: ReasonCode.COMPLETED,
    Outcome.CANCELLED: ReasonCode.CANCELLED,
    Outcome.EVICTED: ReasonCode.EVICTED,
    Outcome.TIMED_OUT: ReasonCode.TIME_LIMIT,
    Outcome.OUT_OF_MEMORY: ReasonCode.OUT_OF_MEMORY,
    Outcome.NODE_FAILED: ReasonCode.NODE_FAIL,
    Outcome.LOST: ReasonCode.LOST,
    Outcome.REFUSED: ReasonCode.REFUSED,
    Outcome.RECALLED: ReasonCode.RECALLED,
}
