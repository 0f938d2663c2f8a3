"""File name patterns as Slurm has them: `out-%A_%a.log`. Used wherever a job names a file for its output."""

import re
from collections.abc import Mapping

from atoll.drivers.base import Launch

_SYMBOL = re.compile(r"%(\d{0,2})(.?)", re.DOTALL)
_NO_TASK = "4294967294"  # what Slurm writes for %a where a job is no array
_WIDEST = 10


def pattern_values(launch: Launch, account: str) -> dict[str, str]:
    """What %j, %A, %a, %x and %u stand for in `launch`. %j of an array's task is `JOB_TASK`, so that it is unique."""
    job = str(launch.job_id)
    task = launch.task
    return {
        "j": job if task is None else f"{job}_{task}",
        "A": job,
        "a": _NO_TASK if task is None else str(task),
        "x": launch.spec.title,
        "u": account,
    }


def expand_pattern(pattern: str, values: Mapping[str, str]) -> str:
    """`pattern` with each %LETTER replaced by its value and %% by %; as in Slurm, a backslash switches that off.

    A number (`%4a`) pads a numeric value with zeros. A slash in a value becomes `_`: a job's name makes no folders.
    Raises ValueError, naming the symbol, for a letter that has no value.
    """
    if "\\" in pattern:
        return pattern.replace("\\", "")

    def replace(match: re.Match[str]) -> str:
        width, letter = match[1], match[2]
        if letter == "%" and not width:
            return "%"
        if letter not in values:
            known = ", ".join(f"%{name}" for name in values)
            raise ValueError(f"{match[0]!r} in the file name {pattern!r} is not known; write {known} or %%")
        value = values[letter].replace("/", "_").replace("\0", "_")
        return value.zfill(min(int(width), _WIDEST)) if width and value.isdecimal() else value

    return _SYMBOL.sub(replace, pattern)
