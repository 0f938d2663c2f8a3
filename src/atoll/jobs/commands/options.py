"""The options of `submit` and `run`: ours, declared here, and sbatch's, which are passed on to `core.script`.

Where both have a name for the same thing it means what Slurm's users expect: `--time 90` is minutes, `--mem 4000` MB;
with a unit it is what it says.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from typer.core import TyperCommand

from atoll.core.errors import AtollError, Invalid
from atoll.faces.terminal.output import Format

if TYPE_CHECKING:
    from atoll.client.files import LocalFile

T = TypeVar("T")
SBATCH = "atoll.sbatch"
"""Where the words that are sbatch's are kept in the context."""
IS_COMMAND = "atoll.command"
"""Where is kept whether the words came after `--`."""


def read(option: str, text: str, parse: Callable[[str], T]) -> T:
    """The value that `text` means for `option`. Raises Invalid that names it."""
    try:
        return parse(text)
    except AtollError as error:
        raise Invalid("bad_option", f"{option}: {error.sentence}", field=option) from None
    except ValueError as error:
        raise Invalid("bad_option", f"{option}: {str(error).rstrip('.')}.", field=option) from None


def walltime(text: str) -> int | None:
    """Seconds of `90` (minutes), `1:30:00`, `2-12`, `90s`, `1h30m`; None for no limit."""
    from atoll.core.resources import parse_seconds
    from atoll.core.slurm.notations import parse_time_limit

    try:
        return parse_time_limit(text)
    except ValueError:
        return parse_seconds(text)


def memory(text: str) -> int:
    """Bytes of `4000` (MB), `4G`, `1.5GiB`."""
    from atoll.core.resources import parse_bytes
    from atoll.core.slurm.notations import parse_size

    try:
        return parse_size(text)
    except ValueError:
        return parse_bytes(text)


def begin(text: str) -> datetime:
    """The moment of `now+1hour`, `16:00`, `2026-05-01T12:00`."""
    from atoll.core.slurm.notations import parse_begin_time

    return parse_begin_time(text, datetime.now(UTC))


def gpus(text: str) -> tuple[str | None, str]:
    """Flavor and number of `2`, `0.5`, `a100:1`."""
    from atoll.core.resources import parse_milli
    from atoll.core.slurm.notations import parse_gpus

    if ":" in text:
        kind, count = parse_gpus(text)
        return (f"gpu-{kind.lower()}" if kind else None), str(count)
    parse_milli(text)
    return None, text


def dependencies(text: str) -> list[Any]:
    """Dependencies of `12`, `ok:12,any:13` and Slurm's `afterok:12:13`."""
    from atoll.core.slurm.notations import parse_dependencies

    if text.startswith(("after", "singleton", "expand")):
        return list(parse_dependencies(text))
    return [word.strip() for word in text.split(",") if word.strip()]


def pairs(option: str, given: Sequence[str]) -> dict[str, str]:
    """`KEY=VALUE` pairs. Raises Invalid."""
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise Invalid("bad_option", f"{option}: {text!r} is no pair; write KEY=VALUE.", field=option)
        found[key] = value
    return found


def variables(given: Sequence[str]) -> dict[str, str]:
    """Variables of `KEY=VALUE`, and of `KEY`, which takes the value that it has here."""
    found = {}
    for text in given:
        if "=" not in text and text not in os.environ:
            raise Invalid("bad_option", f"--env: {text!r} is not set here; write {text}=VALUE.", field="--env")
        found.update(pairs("--env", [text]) if "=" in text else {text: os.environ[text]})
    return found


def input_files(given: Sequence[str]) -> "list[LocalFile]":
    """The files of `--in FILE[:PATH]`. Raises Invalid."""
    from atoll.client.files import local_files

    found: list[LocalFile] = []
    for text in given:
        name, colon, path = text.rpartition(":")
        renamed = colon and not Path(text).exists()
        found += local_files(name if renamed else text, Path.cwd(), path if renamed else None, "--in")
    return found


@dataclass(frozen=True)
class Asked:
    """What the options of the command line ask for: fields, what is added to lists, and words for sbatch."""

    fields: dict[str, Any]
    sites: tuple[str, ...] = ()
    files: "tuple[LocalFile, ...]" = ()
    patterns: tuple[str, ...] = ()
    sbatch: tuple[str, ...] = ()
    hold: bool = False
    unset: tuple[str, ...] = field(default=())
    """Fields that the options set back to nothing."""

    def over(self, document: Mapping[str, Any]) -> dict[str, Any]:
        """`document` with what was asked for here put over it."""
        from atoll.core.script import merge

        merged = merge({key: value for key, value in document.items() if key not in self.unset}, self.fields)
        if self.sites:
            kept = [term for term in _listed(merged.get("constraints")) if not str(term).startswith("site=")]
            merged["constraints"] = [*kept, "site=" + ",".join(self.sites)]
        if self.files:
            merged["files_in"] = [*(merged.get("files_in") or []), *(file.entry() for file in self.files)]
        if self.patterns:
            merged["files_out"] = [*(merged.get("files_out") or []), *self.patterns]
        return merged


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str) else list(value or [])


_Text = str | None
_Texts = list[str] | None


def job_options(
    *,
    name: Annotated[_Text, typer.Option("--name", "--job-name", "-J", metavar="NAME", help="Its name.")] = None,
    job_class: Annotated[_Text, typer.Option("--class", metavar="CLASS", help="interactive, service, batch or "
                                             "opportunistic.")] = None,
    project: Annotated[_Text, typer.Option("--project", "--account", "-A", metavar="NAME", help="Who pays.")] = None,
    cpu: Annotated[_Text, typer.Option(metavar="N", help="CPUs on each node: 2, 0.5, 500m.")] = None,
    mem: Annotated[_Text, typer.Option(metavar="SIZE", help="Memory on each node: 4G, 512MiB; a number alone is "
                                       "MB.")] = None,
    gpu: Annotated[_Text, typer.Option(metavar="N", help="GPUs on each node: 1, 0.5, a100:2.")] = None,
    flavor: Annotated[_Texts, typer.Option(metavar="NAME", help="Kind of hardware that will do, the preferred "
                                           "first.")] = None,
    nodes: Annotated[_Text, typer.Option("--nodes", "-N", metavar="N", help="Nodes.")] = None,
    launch: Annotated[_Text, typer.Option(metavar="once|each", help="Run once, or on each node.")] = None,
    scratch: Annotated[_Text, typer.Option(metavar="SIZE", help="Scratch space on each node.")] = None,
    time: Annotated[_Text, typer.Option("--time", "-t", metavar="TIME", help="Longest run: 1h30m, 1:30:00, 2-12; a "
                                        "number alone is minutes.")] = None,
    begin_time: Annotated[_Text, typer.Option("--begin", "-b", metavar="TIME", help="Not before: now+1hour, 16:00, "
                                              "2026-05-01T12:00.")] = None,
    array: Annotated[_Text, typer.Option("--array", "-a", metavar="SPEC", help="Many tasks: 0-99, 1,3,7, 0-99:2; "
                                         "%10 for at most ten at once.")] = None,
    after: Annotated[_Texts, typer.Option("--after", "--dependency", "-d", metavar="JOB", help="Wait for it to "
                                          "succeed; any:JOB to end, not_ok:JOB to fail; afterok:12:13.")] = None,
    env: Annotated[_Texts, typer.Option(metavar="KEY[=VALUE]", help="Environment variable.")] = None,
    workdir: Annotated[_Text, typer.Option("--workdir", "--chdir", "-D", metavar="DIR", help="Working directory at "
                                           "the site. Default: a new one.")] = None,
    site: Annotated[_Texts, typer.Option(metavar="NAME", help="Only at this site.")] = None,
    constraint: Annotated[_Texts, typer.Option("--constraint", "-C", metavar="TERM", help="On a site's labels: "
                                               "region=eu,us, engine!=slurm, fast.")] = None,
    offload: Annotated[_Text, typer.Option(metavar="never|allowed|only", help="Whether it may leave the local "
                                           "sites.")] = None,
    image: Annotated[_Text, typer.Option(metavar="IMAGE", help="OCI image to run in.")] = None,
    venv: Annotated[_Text, typer.Option(metavar="DIR", help="Python venv at the site.")] = None,
    conda: Annotated[_Text, typer.Option(metavar="NAME", help="Conda environment at the site.")] = None,
    retries: Annotated[int | None, typer.Option(metavar="N", help="How often a failure is tried again.")] = None,
    rerun: Annotated[bool | None, typer.Option("--rerun/--no-rerun", help="Run again when the site lost it.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", help="Higher goes first.")] = None,
    grace: Annotated[_Text, typer.Option(metavar="TIME", help="Between being asked to stop and being killed; a number "
                                         "alone is seconds.")] = None,
    hold: Annotated[bool, typer.Option("--hold", "-H", help="Keep it from starting until: atoll release.")] = False,
    files_in: Annotated[_Texts, typer.Option("--in", metavar="FILE[:PATH]", help="Send a file or a folder; the job "
                                             "finds it in its working directory.")] = None,
    files_out: Annotated[_Texts, typer.Option("--out", metavar="PATTERN", help="Keep these files of the working "
                                              "directory; see atoll fetch.")] = None,
    stdout: Annotated[_Text, typer.Option("--stdout", "--output-file", metavar="FILE", help="File at the site that "
                                          "gets the output too: out-%j.log.")] = None,
    stderr: Annotated[_Text, typer.Option("--stderr", "--error", "-e", metavar="FILE", help="The same for the error "
                                          "output.")] = None,
    label: Annotated[_Texts, typer.Option(metavar="KEY=VALUE", help="Free-form label.")] = None,
) -> Asked:  # fmt: skip
    """What these options ask for. Raises Invalid that names the option."""
    from atoll.core.resources import parse_bytes, parse_milli, parse_seconds

    fields: dict[str, Any] = {
        "name": name, "class": job_class, "project": project, "launch": launch, "workdir": _folder(workdir),
        "offload": offload, "retries": retries, "rerun": rerun, "priority": priority, "flavor": flavor,
        "cpu": read("--cpu", cpu, lambda text: (parse_milli(text), text)[1]) if cpu else None,
        "memory": read("--mem", mem, memory) if mem else None,
        "scratch": read("--scratch", scratch, parse_bytes) if scratch else None,
        "grace": read("--grace", grace, parse_seconds) if grace else None,
        "env": variables(env) if env else None,
        "labels": pairs("--label", label) if label else None,
        "constraints": constraint,
        "dependencies": [entry for text in after for entry in read("--after", text, dependencies)] if after else None,
        "environment": _environment(image=image, venv=venv, conda=conda),
        "begin": read("--begin", begin_time, begin).isoformat() if begin_time else None,
        "walltime": read("--time", time, walltime) if time else None,
    }  # fmt: skip
    if gpu:
        kind, fields["gpu"] = read("--gpu", gpu, gpus)
        fields["flavor"] = flavor or ([kind] if kind else None)
    through = (("--nodes", nodes), ("--array", array), ("--output", stdout), ("--error", stderr))
    return Asked(
        {key: value for key, value in fields.items() if value is not None},
        tuple(site or ()),
        tuple(input_files(files_in or ())),
        tuple(files_out or ()),
        tuple(f"{option}={value}" for option, value in through if value is not None),
        hold,
        ("walltime",) if time and fields["walltime"] is None else (),
    )


def _folder(workdir: str | None) -> str | None:
    return str(Path.cwd() / workdir) if workdir is not None else None


def _environment(**given: str | None) -> dict[str, str] | None:
    kept = {key: value for key, value in given.items() if value is not None}
    if len(kept) > 1:
        raise Invalid("bad_option", "Give one of --image, --venv and --conda.", field="--image")
    return kept or None


class JobCommand(TyperCommand):
    """A command that takes sbatch's options beside its own, up to the script's name or `--`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Set sbatch's options aside, and leave the others to Typer."""
        takes = {
            word: not param.is_flag
            for param in self.params
            for word in (*param.opts, *param.secondary_opts)
            if hasattr(param, "is_flag")
        }
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        split = _Splitter(ctx, takes | {"--help": False, "-h": False})
        split.take(args)
        ctx.meta[SBATCH] = split.sbatch
        ctx.meta[IS_COMMAND] = split.is_command
        return super().parse_args(ctx, [*split.own, "--", *split.words])


class _Splitter:
    """Tells our options from sbatch's, without knowing what either mean."""

    def __init__(self, context: Any, takes: Mapping[str, bool]) -> None:
        self._context = context
        self._takes = takes
        """Our options, and whether they take a value."""
        self.own: list[str] = []
        self.sbatch: list[str] = []
        self.words: list[str] = []
        self.is_command = False

    def take(self, args: Sequence[str]) -> None:
        rest = list(args)
        while rest:
            word = rest.pop(0)
            if word == "--":
                self.is_command, self.words = True, rest
                return
            if word == "-" or not word.startswith("-"):
                self.words = [word, *rest]
                return
            name = word.partition("=")[0] if word.startswith("--") else word[:2]
            if name in self._takes:
                self._take_own(word, name, rest)
            else:
                self._take_sbatch(word, name, rest)

    def _take_own(self, word: str, name: str, rest: list[str]) -> None:
        if not word.startswith("--") and not self._takes[name] and len(word) > 2:
            rest.insert(0, "-" + word[2:])  # -Hn 2: flags may be written together
            word = name
        self.own.append(word)
        if self._takes[name] and word == name and rest:
            self.own.append(rest.pop(0))
        if name == "-o":
            self._check_format(self.own[-1] if word == name else word[2:])

    def _wrong(self, sentence: str) -> typer.BadParameter:
        return typer.BadParameter(sentence, ctx=self._context)

    def _check_format(self, value: str) -> None:
        if value.removeprefix("=").lower() not in tuple(Format):
            raise self._wrong(
                f"-o is the output format ({', '.join(Format)}), and {value!r} is none; a file for what the job writes "
                "is given as --stdout FILE."
            )

    def _take_sbatch(self, word: str, name: str, rest: list[str]) -> None:
        from difflib import get_close_matches

        from atoll.core.slurm.options import OPTIONS, Takes

        if name == "-o":
            raise self._wrong("-o is no option here; a file for what the job writes is given as --stdout FILE.")
        long = {alias: option for option in OPTIONS for alias in (option.name, *option.aliases)}
        if word.startswith("--"):
            begun = {option.name: option for key, option in long.items() if key.startswith(name[2:])}
            option = long.get(name[2:]) or (next(iter(begun.values())) if len(begun) == 1 else None)
            valued = "=" in word
        else:
            option = next((option for option in OPTIONS if option.short == word[1]), None)
            if option is not None and option.takes is Takes.NOTHING and len(word) > 2:
                rest.insert(0, "-" + word[2:])
                word = name
            valued = len(word) > 2
        if option is None:
            known = [*self._takes, *(f"--{key}" for key in long)]
            near = get_close_matches(name, known, n=1, cutoff=0.6)
            raise self._wrong(f"There is no option {name}." + (f" Did you mean {near[0]}?" if near else ""))
        self.sbatch.append(word)
        if option.takes is Takes.VALUE and not valued:
            if not rest:
                raise self._wrong(f"The option {name} needs a value.")
            self.sbatch.append(rest.pop(0))
