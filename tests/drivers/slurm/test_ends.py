"""How an attempt ended: by Slurm, by what the wrapper wrote, and by why it was stopped."""

from typing import Any

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import AttemptStatus, Phase
from atoll.drivers.slurm.ends import begun_anew_status, ended_status
from atoll.drivers.slurm.jobs import SlurmJob
from atoll.drivers.slurm.records import SiteRecord
from atoll.drivers.wrapper import Record


def job(state: str, **fields: Any) -> SlurmJob:
    usual: dict[str, Any] = {
        "job_id": 1, "array_id": 0, "task": None, "tasks": None, "tasks_cut": False, "name": "", "command": "",
        "state": state, "flags": frozenset(), "reason": "None", "description": "", "exit_code": 0, "signal": None,
        "started": 100.0, "expected": None, "ended": 200.0, "user": "ann", "node": "n7",
    }  # fmt: skip
    return SlurmJob(**{**usual, **fields})


def record(code: int | None = None, signal: int | None = None, *, began: bool = True, **fields: Any) -> SiteRecord:
    ended = 201.0 if code is not None else None
    started = 100.5 if began else None
    own = Record(
        began, started, 5 if began else None, "1" if began else "", ended, code, signal, 1.5 if ended else None
    )
    return SiteRecord(own, **fields)


def end(one: SlurmJob | None, found: SiteRecord | None) -> AttemptStatus | None:
    return ended_status("a", one, found, AttemptStatus("a", Phase.STARTING, "1"))


@pytest.mark.parametrize(
    ("state", "found", "outcome", "code"),
    [
        ("COMPLETED", record(0), Outcome.SUCCEEDED, 0),
        ("FAILED", record(3), Outcome.FAILED, 3),
        ("FAILED", record(137, 9), Outcome.FAILED, 137),
        ("OUT_OF_MEMORY", record(137, 9), Outcome.OUT_OF_MEMORY, 137),
        ("FAILED", record(137, 9, oom_kills=1), Outcome.OUT_OF_MEMORY, 137),
        ("COMPLETED", record(0, oom_kills=1), Outcome.SUCCEEDED, 0),
        ("TIMEOUT", record(143, 15), Outcome.TIMED_OUT, 143),
        ("NODE_FAIL", record(), Outcome.NODE_FAILED, 0),
        ("BOOT_FAIL", record(began=False), Outcome.NODE_FAILED, None),
        ("PREEMPTED", record(143, 15), Outcome.EVICTED, 143),
        ("CANCELLED", record(143, 15), Outcome.CANCELLED, 143),
        ("CANCELLED", record(began=False), Outcome.CANCELLED, None),
        ("DEADLINE", record(143, 15), Outcome.TIMED_OUT, 143),
        # stopped by us: the reason decides, whatever Slurm calls it
        ("FAILED", record(3, stop="cancelled"), Outcome.CANCELLED, 3),
        ("FAILED", record(143, 15, stop="evicted"), Outcome.EVICTED, 143),
        ("FAILED", record(143, 15, stop="timed_out", walltime=60), Outcome.TIMED_OUT, 143),
        ("CANCELLED", record(began=False, stop="evicted"), Outcome.EVICTED, None),
        # pulled back before it began, whatever Slurm made of the job; what began after all has its own end
        ("CANCELLED", record(began=False, recalled=True), Outcome.RECALLED, None),
        ("COMPLETED", record(began=False, recalled=True), Outcome.RECALLED, None),
        ("CANCELLED", record(began=False, recalled=True, stop="cancelled"), Outcome.CANCELLED, None),
        ("FAILED", record(3, recalled=True), Outcome.FAILED, 3),
        # Slurm started something, and the command never began
        ("FAILED", record(began=False), Outcome.NODE_FAILED, None),
        # all killed, the wrapper too
        ("FAILED", record(), Outcome.FAILED, 0),
        ("COMPLETED", record(), Outcome.LOST, 0),
        ("COMPLETED", None, Outcome.LOST, None),
    ],
)
def test_end_is_told_by_whoever_knows_it_best(
    state: str, found: SiteRecord | None, outcome: Outcome, code: int | None
) -> None:
    status = end(job(state), found)
    assert status is not None
    assert (status.outcome, status.exit_code, status.phase) == (outcome, code, Phase.ENDED)


def test_end_that_slurm_forgot_is_the_wrappers() -> None:
    status = end(None, record(7))
    assert status is not None
    assert (status.outcome, status.exit_code, status.cpu_seconds) == (Outcome.FAILED, 7, 1.5)


def test_stop_that_slurm_forgot_is_told_by_its_reason() -> None:
    status = end(None, record(began=False, stop="cancelled", stopped_at=50.0))
    assert status is not None
    assert status.outcome is Outcome.CANCELLED


@pytest.mark.parametrize("found", [None, record(), record(began=False)])
def test_end_that_nobody_knows_is_not_told(found: SiteRecord | None) -> None:
    assert end(None, found) is None


def test_command_that_had_ended_before_slurm_lost_its_state_keeps_its_end() -> None:
    status = end(job("CANCELLED", ended=205.0), record(22))
    assert status is not None
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 22)


def test_end_is_never_before_the_start_although_clocks_differ() -> None:
    status = end(job("CANCELLED", started=300.0, ended=250.0), record(began=True))
    assert status is not None
    assert status.started_at is not None
    assert status.ended_at is not None
    assert status.started_at <= status.ended_at


@pytest.mark.parametrize(
    ("state", "found", "words"),
    [
        ("TIMEOUT", record(143, 15, walltime=90), "walltime of 1m 30s"),
        ("OUT_OF_MEMORY", record(137, 9), "memory"),
        ("FAILED", record(began=False), "n7"),
        ("CANCELLED", record(143, 15), "cancelled at the cluster"),
        ("NODE_FAIL", record(), "node"),
    ],
)
def test_ends_that_are_not_the_commands_own_have_a_sentence(state: str, found: SiteRecord, words: str) -> None:
    status = end(job(state), found)
    assert status is not None
    assert words in status.message


@pytest.mark.parametrize(
    ("found", "outcome"),
    [
        (record(143, 15), Outcome.NODE_FAILED),
        (record(), Outcome.NODE_FAILED),
        (record(0), Outcome.SUCCEEDED),
        (record(143, 15, stop="evicted"), Outcome.EVICTED),
    ],
)
def test_attempt_that_slurm_begins_anew_has_ended(found: SiteRecord, outcome: Outcome) -> None:
    one = job("PENDING", restarts=1, reason="BeginTime")
    assert one.begun_anew
    status = begun_anew_status(one, found, AttemptStatus("a", Phase.STARTING, "1"))
    assert (status.outcome, status.phase) == (outcome, Phase.ENDED)
