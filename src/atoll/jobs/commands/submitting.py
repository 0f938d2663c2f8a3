"""`submit` and `run`: from a file, a script or a command to jobs."""

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, dump, emit, hint, one_or_many, printable, say
from atoll.jobs.commands import following
from atoll.jobs.commands.looking import expectation
from atoll.jobs.commands.options import IS_COMMAND, SBATCH, JobCommand, job_options

if TYPE_CHECKING:
    from atoll.client.synchronous import Client
    from atoll.core.spec import JobSpec
    from atoll.jobs.commands.sources import Order

Connect = Callable[[], "Client"]
_SBATCH_HELP = (
    "sbatch's options work too, with sbatch's meaning: -n 4 -c 2 --gpus-per-node=1 --mem-per-cpu=2G --export=A=1 "
    "--parsable --wrap ... (-o is the output format here; a file for what the job writes is --stdout). The command "
    "line wins over #ATOLL lines, these over #SBATCH lines and fields of a YAML file."
)
_MOST_JOBS = 10_000
"""Jobs that the platform takes in at once."""


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    command(app, "submit", cls=JobCommand, epilog=_SBATCH_HELP, more=job_options, lazy=True)(submit)
    command(app, "run", cls=JobCommand, epilog=_SBATCH_HELP, more=job_options, lazy=True)(run)
    command(app, "explain", cls=JobCommand, epilog=_SBATCH_HELP, more=job_options, lazy=True)(explain)


Words = Annotated[
    list[str] | None,
    typer.Argument(metavar="[FILE [ARG]... | -- CMD...]", help="A YAML file, a script, or a command after --.",
                   show_default=False),
]  # fmt: skip


def submit(
    connect: "Connect",
    context: typer.Context,
    words: Words = None,
    key: Annotated[str | None, typer.Option("--idempotency-key", metavar="KEY", help="The same key submits once, "
                                            "however often it is sent.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check and print it, submit nothing.")] = False,
    wait: Annotated[bool, typer.Option("--wait", "-W", help="Wait, and end with its exit code.")] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Follow its output, and end with its exit code.")] = False,
    output: Output = Format.TABLE,
    **asked: Any,
) -> None:  # fmt: skip
    """Submit jobs: a YAML file, a script with #SBATCH or #ATOLL lines, or a command after --."""
    order = _order(context, words, asked)
    if "parsable" in order.client:
        output = Format.NAME
    if dry_run or "test-only" in order.client:
        _print_specs(order.specs, output)
        return
    if follow and (len(order.specs) > 1 or order.specs[0].array is not None):
        raise Invalid("not_one_job", "--follow follows one job; use --wait, and atoll logs.", field="--follow")
    with connect() as client:
        ids = _submit(client, order, key, output)
        if follow:
            raise typer.Exit(following.follow_to_end(client, ids[0]))
        if wait or "wait" in order.client:
            raise typer.Exit(following.wait_for_all(client, list(map(str, ids))))


def explain(
    connect: "Connect", context: typer.Context, words: Words = None, output: Output = Format.TABLE, **asked: Any
) -> None:
    """Say whether a job could run, where, and when it would start, without submitting it."""
    order = _order(context, words, asked)
    if len(order.specs) > 1:
        raise Invalid("not_one_job", "explain takes one job, or one array.")
    with connect() as client:
        answer = client.explain(order.specs[0])
    _warn(order, answer.warnings)

    def table() -> None:
        from atoll.faces.terminal import times

        start = answer.estimate.start if answer.estimate is not None else None
        if start is not None and (start - times.now()).total_seconds() < 1:
            say("It could run, and would start at once.")
        else:
            say(f"It could run. {printable(answer.sentence)}")
            if answer.estimate is not None:
                say(f"  {expectation(answer.estimate)}")
        for fact in answer.facts:
            say(f"  {printable(fact)}")

    emit(output, answer.document(), names=lambda: [answer.code], table=table)


def _order(context: typer.Context, words: list[str] | None, asked: dict[str, Any]) -> "Order":
    from atoll.jobs.commands.sources import read_order

    order = read_order(
        words or [], is_command=context.meta[IS_COMMAND], sbatch=context.meta[SBATCH], asked=job_options(**asked)
    )
    if len(order.specs) > _MOST_JOBS:
        raise Invalid("too_many_jobs", f"These are more than {_MOST_JOBS} jobs; submit them in parts, or as an array.")
    _warn(order, order.warnings)
    return order


def _warn(order: "Order", warnings: tuple[str, ...]) -> None:
    if "quiet" not in order.client:
        for warning in warnings:
            hint(f"warning: {printable(warning)}")


def _print_specs(specs: "tuple[JobSpec, ...]", output: Format) -> None:
    documents = [spec.document() for spec in specs]
    emit(
        output,
        one_or_many(documents),
        names=lambda: [spec.title for spec in specs],
        table=lambda: say(dump(Format.YAML, one_or_many(documents))),
    )


def _submit(client: "Client", order: "Order", key: str | None, output: Format) -> list[int]:
    """Send files and jobs, and tell what was submitted. Returns the ids."""
    _upload(client, order)
    if len(order.specs) == 1:
        submitted = client.submit(order.specs[0], hold=order.hold, idempotency_key=key)
        _warn(order, submitted.warnings)
        ids = [submitted.id]
        documents: list[Any] = [submitted.document()]
        lines = [f"Submitted job {submitted.id} ({printable(submitted.name)})"]
        lines[0] += f", {submitted.tasks} tasks" if order.specs[0].array is not None else ""
    else:
        ids = client.submit_many(order.specs, hold=order.hold, idempotency_key=key)
        documents = [{"id": number, "name": spec.title} for number, spec in zip(ids, order.specs, strict=True)]
        lines = [f"Submitted job {document['id']} ({printable(document['name'])})" for document in documents]

    def table() -> None:
        if "quiet" not in order.client:
            for line in lines:
                say(line + (", held." if order.hold else "."))

    emit(output, one_or_many(documents), names=lambda: ids, table=table)
    sys.stdout.flush()
    return ids


def _upload(client: "Client", order: "Order") -> None:
    from atoll.client.files import unique
    from atoll.faces.terminal.progress import bytes_bar

    files = unique(order.files)
    with bytes_bar("sending files", sum(file.size for file in files)) as progress:
        for file in files:
            client.upload(file, progress)


def run(connect: "Connect", context: typer.Context, words: Words = None, **asked: Any) -> None:
    """Submit a job, follow its output and end with its exit code; Ctrl-C asks whether to cancel it."""

    order = _order(context, words, asked)
    if len(order.specs) > 1 or order.specs[0].array is not None:
        raise Invalid("not_one_job", "run takes one job; for several, or an array, use: atoll submit --wait.")
    if order.hold:
        raise Invalid("held", "A held job would never end; use: atoll submit --hold.", field="--hold")
    with connect() as client:
        _upload(client, order)
        submitted = client.submit(order.specs[0])
        _warn(order, submitted.warnings)
        following.follow_asking(client, submitted.id)
        raise typer.Exit(following.end_of_followed(client, submitted.id))
