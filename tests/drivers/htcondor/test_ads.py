"""Job ads and machine ads are read as HTCondor's manual has them; no ad tells a success that was none."""

import json
import time
from typing import Any

import classad2
import pytest

from atoll.core.resources import Resources
from atoll.core.states import Outcome
from atoll.drivers.base import Phase
from atoll.drivers.htcondor.ads import NOT_BEGUN, PROJECTION, SPOOL_SECONDS, status_of
from atoll.drivers.htcondor.machines import flavors_of
from atoll.drivers.htcondor.worker import plain

NOW = 1_790_000_000.0
BASE = {"AtollAttempt": "aaaaa-0000000000000000", "ClusterId": 12, "ProcId": 3, "EnteredCurrentStatus": NOW - 60}


def ended(**values: Any) -> Any:
    return status_of({**BASE, **values}, NOW)


ENDS: dict[str, tuple[dict[str, Any], Outcome, int | None, int | None]] = {
    "success": ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 0}, Outcome.SUCCEEDED, 0, None),
    "failure": ({"JobStatus": 4, "ExitBySignal": False, "ExitCode": 3}, Outcome.FAILED, 3, None),
    "signal that a shell tells": ({"JobStatus": 4, "ExitCode": 139}, Outcome.FAILED, 139, 11),
    "signal": ({"JobStatus": 4, "ExitBySignal": True, "ExitSignal": 9}, Outcome.FAILED, 137, 9),
    "completed without a code": ({"JobStatus": 4}, Outcome.LOST, None, None),
    "stopped, ended by itself": ({"JobStatus": 4, "ExitCode": 0, "AtollStop": "cancelled"}, Outcome.CANCELLED, 0, None),
    "cancelled": ({"JobStatus": 3, "AtollStop": "cancelled", "RemoveReason": "x"}, Outcome.CANCELLED, None, None),
    "evicted": ({"JobStatus": 3, "AtollStop": "evicted"}, Outcome.EVICTED, None, None),
    "removed by hand": ({"JobStatus": 3, "RemoveReason": "via condor_rm (by user root)"}, Outcome.LOST, None, None),
    "recalled": ({"JobStatus": 3, "RemoveReason": "Atoll: recalled"}, Outcome.RECALLED, None, None),
    "put back by the pool": (
        {"JobStatus": 3, "RemoveReason": "The job attribute PeriodicRemove expression '...' evaluated to TRUE"},
        Outcome.NODE_FAILED, None, None,
    ),
    "memory": ({"JobStatus": 5, "HoldReasonCode": 34, "HoldReason": "memory"}, Outcome.OUT_OF_MEMORY, None, None),
    "duration": ({"JobStatus": 5, "HoldReasonCode": 46, "HoldReason": "too long"}, Outcome.TIMED_OUT, None, None),
    "execution": ({"JobStatus": 5, "HoldReasonCode": 47, "HoldReason": "too long"}, Outcome.TIMED_OUT, None, None),
    "output": ({"JobStatus": 5, "HoldReasonCode": 12, "NumJobStarts": 1}, Outcome.FAILED, None, None),
    "image": ({"JobStatus": 5, "HoldReasonCode": 35}, Outcome.FAILED, None, None),
    "input": ({"JobStatus": 5, "HoldReasonCode": 13}, Outcome.REFUSED, None, None),
    "machine": ({"JobStatus": 5, "HoldReasonCode": 6, "NumJobStarts": 1}, Outcome.NODE_FAILED, None, None),
    "held and stopped": ({"JobStatus": 5, "HoldReasonCode": 1, "AtollStop": "evicted"}, Outcome.EVICTED, None, None),
    "never spooled": (
        {"JobStatus": 5, "HoldReasonCode": 16, "EnteredCurrentStatus": NOW - SPOOL_SECONDS - 1},
        Outcome.REFUSED, None, None,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(ENDS))
def test_end_is_told_as_it_was(case: str) -> None:
    values, outcome, code, signal = ENDS[case]
    status = ended(**values)
    assert (status.phase, status.outcome, status.exit_code, status.signal) == (Phase.ENDED, outcome, code, signal)
    assert status.native_id == "12.3"
    assert status.ended_at is not None


WAITS: dict[str, tuple[dict[str, Any], Phase, str]] = {
    "idle": ({"JobStatus": 1}, Phase.STARTING, "Idle"),
    "running": ({"JobStatus": 2, "RemoteHost": "slot1@n"}, Phase.RUNNING, "Running on slot1@n"),
    "transferring": ({"JobStatus": 6}, Phase.RUNNING, "Transferring output"),
    "suspended": ({"JobStatus": 7}, Phase.RUNNING, "Suspended"),
    "removed, in its grace": (
        {"JobStatus": 3, "RemoteHost": "slot1@n", "AtollStop": "cancelled"}, Phase.RUNNING, "Removed on slot1@n",
    ),
    "held by a person": (
        {"JobStatus": 5, "HoldReasonCode": 1, "HoldReason": "via condor_hold"}, Phase.STARTING, "Held: via condor_hold",
    ),
    "spooling": ({"JobStatus": 5, "HoldReasonCode": 16}, Phase.STARTING, "Held: 16"),
    "state of tomorrow": ({"JobStatus": 8}, Phase.STARTING, "JobStatus 8"),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(WAITS))
def test_what_has_not_ended_is_not_told_as_ended(case: str) -> None:
    values, phase, words = WAITS[case]
    status = ended(**values)
    assert (status.phase, status.native_state, status.outcome) == (phase, words, None)


@pytest.mark.parametrize("ad", [{}, {"AtollAttempt": 5, "JobStatus": 4}, {"AtollAttempt": "a", "JobStatus": "4"}])
def test_ad_that_is_none_of_ours_says_nothing(ad: dict[str, Any]) -> None:
    assert status_of(ad, NOW) is None


@pytest.mark.parametrize(
    ("ad", "meets"),
    [
        ({"JobStatus": 1}, True),
        ({"JobStatus": 1, "NumJobStarts": 0}, True),
        ({"JobStatus": 5, "NumJobStarts": 0}, True),
        ({"JobStatus": 1, "NumJobStarts": 1}, False),
        ({"JobStatus": 2, "NumJobStarts": 0}, False),
        ({"JobStatus": 4, "NumJobStarts": 1}, False),
        ({"JobStatus": 1, "AtollStop": "cancelled"}, False),
    ],
)
def test_only_what_has_not_begun_is_recalled(ad: dict[str, Any], meets: bool) -> None:
    assert classad2.ExprTree(NOT_BEGUN).eval(classad2.ClassAd(ad)) is meets


def test_times_and_use_are_told_and_zero_means_unset() -> None:
    status = ended(
        JobStatus=4, ExitCode=0, JobCurrentStartExecutingDate=0, JobStartDate=1000, CompletionDate=2000,
        RemoteUserCpu=1.5, RemoteSysCpu=0.25, ResidentSetSize_RAW=2048,
    )  # fmt: skip
    assert status.started_at.timestamp() == 1000
    assert status.ended_at.timestamp() == 2000
    assert (status.cpu_seconds, status.max_memory) == (1.75, 2 << 20)


def test_ads_of_the_bindings_become_plain_values() -> None:
    ad = classad2.ClassAd(
        "[JobStatus = 4; ExitCode = 1 + 2; HoldReason = undefined; Owner = error; RemoteUserCpu = 2.5]"
    )
    assert plain(ad, PROJECTION) == {"JobStatus": 4, "ExitCode": 3, "RemoteUserCpu": 2.5}


def test_ten_thousand_ads_are_read_in_a_second() -> None:
    ads = [
        classad2.ClassAd(
            {
                **BASE, "AtollAttempt": f"aaaaa-{number:016d}", "ProcId": number, "JobStatus": 4, "ExitBySignal": False,
                "ExitCode": 0, "CompletionDate": int(NOW), "JobStartDate": int(NOW) - 60, "RemoteUserCpu": 1.5,
                "RemoteSysCpu": 0.5, "ResidentSetSize_RAW": 5000, "LastRemoteHost": "slot1_1@node17.example.org",
            }
        )
        for number in range(10_000)
    ]  # fmt: skip
    begun = time.process_time()
    line = json.dumps([plain(ad, PROJECTION) for ad in ads])
    statuses = [status_of(ad, NOW) for ad in json.loads(line)]
    assert time.process_time() - begun < 1
    assert {status.outcome for status in statuses if status is not None} == {Outcome.SUCCEEDED}
    assert len(line) < 16 << 20


def test_machines_are_counted_by_kind() -> None:
    def slot(name: str, **values: Any) -> dict[str, Any]:
        usual = {"Machine": name, "PartitionableSlot": True, "TotalSlotCpus": 8, "TotalSlotMemory": 1000, "Cpus": 6}
        return {**usual, "Memory": 900, **values}

    ads = [
        slot("a"),
        slot("b", TotalSlotCpus=16, Cpus=16),
        slot("a", DynamicSlot=True, PartitionableSlot=False, TotalSlotCpus=2),
        slot("g", TotalSlotGPUs=4, GPUs=1, GPUs_DeviceName="NVIDIA A100-SXM4-40GB"),
        slot("s", PartitionableSlot=False, SlotType="Static", State="Claimed", Cpus=8),
        {"Machine": "broken"},
    ]
    cpu, gpu = flavors_of(ads)
    assert (cpu.name, cpu.nodes) == ("cpu", 3)
    assert cpu.total == Resources(32_000, 3000 << 20)
    assert cpu.free == Resources(22_000, 1800 << 20)
    assert cpu.node == Resources(16_000, 1000 << 20)
    assert (gpu.name, gpu.total.gpu, gpu.free) == ("gpu-a100-sxm4-40gb", 4000, Resources(6000, 900 << 20, 1000))
