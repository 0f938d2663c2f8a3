"""The peer of `trivial`: PSI/J's local executor, in a process of its own because it takes over SIGCHLD.

    python -m bench.psij_local

For each line on its input, a number of jobs, it runs so many `/bin/true` and prints the seconds that they took.
"""

import sys
import time

import psij


def run(executor: psij.JobExecutor, count: int) -> float:
    """Seconds from the first submission until all jobs have ended."""
    began = time.perf_counter()
    jobs = [psij.Job(psij.JobSpec(executable="/bin/true")) for _ in range(count)]
    for job in jobs:
        executor.submit(job)
    ends = [job.wait() for job in jobs]
    seconds = time.perf_counter() - began
    wrong = [end for end in ends if end is None or end.exit_code != 0]
    if wrong:
        raise SystemExit(f"{len(wrong)} of PSI/J's jobs failed, the first as {wrong[0]}")
    return seconds


def main() -> None:
    """Serve the lines on the input until it ends."""
    executor = psij.JobExecutor.get_instance("local")
    for line in sys.stdin:
        print(run(executor, int(line)), flush=True)


if __name__ == "__main__":
    main()
