"""`cancel`, `hold`, `release`, `requeue`, `signal` and `set`: changing jobs that are there."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Jobs, OneJob, Output, command, for_each, references
from atoll.faces.terminal.output import Format, emit, one_or_many, say

if TYPE_CHECKING:
    from atoll.client.models import Changed
    from atoll.client.synchronous import Client
    from atoll.core.ids import JobRef

_SIGNALS = ("HUP", "INT", "QUIT", "KILL", "USR1", "USR2", "TERM", "CONT", "STOP", "ALRM")


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    command(app, "cancel")(cancel)
    command(app, "hold")(hold)
    command(app, "release")(release)
    command(app, "requeue")(requeue)
    command(app, "signal")(send_signal)
    command(app, "set")(change)


def cancel(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Cancel jobs, or some tasks of an array: waiting ones at once, running ones after their grace."""
    _act(client, "cancel", "Cancelled", jobs, output)


def hold(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Keep waiting jobs from starting, until they are released."""
    _act(client, "hold", "Held", jobs, output)


def release(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Let held jobs go on."""
    _act(client, "release", "Released", jobs, output)


def requeue(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Run jobs again from the start, those that have ended too."""
    _act(client, "requeue", "Requeued", jobs, output)


def _act(client: "Client", action: str, done: str, jobs: list[str], output: Format) -> None:
    answers: list[tuple[JobRef, Changed]] = []

    def act(ref: "JobRef") -> None:
        changed: Changed = getattr(client, action)(ref)
        answers.append((ref, changed))

    try:
        for_each(references(jobs), act)
    finally:
        _print_changes(answers, done, output)


def _print_changes(answers: "list[tuple[JobRef, Changed]]", done: str, output: Format) -> None:
    def table() -> None:
        for ref, answer in answers:
            if answer.changed == 0:
                say(f"Nothing to do for job {ref}: it is {answer.job.state}.")
            elif answer.changed > 1 or answer.job.tasks is not None:
                say(f"{done} {answer.changed} tasks of job {ref}.")
            else:
                say(f"{done} job {ref}.")

    if answers:
        emit(
            output,
            one_or_many([{"changed": answer.changed, "job": answer.job.document()} for _, answer in answers]),
            names=lambda: [ref for ref, _ in answers],
            table=table,
        )


def send_signal(
    client: "Client",
    words: Annotated[
        list[str], typer.Argument(metavar="SIGNAL JOB...", help="USR1 12, TERM 12[3].", show_default=False)
    ],
    output: Output = Format.TABLE,
) -> None:
    """Send a signal to the processes of running jobs: atoll signal USR1 12."""
    name, jobs = words[0], words[1:]
    if jobs and name[:1].isdigit() and not jobs[-1][:1].isdigit():
        name, jobs = words[-1], words[:-1]  # as people type it who think of the job first
    signal = name.upper().removeprefix("SIG")
    if signal not in _SIGNALS:
        known = f"Write one of {', '.join(_SIGNALS)}, as in: atoll signal USR1 12."
        raise Invalid("bad_signal", f"There is no signal {name!r} to send. {known}", field="signal")
    if not jobs:
        raise Invalid("no_job", f"Name a job: atoll signal {signal} 12.", field="job")
    answers: list[tuple[JobRef, Changed]] = []
    try:
        for_each(references(jobs), lambda ref: answers.append((ref, client.signal(ref, signal))))
    finally:
        _print_changes(answers, "Signalled", output)


def change(
    client: "Client",
    job: OneJob,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Its name.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Its priority; higher goes first.")] = None,
    time: Annotated[str | None, typer.Option("--time", "-t", metavar="TIME", help="Its walltime: 90, 1h30m, 1:30:00; "
                                             "a number alone is minutes.")] = None,
    begin: Annotated[str | None, typer.Option(metavar="TIME", help="Not before: now+1hour, 16:00, 2026-05-01T12:00; "
                                              "or now.")] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="How often a failure is tried again.")] = None,
    rerun: Annotated[bool | None, typer.Option(help="Run again when the site lost it.")] = None,
    grace: Annotated[str | None, typer.Option(metavar="TIME", help="Between being asked to stop and killed; a number "
                                              "alone is seconds.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="Its labels, instead of all that it "
                                                    "had; may be repeated.")] = None,
    constraint: Annotated[list[str] | None, typer.Option(metavar="TERM", help="Its constraints, instead of all that "
                                                         "it had; may be repeated.")] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="Who pays, while it waits.")] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Change what may still be changed of a job."""
    from atoll.core.resources import parse_seconds
    from atoll.jobs.commands import options

    fields: dict[str, Any] = {
        "name": name, "priority": priority, "retries": retries, "rerun": rerun, "project": project,
    }  # fmt: skip
    fields = {key: value for key, value in fields.items() if value is not None}
    if time is not None:
        fields["walltime"] = options.read("--time", time, options.walltime)
    if begin is not None:
        fields["begin"] = options.read("--begin", begin, options.begin).isoformat()
    if grace is not None:
        fields["grace"] = options.read("--grace", grace, parse_seconds)
    if label:
        fields["labels"] = options.pairs("--label", label)
    if constraint:
        fields["constraints"] = constraint
    if not fields:
        raise Invalid("nothing_to_set", f"Say what to change: atoll set {job} --priority 10. See: atoll set --help.")
    changed = client.change(job, **fields)

    def table() -> None:
        say(f"Changed {', '.join(fields)} of job {changed.id}.")

    emit(output, changed.document(), names=lambda: [changed.id], table=table)
