"""What plugins say of pods is read as Kubernetes means it; what says nothing is never taken for an end."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import DriverError, Phase
from atoll.drivers.interlink.capacity import quantity, told_resources, told_taints
from atoll.drivers.interlink.states import read_pod, read_statuses


def told(state: Any, **more: Any) -> Any:
    return read_pod({"UID": "u", "JID": "5", "containers": [{"name": "job", "state": state}], **more}, "a").status


@pytest.mark.parametrize("state", [{}, None, [], {"running": None, "waiting": None, "terminated": None}, {"other": {}}])
def test_state_without_a_set_part_says_nothing(state: Any) -> None:
    assert told(state) is None


@pytest.mark.parametrize("containers", [[], None, {}, [None], "x"])
def test_pod_without_containers_has_not_completed(containers: Any) -> None:
    assert read_pod({"UID": "u", "containers": containers}, "a").status is None


def test_only_the_set_part_counts() -> None:
    status = told({"waiting": None, "running": {"startedAt": "2026-05-01T10:00:00Z"}, "terminated": None})
    assert (status.phase, status.started_at) == (Phase.RUNNING, datetime(2026, 5, 1, 10, tzinfo=UTC))
    status = told({"waiting": {"reason": "JobHeld", "message": "memory\nused up"}})
    assert (status.phase, status.native_state) == (Phase.STARTING, "waiting: JobHeld: memory used up")


ENDS: dict[str, tuple[dict[str, Any], Outcome, int | None, int | None]] = {
    "success": ({"exitCode": 0, "reason": "Completed"}, Outcome.SUCCEEDED, 0, None),
    "success without a reason": ({"exitCode": 0}, Outcome.SUCCEEDED, 0, None),
    "failure": ({"exitCode": 3, "reason": "Error"}, Outcome.FAILED, 3, None),
    "signal by its code": ({"exitCode": 139}, Outcome.FAILED, 139, 11),
    "signal by its number": ({"exitCode": 1, "signal": 9}, Outcome.FAILED, 1, 9),
    "memory": ({"exitCode": 137, "reason": "OOMKilled"}, Outcome.OUT_OF_MEMORY, 137, 9),
    "walltime of Slurm": ({"exitCode": 0, "reason": "SlurmJobTimeout"}, Outcome.TIMED_OUT, 0, None),
    "walltime of Kubernetes": ({"exitCode": 143, "reason": "DeadlineExceeded"}, Outcome.TIMED_OUT, 143, 15),
    "eviction": ({"exitCode": 137, "reason": "Preempted"}, Outcome.EVICTED, 137, 9),
    "removed behind our back": ({"reason": "Cancelled"}, Outcome.LOST, None, None),
    "code that is none": ({"exitCode": "0"}, Outcome.LOST, None, None),
}


@pytest.mark.parametrize("case", sorted(ENDS))
def test_end_is_told_as_it_was(case: str) -> None:
    part, outcome, code, signal = ENDS[case]
    status = told({"terminated": part})
    assert (status.phase, status.outcome, status.exit_code) == (Phase.ENDED, outcome, code)
    if outcome is not Outcome.TIMED_OUT or signal is not None:
        assert status.signal == signal
    assert outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.EVICTED) or status.message


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "yesterday", 17, None, "1" * 200])
def test_time_that_nobody_knows_is_none(moment: Any) -> None:
    status = told({"terminated": {"exitCode": 0, "startedAt": moment, "finishedAt": "2026-05-01T10:00:00.123456789Z"}})
    assert status.started_at is None
    assert status.ended_at == datetime(2026, 5, 1, 10, 0, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize("answer", [{}, "text", 5, True, [1], [{"UID": 5}], [{"name": "x"}], [[]]])
def test_answer_that_lists_no_pods_is_an_error_in_one_sentence(answer: Any) -> None:
    with pytest.raises(DriverError) as caught:
        read_statuses(answer)
    assert str(caught.value).endswith(".")


def test_empty_answers_are_no_pods() -> None:
    assert read_statuses(None) == read_statuses([]) == {}


def test_ten_thousand_pods_are_read_in_a_second() -> None:
    state = {"terminated": {"exitCode": 0, "startedAt": "2026-05-01T10:00:00Z", "finishedAt": "2026-05-01T11:00:00Z"}}
    answer = [{"UID": str(n), "JID": "1", "containers": [{"name": "job", "state": state}]} for n in range(10_000)]
    begun = time.process_time()
    statuses = [read_pod(pod, uid).status for uid, pod in read_statuses(answer).items()]
    assert time.process_time() - begun < 1
    assert all(status is not None and status.outcome is Outcome.SUCCEEDED for status in statuses)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("4", 4),
        ("500m", 0.5),
        ("1.5", 1.5),
        ("2Ki", 2048),
        ("3G", 3e9),
        ("1e3", 1000),
        ("k", None),
        ("-1", None),
        ({}, None),
    ],
)
def test_quantities_of_kubernetes_are_read(text: Any, amount: float | None) -> None:
    assert quantity(text) == amount


def test_resources_and_taints_of_a_ping_are_read_and_garbage_is_not() -> None:
    ping = {
        "resources": {
            "cpu": "2500m", "memory": "1Gi",
            "accelerators": [
                {"resourceType": "nvidia.com/gpu", "available": "4"}, {"resourceType": "x", "available": "9"}, 5,
            ],
        },
        "taints": [
            {"key": "down", "value": "yes", "effect": "NoSchedule"}, {"key": "b", "effect": "PreferNoSchedule"}, 3,
        ],
    }  # fmt: skip
    resources = told_resources(ping, "nvidia.com/gpu")
    assert resources is not None
    assert (resources.cpu, resources.memory, resources.gpu) == (2500, 1 << 30, 4000)
    assert told_taints(ping) == ["down=yes:NoSchedule"]
    empty: list[Any] = [None, [], {}, {"resources": 3}, {"resources": {"cpu": "x", "memory": "1"}}, {"taints": 3}]
    for nothing in empty:
        assert told_resources(nothing, "nvidia.com/gpu") is None
        assert told_taints(nothing) == []
