"""Reads job ads: what the queue and the history say of our jobs, and how they ended."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase

PROJECTION = (
    "AtollAttempt", "AtollStop", "ClusterId", "ProcId", "Owner", "JobStatus", "EnteredCurrentStatus", "JobStartDate",
    "JobCurrentStartDate", "JobCurrentStartExecutingDate", "CompletionDate", "NumJobStarts", "HoldReason",
    "HoldReasonCode", "HoldReasonSubCode", "RemoveReason", "ExitBySignal", "ExitSignal", "ExitCode", "RemoteUserCpu",
    "RemoteSysCpu", "ResidentSetSize_RAW", "ImageSize_RAW", "LastRemoteHost", "RemoteHost", "ServerTime",
)  # fmt: skip
"""All that is asked for of each job."""

IDLE, RUNNING, REMOVED, COMPLETED, HELD, TRANSFERRING, SUSPENDED = range(1, 8)
_WORDS = {
    IDLE: "Idle", RUNNING: "Running", REMOVED: "Removed", COMPLETED: "Completed", HELD: "Held",
    TRANSFERRING: "Transferring output", SUSPENDED: "Suspended",
}  # fmt: skip

NOT_BEGUN = (
    f"(JobStatus == {IDLE} || JobStatus == {HELD}) && (NumJobStarts =?= undefined || NumJobStarts == 0)"
    " && AtollStop =?= undefined"
)
"""What the ad of a job meets that has not begun, and that is not being stopped."""
RECALLED = "Atoll: recalled"
"""Why a job was removed that had not begun."""

# HoldReasonCode, as HTCondor's manual numbers them
BY_PERSON, TRANSFER_OUTPUT, TRANSFER_INPUT, ON_SUBMIT, SPOOLING = 1, 12, 13, 15, 16
_OUT_OF_MEMORY = 34
_TOO_LONG = frozenset({46, 47})
_RAN = frozenset({TRANSFER_OUTPUT, 33, 36, 44})
"""Holds of jobs whose command has run: what came of it nobody will know."""
_WAITS = frozenset({BY_PERSON, ON_SUBMIT, SPOOLING})
"""Holds that somebody will end."""
_BAD_IMAGE = 35
SPOOL_SECONDS = 900
"""So long a job may wait for its files: longer only where the platform died while it sent them."""
_KIBIBYTE = 1024
_LONGEST = 500


def native_id(ad: Mapping[str, Any]) -> str:
    """`cluster.proc`."""
    return f"{_number(ad, 'ClusterId') or 0}.{_number(ad, 'ProcId') or 0}"


def status_of(ad: Mapping[str, Any], now: float) -> AttemptStatus | None:
    """What an ad says of an attempt; None for an ad without one of ours. `now` is in seconds since 1970."""
    attempt_id = ad.get("AtollAttempt")
    state = _number(ad, "JobStatus")
    if not isinstance(attempt_id, str) or state is None:
        return None
    word = _WORDS.get(int(state), f"JobStatus {int(state)}")
    host = ad.get("RemoteHost") or ad.get("LastRemoteHost")
    common: dict[str, Any] = {
        "attempt_id": attempt_id,
        "native_id": native_id(ad),
        "native_state": f"{word} on {host}" if isinstance(host, str) and state != IDLE else word,
        "started_at": _moment(ad, "JobCurrentStartExecutingDate", "JobCurrentStartDate", "JobStartDate"),
    }
    if state == COMPLETED:
        return AttemptStatus(phase=Phase.ENDED, **common, **_usage(ad), **_completed(ad))
    if state == REMOVED and isinstance(ad.get("RemoteHost"), str):
        return AttemptStatus(phase=Phase.RUNNING, **common)  # it has its grace
    if state == REMOVED:
        return AttemptStatus(phase=Phase.ENDED, **common, **_usage(ad), **_removed(ad))
    if state == HELD:
        return _held(ad, common, now)
    if state in (RUNNING, TRANSFERRING, SUSPENDED):
        return AttemptStatus(phase=Phase.RUNNING, **common)
    return AttemptStatus(phase=Phase.STARTING, **{**common, "started_at": None})


def _completed(ad: Mapping[str, Any]) -> dict[str, Any]:
    """An end of the job's own. An ad without an exit code tells no success."""
    end: dict[str, Any] = {"ended_at": _moment(ad, "CompletionDate", "EnteredCurrentStatus")}
    stop = _stop(ad)
    if ad.get("ExitBySignal") is True:
        number = int(_number(ad, "ExitSignal") or 0)
        return {**end, "outcome": stop or Outcome.FAILED, "signal": number or None, "exit_code": 128 + number}
    code = _number(ad, "ExitCode")
    if code is None:
        return {**end, "outcome": stop or Outcome.LOST, "message": "HTCondor says that it completed, and not how."}
    signal = int(code) - 128 if 128 < code <= 192 else None
    outcome = Outcome.SUCCEEDED if code == 0 else Outcome.FAILED
    return {**end, "outcome": stop or outcome, "exit_code": int(code), "signal": signal}


def _removed(ad: Mapping[str, Any]) -> dict[str, Any]:
    end: dict[str, Any] = {"ended_at": _moment(ad, "EnteredCurrentStatus"), "message": _text(ad, "RemoveReason")}
    stop = _stop(ad)
    if stop is not None:
        return {**end, "outcome": stop, "message": ""}
    if RECALLED in end["message"]:
        return {**end, "outcome": Outcome.RECALLED, "message": ""}
    if "PeriodicRemove" in end["message"]:
        # our own rule: the pool had put it back into its queue after it had started
        return {**end, "outcome": Outcome.NODE_FAILED, "message": "The pool lost the machine, or took it away."}
    return {**end, "outcome": Outcome.LOST, "message": f"Somebody removed it from the queue: {end['message']}"}


def _held(ad: Mapping[str, Any], common: dict[str, Any], now: float) -> AttemptStatus:
    code, words = int(_number(ad, "HoldReasonCode") or 0), _text(ad, "HoldReason")
    since = _number(ad, "EnteredCurrentStatus") or now
    common = {**common, "native_state": f"Held: {words or code}"}
    stop = _stop(ad)
    if code in _WAITS and stop is None and not (code == SPOOLING and now - since > SPOOL_SECONDS):
        return AttemptStatus(phase=Phase.STARTING, **{**common, "started_at": None})
    end: dict[str, Any] = {"ended_at": _moment(ad, "EnteredCurrentStatus"), "message": words}
    if stop is not None:
        outcome = stop
    elif code == _OUT_OF_MEMORY:
        outcome = Outcome.OUT_OF_MEMORY
    elif code in _TOO_LONG:
        outcome = Outcome.TIMED_OUT
    elif code in _RAN or code == _BAD_IMAGE:
        outcome = Outcome.FAILED
    elif code == SPOOLING:
        outcome, end["message"] = Outcome.REFUSED, "Its files never came to the schedd."
    else:
        outcome = Outcome.REFUSED if not _number(ad, "NumJobStarts") else Outcome.NODE_FAILED
    return AttemptStatus(phase=Phase.ENDED, **common, **_usage(ad), **end, outcome=outcome)


def _stop(ad: Mapping[str, Any]) -> Outcome | None:
    """Why we removed it; None where we did not."""
    word = ad.get("AtollStop")
    return Outcome(word) if word in (Outcome.CANCELLED.value, Outcome.EVICTED.value) else None


def _usage(ad: Mapping[str, Any]) -> dict[str, Any]:
    memory = _number(ad, "ResidentSetSize_RAW")
    spent = [_number(ad, name) for name in ("RemoteUserCpu", "RemoteSysCpu")]
    return {
        "max_memory": int(memory) * _KIBIBYTE if memory else None,
        "cpu_seconds": float(sum(each or 0 for each in spent)) if any(each is not None for each in spent) else None,
    }


def _number(ad: Mapping[str, Any], name: str) -> float | int | None:
    value = ad.get(name)
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def _text(ad: Mapping[str, Any], name: str) -> str:
    value = ad.get(name)
    line = " ".join(value.split()) if isinstance(value, str) else ""
    return "".join(letter if letter.isprintable() else "?" for letter in line)[:_LONGEST]


def _moment(ad: Mapping[str, Any], *names: str) -> datetime | None:
    """The first of the times that is set; HTCondor's 0 means that it is not."""
    for name in names:
        value = _number(ad, name)
        if value and 0 < value < 1e11:
            return datetime.fromtimestamp(value, UTC)
    return None
