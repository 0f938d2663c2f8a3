"""From a job script to a job specification: what its `#SBATCH` and `#ATOLL` lines ask for.

Called by the command line's `submit` and by the client. Of what is asked for twice, the command line wins over
`#ATOLL` lines, and these over `#SBATCH` lines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any

from atoll.core.documents import read_yaml
from atoll.core.errors import Invalid
from atoll.core.slurm.fields import Surroundings, Translation, translate
from atoll.core.slurm.notations import parse_begin_time
from atoll.core.slurm.options import COMMAND_LINE, Given, all_wrong, parse_directive, parse_words, wrong
from atoll.core.spec import JobSpec, read_spec, suggestion

_OWN_FIELDS = tuple(field.alias or name for name, field in JobSpec.model_fields.items())
_FROM_THE_SCRIPT = ("command", "script", "args")
_MERGED = ("env", "labels")
"""Fields whose entries are put together, where others replace one another."""


@dataclass(frozen=True)
class ScriptRequest:
    """What a script and options ask for. `spec` is a document for `read_spec`, to be merged with other sources."""

    spec: dict[str, Any]
    hold: bool = False
    client: frozenset[str] = frozenset()
    """Names of sbatch's options for the command itself: parsable, quiet, test-only, verbose, wait."""
    warnings: tuple[str, ...] = ()
    """Sentences that name a line each; the job does what they say, and the person should know."""
    origins: Mapping[str, str] = field(default_factory=dict)
    """Where each field of `spec` came from, as in `#SBATCH line 7: --mem`."""


@dataclass(frozen=True)
class _Lines:
    """The directives of a script, in their order."""

    options: tuple[Given, ...]
    fields: tuple[tuple[str, Any, str], ...]
    """Name, value and place of each `#ATOLL` field."""
    slurm: bool
    warnings: tuple[str, ...]


def read_script(
    script: str | bytes,
    surroundings: Surroundings,
    *,
    options: Sequence[str] = (),
    args: Sequence[str] = (),
    filename: str | None = None,
) -> ScriptRequest:
    """What the text of a script asks for, with sbatch's `options` of the command line and the script's `args`.

    `filename` gives the job a name where nothing else does. Raises Invalid that names every line that is wrong.
    """
    text = check_script(script)
    lines = _read_lines(text)
    given, rest = parse_words(options, COMMAND_LINE)
    if rest:
        raise wrong(f"{COMMAND_LINE}: {rest[0]}", "It is no option of sbatch.")
    if any(option.name == "wrap" for option in given):
        raise wrong(f"{COMMAND_LINE}: --wrap", "Give either a script or --wrap.")
    request = _combine(lines, translate([*lines.options, *given], surroundings), surroundings)
    spec = {**request.spec, "script": text}
    if args:
        spec["args"] = list(args)
    if filename and "name" not in spec:
        spec["name"] = PurePosixPath(filename).name
    if lines.slurm:
        _as_slurm(spec, surroundings)
    _check(spec, request.origins)
    return replace(request, spec=spec)


def read_options(options: Sequence[str], surroundings: Surroundings) -> ScriptRequest:
    """What sbatch's options on the command line ask for, where the job is a command or `--wrap`. Raises Invalid."""
    given, rest = parse_words(options, COMMAND_LINE)
    if rest:
        raise wrong(f"{COMMAND_LINE}: {rest[0]}", "It is no option of sbatch.")
    wrapped = next((option.value or "" for option in reversed(given) if option.name == "wrap"), None)
    request = _combine(_Lines((), (), False, ()), translate(given, surroundings), surroundings)
    spec = dict(request.spec)
    if wrapped is not None:
        spec["script"] = f"#!/bin/sh\n# This script was made from --wrap.\n\n{wrapped}\n"
        spec.setdefault("name", "wrap")
        _as_slurm(spec, surroundings)
    _check(spec, request.origins)
    return replace(request, spec=spec)


def merge(*documents: Mapping[str, Any]) -> dict[str, Any]:
    """One specification document of several, later ones winning; `env` and `labels` are put together by key."""
    merged: dict[str, Any] = {}
    for document in documents:
        for name, value in document.items():
            before = merged.get(name)
            both = name in _MERGED and isinstance(before, Mapping) and isinstance(value, Mapping)
            merged[name] = {**before, **value} if both and before is not None else value
    return merged


def check_script(script: str | bytes) -> str:
    """The text of a script that can be run, checked as sbatch does. Raises Invalid."""
    try:
        text = script.decode() if isinstance(script, bytes) else script
    except UnicodeDecodeError:
        raise Invalid(
            "bad_script", "The script is not UTF-8 text; give a script, not a program.", field="script"
        ) from None
    if not text.strip():
        raise Invalid("bad_script", "The script is empty.", field="script")
    if text.startswith("\ufeff"):
        raise Invalid(
            "bad_script", "The script begins with a byte order mark; save it as UTF-8 without one.", field="script"
        )
    if "\0" in text:
        raise Invalid("bad_script", "The script has a NUL character; give a script, not a program.", field="script")
    if not text.startswith("#!"):
        raise Invalid(
            "bad_script",
            "This does not look like a batch script: its first line must be #! and the path of an interpreter, "
            "for instance #!/bin/sh.",
            field="script",
        )
    if "\r\n" in text:
        raise Invalid(
            "bad_script",
            "The script has DOS line breaks (\\r\\n) instead of UNIX ones (\\n); convert it with: dos2unix FILE, "
            "or: sed -i 's/\\r$//' FILE.",
            field="script",
        )
    return text


def has_directives(text: str) -> bool:
    """Whether the script has `#SBATCH` or `#ATOLL` lines that count."""
    return any(line.startswith(("#SBATCH", "#SLURM", "#ATOLL")) for _, line in _head(text))


def _head(text: str) -> list[tuple[int, str]]:
    """The numbered lines before the first command."""
    head = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            break
        head.append((number, line))
    return head


def _read_lines(text: str) -> _Lines:
    options: list[Given] = []
    fields: list[tuple[str, Any, str]] = []
    warnings: list[str] = []
    problems: list[tuple[str, str]] = []
    slurm = False
    head = _head(text)
    for number, line in head:
        word = next((word for word in ("#SBATCH", "#SLURM", "#ATOLL") if line.startswith(word)), None)
        if word is None:
            continue
        place = f"{word} line {number}"
        try:
            if word == "#ATOLL":
                fields += _own_field(line.removeprefix(word), place, fields)
                continue
            slurm = True
            options += parse_directive(line.removeprefix(word), place)
            if word == "#SLURM":
                warnings.append(f"{place}: Write #SBATCH; it is read as that.")
        except Invalid as error:
            problems += error.errors
    for option in options:
        if option.name == "wrap":
            problems.append((option.label, "It belongs on the command line; the script itself is what runs."))
    if problems:
        raise all_wrong(problems)
    warnings += _too_late(text, len(head))
    return _Lines(tuple(options), tuple(fields), slurm, tuple(warnings))


def _too_late(text: str, head: int) -> list[str]:
    """Directives after the first command, which sbatch passes over in silence."""
    return [
        f"{line.split()[0]} line {number}: It stands after the first command, and so has no effect; move it up."
        for number, line in enumerate(text.split("\n")[head:], head + 1)
        if line.startswith(("#SBATCH ", "#ATOLL "))
    ]


def _own_field(text: str, place: str, before: list[tuple[str, Any, str]]) -> list[tuple[str, Any, str]]:
    """The field of one `#ATOLL key: value` line."""
    if not text.strip() or text.strip().startswith("#"):
        return []
    try:
        value = read_yaml(text.strip(), "line")
    except Invalid as error:
        raise wrong(place, error.sentence) from None
    if not isinstance(value, dict) or len(value) != 1:
        raise wrong(place, "Write one field as FIELD: VALUE, for example '#ATOLL cpu: 2'.")
    name = str(next(iter(value)))
    label = f"{place}: {name}"
    if name in _FROM_THE_SCRIPT:
        raise wrong(label, "The script itself is what runs; its arguments are given on the command line.")
    if name not in _OWN_FIELDS:
        raise wrong(label, f"There is no field {name!r}.{suggestion(name, list(_OWN_FIELDS))}")
    if name not in _MERGED and (twice := next((at for known, _, at in before if known == name), None)):
        raise wrong(label, f"It is given twice, first at {twice.partition(':')[0]}.")
    return [(name, value[name], label)]


def _combine(lines: _Lines, translation: Translation, surroundings: Surroundings) -> ScriptRequest:
    spec = dict(translation.fields)
    origins = {target: given[0].label for target, given in translation.origins.items() if given}
    for name, value, label in lines.fields:
        if any(option.on_command_line for option in translation.origins.get(name, ())):
            if name in _MERGED:
                spec = merge({name: value}, spec)
            continue
        if name == "begin" and isinstance(value, str):
            try:
                value = parse_begin_time(value, surroundings.now, surroundings.zone).isoformat()
            except ValueError as error:
                raise wrong(label, str(error)) from None
        spec = merge(spec, {name: value})
        origins[name] = label
    return ScriptRequest(spec, translation.hold, translation.client, (*lines.warnings, *translation.warnings), origins)


def _as_slurm(spec: dict[str, Any], surroundings: Surroundings) -> None:
    """What a script for Slurm counts on: SLURM_* variables, and to start in the folder it was submitted from."""
    spec.setdefault("slurm", True)
    if surroundings.submit_dir is not None and spec["slurm"] is True:
        spec.setdefault("workdir", surroundings.submit_dir)
        env = spec.get("env")
        spec["env"] = {"SLURM_SUBMIT_DIR": surroundings.submit_dir, **(env if isinstance(env, dict) else {})}


def _check(spec: dict[str, Any], origins: Mapping[str, str]) -> None:
    """Raise Invalid, naming the lines, where the fields are not valid."""
    whole = spec if "script" in spec else {**spec, "command": ["true"]}
    try:
        read_spec(whole)
    except Invalid as error:
        named = []
        for place, sentence in error.errors:
            first, _, inner = place.partition(".")
            label = origins.get(first, place)
            named.append((label, f"{inner}: {sentence}" if inner and first in origins else sentence))
        raise all_wrong(named) from None
