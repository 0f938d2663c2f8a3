"""`ps`, `show` and `why`: how jobs do, and for what reason."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.core.errors import Invalid
from atoll.core.states import JobState
from atoll.faces.terminal.command import Jobs, Output, command, single_tasks
from atoll.faces.terminal.output import Format, emit, hint, one_or_many, printable, say
from atoll.faces.terminal.tables import Column, coloured, print_facts, print_table

if TYPE_CHECKING:
    from datetime import datetime

    from atoll.client.models import Attempt, Estimate, Job, JobSummary, Why
    from atoll.client.synchronous import Client


def register(app: typer.Typer) -> None:
    """Add these commands to `app`."""
    command(app, "ps")(ps)
    command(app, "show")(show)
    command(app, "why")(why)


def ps(
    client: "Client",
    jobs: Annotated[list[str] | None, typer.Argument(metavar="JOB", help="Only these; of an array its tasks.",
                                                     show_default=False)] = None,
    every: Annotated[bool, typer.Option("--all", "-a", help="Ended jobs too.")] = False,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="Submitted or ended since: an age as in 2h or 1d, "
                                              "or a time as in 2026-05-01T12:00.")] = None,
    state: Annotated[list[str] | None, typer.Option(metavar="STATE", help="Only in this state; repeatable.")] = None,
    project: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this project.")] = None,
    owner: Annotated[str | None, typer.Option(metavar="PERSON", help="Only of this person.")] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="Only of this name.")] = None,
    site: Annotated[str | None, typer.Option(metavar="NAME", help="Only at this site.")] = None,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, metavar="N", help="At most so many, the newest.")] = 100,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """List jobs: those that have not ended, unless you ask for others."""
    from atoll.client.calls import JobFilter
    from atoll.faces.terminal import times

    now = times.now()
    found: list[JobSummary] = []
    if jobs:
        for ref in single_tasks(jobs):
            summary = client.job(ref)
            is_array = ref.tasks is None and summary.tasks is not None
            states = _states(state)
            found += client.jobs(JobFilter(states, array=ref.job, ended=True), limit=limit) if is_array else [summary]
        more = False
    else:
        began = times.parse_moment(since, now, "--since") if since else None
        which = JobFilter(_states(state), owner, project, name, site, began, every)
        found = list(client.jobs(which, limit=limit + 1))
        more = len(found) > limit
        found = found[:limit]

    def table() -> None:
        print_table(_columns(found, now), found)

    emit(output, [_summary(job) for job in found], names=lambda: [job.id for job in found], table=table)
    if more:
        hint(f"there are more; --limit {limit * 10} shows them.")


def _states(given: list[str] | None) -> list[str]:
    from atoll.core.spec import suggestion

    known = [str(state) for state in JobState]
    words = [word.strip().lower() for text in given or [] for word in text.split(",")]
    every = f" There are {', '.join(known)}."
    for word in words:
        if word not in known:
            raise Invalid(
                "bad_state",
                f"--state: There is no state {word!r}.{suggestion(word, known) or every}",
                field="--state",
            )
    return words


def _summary(job: "JobSummary") -> dict[str, Any]:
    """The form of a job in lists, also where more of it is known."""
    from atoll.client.models import JobSummary

    return job.model_dump(mode="json", by_alias=True, include=set(JobSummary.model_fields))


def _columns(jobs: "list[JobSummary]", now: Any) -> "list[Column[JobSummary]]":
    from atoll.core.resources import format_bytes, format_milli
    from atoll.faces.terminal import times

    several = len({job.owner for job in jobs}) > 1
    gpus = any(job.gpu for job in jobs)
    columns: list[Column[JobSummary]] = [
        Column("JOB", lambda job: job.id),
        Column("NAME", lambda job: job.name if len(job.name) <= 32 else job.name[:31] + "\u2026"),
        Column("STATE", lambda job: str(job.state), colour=True),
        Column("TASKS", _tasks),
        Column("OWNER", lambda job: job.owner),
        Column("SITE", lambda job: job.site),
        Column("CPU", lambda job: format_milli(job.cpu), right=True),
        Column("MEMORY", lambda job: format_bytes(job.memory) if job.memory else "", right=True),
        Column("GPU", lambda job: format_milli(job.gpu), right=True),
        Column("AGE", lambda job: times.age(job.submitted_at, now), right=True),
        Column("STARTS", lambda job: _expected(job, now), right=True),
        Column("RUN", lambda job: times.duration(job.started_at, job.ended_at, now), right=True),
        Column("REASON", lambda job: job.reason.sentence if job.reason else "", fill=True),
    ]
    hidden = {
        "OWNER": not several,
        "GPU": not gpus,
        "TASKS": not any(job.tasks for job in jobs),
        "SITE": not any(job.site for job in jobs),
        "STARTS": not any(_expected(job, now) for job in jobs),
    }
    return [column for column in columns if not hidden.get(column.heading, False)]


def _expected(job: "JobSummary", now: Any) -> str:
    """In how long a waiting job is expected to start: `~5m`."""
    from atoll.core.resources import format_seconds

    if job.estimate is None or job.estimate.start is None:
        return ""
    return f"~{format_seconds(max(0.0, (job.estimate.start - now).total_seconds()))}"


def _tasks(job: "JobSummary") -> str:
    if job.tasks is None:
        return ""
    done = job.tasks.succeeded + job.tasks.failed + job.tasks.cancelled
    text = f"{done}/{job.tasks.total}"
    return f"{text}, {job.tasks.failed} failed" if job.tasks.failed else text


def show(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Show all about a job: what was asked for, where it ran, how it ended."""
    found = [client.job(ref) for ref in single_tasks(jobs)]

    def table() -> None:
        for place, job in enumerate(found):
            if place:
                say()
            _print_job(job)

    emit(
        output,
        one_or_many([job.document() for job in found]),
        names=lambda: [job.id for job in found],
        table=table,
    )


def _print_job(job: "Job") -> None:
    from atoll.core.resources import format_bytes, format_milli
    from atoll.faces.terminal import times

    now = times.now()
    state = coloured(str(job.state), str(job.state))
    say(f"Job {job.id}  {printable(job.name)}  {state}")
    asked = [f"{format_milli(job.cpu)} CPU"]
    asked += [format_bytes(job.memory)] if job.memory else []
    asked += [f"{format_milli(job.gpu)} GPU"] if job.gpu else []
    asked += [f"on each of {job.nodes} nodes"] if job.nodes > 1 else []
    command_line = job.spec.get("command")
    print_facts([
        ("reason", job.reason.sentence if job.reason else None),
        ("exit code", job.exit_code),
        ("outcome", job.outcome),
        ("owner", job.owner),
        ("project", job.project),
        ("class", job.class_),
        ("command", _shown(command_line) if command_line else None),
        ("script", f"{len(job.spec['script'].splitlines())} lines" if job.spec.get("script") else None),
        ("asks for", ", ".join(asked)),
        ("tasks", _tasks(job)),
        ("site", job.site),
        ("priority", job.priority or None),
        ("depends on", ", ".join(f"{item.on} {item.job}{' (met)' if item.met else ''}" for item in job.dependencies)),
        ("not before", times.local(job.begin)),
        ("expected", expectation(job.estimate) if job.estimate else None),
        ("submitted", times.local(job.submitted_at)),
        ("started", times.local(job.started_at)),
        ("ended", times.local(job.ended_at)),
        ("ran", times.duration(job.started_at, job.ended_at, now)),
        ("outputs", f"{job.outputs} files: atoll fetch {job.id}" if job.outputs else None),
        ("labels", ", ".join(f"{key}={value}" for key, value in (job.spec.get("labels") or {}).items())),
    ])  # fmt: skip
    if job.attempt_list:
        say()
        print_table(_attempt_columns(now), job.attempt_list)


def _shown(words: Any) -> str:
    import shlex

    text = shlex.join(map(str, words)) if isinstance(words, list) else str(words)
    return text if len(text) <= 200 else text[:199] + "\u2026"


def _attempt_columns(now: Any) -> "list[Column[Attempt]]":
    from atoll.core.resources import format_bytes
    from atoll.faces.terminal import times

    return [
        Column("ATTEMPT", lambda attempt: attempt.number, right=True),
        Column("SITE", lambda attempt: attempt.site),
        Column("STATE", lambda attempt: attempt.outcome or attempt.state, colour=True),
        Column("EXIT", lambda attempt: _ending(attempt), right=True),
        Column("STARTED", lambda attempt: times.local(attempt.started_at)),
        Column("RAN", lambda attempt: times.duration(attempt.started_at, attempt.ended_at, now), right=True),
        Column("MEMORY", lambda attempt: format_bytes(attempt.max_memory) if attempt.max_memory else "", right=True),
        Column("NATIVE", lambda attempt: attempt.native_id),
        Column("MESSAGE", lambda attempt: attempt.message, fill=True),
    ]


def _ending(attempt: "Attempt") -> str:
    if attempt.signal:
        return f"signal {attempt.signal}"
    return "" if attempt.exit_code is None else str(attempt.exit_code)


def why(client: "Client", jobs: Jobs, output: Output = Format.TABLE) -> None:
    """Say why a job waits and what would help, or why it ended as it did."""
    found = [client.why(ref, remedies=True) for ref in single_tasks(jobs)]

    def table() -> None:
        for answer in found:
            _print_why(answer, named=len(found) > 1)

    emit(
        output,
        one_or_many([answer.document() for answer in found]),
        names=lambda: [answer.code for answer in found],
        table=table,
    )


def expectation(estimate: "Estimate") -> str:
    """A sentence on where a job waits, and when it is expected to start."""
    from atoll.faces.terminal import times

    if estimate.by != "queue" and estimate.start is not None:
        return _expected_there(estimate, estimate.start)
    place = f"It is number {estimate.position} of {estimate.waiting} in the queue"
    if estimate.start is None:
        return f"{place}; nobody can say when it starts."
    now = times.now()
    when = f"expected to start {times.ahead(estimate.start, now)}"
    if estimate.earliest is None or estimate.latest is None:
        return f"{place}, {when}."
    return f"{place}, {when}; most likely between {times.between(estimate.earliest, estimate.latest, now)}."


def _expected_there(estimate: "Estimate", start: "datetime") -> str:
    """The same of a job that waits in the queue of a site."""
    from atoll.faces.terminal import times

    now = times.now()
    when = times.ahead(start, now)
    if estimate.by == "site":
        return f"Site {estimate.site} expects to start it {when}, or sooner."
    return f"It waits in the queue of site {estimate.site}; by the usual wait there it starts {when}."


def _print_why(answer: "Why", *, named: bool) -> None:
    state = coloured(answer.state, answer.state)
    say(f"{answer.job + '  ' if named else ''}{state}: {printable(answer.sentence)}")
    if answer.estimate is not None:
        say(f"  {expectation(answer.estimate)}")
    for fact in answer.facts:
        say(f"  {printable(fact)}")
    if answer.remedies:
        from atoll.faces.terminal import times

        now = times.now()
        say("  What would help:")
        for remedy in answer.remedies:
            say(f"    {printable(remedy.sentence)} It would start {times.ahead(remedy.start, now)}.")
