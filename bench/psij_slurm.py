"""The peer of `slurm`: PSI/J's Slurm executor, in a process of its own.

    SLURM_CONF=... python -m bench.psij_slurm

For each line on its input, a number of jobs, it submits so many that sleep, and prints the seconds until Slurm has all.
"""

import sys
import time
from datetime import timedelta

import psij


def submit(executor: psij.JobExecutor, count: int) -> float:
    """Seconds from the first submission until Slurm has given each job a number."""
    attributes = psij.JobAttributes(duration=timedelta(minutes=30))
    spec = psij.JobSpec(executable="/bin/sleep", arguments=["600"], attributes=attributes)
    jobs = [psij.Job(spec) for _ in range(count)]
    began = time.perf_counter()
    for job in jobs:
        executor.submit(job)
    seconds = time.perf_counter() - began
    missing = [job for job in jobs if not job.native_id]
    if missing:
        raise SystemExit(f"{len(missing)} of PSI/J's jobs were not taken")
    return seconds


def main() -> None:
    """Serve the lines on the input until it ends."""
    executor = psij.JobExecutor.get_instance("slurm")
    for line in sys.stdin:
        print(submit(executor, int(line)), flush=True)


if __name__ == "__main__":
    main()
