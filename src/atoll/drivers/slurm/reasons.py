"""Slurm's reasons in sentences: why a job waits, and how one ended that Slurm itself ended."""

from atoll.drivers.slurm.jobs import SlurmJob

PENDING: dict[str, str] = {
    "None": "Waits for Slurm to look at it.",
    "Priority": "Waits in Slurm's queue behind jobs with a higher priority.",
    "Resources": "Waits in Slurm's queue for nodes, CPUs, memory or GPUs to become free.",
    "Dependency": "Waits in Slurm's queue for another job of Slurm's to end.",
    "DependencyNeverSatisfied": "Can never start: the job of Slurm's that it depends on ended otherwise.",
    "BeginTime": "Waits for the time from which Slurm may start it.",
    "JobHeldAdmin": "Is held in Slurm by the cluster's administrator.",
    "JobHeldUser": "Is held in Slurm; release it there with: scontrol release.",
    "JobArrayTaskLimit": "Waits because the array runs as many tasks at once as it may.",
    "JobLaunchFailure": "Could not be launched by Slurm, perhaps for a file system that was not there.",
    "Licenses": "Waits in Slurm's queue for a licence.",
    "PartitionDown": "Waits because the partition is down.",
    "PartitionInactive": "Waits because the partition is inactive and starts no job now.",
    "PartitionNodeLimit": "Cannot start: it asks for more nodes than the partition allows.",
    "PartitionTimeLimit": "Cannot start: it asks for more time than the partition allows.",
    "PartitionConfig": "Cannot start: it asks for something that the partition does not allow.",
    "ReqNodeNotAvail": "Waits because nodes that it needs are down, drained or reserved.",
    "NodeDown": "Waits because a node that it needs is down.",
    "BadConstraints": "Cannot start: no node has the features that it asks for.",
    "Reservation": "Waits for its reservation to begin.",
    "ReservationDeleted": "Cannot start: its reservation was deleted.",
    "InvalidAccount": "Cannot start: its Slurm account is not valid.",
    "InvalidQOS": "Cannot start: its quality of service is not valid.",
    "AccountingPolicy": "Waits because a limit of Slurm's accounting is reached.",
    "AssociationJobLimit": "Waits because the account runs as many jobs as Slurm allows it.",
    "AssociationResourceLimit": "Waits because the account uses as much as Slurm allows it.",
    "AssociationTimeLimit": "Waits because the account has used up the time that Slurm allows it.",
    "QOSJobLimit": "Waits because its quality of service runs as many jobs as Slurm allows.",
    "QOSResourceLimit": "Waits because its quality of service uses as much as Slurm allows.",
    "QOSTimeLimit": "Waits because its quality of service has used up its time.",
    "QOSNotAllowed": "Cannot start: the account may not use this quality of service.",
    "FrontEndDown": "Waits because the front end is down.",
    "Cleaning": "Waits for an earlier run of it to be tidied up.",
    "Prolog": "Waits for the cluster's prolog to end.",
    "BootFailure": "Waits because its nodes could not be booted.",
    "NodeRebooting": "Waits for its nodes to be booted.",
    "BurstBufferResources": "Waits for space in the burst buffer.",
    "BurstBufferStageIn": "Waits for its files to be brought into the burst buffer.",
    "DeadLine": "Can no longer end before its deadline.",
    "MaxRequeueLimit": "Is held because Slurm restarted it too often.",
    "MaxMemPerLimit": "Cannot start: it asks for more memory than Slurm's limits allow.",
    "SchedDefer": "Waits until Slurm looks at its queue as a whole.",
}  # fmt: skip
"""By the reason's code, as squeue shows it."""

_ALIASES = {"launch_failed_requeued_held": "JobLaunchFailure", "Nodes_required_for_job_are_DOWN": "NodeDown"}

NEVER = frozenset(
    {
        "DependencyNeverSatisfied", "PartitionNodeLimit", "PartitionTimeLimit", "BadConstraints", "ReservationDeleted",
        "InvalidAccount", "InvalidQOS", "QOSNotAllowed",
    }
)  # fmt: skip
"""Reasons that waiting does not mend."""


def pending_sentence(job: SlurmJob) -> str:
    """Why a job waits in Slurm's queue, with Slurm's own word for it."""
    code = _ALIASES.get(job.reason, job.reason) or "None"
    sentence = PENDING.get(code)
    if sentence is None:
        sentence = _of_limits(code)
    if job.description and job.description not in ("None", code):
        sentence = f"{sentence} Slurm says: {_one_line(job.description)}."
    return f"{sentence} ({code})" if code != "None" else sentence


def _of_limits(code: str) -> str:
    """A sentence for the many reasons that name one limit of accounting each: QOSMaxCpuPerUserLimit."""
    if code.startswith("QOS"):
        return "Waits because a limit of its quality of service is reached."
    if code.startswith("Assoc"):
        return "Waits because a limit of its Slurm account is reached."
    return "Waits in Slurm's queue."


_ENDED = {
    "CANCELLED": "it was cancelled at the cluster",
    "PREEMPTED": "it was preempted by a job with a higher claim",
    "NODE_FAIL": "a node of it failed",
    "BOOT_FAIL": "a node of it could not be booted",
    "REVOKED": "another cluster of the federation took it over",
    "DEADLINE": "its deadline came",
    "TIMEOUT": "its time was over",
}


def ended_sentence(job: SlurmJob) -> str:
    """How Slurm tells of an end, without a full stop."""
    parts = [_ENDED.get(job.state, f"state {job.state}")]
    if job.reason and job.reason not in ("None", job.state, "NonZeroExitCode"):
        parts.append(f"reason {job.reason}")
    if job.description:
        parts.append(_one_line(job.description))
    if job.state == "FAILED" and job.exit_code:
        parts.append(f"exit code {job.exit_code}")
    return ", ".join(parts)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300].rstrip(".")
