"""What a Job and its pods say of an attempt: its phase, its end, and both in a sentence."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase
from atoll.drivers.kubernetes.objects import (
    ACCOUNT,
    CHOSEN,
    KEEPER,
    LAUNCH_EACH,
    MAIN,
    NODES,
    RECALL,
    STOP,
    STOP_WORDS,
    Condition,
    Job,
    Pod,
    Terminated,
    read_report,
)

_STOPS = {
    "cancelled": Outcome.CANCELLED,
    "evicted": Outcome.EVICTED,
    "orphaned": Outcome.CANCELLED,
    "failed": Outcome.FAILED,
    "timed_out": Outcome.TIMED_OUT,
    "out_of_memory": Outcome.OUT_OF_MEMORY,
    "late": Outcome.NODE_FAILED,
    "peer": Outcome.FAILED,
}
"""What an end that was asked for is called; the words are those of pod.sh and of the Job's annotation."""
_SENTENCES = {
    "timed_out": "Its walltime was over.",
    "out_of_memory": "It used more memory than it asked for.",
    "late": "Not all of its nodes came up in time, so it was ended on all of them.",
    "peer": "It ended because its command failed on another node.",
}
_IMAGE = frozenset({
    "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError",
    "RegistryUnavailable", "SignatureValidationFailed",
})  # fmt: skip
_NEVER_STARTS = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


def _sentence(*words: str) -> str:
    """Words of the engine as one sentence."""
    text = " ".join(" ".join(words).split())[:500].rstrip(". ")
    return f"{text}." if text else ""


class Reader:
    """Reads attempts.

    `patience` is how long an image that cannot be had is waited for, `start_within` how long a node that Atoll chose.
    """

    def __init__(self, patience: float, start_within: float) -> None:
        self._patience = timedelta(seconds=patience)
        self._start_within = timedelta(seconds=start_within)

    def status(self, job: Job, pods: Sequence[Pod], now: datetime) -> AttemptStatus:
        """How an attempt is, by its Job and the pods that are there."""
        nodes = int(job.metadata.annotation(NODES) or 1)
        ended = _recalled(job, pods) or self._ended(job, pods, nodes)
        if ended is None and all(pod.over for pod in pods):
            ended = _ended_without_pod(job, pods)
        if ended is None and (words := self.hopeless(pods, now)):
            ended = _status(job, Phase.ENDED, "Pending", outcome=Outcome.FAILED, message=words)
        if ended is not None:
            return ended
        running = [started.started_at for pod in pods if (started := pod.container(MAIN).running) is not None]
        begun = running + [over.started_at for pod in pods if (over := pod.container(MAIN).terminated) is not None]
        if running and len(begun) >= nodes:
            started_at = max((each for each in begun if each is not None), default=None)
            return _status(job, Phase.RUNNING, "Running", started_at=started_at)
        state, words = _waiting(job, pods)
        return _status(job, Phase.STARTING, state, message=words)

    def _ended(self, job: Job, pods: Sequence[Pod], nodes: int) -> AttemptStatus | None:
        """The end by what the containers say; None while the command may still run, or nothing is known of it."""
        ends = [(pod, end) for pod in pods if (end := pod.container(MAIN).terminated) is not None]
        if not ends:
            return None
        if nodes == 1:
            return _end_of(job, *max(ends, key=lambda each: each[0].metadata.name))
        if late := _late(ends):
            return _end_of(job, *late)
        each = job.metadata.annotation(LAUNCH_EACH) is not None
        ends.sort(key=lambda pair: (pair[1].exit_code == 0, pair[1].finished_at is None, pair[1].finished_at))
        first = [pair for pair in ends if pair[0].rank == 0]
        if first and not each:
            return _end_of(job, *first[0])
        gone = all(pod.container(MAIN).running is None for pod in pods)
        if len(ends) >= nodes or (gone and all(pod.over or pod.container(MAIN).terminated for pod in pods)):
            told = [pair for pair in ends if read_report(pair[1].message).asked != "peer"]
            return _end_of(job, *(told or ends)[0])
        return None

    def failed_node(self, job: Job, pods: Sequence[Pod]) -> bool:
        """Whether a command failed on one of several nodes, and others still run: they are to be ended."""
        if int(job.metadata.annotation(NODES) or 1) == 1:
            return False
        failed = any((end := pod.container(MAIN).terminated) is not None and end.exit_code for pod in pods)
        return failed and any(pod.container(MAIN).running is not None for pod in pods)

    def late_nodes(self, job: Job, pods: Sequence[Pod]) -> str:
        """Why all nodes of an attempt are to go, because not all came up in time; nothing where that is not so."""
        ends = [(pod, end) for pod in pods if (end := pod.container(MAIN).terminated) is not None]
        stopped = job.metadata.annotation(STOP) is not None
        return _SENTENCES["late"] if _late(ends) is not None and not stopped else ""

    def late_to_place(self, job: Job, pods: Sequence[Pod], now: datetime) -> str:
        """Why an attempt is to go that does not get a node which Atoll chose; nothing where that is not so."""
        if job.metadata.annotation(CHOSEN) is None or job.metadata.annotation(STOP) is not None:
            return ""
        late = [
            pod for pod in pods
            if pod.unplaced and (since := pod.metadata.creation_timestamp) is not None
            and now - since > self._start_within
        ]  # fmt: skip
        if not late:
            return ""
        scheduled = next((each for each in late[0].status.conditions or () if each.type == "PodScheduled"), None)
        said = scheduled.message if scheduled is not None else ""
        return _sentence("The node that was chosen for it did not take it in time:", said)

    def hopeless(self, pods: Sequence[Pod], now: datetime) -> str:
        """Why the attempt will never start, where that is clear; else nothing."""
        for pod in pods:
            since = pod.metadata.creation_timestamp
            for name in (MAIN, KEEPER):
                waiting = pod.container(name).waiting
                if waiting is None or waiting.reason not in _IMAGE | _NEVER_STARTS:
                    continue
                if waiting.reason == "InvalidImageName" or (since is not None and now - since > self._patience):
                    return _why_waiting(waiting.reason, waiting.message)
        return ""


def _recalled(job: Job, pods: Sequence[Pod]) -> AttemptStatus | None:
    """The end of an attempt that was taken back before it began; None where it was not, or not all of it is gone."""
    how = job.metadata.annotation(RECALL)
    # without a pod and with `asked` alone the pod was taken, and whoever took it could not say so any more
    done = how == "done" or (how == "asked" and not pods and job.condition("Failed") is not None)
    if not done or any(pod.container(MAIN).running is not None for pod in pods):
        return None
    return _status(job, Phase.ENDED, "Recalled", outcome=Outcome.RECALLED)


def _late(ends: Sequence[tuple[Pod, Terminated]]) -> tuple[Pod, Terminated] | None:
    """A node that has waited for the others in vain."""
    return next(((pod, end) for pod, end in ends if read_report(end.message).asked == "late"), None)


def _status(
    job: Job, phase: Phase, state: str, *, started_at: datetime | None = None, ended_at: datetime | None = None,
    outcome: Outcome | None = None, message: str = "",
) -> AttemptStatus:  # fmt: skip
    meta = job.metadata
    return AttemptStatus(
        attempt_id=meta.attempt_id,
        phase=phase,
        native_id=f"{meta.namespace}/{meta.name}",
        native_state=state,
        started_at=started_at,
        ended_at=ended_at,
        outcome=outcome,
        message=message,
        account=meta.annotation(ACCOUNT),
    )


def _end_of(job: Job, pod: Pod, end: Terminated) -> AttemptStatus:
    """The end of an attempt whose container has ended."""
    report = read_report(end.message)
    code = report.exit_code if report.exit_code is not None and end.exit_code else end.exit_code
    signal = report.signal if end.exit_code else None
    if report.exit_code is None and end.exit_code > 128:
        signal = end.signal or (end.exit_code - 128 if end.exit_code <= 192 else None)
    outcome, message = _outcome(job, pod, end, report.asked, report.memory_kills)
    meta = job.metadata
    return AttemptStatus(
        attempt_id=meta.attempt_id,
        phase=Phase.ENDED,
        native_id=f"{meta.namespace}/{meta.name}",
        native_state=end.reason or "Terminated",
        started_at=end.started_at,
        ended_at=end.finished_at,
        outcome=outcome,
        exit_code=code,
        signal=signal,
        message=message,
        max_memory=report.max_memory,
        cpu_seconds=report.cpu_seconds,
        account=meta.annotation(ACCOUNT),
    )


def _outcome(job: Job, pod: Pod, end: Terminated, asked: str, memory_kills: int) -> tuple[Outcome, str]:
    """How a container's end is called, in this order: who asked first, memory, the command itself, the cluster."""
    if asked in _STOPS:
        return _STOPS[asked], _SENTENCES.get(asked, "")
    if end.exit_code and (end.reason == "OOMKilled" or (memory_kills and end.exit_code == 137)):
        return Outcome.OUT_OF_MEMORY, _SENTENCES["out_of_memory"]
    if end.exit_code == 0:
        return Outcome.SUCCEEDED, ""
    if pod.status.reason == "DeadlineExceeded":
        return Outcome.TIMED_OUT, _SENTENCES["timed_out"]
    if disruption := pod.condition("DisruptionTarget"):
        return _disrupted(disruption, pod.status.message)
    stop = job.metadata.annotation(STOP)
    if pod.metadata.deletion_timestamp is not None:
        if stop in _STOPS:
            return _STOPS[stop], job.metadata.annotation(STOP_WORDS) or ""
        return Outcome.LOST, "Its pod was removed by somebody else."
    if end.reason in ("StartError", "ContainerCannotRun", "RunContainerError"):
        return Outcome.FAILED, _sentence("The container could not be started:", end.message)
    return Outcome.FAILED, ""


def _disrupted(condition: Condition, words: str = "") -> tuple[Outcome, str]:
    """The end that the cluster itself brought about."""
    said = _sentence(words or condition.message)
    if condition.reason == "PreemptionByScheduler":
        return Outcome.EVICTED, _sentence("The cluster took its room for another pod:", said)
    return Outcome.NODE_FAILED, _sentence(f"The cluster ended its pod ({condition.reason}):", said)


def _ended_without_pod(job: Job, pods: Sequence[Pod]) -> AttemptStatus | None:
    """The end of an attempt of whose containers nothing is known; None while it may still begin."""
    for pod in pods:
        if pod.status.phase != "Failed":
            continue
        ended_at = pod.condition("DisruptionTarget")
        if ended_at is not None:
            outcome, words = _disrupted(ended_at, pod.status.message)
        elif pod.status.reason == "DeadlineExceeded":
            outcome, words = Outcome.TIMED_OUT, _SENTENCES["timed_out"]
        else:
            outcome = Outcome.NODE_FAILED
            words = _sentence(pod.status.reason and f"{pod.status.reason}:", pod.status.message or "Its pod failed")
        when = ended_at.last_transition_time if ended_at is not None else None
        return _status(job, Phase.ENDED, "Failed", ended_at=when, outcome=outcome, message=words)
    stop = job.metadata.annotation(STOP)
    if stop in _STOPS and job.spec.parallelism == 0:
        words = job.metadata.annotation(STOP_WORDS) or ""
        return _status(job, Phase.ENDED, "Stopped", outcome=_STOPS[stop], message=words)
    if done := job.condition("Complete"):
        return _status(
            job, Phase.ENDED, done.type, started_at=job.status.start_time, outcome=Outcome.SUCCEEDED,
            ended_at=job.status.completion_time or done.last_transition_time,
        )  # fmt: skip
    if failed := job.condition("Failed"):
        outcome, words = _failed_job(failed)
        return _status(
            job, Phase.ENDED, failed.reason or failed.type, started_at=job.status.start_time, outcome=outcome,
            ended_at=failed.last_transition_time, message=words,
        )  # fmt: skip
    return None


def _failed_job(failed: Condition) -> tuple[Outcome, str]:
    """The end of a Job whose pods are gone; what its command did nobody knows any more."""
    if failed.reason == "DeadlineExceeded":
        return Outcome.TIMED_OUT, _SENTENCES["timed_out"]
    if failed.reason == "PodFailurePolicy":
        return Outcome.NODE_FAILED, _sentence("The cluster ended its pod:", failed.message)
    return Outcome.LOST, _sentence("Its pod is gone, and nobody knows how it ended:", failed.message)


def _waiting(job: Job, pods: Sequence[Pod]) -> tuple[str, str]:
    """In which state an attempt waits, and why, in a sentence."""
    for pod in pods:
        scheduled = next((each for each in pod.status.conditions or () if each.type == "PodScheduled"), None)
        if scheduled is not None and scheduled.status == "False":
            return scheduled.reason or "Pending", _sentence("The cluster has no room for it now:", scheduled.message)
        for name in (MAIN, KEEPER):
            waiting = pod.container(name).waiting
            if waiting is not None and waiting.reason not in ("", "ContainerCreating", "PodInitializing"):
                return waiting.reason, _why_waiting(waiting.reason, waiting.message)
    if job.spec.suspend:
        return "Suspended", "It waits in the cluster's own queue."
    return "Pending", ""


def _why_waiting(reason: str, words: str) -> str:
    if reason in _IMAGE:
        return _sentence("Its image cannot be had:", f"{reason}:", words)
    if reason in _NEVER_STARTS:
        return _sentence("Its container cannot be made:", f"{reason}:", words)
    return _sentence(f"{reason}:", words)
