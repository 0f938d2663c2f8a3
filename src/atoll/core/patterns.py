"""File names with `%` symbols, as sbatch has them: `out-%j.log`, `%x-%A_%a.txt`.

Slurm gives each task of an array a job number of its own, and scripts count on `%j` being unique. Atoll's tasks share
the array's number, so `%j` of a task is the array's number and the task's, `12_3`.
"""

import re

from atoll.core.errors import Invalid

_SYMBOL = re.compile(r"%(\d*)(.?)", re.DOTALL)
_REFUSED = {
    "J": "Atoll has no job steps; write %j",
    "N": "the node's name is not known beforehand; write %j",
    "S": "Atoll has no such ids; write %j",
    "n": "a job has one set of files, not one for each node; write %j",
    "s": "Atoll has no job steps; write %j",
    "t": "a job has one set of files, not one for each task of srun; write %j, and %a for the task of an array",
}
_RANGE = re.compile(r"(.)-(.)", re.DOTALL)
_KNOWN = "%x %j %A %a %b %u %r and %%"
_MOST_DIGITS = 10
"""Slurm pads with zeros to at most so many digits."""


def check_pattern(pattern: str, field: str | None = None) -> str:
    """`pattern` itself, where each `%` symbol in it is known. Raises Invalid that names the first that is not."""
    if "\\" not in pattern:
        for symbol in _SYMBOL.finditer(pattern):
            if symbol[2] in _REFUSED:
                sentence = f"{symbol[0]!r} in a file name is not supported: {_REFUSED[symbol[2]]}."
            elif not symbol[2] or symbol[2] not in "xjAabur%":
                sentence = f"{symbol[0]!r} in a file name means nothing; known are {_KNOWN}."
            else:
                continue
            raise Invalid("bad_pattern", sentence, field=field)
    return pattern


def check_wildcards(pattern: str) -> str:
    """`pattern` itself, where its `[...]` say something: as in `out/*.[ch]`. Raises ValueError."""
    place = pattern.find("[")
    while place >= 0 and (end := pattern.find("]", place + 2)) > 0:
        inside = pattern[place + 1 : end]
        letters = inside[1:] if inside[0] in "!^" else inside
        if not letters:
            raise ValueError(f"{pattern[place : end + 1]!r} names no character; write as in [!a]")
        for match in _RANGE.finditer(letters):
            if match[1] > match[2]:
                raise ValueError(f"{match[0]!r} is a range that ends before it begins; write {match[2]}-{match[1]}")
        place = pattern.find("[", end + 1)
    return pattern


def expand_pattern(pattern: str, *, job_id: int, task: int | None, name: str, person: str, restarts: int = 0) -> str:
    r"""The file name that `pattern` stands for, for one attempt of a job or of one task of an array.

    `%x` the job's name, `%u` the person, `%A` the job's number, `%a` the task's (0 without an array), `%b` the task's
    modulo 10, `%j` the job's number, of a task `12_3`, `%r` how often the job was started again. `%4j` pads a number
    with zeros. A backslash anywhere turns symbols off, as in Slurm, and is dropped. Slashes in name and person become
    `_`, so that neither leads into another folder. Raises Invalid as check_pattern does.
    """
    check_pattern(pattern)
    if "\\" in pattern:
        return pattern.replace("\\", "")

    def replace(symbol: re.Match[str]) -> str:
        width = min(int(symbol[1][:3] or 0), _MOST_DIGITS)
        match symbol[2]:
            case "x":
                return _one_part(name)
            case "u":
                return _one_part(person)
            case "A":
                return str(job_id).zfill(width)
            case "a":
                return str(task or 0).zfill(width)
            case "b":
                return str((task or 0) % 10).zfill(width)
            case "r":
                return str(restarts).zfill(width)
            case "j":
                return str(job_id).zfill(width) + ("" if task is None else f"_{task}")
        return "%"

    return _SYMBOL.sub(replace, pattern)


def _one_part(text: str) -> str:
    """`text` as one part of a path."""
    text = text.replace("/", "_").replace("\0", "_")
    return "_" * len(text) if text in (".", "..") else text
