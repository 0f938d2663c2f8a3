"""`logs`, `attach`, `wait` and `fetch`: what jobs write, when they end, and what they bring out."""

import sys
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import Conflict, Invalid
from atoll.faces.terminal.command import Jobs, OneJob, Output, command, single_tasks
from atoll.faces.terminal.output import Format, emit, hint, one_or_many, printable, say
from atoll.jobs.commands.following import Follower, exit_code_of, wait_for_all, write

if TYPE_CHECKING:
    from atoll.client.models import Job
    from atoll.client.models import Output as JobOutput
    from atoll.client.synchronous import Client
    from atoll.core.ids import JobRef

_PART = 1024 * 1024
"""Bytes of a log that are asked for at once."""


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    command(app, "logs")(logs)
    command(app, "attach")(attach)
    command(app, "wait")(wait)
    command(app, "fetch")(fetch)


def logs(
    client: "Client",
    jobs: Jobs,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it is written, until the job ends.")] = False,
    task: Annotated[str | None, typer.Option(metavar="N", help="Only these tasks of an array: 3, or 3,7-9.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, metavar="N", help="This attempt. Default: the last.")] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Only the output.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Only the error output, to the output.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="All attempts that ran since: an age as in 2h, or a "
                                              "time. Each is shown whole, as lines carry no times.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", "-n", min=0, metavar="N", help="Only the last N lines.")] = None,
) -> None:  # fmt: skip
    """Print what jobs wrote: output to the output, error output to the error output."""
    if stdout and stderr:
        stdout = stderr = False
    stream = "stdout" if stdout else "stderr" if stderr else "both"
    if task is not None:
        jobs = [_with_task(job, task) for job in jobs]
    refs = single_tasks(jobs)
    if follow:
        if len(refs) > 1 or since:
            raise Invalid("not_one_job", "--follow follows one job, from its last attempt on.", field="--follow")
        Follower(client, refs[0], stream, attempt=attempt, tail=tail).follow()
        return
    for ref in refs:
        if len(refs) > 1:
            hint(f"==> {ref} <==")
        for number in _attempts(client, ref, attempt, since):
            for name in ("stdout", "stderr") if stream == "both" else (stream,):
                for data in _read(client, ref, name, number, tail):
                    write(data, error=stream == "both" and name == "stderr")


def _with_task(job: str, task: str) -> str:
    from atoll.core.ids import JobRef

    if JobRef.parse(job).tasks is not None:
        raise Invalid("two_tasks", f"Name the task once: atoll logs {job}, or --task {task}.", field="--task")
    return f"{job}[{task}]"


def _attempts(client: "Client", ref: "JobRef", attempt: int | None, since: str | None) -> list[int | None]:
    """The attempts to show: None is the last one."""
    if since is None:
        return [attempt]
    from atoll.faces.terminal import times

    moment = times.parse_moment(since, times.now(), "--since")
    found = client.job(ref).attempt_list
    return [
        item.number
        for item in sorted(found, key=lambda item: item.number)
        if (attempt is None or item.number == attempt) and (item.ended_at is None or item.ended_at >= moment)
    ]


def _read(client: "Client", ref: "JobRef", stream: str, attempt: int | None, tail: int | None) -> Iterator[bytes]:
    """What is there of a stream now, in parts."""
    if tail == 0:
        return
    begin = 0
    if tail is not None:
        last = _last_lines(client, ref, stream, attempt, tail)
        yield last
        return
    while True:
        part = client.logs(ref, stream, attempt=attempt, offset=begin, limit=_PART)
        if part.omitted and begin == 0:
            hint(f"{part.omitted} bytes of {stream} in the middle were not kept")
        if part.data:
            yield part.data
        if not part.data or part.end >= part.size:
            return
        begin = part.end


def _last_lines(client: "Client", ref: "JobRef", stream: str, attempt: int | None, count: int) -> bytes:
    """The last `count` lines, read from the end in growing steps."""
    back = 16 * 1024
    while True:
        part = client.logs(ref, stream, attempt=attempt, offset=-back, limit=_PART)
        lines = part.data.splitlines(keepends=True)
        if part.offset == 0 or len(lines) > count or back >= _PART or len(part.data) < min(back, part.size):
            return b"".join(lines[-count:])
        back = min(back * 8, _PART)


def attach(client: "Client", job: OneJob) -> None:
    """Follow a job's output from now on and end with its exit code; Ctrl-C detaches and lets it run."""
    from atoll.core.ids import JobRef

    ref = JobRef.parse(job)
    try:
        Follower(client, ref, tail=10).follow()
    except KeyboardInterrupt:
        hint(f"detached; job {ref} goes on")
        return
    raise typer.Exit(exit_code_of(client, client.wait(ref)))


def wait(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Wait until jobs have ended, and end with the exit code of the first that did not succeed."""
    ended: list[Job] = []
    code = wait_for_all(client, [str(ref) for ref in single_tasks(jobs)], ended)
    emit(
        output,
        one_or_many([job.document() for job in ended]),
        names=lambda: [job.id for job in ended],
        table=lambda: None,
    )
    raise typer.Exit(code)


def fetch(
    client: "Client",
    job: OneJob,
    patterns: Annotated[
        list[str] | None, typer.Argument(metavar="PATTERN", help="Only these: '*.csv'.", show_default=False)
    ] = None,
    into: Annotated[Path | None, typer.Option("--into", metavar="DIR", help="Folder. Default: job-ID.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there with other content.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Bring the files that a job kept (its files_out) into a folder here."""
    from atoll.client.files import hash_file, safe_target
    from atoll.core.ids import JobRef
    from atoll.faces.terminal.progress import bytes_bar

    ref = JobRef.parse(job)
    folder = into or Path("job-" + str(ref).replace("[", "_").rstrip("]"))
    found = [item for item in client.outputs(ref) if _wanted(item, patterns)]
    if not found:
        hint(
            f"job {ref} has no {'such ' if patterns else ''}outputs; name what to keep with: atoll submit --out PATTERN"
        )
    needed: list[JobOutput] = []
    for item in found:
        target = safe_target(folder, item.path)
        if target.is_file() and hash_file(target)[0] == item.sha256:
            continue
        if target.exists() and not force:
            raise Conflict(
                "file_exists", f"{target} is there with other content; use --force or --into.", field=item.path
            )
        needed.append(item)
    folder.mkdir(parents=True, exist_ok=True)
    with bytes_bar("fetching files", sum(item.size for item in needed)) as progress:
        for item in needed:
            client.fetch(ref, item, folder, progress)
    _print_fetched(found, folder, output)


def _wanted(output: "JobOutput", patterns: list[str] | None) -> bool:
    return not patterns or any(fnmatchcase(output.path, pattern) for pattern in patterns)


def _print_fetched(found: "list[JobOutput]", folder: Path, output: Format) -> None:
    def table() -> None:
        for item in found:
            say(printable(folder / item.path))

    documents = [{**item.document(), "file": str(folder / item.path)} for item in found]
    emit(output, documents, names=lambda: [item.path for item in found], table=table)
    sys.stdout.flush()
