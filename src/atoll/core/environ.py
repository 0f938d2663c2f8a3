"""The variables that every process of a job finds: `ATOLL_*` always, `SLURM_*` where its script was made for Slurm.

Called by control when it hands an attempt to a driver, which adds what only the site knows: `ATOLL_SCRATCH`,
`ATOLL_CHECKPOINT_DIR`, and, where the command runs on several nodes, each node's rank and the first one's address.
"""

from collections.abc import Mapping
from functools import lru_cache

from atoll.core.ranges import ArraySpec, Ranges
from atoll.core.resources import Resources
from atoll.core.spec import JobSpec

_MEBIBYTE = 1024 * 1024


def attempt_environment(
    spec: JobSpec,
    *,
    job_id: int,
    task: int | None,
    number: int,
    request: Resources,
    person: str,
    project: str | None = None,
    node_rank: int = 0,
    master_addr: str = "127.0.0.1",
    site: str | None = None,
) -> dict[str, str]:
    """Variables of one attempt of a job, or of the array task `task`.

    `number` is 1 for the first attempt; `request` is what it has on each node, in milli-CPU, bytes and milli-GPU;
    `project` the one that pays, where the specification left it open. A job without an array is task 0 of 1. Counts
    of CPUs and GPUs are whole: rounded up, and at least one CPU.
    """
    tasks = array_tasks(spec.array)
    variables = {
        "ATOLL_JOB_ID": str(job_id),
        "ATOLL_TASK_ID": str(task or 0),
        "ATOLL_TASK_COUNT": str(len(tasks) if tasks is not None else 1),
        "ATOLL_NODE_RANK": str(node_rank),
        "ATOLL_NODES": str(spec.nodes),
        "ATOLL_MASTER_ADDR": master_addr,
        "ATOLL_CPUS": str(_whole(request.cpu)),
        "ATOLL_ATTEMPT": str(number),
    }
    if spec.slurm:
        job_name = str(job_id) if task is None else f"{job_id}_{task}"
        variables |= _slurm_size(spec, request) | {
            "SLURM_JOB_ID": job_name,
            "SLURM_JOBID": job_name,
            "SLURM_JOB_NAME": spec.title,
            "SLURM_JOB_USER": person,
            "SLURM_JOB_QOS": spec.class_.value,
            "SLURM_NODEID": str(node_rank),
            "SLURM_PROCID": str(node_rank),
            "SLURM_LOCALID": "0",
        }
        variables |= _slurm_array(job_id, task, tasks) if task is not None and tasks is not None else {}
        if number > 1:
            variables["SLURM_RESTART_COUNT"] = str(number - 1)
        if account := spec.project or project:
            variables["SLURM_JOB_ACCOUNT"] = account
        if site is not None:
            variables["SLURM_CLUSTER_NAME"] = site
        if folder := spec.env.get("SLURM_SUBMIT_DIR") or spec.workdir:
            variables["SLURM_SUBMIT_DIR"] = folder
    return variables


@lru_cache(maxsize=256)
def array_tasks(array: str | None) -> Ranges | None:
    """The tasks of a specification's `array`; kept, because all attempts of an array ask for the same."""
    return ArraySpec.parse(array).tasks if array is not None else None


def _slurm_array(job_id: int, task: int, tasks: Ranges) -> dict[str, str]:
    return {
        "SLURM_ARRAY_JOB_ID": str(job_id),
        "SLURM_ARRAY_TASK_ID": str(task),
        "SLURM_ARRAY_TASK_COUNT": str(len(tasks)),
        "SLURM_ARRAY_TASK_MIN": str(min(part[0] for part in tasks.parts)),
        "SLURM_ARRAY_TASK_MAX": str(max(part[-1] for part in tasks.parts)),
        "SLURM_ARRAY_TASK_STEP": str(tasks.parts[0].step if len(tasks.parts) == 1 else 1),
    }


def _slurm_size(spec: JobSpec, request: Resources) -> dict[str, str]:
    """How large the job is. The tasks that --ntasks and its like asked for travel in the job's own variables."""
    cpus = _whole(request.cpu)
    tasks_on_node = _count(spec.env, "SLURM_NTASKS_PER_NODE", 1)
    tasks = _count(spec.env, "SLURM_NTASKS", tasks_on_node * spec.nodes)
    times = f"(x{spec.nodes})" if spec.nodes > 1 else ""
    size = {
        "SLURM_NNODES": str(spec.nodes),
        "SLURM_JOB_NUM_NODES": str(spec.nodes),
        "SLURM_NTASKS": str(tasks),
        "SLURM_NPROCS": str(tasks),
        "SLURM_NTASKS_PER_NODE": str(tasks_on_node),
        "SLURM_TASKS_PER_NODE": f"{tasks_on_node}{times}",
        "SLURM_CPUS_PER_TASK": str(max(1, cpus // tasks_on_node)),
        "SLURM_CPUS_ON_NODE": str(cpus),
        "SLURM_JOB_CPUS_PER_NODE": f"{cpus}{times}",
        "SLURM_MEM_PER_NODE": str(max(1, request.memory // _MEBIBYTE)),
    }
    if request.gpu:
        gpus = _whole(request.gpu)
        size["SLURM_GPUS_ON_NODE"] = size["SLURM_GPUS_PER_NODE"] = str(gpus)
        size["SLURM_GPUS"] = str(gpus * spec.nodes)
    return size


def _whole(milli: int) -> int:
    """A number for programs that count whole things, from thousandths."""
    return max(1, -(-milli // 1000))


def _count(variables: Mapping[str, str], name: str, default: int) -> int:
    text = variables.get(name, "")
    return int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else default
