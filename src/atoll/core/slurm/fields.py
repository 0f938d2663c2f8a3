"""From sbatch's options to the fields of a job specification.

Called by `core.script` with all options at once, those of the script before those of the command line, because they
work together: `-n 8` in the script and `-c 2` on the command line are 16 CPUs.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from pathlib import PurePosixPath
from typing import Any, TypeVar

from atoll.core.errors import AtollError
from atoll.core.patterns import check_pattern
from atoll.core.ranges import ArraySpec
from atoll.core.slurm import notations
from atoll.core.slurm.options import Given, Treatment, all_wrong

T = TypeVar("T")

# Of each group one option counts: those of the command line set aside those of the script.
_EXCLUSIVE = (
    ("mem", "mem-per-cpu", "mem-per-gpu"),
    ("gpus", "gpus-per-node", "gpus-per-task", "gres"),
    ("cpus-per-task", "cpus-per-gpu"),
    ("nice", "priority"),
    ("requeue", "no-requeue"),
)
_TASK_SOURCES = ("nodes", "ntasks", "ntasks-per-node")
_GPU_SOURCES = ("gpus", "gpus-per-node", "gpus-per-task", "gres", "tres-per-task")
_CPU_SOURCES = (
    *_TASK_SOURCES, *_GPU_SOURCES, "cpus-per-task", "cpus-per-gpu", "ntasks-per-gpu", "overcommit", "mincpus",
)  # fmt: skip


@dataclass(frozen=True)
class Surroundings:
    """What options mean besides their text: when and where they were given."""

    now: datetime
    zone: tzinfo | None = None
    """Of times without one; None: the machine's own."""
    submit_dir: str | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    """The submitter's environment, for --export=NAME."""


@dataclass(frozen=True)
class Translation:
    """Fields of a job specification with the options that each came from, and what is no field."""

    fields: dict[str, Any]
    origins: dict[str, tuple[Given, ...]]
    client: frozenset[str]
    """Names of the client options that were given."""
    hold: bool
    warnings: tuple[str, ...]


def translate(given: Iterable[Given], surroundings: Surroundings) -> Translation:
    """Translate options, later ones winning over earlier. Raises Invalid that names every option that is wrong."""
    work = _Work(_effective(given), surroundings)
    for step in (_refuse, _simple, _tasks, _gpus, _cpus, _memory, _placing, _time, _end, _files, _variables):
        step(work)
    if work.problems:
        raise all_wrong(work.problems)
    names = {option.name for option in work.given.values() if option.option.treatment is Treatment.CLIENT}
    return Translation(work.fields, work.origins, frozenset(names), "hold" in work.given, tuple(work.warnings))


def _effective(given: Iterable[Given]) -> dict[str, Given]:
    last = {option.name: option for option in given}
    for group in _EXCLUSIVE:
        if any(name in last and last[name].on_command_line for name in group):
            for name in group:
                if name in last and not last[name].on_command_line:
                    del last[name]
    return last


class _Work:
    """The options that count, and what has been made of them so far."""

    def __init__(self, given: dict[str, Given], surroundings: Surroundings) -> None:
        self.given = given
        self.surroundings = surroundings
        self.fields: dict[str, Any] = {}
        self.origins: dict[str, tuple[Given, ...]] = {}
        self.problems: list[tuple[str, str]] = []
        self.warnings: list[str] = []
        self.nodes = 1
        self.tasks: int | None = None
        self.tasks_per_node = 1
        self.task_cpus = 1
        self.task_gpus: tuple[str | None, int] | None = None
        self.cpus = 1
        self.gpus = 0

    def read(self, name: str, parse: Callable[[str], T]) -> T | None:
        """The value of the option `name`; None where it was not given, or is wrong, which is then noted."""
        option = self.given.get(name)
        if option is None:
            return None
        try:
            return parse(option.value or "")
        except AtollError as error:
            self.problem(name, error.sentence)
        except ValueError as error:
            self.problem(name, str(error))
        return None

    def problem(self, name: str, sentence: str) -> None:
        self.problems.append((self.given[name].label, sentence))

    def warn(self, name: str, sentence: str) -> None:
        self.warnings.append(f"{self.given[name].label}: {sentence}")

    def put(self, target: str, value: Any, *names: str) -> None:
        """Set the field `target`, which came from those of the options `names` that were given."""
        self.fields[target] = value
        came = tuple(self.given[name] for name in names if name in self.given)
        self.origins[target] = tuple(dict.fromkeys((*self.origins.get(target, ()), *came)))

    def put_once(self, target: str, name: str, parse: Callable[[str], Any]) -> None:
        """Set `target` from the one option `name`, where it was given and is right."""
        value = self.read(name, parse)
        if value is not None:
            self.put(target, value, name)

    def only_one(self, names: Iterable[str]) -> bool:
        """Whether at most one of `names` was given; more are noted as a problem."""
        found = [name for name in names if name in self.given]
        for other in found[1:]:
            self.problem(other, f"It cannot be used together with --{found[0]}; give one of them.")
        return len(found) <= 1


def _refuse(work: _Work) -> None:
    for name, option in work.given.items():
        treatment = option.option.treatment
        if treatment is Treatment.ALREADY:
            work.warn(name, f"It changes nothing: {option.option.note}.")
        elif treatment is Treatment.REFUSED and (option.value or "") not in option.option.harmless:
            note = option.option.note
            work.problem(name, f"Not supported: {note}.")


def _plain(text: str) -> str:
    if not text.strip():
        raise ValueError("It needs a value.")
    return text


def _simple(work: _Work) -> None:
    work.put_once("name", "job-name", _plain)
    work.put_once("project", "account", _plain)
    work.put_once("class", "qos", notations.parse_class)
    work.put_once("array", "array", lambda text: str(ArraySpec.parse(text)))
    work.put_once("scratch", "tmp", notations.parse_size)
    work.put_once("dependencies", "dependency", notations.parse_dependencies)
    work.put_once("labels", "comment", lambda text: {"comment": _plain(text)})
    if work.only_one(("nice", "priority")):
        work.put_once("priority", "nice", lambda text: -_integer(text) if text else -100)
        work.put_once("priority", "priority", _priority)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{text[:80]!r} is no whole number.") from None


def _priority(text: str) -> int:
    if text.strip().upper() == "TOP":
        raise ValueError("Nobody can jump the queue here; write a number.")
    return _integer(text)


def _tasks(work: _Work) -> None:
    """How many nodes, how many tasks on each, and how many CPUs and GPUs a task has."""
    nodes = work.read("nodes", notations.parse_nodes)
    tasks = work.read("ntasks", notations.parse_count)
    most = work.read("ntasks-per-node", notations.parse_count)
    if nodes is None:
        nodes = -(-tasks // most) if tasks and most else 1
    elif tasks and tasks < nodes:
        work.warn("ntasks", f"{tasks} tasks need no more than {tasks} nodes, and the job asks for as many.")
        nodes = tasks
    if tasks and most and tasks > nodes * most:
        work.problem("ntasks", f"{tasks} tasks are more than {most} on each of {nodes} nodes; ask for more nodes.")
    work.nodes, work.tasks = nodes, tasks
    work.tasks_per_node = -(-tasks // nodes) if tasks else most or 1
    if set(_TASK_SOURCES) & work.given.keys():
        work.put("nodes", nodes, *_TASK_SOURCES)
    task_cpus = work.read("cpus-per-task", notations.parse_count)
    tres = work.read("tres-per-task", notations.parse_tres) or (None, None)
    work.task_cpus, work.task_gpus = task_cpus or tres[0] or 1, tres[1]


def _gpus(work: _Work) -> None:
    """GPUs on each node, and the flavor that a type of GPU stands for."""
    ways = ("gpus", "gpus-per-node", "gpus-per-task", "gres")
    if not work.only_one(ways):
        return
    name = next((name for name in ways if name in work.given), "tres-per-task")
    parse = notations.parse_gres if name == "gres" else notations.parse_gpus
    found = work.task_gpus if name == "tres-per-task" else work.read(name, parse)
    if found is None:
        return
    kind, count = found
    if name in ("gpus-per-task", "tres-per-task"):
        count *= work.tasks_per_node
    elif name == "gpus":
        if count % work.nodes:
            work.problem(name, f"{count} GPUs are not as many on each of {work.nodes} nodes; use --gpus-per-node.")
            return
        count //= work.nodes
    work.gpus = count
    work.put("gpu", count, name, *_TASK_SOURCES)
    if kind is not None:
        work.put("flavor", [f"gpu-{kind.lower()}"], name)


def _cpus(work: _Work) -> None:
    """CPUs on each node."""
    work.only_one(("cpus-per-task", "cpus-per-gpu"))
    per_gpu = work.read("cpus-per-gpu", notations.parse_count)
    tasks_per_gpu = work.read("ntasks-per-gpu", notations.parse_count)
    for name in ("cpus-per-gpu", "ntasks-per-gpu"):
        if name in work.given and not work.gpus:
            work.problem(name, "The job asks for no GPUs; ask for them with --gpus-per-node.")
    if tasks_per_gpu and work.gpus and work.only_one(("ntasks", "ntasks-per-gpu")):
        work.tasks_per_node = tasks_per_gpu * work.gpus
    tasks_that_count = 1 if "overcommit" in work.given else work.tasks_per_node
    total = per_gpu * work.gpus if per_gpu else work.task_cpus * tasks_that_count
    work.cpus = max(total, work.read("mincpus", notations.parse_count) or 1)
    if (set(_CPU_SOURCES) - set(_GPU_SOURCES)) & work.given.keys() or work.task_cpus > 1:
        work.put("cpu", work.cpus, *_CPU_SOURCES)
    if {"ntasks", "ntasks-per-node", "ntasks-per-gpu"} & work.given.keys():
        # The specification has no field for tasks, and the processes shall know how many to start.
        tasks = work.tasks or work.tasks_per_node * work.nodes
        counts = {"SLURM_NTASKS": str(tasks), "SLURM_NTASKS_PER_NODE": str(work.tasks_per_node)}
        work.put("env", counts, "ntasks", "ntasks-per-node", "ntasks-per-gpu")


def _memory(work: _Work) -> None:
    ways = ("mem", "mem-per-cpu", "mem-per-gpu")
    if not work.only_one(ways):
        return
    for name, times in zip(ways, (1, work.cpus, work.gpus), strict=True):
        size = work.read(name, notations.parse_size)
        if size is None:
            continue
        if size == 0:
            work.problem(name, "All the memory of a node cannot be asked for; write how much the job needs.")
        elif times == 0:
            work.problem(name, "The job asks for no GPUs; use --mem, or ask for GPUs with --gpus-per-node.")
        else:
            work.put("memory", size * times, name, *(() if name == "mem" else _CPU_SOURCES))


def _placing(work: _Work) -> None:
    terms: list[str] = work.read("constraint", notations.parse_constraint) or []
    for name, label in (("partition", "partition"), ("clusters", "site")):
        text = work.read(name, _plain)
        if text is not None and not (name == "clusters" and text.strip().lower() == "all"):
            names = ",".join(word.strip() for word in text.split(",") if word.strip())
            terms.append(f"{label}={names}")
    if "partition" in work.given:
        work.warn(
            "partition",
            f"Atoll has no partitions: the job runs only at sites with the label partition="
            f"{work.given['partition'].value}. Where none has it ('atoll site ls' tells), remove the line and say "
            "what the job needs, for example --gpus-per-node=1.",
        )
    if terms:
        work.put("constraints", terms, "constraint", "partition", "clusters")


def _time(work: _Work) -> None:
    around = work.surroundings
    if "time" in work.given:
        before = len(work.problems)
        limit = work.read("time", notations.parse_time_limit)
        if len(work.problems) == before:
            work.put("walltime", limit, "time")
    work.put_once("begin", "begin", lambda text: notations.parse_begin_time(text, around.now, around.zone).isoformat())


def _end(work: _Work) -> None:
    work.put_once("signal", "signal", notations.parse_signal)
    if work.only_one(("requeue", "no-requeue")):
        if "requeue" in work.given:
            work.put("rerun", True, "requeue")
        if "no-requeue" in work.given:
            work.put("rerun", False, "no-requeue")
            work.put("retries", 0, "no-requeue")
            work.warn("no-requeue", "A job that is evicted, or whose node fails, runs again even so.")


def _files(work: _Work) -> None:
    for name, target in (("output", "stdout"), ("error", "stderr"), ("input", "stdin")):
        path = work.read(name, _file_name)
        if path is not None:
            work.put(target, path or None, name)
    if "stdout" in work.fields and "stderr" not in work.fields and "error" not in work.given:
        work.put("stderr", work.fields["stdout"], "output")
    folder = work.read("chdir", _plain)
    if folder is not None:
        base = work.surroundings.submit_dir
        if base is None and not folder.startswith("/"):
            work.problem("chdir", f"{folder!r} is relative to a folder that is not known; write the whole path.")
        else:
            work.put("workdir", str(PurePosixPath(base or "/", folder)), "chdir")


def _file_name(text: str) -> str:
    """The pattern; empty for /dev/null, which Atoll needs no file for."""
    if text.strip().lower() in ("/dev/null", "none"):
        return ""
    return check_pattern(_plain(text))


def _variables(work: _Work) -> None:
    found = work.read("export", lambda text: notations.parse_export(text, work.surroundings.variables))
    if found is not None:
        variables, everything = found
        if everything:
            work.warn(
                "export",
                "Your whole environment is not carried to the job; name what it needs: --export=NAME,NAME=VALUE.",
            )
        if variables:
            work.put("env", {**work.fields.get("env", {}), **variables}, "export")
