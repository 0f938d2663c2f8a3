"""Every option of sbatch from 22.05 to 25.05 with what becomes of it here, and sbatch's way of reading options.

The table is the truth that the translation, the error messages and the user's table in docs/slurm-scripts.md share.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from enum import StrEnum

from atoll.core.errors import Invalid

COMMAND_LINE = "command line"
"""The place of options that were given to the command and not in the script."""


class Takes(StrEnum):
    """Whether an option has a value."""

    NOTHING = "nothing"
    VALUE = "value"
    MAYBE = "maybe"


class Treatment(StrEnum):
    """What becomes of an option."""

    TRANSLATED = "translated"
    CLIENT = "client"
    """Tells the command what to do after the submission."""
    ALREADY = "already so"
    """Asks for what always is so."""
    REFUSED = "refused"


@dataclass(frozen=True)
class Option:
    """One option of sbatch. `note` says what it becomes, or, of a refused one, why not and what to do instead."""

    name: str
    short: str
    takes: Takes
    treatment: Treatment
    note: str
    harmless: frozenset[str] = frozenset()
    """Values of a refused option that ask for nothing, and are accepted."""
    aliases: tuple[str, ...] = ()


@dataclass(frozen=True)
class Given:
    """An option as it was written somewhere."""

    option: Option
    value: str | None
    place: str

    @property
    def name(self) -> str:
        """The option's long name, however it was written."""
        return self.option.name

    @property
    def label(self) -> str:
        """Where it stands and what it is: `#SBATCH line 7: --mem`."""
        return f"{self.place}: --{self.name}"

    @property
    def on_command_line(self) -> bool:
        """Whether it was given to the command, and so wins over the script."""
        return self.place == COMMAND_LINE


def _rows(treatment: Treatment, *rows: tuple[str, str, str]) -> list[Option]:
    """Options from `(head, note, harmless values)`; a head is `-X name=` , `name=`, `name[=]` or `name`."""
    options = []
    for head, note, harmless in rows:
        short, _, name = head.rpartition(" ")
        takes = Takes.MAYBE if name.endswith("[=]") else Takes.VALUE if name.endswith("=") else Takes.NOTHING
        name = name.removesuffix("[=]").removesuffix("=")
        options.append(
            Option(name, short[1:], takes, treatment, note, frozenset(harmless.split()), _ALIASES.get(name, ()))
        )
    return options


_ALIASES = {"ntasks-per-node": ("tasks-per-node",), "clusters": ("cluster",)}

_TRANSLATED = _rows(
    Treatment.TRANSLATED,
    ("-A account=", "`project`", ""),
    ("-a array=", "`array`", ""),
    ("-b begin=", "`begin`; all of sbatch's notations of time", ""),
    ("-D chdir=", "`workdir`; a relative folder is below the one that you submit from", ""),
    ("-M clusters=", "`constraints: site=NAME`; `all` asks for nothing", ""),
    ("comment=", "`labels: {comment: TEXT}`", ""),
    ("-C constraint=", "`constraints`: `a&b` is both; `k=x|k=y` is `k=x,y`; others and counts are refused", ""),
    ("-c cpus-per-task=", "`cpu`: tasks on a node times this", ""),
    ("cpus-per-gpu=", "`cpu`: GPUs on a node times this", ""),
    ("-d dependency=",
     "`dependencies`: `afterok` → ok, `afterany` → any, `afternotok` → not_ok; others and `?` are refused", ""),
    ("-e error=", "`stderr`", ""),
    ("export=", "`env`: `NAME=VALUE` and `NAME`; `NONE` is already so; `ALL` is not carried, with a warning", ""),
    ("-G gpus=", "`gpu`: this divided by the nodes; a type T becomes `flavor: gpu-T`", ""),
    ("gpus-per-node=", "`gpu`; a type T becomes `flavor: gpu-T`", ""),
    ("gpus-per-task=", "`gpu`: tasks on a node times this; a type T becomes `flavor: gpu-T`", ""),
    ("gres=", "`gpu`, of `gpu:2` and `gpu:a100:2`; other resources are refused", ""),
    ("-H hold", "the job is submitted held", ""),
    ("-i input=", "`stdin`", ""),
    ("-J job-name=", "`name`", ""),
    ("mem=", "`memory`; without a unit in MB; `0` (all of a node) is refused", ""),
    ("mem-per-cpu=", "`memory`: CPUs on a node times this", ""),
    ("mem-per-gpu=", "`memory`: GPUs on a node times this", ""),
    ("mincpus=", "`cpu`: at least this", ""),
    ("nice[=]", "`priority`: minus this, minus 100 without a value", ""),
    ("no-requeue", "`retries: 0`, `rerun: false`; evicted jobs run again even so, with a warning", ""),
    ("-N nodes=", "`nodes`; of a range the smallest", ""),
    ("-n ntasks=", "`cpu` (and `nodes` with --ntasks-per-node), see below", ""),
    ("ntasks-per-gpu=", "`cpu`: GPUs on a node times this times CPUs of a task", ""),
    ("ntasks-per-node=", "`cpu`: this times CPUs of a task", ""),
    ("-o output=", "`stdout`, and `stderr` unless --error is given", ""),
    ("-O overcommit", "`cpu`: the CPUs of one task on each node", ""),
    ("-p partition=", "`constraints: partition=NAME`, with a warning", ""),
    ("priority=", "`priority`; `TOP` is refused", ""),
    ("-q qos=", "`class`: interactive, service, batch (also `normal`) or opportunistic; others are refused", ""),
    ("requeue[=]", "`rerun: true`", ""),
    ("signal=", "`signal`; HUP, INT, QUIT, USR1, USR2, TERM, CONT, ALRM by name or number; `R:` is refused", ""),
    ("-t time=", "`walltime`; a number alone is minutes; seconds are rounded up to minutes; `0` is no limit", ""),
    ("tmp=", "`scratch`; without a unit in MB", ""),
    ("tres-per-task=", "`cpu` and `gpu`, of `cpu=4` and `gres/gpu=1`; others are refused", ""),
    ("wrap=", "`script`, on the command line only", ""),
)  # fmt: skip

_CLIENT = _rows(
    Treatment.CLIENT,
    ("parsable", "prints only the job's id", ""),
    ("-Q quiet", "prints nothing but errors", ""),
    ("test-only", "checks the job and submits nothing", ""),
    ("-v verbose", "says more of what is done", ""),
    ("-W wait", "waits for the job and ends with its exit code", ""),
)

_ALREADY = _rows(
    Treatment.ALREADY,
    ("ignore-pbs", "`#PBS` and `#BSUB` lines are never read", ""),
    ("-s oversubscribe", "jobs share nodes, never the CPUs, memory and GPUs that they asked for", ""),
    ("time-min=", "permits a shorter walltime, and Atoll never shortens it", ""),
    ("use-min-nodes", "of a range of nodes the smallest is taken", ""),
)

_PLACING = "Atoll does not place by sockets, cores and threads; remove it and ask for CPUs with --cpus-per-task"
_BINDING = "Atoll does not bind processes to hardware; remove it, or call taskset or numactl in the script"
_TOPOLOGY = "Atoll does not place by the network's topology; remove it"
_MAIL = "Atoll sends no mail; remove it, and use: atoll wait ID"
_POWER = "Atoll does not set clock rates or power; remove it"
_NODES = "Atoll chooses the nodes; remove it, and use --constraint=LABEL=VALUE or '#ATOLL flavor: NAME'"
_STORAGE = "Atoll has no burst buffers; use '#ATOLL files_in', '#ATOLL volumes' or --tmp"
_IMAGE = "Atoll runs images, not OCI bundles; write '#ATOLL environment: {image: NAME}'"
_ACCOUNTING = "Atoll's accounting has no such setting; remove it"
_SELF = "jobs run as the person who submits them; remove it, and submit as that person"

_REFUSED = _rows(
    Treatment.REFUSED,
    ("acctg-freq=", _ACCOUNTING, ""),
    ("batch=", _NODES, ""),
    ("bb=", _STORAGE, ""),
    ("bbf=", _STORAGE, ""),
    ("cluster-constraint=", "write --constraint=LABEL=VALUE instead: constraints are on the labels of sites", ""),
    ("consolidate-segments", _TOPOLOGY, ""),
    ("container=", _IMAGE, ""),
    ("container-id=", _IMAGE, ""),
    ("context=", "Atoll does not set SELinux contexts; remove it", ""),
    ("contiguous", _TOPOLOGY, ""),
    ("-S core-spec=", "Atoll does not reserve cores for the system; remove it", "0"),
    ("cores-per-socket=", _PLACING, ""),
    ("cpu-freq=", _POWER, ""),
    ("deadline=", "Atoll does not know deadlines; remove it, or cancel the job with: atoll cancel ID", ""),
    ("delay-boot=", "Atoll does not boot nodes; remove it", ""),
    ("-m distribution=", "Atoll does not distribute tasks; remove it, and give it to srun or mpirun in the script", ""),
    ("-x exclude=", _NODES, ""),
    ("exclusive[=]", "jobs share nodes here; remove it, and ask for the CPUs and memory that the job needs", ""),
    ("export-file=", "write the variables as --export=NAME=VALUE or '#ATOLL env: {NAME: VALUE}'", ""),
    ("external", "Atoll runs the script that is submitted; remove it", ""),
    ("extra=", "write --comment=TEXT or '#ATOLL labels: {NAME: VALUE}' instead", ""),
    ("-B extra-node-info=", _PLACING, ""),
    ("get-user-env[=]", "begin the script with '#!/bin/bash -l' to have the login environment", ""),
    ("gid=", _SELF, ""),
    ("gpu-bind=", _BINDING, "none"),
    ("gpu-freq=", _POWER, ""),
    ("gpus-per-socket=", "Atoll does not place by sockets; ask for GPUs with --gpus-per-node", ""),
    ("gres-flags=", _BINDING, ""),
    ("-h help", "it belongs on the command line: atoll submit --help", ""),
    ("hint=", _BINDING, ""),
    ("kill-on-invalid-dep=",
     "a job whose dependency can no longer be met is ended; remove it, and submit it again later", "yes"),
    ("-L licenses=", "Atoll does not count licences; remove it, and limit an array with --array=0-99%10", ""),
    ("mail-type=", _MAIL, "NONE none"),
    ("mail-user=", _MAIL, ""),
    ("mcs-label=", "Atoll does not know MCS labels; remove it: only you and administrators see your jobs", ""),
    ("mem-bind=", _BINDING, "none"),
    ("mem-update=", "Atoll does not change a job's memory while it runs; remove it", ""),
    ("network=", "Atoll does not configure the network; remove it", ""),
    ("-k no-kill[=]", "a job ends with its node and may run again; remove it", "off"),
    ("-F nodefile=", _NODES, ""),
    ("-w nodelist=", _NODES, ""),
    ("ntasks-per-core=", _PLACING, ""),
    ("ntasks-per-socket=", _PLACING, ""),
    ("ntasks-per-tres=", "write --ntasks-per-gpu instead", ""),
    ("oom-kill-step[=]", "a job that uses more memory than it asked for is ended as a whole; remove it", "1"),
    ("open-mode=", "an attempt writes its files anew; remove it, and put %r, the number of restarts, into their names",
     "truncate t"),
    ("power=", _POWER, ""),
    ("prefer=", "Atoll has no wishes, only demands: write --constraint, or flavors in the order you prefer them", ""),
    ("profile=", "Atoll does not write profiles; remove it", "none None NONE"),
    ("propagate[=]", "Atoll does not carry the submitter's limits; call ulimit in the script", "NONE none"),
    ("reboot", "Atoll does not boot nodes; remove it", ""),
    ("reservation=", "Atoll has no reservations; remove it, and use --begin for a time", ""),
    ("resources=", "Atoll does not count such resources; remove it", ""),
    ("resv-ports[=]", "write '#ATOLL ports: [{name: http, port: 8080}]' for the ports that the job listens on", "0"),
    ("runtime=", _IMAGE, ""),
    ("segment=", _TOPOLOGY, ""),
    ("sockets-per-node=", _PLACING, ""),
    ("spread-job", _TOPOLOGY, ""),
    ("spread-segments", _TOPOLOGY, ""),
    ("stepmgr", "Atoll has no job steps; remove it", ""),
    ("switches=", _TOPOLOGY, ""),
    ("thread-spec=", "Atoll does not reserve threads for the system; remove it", "0"),
    ("threads-per-core=", _PLACING, ""),
    ("tres-bind=", _BINDING, ""),
    ("uid=", _SELF, ""),
    ("umask=", "call umask in the script", ""),
    ("usage", "it belongs on the command line: atoll submit --help", ""),
    ("-V version", "it belongs on the command line: atoll version", ""),
    ("wait-all-nodes=", "a job starts when all its nodes are there; remove it", "1"),
    ("wckey=", "write '#ATOLL labels: {wckey: NAME}' instead", ""),
)  # fmt: skip

OPTIONS: tuple[Option, ...] = tuple(
    sorted([*_TRANSLATED, *_CLIENT, *_ALREADY, *_REFUSED], key=lambda option: option.name)
)
"""Every option of sbatch, by name."""

_LONG = {name: option for option in OPTIONS for name in (option.name, *option.aliases)}
_SHORT = {option.short: option for option in OPTIONS if option.short}


def wrong(label: str, sentence: str) -> Invalid:
    """The error of an option at the place `label`."""
    return all_wrong([(label, sentence)])


def all_wrong(problems: Sequence[tuple[str, str]]) -> Invalid:
    """The error of several options or lines, as (place, sentence) pairs; the first is told, the others counted."""
    label, sentence = problems[0]
    more = f" (And {len(problems) - 1} more.)" if len(problems) > 1 else ""
    return Invalid("bad_directive", f"{label}: {sentence}{more}", field=label, errors=tuple(problems))


def _long_option(name: str, place: str) -> Option:
    """The option `name` means: exactly, or as the only one that begins so, as getopt_long has it."""
    if option := _LONG.get(name):
        return option
    begun = {option.name: option for long, option in _LONG.items() if long.startswith(name)}
    if len(begun) == 1:
        return next(iter(begun.values()))
    if begun:
        raise wrong(f"{place}: --{name}", f"It may be short for {_either(begun)}; write the one that you mean.")
    near = get_close_matches(name.replace("_", "-").lower(), _LONG, n=1, cutoff=0.6)
    raise wrong(
        f"{place}: --{name}",
        "sbatch has no such option." + (f" Did you mean --{near[0]}?" if near else " See: man sbatch."),
    )


def _either(names: Iterable[str]) -> str:
    words = [f"--{name}" for name in sorted(names)]
    return " or ".join([", ".join(words[:-1]), words[-1]])


def _not_an_option(word: str, place: str) -> Invalid:
    if word == ":" or word.lower() in ("hetjob", "packjob"):
        return wrong(f"{place}: {word}", "Jobs of several different parts are not supported; submit a job for each.")
    if word and word[0] in "\u2010\u2011\u2012\u2013\u2014\u2212":
        plain = word.lstrip("\u2010\u2011\u2012\u2013\u2014\u2212-")
        return wrong(f"{place}: {word}", f"The dashes are not plain ones; type them anew: --{plain}.")
    return wrong(f"{place}: {word}", "It is no option; write --NAME=VALUE, and quote a value that has spaces.")


def _take_long(word: str, following: list[str], place: str) -> Given:
    name, equals, value = word[2:].partition("=")
    option = _long_option(name, place)
    label = f"{place}: --{option.name}"
    if option.takes is Takes.NOTHING and equals:
        raise wrong(label, f"It takes no value, and {value!r} was given; write --{option.name} alone.")
    if option.takes is not Takes.VALUE:
        return Given(option, value if equals else None, place)
    if not equals:
        if not following:
            raise wrong(label, f"It needs a value on the same line; write --{option.name}=VALUE.")
        value = following.pop(0)
    return Given(option, value, place)


def _take_short(word: str, following: list[str], place: str) -> list[Given]:
    given = []
    letters = word[1:]
    while letters:
        letter, letters = letters[0], letters[1:]
        option = _SHORT.get(letter)
        if option is None:
            raise wrong(f"{place}: -{letter}", "sbatch has no such option. See: man sbatch.")
        if option.takes is Takes.NOTHING:
            given.append(Given(option, None, place))
            continue
        if option.takes is Takes.VALUE and not letters:
            if not following:
                raise wrong(f"{place}: -{letter}", f"It needs a value on the same line; write --{option.name}=VALUE.")
            letters = following.pop(0)
        given.append(Given(option, letters or None, place))
        letters = ""
    return given


def parse_words(words: Sequence[str], place: str) -> tuple[list[Given], list[str]]:
    """The options at the beginning of `words`, and the words from the first that is none, as getopt_long reads them.

    `--` ends the options and is dropped. Raises Invalid, with a field such as `#SBATCH line 7: --foo`, for what
    sbatch would not understand; whether an option is refused here is not looked at.
    """
    given: list[Given] = []
    rest = list(words)
    while rest:
        word = rest[0]
        if word == "--":
            return given, rest[1:]
        if len(word) < 2 or word[0] != "-":
            break
        rest.pop(0)
        if word.startswith("--"):
            given.append(_take_long(word, rest, place))
        else:
            given += _take_short(word, rest, place)
    return given, rest


def parse_directive(text: str, place: str) -> list[Given]:
    """The options of one `#SBATCH` line, of which `text` is what follows the `#SBATCH`. Raises Invalid."""
    given, rest = parse_words(split_directive(text, place), place)
    if rest:
        raise _not_an_option(rest[0], place)
    return given


def split_directive(text: str, place: str) -> list[str]:
    r"""The words of a directive as sbatch splits them: quotes group, `\` takes the next as it is, `#` ends the line."""
    words: list[str] = []
    word: list[str] = []
    begun = False
    quote = ""
    characters = iter(text)
    for character in characters:
        if character == "\\":
            word.append(next(characters, ""))
            begun = True
        elif quote:
            if character == quote:
                quote = ""
            else:
                word.append(character)
        elif character in "\"'":
            quote, begun = character, True
        elif character == "#":
            break
        elif character.isspace():
            if begun:
                words.append("".join(word))
            word, begun = [], False
        else:
            word.append(character)
            begun = True
    if quote:
        raise wrong(f"{place}: {text.strip()[:80]}", f"The quote {quote} is not closed.")
    return [*words, "".join(word)] if begun else words
