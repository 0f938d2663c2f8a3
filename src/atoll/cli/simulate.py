"""`atoll simulate`: the scheduler over a trace, on this machine and on a virtual clock; it asks no platform."""

import gzip
import sys
import time
import zlib
from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from atoll.core.errors import Invalid, Unavailable
from atoll.faces.terminal.command import Output
from atoll.faces.terminal.output import Format, emit, hint, printable, say

if TYPE_CHECKING:
    from atoll.core.project import TreeNode
    from atoll.scheduler.simulate.study import Study

app = typer.Typer()
NEEDED = "numpy"
"""What the scheduler needs of the extra `server`."""
_MOST_FILL = 100.0
_MOST_PROJECTS = 20
"""So many projects have a row; JSON has all."""
_NAMED = 5
"""So many reasons and problems are told by name beside a table; JSON has more."""


@app.command("simulate")
def simulate(
    trace: Annotated[str, typer.Option("--trace", metavar="FILE", help="What ran: openb's list of pods (CSV), Standard "
                                       "Workload Format, or a history of Atoll; .gz too, and - is the input.",
                                       show_default=False)],
    cluster: Annotated[str, typer.Option("--cluster", metavar="FILE", help="What it shall run on: a cluster file "
                                         "(YAML), or openb's list of nodes (CSV).", show_default=False)],
    policy: Annotated[str, typer.Option("--policy", metavar="NAME", help="How to decide: atoll, first-fit, or all to "
                                        "compare them.")] = "atoll",
    fill: Annotated[float | None, typer.Option("--fill", metavar="SHARE", help="Instead of a replay: jobs drawn from "
                                               "the trace come and never end, until they ask for this share of the "
                                               "GPUs, as in 1.3.", show_default=False)] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Which jobs --fill draws.")] = 0,
    quotas: Annotated[list[str] | None, typer.Option("--quotas", metavar="FILE", help="A project tree with quotas, as "
                                                     "in `atoll project apply`; several to compare them.",
                                                     show_default=False)] = None,
    plot: Annotated[str | None, typer.Option("--plot", metavar="FOLDER", help="Write pictures (SVG) there.",
                                             show_default=False)] = None,
    output: Output = Format.TABLE,
) -> None:  # fmt: skip
    """Replay a trace on a cluster that is only described, and tell how busy it was and how long jobs waited."""
    if find_spec(NEEDED) is None:
        sentence = f"The scheduler is not installed here ({NEEDED} is missing); install it with: "
        raise Unavailable("no_server", sentence + "pip install 'atoll[server]'.")
    if fill is not None and not 0 < fill <= _MOST_FILL:
        raise Invalid("bad_fill", f"--fill {fill:g} must be a share above 0 and at most {_MOST_FILL:g}.", field="fill")
    if fill is not None and quotas:
        raise Invalid("fill_with_quotas", "--quotas is for a replay, and --fill replays nothing.", field="quotas")
    folder = _folder(plot)
    began = time.perf_counter()
    study = _study(trace, cluster, policy, fill, seed, quotas or [])
    taken = time.perf_counter() - began
    document = study.document
    document["trace"] = {"file": trace, **document["trace"]}
    document["cluster"] = {"file": cluster, **document["cluster"]}

    def table() -> None:
        _print(document)
        _tell(document)
        hint(f"simulated in {taken:.1f} s")

    emit(output, document, names=lambda: [_label(found) for found in document["policies"]], table=table)
    if folder is not None:
        from atoll.cli.plots import pictures

        for name, picture in pictures(study).items():
            (folder / name).write_text(picture)
            hint(f"wrote {folder / name}")


def _study(trace: str, cluster: str, policy: str, fill: float | None, seed: int, quotas: Sequence[str]) -> "Study":
    from atoll.scheduler.simulate import policies, study
    from atoll.scheduler.simulate.cluster import read_cluster
    from atoll.scheduler.traces import read_trace

    chosen = policies.named(policy)
    there = read_cluster(_read(cluster, "cluster"), cluster)
    jobs = read_trace(_read(trace, "trace"), trace)
    if fill is not None:
        return study.fill(jobs, there, chosen, fill, seed)
    trees = [study.Quotas(name, _tree(file)) for name, file in _by_name(quotas).items()]
    return study.replay(jobs, there, chosen, trees)


def _by_name(files: Sequence[str]) -> dict[str, str]:
    """Files by the name under which they are told. Raises Invalid where two have one name."""
    named: dict[str, str] = {}
    for file in files:
        if (name := Path(file).name) in named:
            raise Invalid("same_name", f"Two files of --quotas have the name {name}; rename one.", field="quotas")
        named[name] = file
    return named


def _tree(file: str) -> tuple["TreeNode", ...]:
    from atoll.core.project_file import read_project_file

    return tuple(read_project_file(_read(file, "quotas").encode(), f"quotas {file}"))


def _read(file: str, what: str) -> str:
    """The text of a file. Raises Invalid, which says what the file should have been."""
    try:
        content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
        if file.endswith(".gz"):
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise Invalid("no_such_file", f"The {what} {file} cannot be read: {why.rstrip('.')}.", field=what) from None
    # a stray byte in a comment or a name does no harm; where it does, the row is told
    return content.decode("utf-8-sig", errors="replace")


def _folder(plot: str | None) -> Path | None:
    """The folder for pictures, made before long work rather than after it. Raises Invalid."""
    if plot is None:
        return None
    try:
        folder = Path(plot)
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Invalid("bad_folder", f"The folder {plot} cannot be made: {error.strerror}.", field="plot") from None
    return folder


def _print(document: dict[str, Any]) -> None:
    from atoll.core.resources import format_bytes
    from atoll.faces.terminal.tables import print_facts

    trace, cluster, filled = document["trace"], document["cluster"], document.get("fill")
    print_facts([
        ("trace", f"{trace['file']}: {trace['jobs']} jobs ({trace['format']})"),
        ("cluster", f"{cluster['file']}: {cluster['nodes']} nodes with {cluster['gpu']:g} GPU, {cluster['cpu']:g} CPU, "
                    f"{format_bytes(cluster['memory'])}"),
        ("filled by", f"{filled['jobs']} jobs that ask for {filled['gpus_asked']:g} GPU, seed {filled['seed']}"
                      if filled else ""),
    ])  # fmt: skip
    say()
    if filled:
        _print_filled(document["policies"])
    else:
        _print_replayed(document["policies"], quotas=document["cluster"]["quotas"])


def _print_filled(policies: list[dict[str, Any]]) -> None:
    from atoll.faces.terminal.tables import Column, print_table

    columns: list[Column[dict[str, Any]]] = [
        Column("POLICY", _label),
        Column("GPUS ALLOCATED", lambda found: f"{found['gpus_allocated']:.1f}", right=True),
        Column("OF ALL", lambda found: _percent(found["gpu_allocation"]), right=True),
        Column("RUNNING", lambda found: found["jobs"]["running"], right=True),
        Column("WAITING", lambda found: found["jobs"]["waiting"], right=True),
        Column("EVICTIONS", lambda found: found["evictions"], right=True),
    ]
    print_table(columns, policies)


def _print_replayed(policies: list[dict[str, Any]], *, quotas: bool) -> None:
    from atoll.faces.terminal.tables import Column, print_table

    columns: list[Column[dict[str, Any]]] = [
        Column("POLICY", _label),
        Column("FINISHED", lambda found: found["jobs"]["finished"], right=True),
        Column("TIMED OUT", lambda found: found["jobs"]["timed_out"], right=True),
        Column("UNFINISHED", lambda found: found["jobs"]["unfinished"], right=True),
        Column("MAKESPAN", lambda found: _time(found["makespan"]), right=True),
        Column("GPU", lambda found: _percent(found["allocation"]["gpu"]), right=True),
        Column("CPU", lambda found: _percent(found["allocation"]["cpu"]), right=True),
        Column("FAIRNESS", lambda found: _index(found["fairness"]["jain"]), right=True),
        Column("EVICTIONS", lambda found: found["evictions"]["count"], right=True),
        Column("WORK LOST", lambda found: _time(found["evictions"]["lost_seconds"]), right=True),
    ]
    print_table(columns, policies)
    say()
    rows = [(found, name) for found in policies for name in found["waiting"]]
    by_class: list[Column[tuple[dict[str, Any], str]]] = [
        Column("POLICY", lambda row: _label(row[0])),
        Column("CLASS", lambda row: row[1]),
        Column("STARTED", lambda row: row[0]["waiting"][row[1]]["jobs"], right=True),
        Column("MEAN WAIT", lambda row: _time(row[0]["waiting"][row[1]]["mean"]), right=True),
        Column("MEDIAN", lambda row: _time(row[0]["waiting"][row[1]]["median"]), right=True),
        Column("P90", lambda row: _time(row[0]["waiting"][row[1]]["p90"]), right=True),
        Column("P99", lambda row: _time(row[0]["waiting"][row[1]]["p99"]), right=True),
        Column("MEAN SLOWDOWN", lambda row: _index(row[0]["slowdown"][row[1]]["mean"]), right=True),
    ]
    print_table(by_class, rows)
    if quotas:
        _print_projects(policies)


def _print_projects(policies: list[dict[str, Any]]) -> None:
    """Of each project how its jobs waited, side by side; those with most jobs where they are many."""
    from atoll.faces.terminal.tables import Column, print_table

    counts: Counter[str] = Counter()
    for found in policies:
        counts.update({name: told["waiting"]["jobs"] for name, told in found["projects"].items()})
    rows = [
        (found, name, found["projects"][name])
        for name, _ in counts.most_common(_MOST_PROJECTS)
        for found in policies
        if name in found["projects"]
    ]
    columns: list[Column[tuple[dict[str, Any], str, dict[str, Any]]]] = [
        Column("PROJECT", lambda row: printable(row[1])),
        Column("POLICY", lambda row: _label(row[0])),
        Column("STARTED", lambda row: row[2]["waiting"]["jobs"], right=True),
        Column("MEAN WAIT", lambda row: _time(row[2]["waiting"]["mean"]), right=True),
        Column("MEDIAN", lambda row: _time(row[2]["waiting"]["median"]), right=True),
        Column("P90", lambda row: _time(row[2]["waiting"]["p90"]), right=True),
        Column("EVICTIONS", lambda row: row[2]["evictions"], right=True),
    ]
    say()
    print_table(columns, rows)
    if len(counts) > _MOST_PROJECTS:
        hint(f"more projects, which JSON has: {len(counts) - _MOST_PROJECTS}")


def _tell(document: dict[str, Any]) -> None:
    """Say what of the trace and of the cluster could not be used, and what else there is to know."""
    trace, impossible = document["trace"], document["impossible"]
    for note in (*trace["notes"], *document["cluster"]["notes"]):
        hint(printable(note))
    if trace["broken"]:
        hint(f"broken rows of {trace['file']}, which are left out: {trace['broken']}")
        for problem in trace["problems"][:_NAMED]:
            hint(f"  line {problem['line']}: {printable(problem['problem'])}")
    if impossible["jobs"]:
        hint(f"jobs that can never run on this cluster, which are left out: {impossible['jobs']}")
        for reason in impossible["reasons"][:_NAMED]:
            hint(f"  {reason['jobs']}: {printable(reason['sentence'])}")
    seen: set[str | None] = set()
    for found in document["policies"]:
        denied = found.get("denied", {"jobs": 0})
        if denied["jobs"] and found["quotas"] not in seen:
            seen.add(found["quotas"])
            hint(
                f"jobs that {found['quotas'] or 'the project tree'} does not take, which are left out: {denied['jobs']}"
            )
            for reason in denied["reasons"][:_NAMED]:
                hint(f"  {reason['jobs']}: {printable(reason['sentence'])}")


def _label(found: dict[str, Any]) -> str:
    from atoll.cli.plots import label

    return label(found)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _index(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _time(seconds: float | None) -> str:
    from atoll.core.resources import format_seconds

    return "" if seconds is None else format_seconds(seconds)
