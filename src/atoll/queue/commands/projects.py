"""`atoll project`: the project tree, and who is in which project."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from atoll.core.errors import Invalid
from atoll.faces.terminal.command import Output, command
from atoll.faces.terminal.output import Format, emit, hint, one_or_many, say
from atoll.faces.terminal.tables import Column, print_facts, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from atoll.client.models import Plan, Project
    from atoll.client.synchronous import Client

app = typer.Typer(name="project", help="The project tree, and who is in which project.", no_args_is_help=True)
_LARGEST = 32 << 20
_SIGNS = {"add": "+", "remove": "-", "change": "~"}
Name = Annotated[str, typer.Argument(metavar="PROJECT", help="Its name.", show_default=False)]
TreeFile = Annotated[
    str, typer.Argument(metavar="FILE", help="The project file, YAML; - is the input.", show_default=False)
]
People = Annotated[list[str], typer.Argument(metavar="PERSON", help="Their names.", show_default=False)]


def list_projects(
    client: "Client",
    mine: Annotated[bool, typer.Option("--mine", help="Only those that you may submit to.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List the projects, as the tree that they are."""
    found = client.projects().items
    depths = _depths(found)
    chosen = [(project, depth) for project, depth in depths if project.member or not mine]
    columns: list[Column[tuple[Project, int]]] = [
        Column("PROJECT", lambda row: ("" if mine else "  " * row[1]) + row[0].name),
        Column("WEIGHT", lambda row: f"{row[0].weight:g}", right=True),
        Column("MEMBER", lambda row: "yes" if row[0].member else ""),
        Column("PEOPLE", lambda row: "" if row[0].people is None else len(row[0].people), right=True),
        Column("ENDS", lambda row: row[0].ends or ""),
        Column("DESCRIPTION", lambda row: row[0].description, fill=True),
    ]

    def table() -> None:
        if found:
            print_table(columns, chosen)
        else:
            say("There is no project tree: jobs may name any project, and no quotas hold.")

    documents = [project.document() for project, _ in chosen]
    emit(output, documents, names=lambda: [project.name for project, _ in chosen], table=table)


def _depths(found: "Sequence[Project]") -> "list[tuple[Project, int]]":
    """The projects with their depth, those below one right after it."""
    below: dict[str | None, list[Project]] = {}
    for project in found:
        below.setdefault(project.parent, []).append(project)
    ordered: list[tuple[Project, int]] = []
    waiting = [(project, 0) for project in reversed(below.get(None, []))]
    while waiting:
        project, depth = waiting.pop()
        ordered.append((project, depth))
        waiting += [(child, depth + 1) for child in reversed(below.get(project.name, []))]
    return ordered


def show_projects(
    client: "Client",
    names: Annotated[list[str], typer.Argument(metavar="PROJECT", help="Its name.", show_default=False)],
    output: Output = Format.TABLE,
) -> None:
    """Show all about a project: its people, its quotas, what it uses."""
    found = [client.project(name) for name in names]

    def table() -> None:
        for place, project in enumerate(found):
            if place:
                say()
            _print_project(project)

    documents = one_or_many([project.document() for project in found])
    emit(output, documents, names=lambda: [project.name for project in found], table=table)


def _print_project(project: "Project") -> None:
    from atoll.queue.commands import print_quotas

    say(f"Project {project.name}")
    print_facts([
        ("description", project.description),
        ("below", project.parent or "nothing: it is the root"),
        ("takes jobs", "yes" if project.takes_jobs else "no: others are below it"),
        ("weight", f"{project.weight:g}"),
        ("people", ", ".join(project.people or ())),
        ("managers", ", ".join(project.managers or ())),
        ("clearance", ", ".join(project.clearance)),
        ("ends", project.ends),
    ])  # fmt: skip
    if project.quotas:
        say()
        print_quotas([(project, quota) for quota in project.quotas])


def plan(client: "Client", file: TreeFile, output: Output = Format.TABLE) -> None:
    """Say what a project file would change, and change nothing. For administrators, as are the next two."""
    found = client.put_projects(_content(file), dry_run=True)
    emit(output, found.document(), names=lambda: [line.project for line in found.changes], table=lambda: _print(found))


def apply(
    client: "Client",
    file: TreeFile,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Make a project file the project tree, after showing what that changes."""
    content = _content(file)
    found = client.put_projects(content, dry_run=True)
    if found.changes and not yes:
        if not (sys.stdin.isatty() and sys.stderr.isatty()):
            raise Invalid(
                "not_confirmed", "Nobody can be asked here; look at the plan, then give --yes.", field="--yes"
            )
        _print(found)
        if not typer.confirm("Apply this?", err=True):
            hint("nothing was changed")
            raise typer.Exit(1)
    done = client.put_projects(content, revision=found.revision) if found.changes else found

    def table() -> None:
        if yes or not done.changes:
            _print(done)
        if done.applied:
            say(f"Applied: the tree is at revision {done.revision}.")

    emit(output, done.document(), names=lambda: [line.project for line in done.changes], table=table)


def _print(plan: "Plan") -> None:
    for line in plan.changes:
        say(f"{_SIGNS.get(line.kind, '?')} {line.sentence}")
    if not plan.changes:
        say("Nothing changes.")
    for sentence in (*plan.over, *plan.warnings):
        hint(f"warning: {sentence}")


def _content(file: str) -> "dict[str, Any]":
    """The projects that a file says, checked as far as that is possible here. Raises Invalid."""
    from atoll.core.project_file import read_project_file, write_projects

    nodes = read_project_file(_read(file), f"project file {file}")
    projects: dict[str, Any] = write_projects(nodes)["projects"]
    return projects


def _read(file: str) -> bytes:
    if file == "-":
        return sys.stdin.buffer.read(_LARGEST + 1)
    try:
        with Path(file).open("rb") as opened:
            return opened.read(_LARGEST + 1)
    except OSError as error:
        sentence = f"The project file {file} cannot be read: {error.strerror}."
        raise Invalid("no_such_file", sentence, field="file") from None


def export(
    client: "Client",
    output: Annotated[
        Format, typer.Option("-o", "--format", help="Form of the result.", case_sensitive=False)
    ] = Format.YAML,
) -> None:
    """Print the project tree as a project file."""
    from atoll.faces.terminal.output import dump

    projects = client.tree().projects
    form = Format.YAML if output is Format.TABLE else output
    emit(
        form, {"projects": projects}, names=lambda: list(projects), table=lambda: say(dump(Format.YAML, projects))
    )  # fmt: skip


def add_person(client: "Client", project: Name, people: People, output: Output = Format.TABLE) -> None:
    """Let people submit to a project. For its managers, and administrators."""
    found = client.change_people(project, add=people)
    said = f"{', '.join(people)} may submit to project {project}."
    emit(output, found.document(), names=lambda: [found.name], table=lambda: say(said))


def remove_person(client: "Client", project: Name, people: People, output: Output = Format.TABLE) -> None:
    """Let people submit to a project no longer; their jobs there go on."""
    found = client.change_people(project, remove=people)
    said = f"{', '.join(people)} may no longer submit to project {project}."
    emit(output, found.document(), names=lambda: [found.name], table=lambda: say(said))


command(app, "list")(list_projects)
command(app, "show")(show_projects)
command(app, "plan")(plan)
command(app, "apply")(apply)
command(app, "export")(export)
command(app, "add-person")(add_person)
command(app, "remove-person")(remove_person)
