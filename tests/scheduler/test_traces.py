"""Traces of every format are read as what ran; rows that say what cannot be are told, and do no harm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from atoll.core.errors import Invalid
from atoll.core.resources import Resources
from atoll.core.spec import JobClass
from atoll.scheduler.traces import Trace, TraceJob, history, read_trace, swf
from atoll.scheduler.traces.openb import read_nodes

EXAMPLES = Path(__file__).parents[2] / "examples" / "simulate"
GIB = 2**30
PODS = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"


def example(name: str) -> str:
    return (EXAMPLES / name).read_text()


def read(text: str) -> Trace:
    return read_trace(text, "trace")


def pod(row: str) -> TraceJob:
    trace = read(PODS + row)
    assert trace.broken == 0
    return trace.jobs[0]


def swf_row(**cells: object) -> str:
    row = dict.fromkeys(swf.FIELDS, "-1") | {
        "job number": "1", "submit time": "0", "run time": "60", "requested processors": "4", "status": "1",
    }  # fmt: skip
    return " ".join(
        str(value) for value in (row | {key.replace("_", " "): cell for key, cell in cells.items()}).values()
    )


def line(**fields: object) -> str:
    row = {"id": "1", "submitted": "2026-01-01T00:00:00Z", "started": "2026-01-01T00:01:00Z",
           "ended": "2026-01-01T00:11:00Z", "cpu": 1}  # fmt: skip
    return json.dumps({key: value for key, value in (row | fields).items() if value is not None})


@pytest.mark.parametrize(
    ("name", "kind", "jobs", "left_out"),
    [("openb_pods.csv", "openb", 50, 0), ("department.swf", "swf", 49, 1), ("history.jsonl", "history", 49, 1)],
)
def test_the_examples_are_told_apart_and_read_without_a_broken_row(
    name: str, kind: str, jobs: int, left_out: int
) -> None:
    trace = read(example(name))
    assert (trace.format, len(trace.jobs), trace.broken) == (kind, jobs, 0)
    assert len(trace.notes) == left_out
    times = [job.submitted for job in trace.jobs]
    assert times == sorted(times)
    assert times[0] == 0


# ---- openb


@pytest.mark.parametrize(
    ("quality", "job_class"),
    [("LS", JobClass.INTERACTIVE), ("Burstable", JobClass.BATCH), ("Guaranteed", JobClass.BATCH),
     ("BE", JobClass.OPPORTUNISTIC)],
)  # fmt: skip
def test_a_pods_quality_of_service_is_its_class(quality: str, job_class: JobClass) -> None:
    assert pod(f"p,1000,1024,0,0,,{quality},Running,0,10,0").job_class is job_class


def test_a_share_of_one_gpu_is_kept_and_several_are_whole() -> None:
    assert pod("p,2000,1024,1,460,,LS,Running,0,10,0").request == Resources(2000, GIB, 460)
    assert pod("p,2000,1024,8,1000,,LS,Running,0,10,0").request == Resources(2000, GIB, 8000)
    assert pod("p,2000,1024,0,0,,LS,Running,0,10,0").request == Resources(2000, GIB)


def test_allowed_models_are_flavors() -> None:
    assert pod("p,2000,1024,1,1000,V100M16|T4,LS,Running,0,10,0").flavors == ("V100M16", "T4")


def test_a_pods_work_takes_from_its_start_to_its_end_and_without_a_start_as_long_as_it_was_there() -> None:
    assert pod("p,1,1,0,0,,LS,Running,5,100,30").runtime == 70_000_000
    assert pod("p,1,1,0,0,,LS,Pending,5,100,").runtime == 95_000_000


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        ("p,1,1,0,0,,LS,Running,0,10", "there are 10 fields instead of 11"),
        ("p,one,1,0,0,,LS,Running,0,10,0", "cpu_milli is 'one', which is no number"),
        ("p,nan,1,0,0,,LS,Running,0,10,0", "cpu_milli is 'nan', which is no number"),
        ("p,-1,1,0,0,,LS,Running,0,10,0", "cpu_milli is negative ('-1')"),
        ("p,1,9999999999999,0,0,,LS,Running,0,10,0", "memory_mib is beyond sense ('9999999999999')"),
        ("p,1,1,0,0,,LS,Running,0,10,20", "it ends before it starts"),
        ("p,1,1,0,0,,Best,Running,0,10,0", "qos is 'Best', and not one of LS, Guaranteed, Burstable, BE"),
    ],
)
def test_a_broken_row_is_named_with_its_line_and_the_others_are_read(row: str, clause: str) -> None:
    trace = read(f"{PODS}p,1,1,0,0,,LS,Running,0,10,0\n\n{row}\np,1,1,0,0,,LS,Running,0,10,0\n")
    assert len(trace.jobs) == 2
    assert trace.broken == 1
    assert (trace.problems[0].line, trace.problems[0].clause) == (4, clause)


def test_at_most_twenty_broken_rows_are_named_and_all_are_counted() -> None:
    trace = read(PODS + "p,1,1,0,0,,LS,Running,0,10,0\n" + "broken\n" * 30)
    assert trace.broken == 30
    assert len(trace.problems) == 20


def test_a_clock_that_jumps_back_is_mentioned_and_the_jobs_are_sorted() -> None:
    rows = [f"p{at},1,1,0,0,,LS,Running,{at},{at + 5},{at}" for at in (50, 10, 30, 20)]
    trace = read(PODS + "\r\n".join(rows))
    assert [job.name for job in trace.jobs] == ["p10", "p20", "p30", "p50"]
    assert [job.submitted for job in trace.jobs] == [0, 10_000_000, 20_000_000, 40_000_000]
    assert trace.notes == ("The clock of the trace jumps back (2 times); its jobs are sorted by their submission.",)


def test_nodes_without_gpus_are_of_the_flavor_cpu_and_others_of_their_model() -> None:
    nodes, broken, problems = read_nodes(
        "sn,cpu_milli,memory_mib,gpu,model\na,4000,1024,0,\nb,8000,1024,2,T4\nc,x,1,0,\n"
    )
    assert [(node.name, node.flavor, node.amount.gpu) for node in nodes] == [("a", "cpu", 0), ("b", "T4", 2000)]
    assert (broken, problems[0].line) == (1, 4)


# ---- Standard Workload Format


def test_a_row_of_swf_is_a_job_of_processors_that_may_be_spread() -> None:
    job = read("; Version: 2.2\n" + swf_row(requested_time=120, requested_memory=1024, user=3, group=2)).jobs[0]
    assert job == TraceJob(
        "1", 0, 60_000_000, Resources(4000, 4 * 2**20), walltime=120, project="group-2", person="user-3", spreads=True
    )


def test_what_swf_does_not_know_is_taken_from_what_it_does() -> None:
    job = read(swf_row(requested_processors=-1, allocated_processors=2, used_memory=10)).jobs[0]
    assert job.request == Resources(2000, 2 * 10 * 1024)
    assert (job.walltime, job.project, job.person) == (None, "", "")


def test_queue_0_of_swf_is_interactive() -> None:
    assert read(swf_row(queue=0)).jobs[0].job_class is JobClass.INTERACTIVE


def test_parts_of_jobs_and_jobs_that_never_ran_are_left_out_of_swf() -> None:
    text = "\n".join([swf_row(), swf_row(status=2), swf_row(status=3), swf_row(run_time=-1, status=5)])
    trace = read(text)
    assert (len(trace.jobs), trace.broken) == (1, 0)
    assert trace.notes == ("Left out are rows of parts of jobs, or of jobs that never ran: 3.",)


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        ("1 2 3", "there are 3 fields instead of 18"),
        (swf_row(run_time="soon"), "run time is 'soon', which is no number"),
        (swf_row(run_time=-7), "run time is negative ('-7')"),
        (swf_row(requested_memory=10**15, requested_processors=100), "its memory is beyond sense"),
        (swf_row(submit_time=-1), "submit time is negative ('-1')"),
    ],
)
def test_a_broken_row_of_swf_is_named(row: str, clause: str) -> None:
    trace = read(f"{swf_row()}\n; a comment\n{row}\n")
    assert (trace.broken, trace.problems[0].line) == (1, 3)
    assert clause in trace.problems[0].clause


def test_the_header_of_swf_is_keys_and_values() -> None:
    assert swf.header(example("department.swf"))["UnixStartTime"] == "1767571200"


# ---- the platform's own history


def test_a_line_of_history_says_all_of_a_job() -> None:
    job = read(
        line(person="ada", project="physics", cpu="500m", memory="4G", gpu=2, nodes=3, flavors=["gpu-a100"],
             walltime="1h", grace=20, checkpoint=600, **{"class": "interactive"})
    ).jobs[0]  # fmt: skip
    assert job == TraceJob(
        "1", 0, 600_000_000, Resources(500, 4 * GIB, 2000), 3, 3600, JobClass.INTERACTIVE, "physics", "ada",
        ("gpu-a100",), 20, 600,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("row", "clause"),
    [
        ("{", "it is no JSON"),
        ("[]", "it is no object with fields"),
        (line(submitted=None), "it does not say submitted"),
        (line(submitted=12), "submitted is 12, which is no time"),
        (line(ended="2026-01-01T00:05:00"), "ended is '2026-01-01T00:05:00', which lacks its time zone"),
        (line(ended="2025-01-01T00:05:00Z"), "it ends before it starts"),
        (line(nodes=0), "nodes is 0, which is no number of nodes"),
        (line(cpu="many"), "cpu: 'many' is no amount; write for example 2, 0.5 or 500m"),
        (line(memory="2P"), "memory is beyond sense"),
        (line(gpu="1500m"), "gpu is '1500m', which is neither whole GPUs nor a part of one"),
        (line(**{"class": "best"}), "class is 'best', and not one of interactive, service, batch, opportunistic"),
        (line(flavors="a100"), "flavors is 'a100', and not a list of names"),
    ],
)
def test_a_broken_line_of_history_is_named(row: str, clause: str) -> None:
    trace = read(f"{line()}\n{row}\n")
    assert (len(trace.jobs), trace.broken, trace.problems[0].line) == (1, 1, 2)
    assert clause in trace.problems[0].clause


def test_what_the_http_api_tells_of_jobs_is_a_history() -> None:
    told = {
        "id": "7", "owner": "ada", "project": None, "class": "batch", "state": "succeeded", "cpu": "2",
        "memory": GIB, "gpu": "0", "nodes": 1, "submitted_at": "2026-01-01T00:00:00Z",
        "started_at": "2026-01-01T00:00:05Z", "ended_at": "2026-01-01T00:01:05Z", "outcome": "succeeded",
        "spec": {"flavor": ["cpu"], "walltime": 300, "grace": 30, "checkpoint": {"every": 60}},
    }  # fmt: skip
    array = told | {"id": "8", "tasks": {"total": 5}}
    assert history.of_job(told)["outcome"] == "succeeded"
    assert set(history.of_job(told)) < set(history.FIELDS)
    trace = read(json.dumps([told, array, told | {"id": "9", "started_at": None}, 7]))
    assert [job.name for job in trace.jobs] == ["7"]
    assert trace.jobs[0].flavors == ("cpu",)
    assert (trace.jobs[0].runtime, trace.jobs[0].walltime, trace.jobs[0].checkpoint) == (60_000_000, 300, 60)
    assert trace.notes[0].endswith(": 2.")
    assert trace.problems[0].line == 4


# ---- no trace


@pytest.mark.parametrize("text", ["", "\n \n", PODS, PODS + "broken\n", "{}\n", "[]", "; only comments\n", "["])
def test_a_trace_without_a_job_is_refused(text: str) -> None:
    with pytest.raises(Invalid, match=r"is empty|has no job that can be run") as caught:
        read(text)
    assert caught.value.field == "trace"


@pytest.mark.parametrize("text", ["hello\n", "name,cpu\n", "\0\1\2", "1 2 3\n", "sites: []\n"])
def test_what_is_no_trace_is_refused_with_what_would_be_one(text: str) -> None:
    with pytest.raises(Invalid, match="Standard Workload Format"):
        read(text)


def test_a_missing_column_is_named() -> None:
    with pytest.raises(Invalid, match="no column memory_mib"):
        read("name,cpu_milli,num_gpu,creation_time\n")
