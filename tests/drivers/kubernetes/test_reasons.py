"""From what a Job and its pods say to the phase, the end and the sentence of an attempt."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from atoll.core.states import Outcome
from atoll.drivers.base import Phase
from atoll.drivers.kubernetes.objects import Job, Pod, read_report
from atoll.drivers.kubernetes.reasons import Reader

NOW = datetime(2026, 5, 1, 12, 0, tzinfo=UTC)
BEGAN, ENDED = "2026-05-01T11:00:00Z", "2026-05-01T11:30:00Z"
ATTEMPT = "abcde-0000000000000000"
READER = Reader(patience=300, start_within=120)


def job(
    *conditions: dict[str, Any],
    nodes: int = 1,
    parallelism: int = 1,
    suspend: bool = False,
    stop: str = "",
    words: str = "",
    each: bool = False,
) -> Job:
    told = {"atoll/stop": stop, "atoll/stop-message": words, "atoll/launch-each": "true" if each else ""}
    return msgspec.convert(
        {
            "metadata": {
                "name": f"atoll-{ATTEMPT}",
                "namespace": "atoll-physics",
                "labels": {"atoll/attempt": ATTEMPT},
                "annotations": {"atoll/nodes": str(nodes)} | {name: value for name, value in told.items() if value},
            },
            "spec": {"parallelism": parallelism, "suspend": suspend},
            "status": {"startTime": BEGAN, "conditions": [{"status": "True", **each} for each in conditions]},
        },
        Job,
    )


def pod(
    phase: str,
    main: dict[str, Any] | None = None,
    *,
    rank: int = 0,
    conditions: list[dict[str, str]] | None = None,
    deleted: bool = False,
    age: timedelta = timedelta(minutes=1),
    **status: str,
) -> Pod:
    states = [{"name": "keeper", "state": {"running": {"startedAt": BEGAN}}}] if main else []
    created = (NOW - age).isoformat()
    metadata: dict[str, Any] = {
        "name": f"p{rank}",
        "labels": {"batch.kubernetes.io/job-completion-index": str(rank)},
        "creationTimestamp": created,
    }
    if deleted:
        metadata["deletionTimestamp"] = ENDED
    statuses = [*states, {"name": "main", "state": main or {}}] if main else []
    return msgspec.convert(
        {
            "metadata": metadata,
            "status": {"phase": phase, "conditions": conditions or [], "containerStatuses": statuses, **status},
        },
        Pod,
    )


def ended(code: int, message: str = "", reason: str = "Error") -> dict[str, Any]:
    times = {"startedAt": BEGAN, "finishedAt": ENDED}
    return {"terminated": {"exitCode": code, "reason": reason, "message": message, **times}}


RUNNING: dict[str, Any] = {"running": {"startedAt": BEGAN}}
DISRUPTED = {"type": "DisruptionTarget", "status": "True"}
FAILED = {"type": "Failed", "reason": "BackoffLimitExceeded", "message": "Job has reached the specified backoff limit"}

ENDS: list[tuple[str, Job, list[Pod], Outcome, int | None, str]] = [
    ("success", job(), [pod("Running", ended(0, "memory 0 0\nexit 0\n"))], Outcome.SUCCEEDED, 0, ""),
    ("failure", job(), [pod("Running", ended(3, "memory 0 0\nexit 3\n"))], Outcome.FAILED, 3, ""),
    (
        "walltime",
        job(),
        [pod("Running", ended(143, "asked timed_out\nmemory 0 0\nsignal 15\n"))],
        Outcome.TIMED_OUT,
        143,
        "walltime",
    ),
    (
        "cancelled, and tidied up",
        job(stop="cancelled"),
        [pod("Running", ended(3, "asked cancelled\nexit 3\n"))],
        Outcome.CANCELLED,
        3,
        "",
    ),
    (
        "evicted by us",
        job(stop="evicted"),
        [pod("Running", ended(137, "asked evicted\nsignal 9\n"))],
        Outcome.EVICTED,
        137,
        "",
    ),
    (
        "ended by itself before it was cancelled",
        job(stop="cancelled"),
        [pod("Running", ended(4, "exit 4\n"))],
        Outcome.FAILED,
        4,
        "",
    ),
    (
        "memory, whole container",
        job(),
        [pod("Failed", ended(137, "", "OOMKilled"))],
        Outcome.OUT_OF_MEMORY,
        137,
        "memory",
    ),
    (
        "memory, one process",
        job(),
        [pod("Running", ended(137, "memory 99 1\nsignal 9\n"))],
        Outcome.OUT_OF_MEMORY,
        137,
        "memory",
    ),
    (
        "a child was killed for memory and the job went on",
        job(),
        [pod("Running", ended(0, "memory 99 1\nexit 0\n", "OOMKilled"))],
        Outcome.SUCCEEDED,
        0,
        "",
    ),
    ("killed by itself", job(), [pod("Running", ended(137, "memory 0 0\nsignal 9\n"))], Outcome.FAILED, 137, ""),
    (
        "preempted by the scheduler",
        job(),
        [pod("Failed", ended(143, "signal 15\n"), conditions=[{**DISRUPTED, "reason": "PreemptionByScheduler"}])],
        Outcome.EVICTED,
        143,
        "another pod",
    ),
    (
        "drained node",
        job(),
        [pod("Failed", ended(143, "signal 15\n"), conditions=[{**DISRUPTED, "reason": "EvictionByEvictionAPI"}])],
        Outcome.NODE_FAILED,
        143,
        "EvictionByEvictionAPI",
    ),
    (
        "node gone before anything was told",
        job(),
        [pod("Failed", conditions=[{**DISRUPTED, "reason": "DeletionByPodGC", "message": "node not found"}])],
        Outcome.NODE_FAILED,
        None,
        "node not found",
    ),
    (
        "node under pressure",
        job(),
        [pod("Failed", reason="Evicted", message="The node was low on resource: memory.")],
        Outcome.NODE_FAILED,
        None,
        "low on resource: memory",
    ),
    (
        "the cluster's deadline",
        job(),
        [pod("Failed", ended(137), reason="DeadlineExceeded")],
        Outcome.TIMED_OUT,
        137,
        "walltime",
    ),
    (
        "pod removed by hand",
        job(),
        [pod("Running", ended(143, "signal 15\n"), deleted=True)],
        Outcome.LOST,
        143,
        "somebody else",
    ),
    (
        "pod removed because nobody could be told inside",
        job(stop="cancelled", parallelism=0),
        [pod("Running", ended(143, "signal 15\n"), deleted=True)],
        Outcome.CANCELLED,
        143,
        "",
    ),
    ("stopped before it began", job(stop="evicted", parallelism=0), [], Outcome.EVICTED, None, ""),
    (
        "given up",
        job(stop="failed", parallelism=0, words="Its image cannot be had: x."),
        [],
        Outcome.FAILED,
        None,
        "image",
    ),
    ("done, and its pod tidied away", job({"type": "Complete"}), [], Outcome.SUCCEEDED, None, ""),
    ("failed, and its pod tidied away", job(FAILED), [], Outcome.LOST, None, "nobody knows how it ended"),
    (
        "failed with its node, and its pod tidied away",
        job({**FAILED, "reason": "PodFailurePolicy", "message": "m"}),
        [],
        Outcome.NODE_FAILED,
        None,
        "m",
    ),
    (
        "no such program to start the container",
        job(),
        [pod("Failed", ended(128, "exec: no such file", "StartError"))],
        Outcome.FAILED,
        128,
        "could not be started: exec: no such file",
    ),
    (
        "image name that can never be",
        job(),
        [pod("Pending", {"waiting": {"reason": "InvalidImageName", "message": "bad"}})],
        Outcome.FAILED,
        None,
        "Its image cannot be had: InvalidImageName: bad.",
    ),
    (
        "image that did not come in time",
        job(),
        [pod("Pending", {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, age=timedelta(minutes=6))],
        Outcome.FAILED,
        None,
        "not found",
    ),
    (
        "nodes that did not come in time",
        job(nodes=2),
        [pod("Running", ended(125, "asked late\nexit 125\n")), pod("Running", RUNNING, rank=1)],
        Outcome.NODE_FAILED,
        125,
        "Not all of its nodes",
    ),
]


@pytest.mark.parametrize(
    ("made", "pods", "outcome", "code", "words"), [end[1:] for end in ENDS], ids=[end[0] for end in ENDS]
)
def test_end_is_told_as_it_was(made: Job, pods: list[Pod], outcome: Outcome, code: int | None, words: str) -> None:
    status = READER.status(made, pods, NOW)
    assert (status.phase, status.outcome, status.exit_code) == (Phase.ENDED, outcome, code)
    assert words in status.message
    assert not status.message or status.message.endswith(".")
    assert status.attempt_id == ATTEMPT
    assert status.native_id == f"atoll-physics/atoll-{ATTEMPT}"


UNSCHEDULABLE = {
    "type": "PodScheduled",
    "status": "False",
    "reason": "Unschedulable",
    "message": "0/3 nodes are available",
}
WAITS: list[tuple[str, Job, list[Pod], Phase, str]] = [
    ("nothing yet", job(), [], Phase.STARTING, ""),
    ("no room", job(), [pod("Pending", conditions=[UNSCHEDULABLE])], Phase.STARTING, "no room for it now: 0/3 nodes"),
    ("Kueue", job(suspend=True), [], Phase.STARTING, "own queue"),
    ("image on its way", job(), [pod("Pending", {"waiting": {"reason": "ContainerCreating"}})], Phase.STARTING, ""),
    (
        "image that may come yet",
        job(),
        [pod("Pending", {"waiting": {"reason": "ErrImagePull", "message": "m"}})],
        Phase.STARTING,
        "Its image cannot be had: ErrImagePull: m.",
    ),
    ("runs", job(), [pod("Running", RUNNING)], Phase.RUNNING, ""),
    ("runs although it is being stopped", job(stop="cancelled"), [pod("Running", RUNNING)], Phase.RUNNING, ""),
    (
        "one of two nodes",
        job(nodes=2),
        [pod("Running", RUNNING), pod("Pending", rank=1, conditions=[UNSCHEDULABLE])],
        Phase.STARTING,
        "no room",
    ),
    (
        "the first of two nodes is not done yet",
        job(nodes=2, each=True),
        [pod("Running", RUNNING), pod("Running", ended(0, "exit 0\n"), rank=1)],
        Phase.RUNNING,
        "",
    ),
    (
        "its pod is going and still runs",
        job(stop="cancelled", parallelism=0),
        [pod("Running", RUNNING, deleted=True)],
        Phase.RUNNING,
        "",
    ),
]


@pytest.mark.parametrize(("made", "pods", "phase", "words"), [each[1:] for each in WAITS], ids=[e[0] for e in WAITS])
def test_wait_has_a_sentence(made: Job, pods: list[Pod], phase: Phase, words: str) -> None:
    status = READER.status(made, pods, NOW)
    assert (status.phase, status.outcome, status.ended_at) == (phase, None, None)
    assert words in status.message
    assert (status.started_at is not None) == (phase is Phase.RUNNING)


@pytest.mark.parametrize("rank", [0, 1])
def test_nodes_that_wait_in_vain_all_go(rank: int) -> None:
    """Whichever node it was that waited, and although the other has no place yet."""
    late = pod("Running", ended(125, "asked late\nexit 125\n"), rank=rank)
    waits = pod("Pending", rank=1 - rank, conditions=[UNSCHEDULABLE])
    status = READER.status(job(nodes=2), [late, waits], NOW)
    assert (status.phase, status.outcome) == (Phase.ENDED, Outcome.NODE_FAILED)
    assert "Not all of its nodes came up in time" in status.message
    assert READER.late_nodes(job(nodes=2), [late, waits]) == status.message
    stopped = job(nodes=2, stop="late", parallelism=0, words=status.message)
    assert READER.late_nodes(stopped, [late]) == ""
    after = READER.status(stopped, [], NOW)
    assert (after.outcome, after.message) == (status.outcome, status.message)


def test_attempt_is_given_back_whose_node_does_not_take_it_in_time() -> None:
    made = job()
    made.metadata.annotations = {**(made.metadata.annotations or {}), "atoll/on-nodes": "node-7"}
    early, late = (pod("Pending", conditions=[UNSCHEDULABLE], age=timedelta(seconds=age)) for age in (100, 130))
    words = "The node that was chosen for it did not take it in time: 0/3 nodes are available."
    assert READER.late_to_place(made, [early], NOW) == ""
    assert READER.late_to_place(made, [late], NOW) == words
    assert READER.late_to_place(job(), [late], NOW) == "", "the cluster chooses: it waits for as long as it takes"
    assert READER.late_to_place(made, [pod("Running", RUNNING, age=timedelta(hours=1))], NOW) == ""
    after = READER.status(job(stop="late", parallelism=0, words=words), [], NOW)
    assert (after.phase, after.outcome, after.message) == (Phase.ENDED, Outcome.NODE_FAILED, words)


def test_command_that_runs_once_ends_with_its_first_node() -> None:
    pods = [pod("Running", ended(5, "exit 5\n")), pod("Running", RUNNING, rank=1)]
    status = READER.status(job(nodes=2), pods, NOW)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 5)


def test_failure_on_one_of_several_nodes_is_the_attempts_and_ends_the_others() -> None:
    pods = [pod("Running", RUNNING), pod("Running", ended(7, "exit 7\n"), rank=1)]
    made = job(nodes=2, each=True)
    assert READER.status(made, pods, NOW).phase is Phase.RUNNING
    assert READER.failed_node(made, pods)
    pods = [pod("Running", ended(143, "asked peer\nsignal 15\n")), pods[1]]
    status = READER.status(made, pods, NOW)
    assert (status.outcome, status.exit_code) == (Outcome.FAILED, 7), "the failure itself, not what it brought about"
    assert not READER.failed_node(made, pods)


@pytest.mark.parametrize(
    "message",
    [
        "",
        "nonsense",
        "asked\n",
        "asked x y\n",
        "exit 999\n",
        "memory 99999999999999999999999 1\n",
        "exit 3",
        "\0" * 5000,
    ],
)
def test_report_of_a_hostile_job_is_no_error(message: str) -> None:
    report = read_report(message)
    assert report.asked in ("",)
    assert report.exit_code in (None, 3)


def test_report_tells_memory_times_and_signal() -> None:
    report = read_report("memory 123456 0\n0m0.01s 0m0.02s\n0m1.50s 0m0.25s\nsignal 15\n")
    assert (report.exit_code, report.signal, report.max_memory) == (143, 15, 123456)
    assert report.cpu_seconds == pytest.approx(1.78)
