"""Following a job to its end: its output as it is written, its exit code, and what Ctrl-C means meanwhile."""

import sys
from typing import TYPE_CHECKING

import typer

from atoll.core.errors import AtollError
from atoll.core.states import WAITING, JobState
from atoll.faces.terminal.exits import INTERRUPTED, NO_EXIT_CODE, job_exit_code
from atoll.faces.terminal.output import hint, printable

if TYPE_CHECKING:
    from atoll.client.calls import Reference
    from atoll.client.events import Event
    from atoll.client.models import Job
    from atoll.client.synchronous import Client


_TOLD_BY_OUTPUT = frozenset({"Completed", "NonZeroExitCode"})
"""Ends of which a job itself says what there is to say."""


class Follower:
    """Prints what a job writes as it is written; can be interrupted and go on where it was.

    Output goes to the output and error output to the error output, unless only one `stream` is asked for, which then
    goes to the output.
    """

    def __init__(
        self,
        client: "Client",
        job: "Reference",
        stream: str = "both",
        *,
        attempt: int | None = None,
        tail: int | None = None,
        tell: bool = True,
    ) -> None:
        self._client = client
        self._job = job
        self._stream = stream
        self._attempt = attempt
        self._tail = tail
        self._tell = tell and sys.stderr.isatty()
        """Whether to say why the job waits."""
        self._position: str | None = None
        self._told = ""
        self._seen: int | None = None

    def follow(self) -> None:
        """Print until the job has ended."""
        events = self._client.follow(
            self._job, self._stream, attempt=self._attempt, tail=self._tail, position=self._position
        )
        for event in events:
            self._take(event)
            self._position = event.id or self._position

    def _take(self, event: "Event") -> None:
        if event.name == "chunk":
            chunk = event.json()
            self._new_attempt(chunk.get("attempt"))
            data = str(chunk.get("text", "")).encode("utf-8", "replace")
            to_error = self._stream == "both" and chunk.get("stream") == "stderr"
            write(data, error=to_error)
        elif event.name == "state" and self._tell:
            told = event.json()
            sentence = str((told.get("reason") or {}).get("sentence") or "")
            if told.get("state") in WAITING and sentence and sentence != self._told:
                hint(f"job {self._job}: {printable(sentence)}")
            self._told = sentence

    def _new_attempt(self, attempt: int | None) -> None:
        if self._tell and self._seen is not None and attempt != self._seen:
            hint(f"job {self._job} was started again: attempt {attempt}")
        self._seen = attempt


def write(data: bytes, *, error: bool = False) -> None:
    """Write bytes as they are, at once."""
    stream = sys.stderr if error else sys.stdout
    stream.flush()
    stream.buffer.write(data)
    stream.buffer.flush()


def follow_to_end(client: "Client", job: "Reference") -> int:
    """Follow a job's output to its end. Returns the exit code to end with; Ctrl-C only stops following."""
    Follower(client, job).follow()
    return end_of_followed(client, job)


def end_of_followed(client: "Client", job: "Reference") -> int:
    """The exit code of a job that was followed, with one line where its output does not tell why it ended."""
    ended = client.wait(job)
    if ended.reason is not None and ended.reason.code not in _TOLD_BY_OUTPUT:
        hint(f"job {ended.id} {ended.state}: {printable(ended.reason.sentence)}")
    return job_exit_code(ended)


def follow_asking(client: "Client", job: "Reference") -> None:
    """Follow a job that was just submitted; Ctrl-C asks what is to become of it. Raises typer.Exit on leaving it."""
    follower = Follower(client, job)
    while True:
        try:
            follower.follow()
            return
        except KeyboardInterrupt:
            answer = _ask(job)
        if answer == "c":
            client.cancel(job)
            hint(f"cancelling job {job}")
        elif answer == "d":
            hint(f"job {job} goes on; see it with 'atoll attach {job}', end it with 'atoll cancel {job}'")
            raise typer.Exit(INTERRUPTED)


def _ask(job: "Reference") -> str:
    """What to do: `c`ancel, `d`etach, or nothing. Detach where nobody can be asked, or at a second Ctrl-C."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return "d"
    try:
        sys.stderr.write(f"\natoll: [c]ancel job {job}, [d]etach and let it run, or Enter to go on following: ")
        sys.stderr.flush()
        line = sys.stdin.readline()
    except KeyboardInterrupt:
        sys.stderr.write("\n")
        return "d"
    return line.strip().lower()[:1] if line else "d"


def wait_for_all(client: "Client", jobs: "list[str]", ended: "list[Job] | None" = None) -> int:
    """Wait for jobs, telling of those that did not succeed. Returns the exit code of the first that did not.

    What has ended is added to `ended`.
    """
    first = 0
    for name in jobs:
        job = client.wait(name)
        if ended is not None:
            ended.append(job)
        code = exit_code_of(client, job)
        if code:
            hint(f"job {job.id} {job.state}: {printable(job.reason.sentence if job.reason else '')}")
        first = first or code
    return first


def exit_code_of(client: "Client", job: "Job") -> int:
    """The exit code of a job; of an array that of its first task that did not succeed."""
    from atoll.client.calls import JobFilter

    if job.tasks is None or job.task is not None:
        return job_exit_code(job)
    if job.state == JobState.SUCCEEDED:
        return 0
    states = (JobState.FAILED, JobState.CANCELLED)
    tasks = list(client.jobs(JobFilter(states, array=job.job, ended=True)))
    for task in sorted(tasks, key=lambda found: (found.state != JobState.FAILED, found.task or 0)):
        try:
            return job_exit_code(client.job(task.id)) or NO_EXIT_CODE
        except AtollError:  # purged in between: the next one tells as much
            continue
    return job_exit_code(job)
