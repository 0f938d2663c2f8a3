"""Reads what a plugin says of pods: Kubernetes' container statuses, of which only the set part counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, DriverError, Phase
from atoll.drivers.interlink.pods import CONTAINER

_TIMED_OUT = frozenset({"deadlineexceeded", "slurmjobtimeout", "timeout", "timelimit"})
_OUT_OF_MEMORY = frozenset({"oomkilled", "oom", "outofmemory"})
_EVICTED = frozenset({"evicted", "preempted", "preempting"})
_SIGNALS = range(129, 193)
_WORDS = 300


@dataclass(frozen=True)
class Told:
    """What one answer says of one pod. `status` is None where it says that nothing has changed."""

    job_id: str
    status: AttemptStatus | None


def read_statuses(answer: Any) -> dict[str, dict[str, Any]]:
    """The pods of an answer to GET /status, by uid. Raises DriverError where it is no list of pods."""
    if answer is None:
        return {}
    if not isinstance(answer, list):
        raise DriverError(f"The plugin answered GET /status with {_kind(answer)} instead of a list of pods.")
    pods = {}
    for each in answer:
        if not isinstance(each, dict) or not isinstance(each.get("UID"), str):
            raise DriverError(f"The plugin's answer to GET /status lists {_kind(each)} instead of a pod with its UID.")
        pods[each["UID"]] = each
    return pods


def _kind(value: Any) -> str:
    names: dict[type, str] = {dict: "an object", list: "a list", str: "text", bool: "a truth value"}
    return names.get(type(value), "a number" if isinstance(value, int | float) else "nothing")


def read_pod(pod: Mapping[str, Any], attempt_id: str) -> Told:
    """What is said of one pod. An empty list of containers, and an empty state, say nothing."""
    job_id = pod.get("JID")
    name = job_id if isinstance(job_id, str) else ""
    containers = pod.get("containers")
    ours = [each for each in containers if isinstance(each, dict)] if isinstance(containers, list) else []
    ours = [each for each in ours if each.get("name") == CONTAINER] or ours[:1]
    state = ours[0].get("state") if ours else None
    return Told(name, _read_state(state, attempt_id) if isinstance(state, dict) else None)


def _read_state(state: Mapping[str, Any], attempt_id: str) -> AttemptStatus | None:
    for word, read in (("terminated", _terminated), ("running", _running), ("waiting", _waiting)):
        part = state.get(word)
        if isinstance(part, dict):
            return read(part, attempt_id)
    return None


def _waiting(part: Mapping[str, Any], attempt_id: str) -> AttemptStatus:
    said = ": ".join(filter(None, ("waiting", _text(part.get("reason")), _text(part.get("message")))))
    return AttemptStatus(attempt_id, Phase.STARTING, native_state=said)


def _running(part: Mapping[str, Any], attempt_id: str) -> AttemptStatus:
    return AttemptStatus(attempt_id, Phase.RUNNING, native_state="running", started_at=_moment(part.get("startedAt")))


def _terminated(part: Mapping[str, Any], attempt_id: str) -> AttemptStatus:
    reason, words = _text(part.get("reason")), _text(part.get("message"))
    code = part.get("exitCode")
    code = code if isinstance(code, int) and not isinstance(code, bool) and 0 <= code <= 0xFFFF else None
    signal = part.get("signal")
    number = signal if isinstance(signal, int) and 0 < signal <= 64 else None
    if number is None and code in _SIGNALS:
        number = code - 128 if code is not None else None
    outcome = _outcome(code, reason.lower())
    message = words or (reason if reason not in ("", "Completed", "Error") else "")
    if outcome is Outcome.OUT_OF_MEMORY:
        message = f"It used more memory than it asked for: the plugin says {': '.join(filter(None, (reason, words)))}."
    elif outcome is Outcome.TIMED_OUT:
        message = f"Its walltime was over: the plugin says {': '.join(filter(None, (reason, words)))}."
    elif outcome is Outcome.LOST:
        message = f"The plugin says that it ended ({reason or 'without a reason'}), and not with which exit code."
    return AttemptStatus(
        attempt_id,
        Phase.ENDED,
        native_state=f"terminated: {reason}" if reason else "terminated",
        started_at=_moment(part.get("startedAt")),
        ended_at=_moment(part.get("finishedAt")),
        outcome=outcome,
        exit_code=code,
        signal=number if outcome is not Outcome.SUCCEEDED else None,
        message=message,
    )


def _outcome(code: int | None, reason: str) -> Outcome:
    if reason in _OUT_OF_MEMORY:
        return Outcome.OUT_OF_MEMORY
    if reason in _TIMED_OUT:
        return Outcome.TIMED_OUT
    if reason in _EVICTED:
        return Outcome.EVICTED
    if code is None:
        return Outcome.LOST
    return Outcome.SUCCEEDED if code == 0 else Outcome.FAILED


def _text(value: Any) -> str:
    """Words of the plugin, in one line."""
    if not isinstance(value, str):
        return ""
    line = " ".join(value.split())
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_WORDS]


def _moment(value: Any) -> datetime | None:
    """A time as Kubernetes writes it; None for its zero, which means that nobody knows."""
    if not isinstance(value, str):
        return None
    try:
        moment = datetime.fromisoformat(value[:64])
    except ValueError:
        return None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return moment.astimezone(UTC) if moment.year > 1970 else None
