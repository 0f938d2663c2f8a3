"""A batch job as slurmrestd takes it: sbatch's options as the fields of a document, by version of the interface."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from atoll.drivers.base import DriverError
from atoll.drivers.wrapper import quote

_SAME = {
    "job-name": "name", "comment": "comment", "chdir": "current_working_directory", "output": "standard_output",
    "error": "standard_error", "input": "standard_input", "partition": "partition", "qos": "qos",
    "account": "account", "reservation": "reservation", "constraint": "constraints", "array": "array",
}  # fmt: skip
_NUMBERS = {"ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus_per_task"}
_MEMORY = re.compile(r"(\d+)M")


def job_document(
    version: int, options: Sequence[str], words: Sequence[str], environment: Mapping[str, str]
) -> dict[str, Any]:
    """The body of a submission in version v0.0.`version`. Raises DriverError for an option that it cannot say.

    Up to v0.0.38 an option is what sbatch takes as text or number; from v0.0.39 on numbers are objects.
    """
    job: dict[str, Any] = {}
    for option in options:
        name, _, value = option.removeprefix("--").partition("=")
        if name in _SAME:
            job[_SAME[name]] = value
        elif name in _NUMBERS:
            job[_NUMBERS[name]] = int(value)
        else:
            job |= _field(version, name, value)
    script = "#!/bin/sh\nexec " + " ".join(map(quote, words)) + "\n"
    if version < 39:
        return {"script": script, "job": job | {"environment": dict(environment)}}
    job["environment"] = [f"{name}={value}" for name, value in environment.items()]
    if version < 40:
        return {"script": script, "job": job}
    return {"job": job | {"script": script}}


def _field(version: int, name: str, value: str) -> dict[str, Any]:
    old = version < 39
    match name:
        case "no-requeue":
            # in v0.0.38 `requeue` means yes, whatever its value
            return {"no_requeue": True} if old else {"requeue": False}
        case "nodes":
            # v0.0.38 reads a list of two numbers, and then asks for one node
            return {"nodes": value} if old else {"minimum_nodes": int(value), "maximum_nodes": int(value)}
        case "mem":
            match = _MEMORY.fullmatch(value)
            if match is not None:
                return {"memory_per_node": int(match[1]) if old else _number(int(match[1]))}
        case "time":
            return {"time_limit": int(value) if old else _number(int(value))}
        case "gres":
            if old:
                return {"gres": value}
            # before 23.11 the kind of resource was joined to its name by a colon
            return {"tres_per_node": f"gres{':' if version < 40 else '/'}{value}"}
        case "open-mode":
            return {"open_mode": value if old else [value.upper()]}
        case "export" | "parsable":
            return {}
    raise DriverError(f"slurmrestd is not told of the option --{name}={value}.")


def _number(value: int) -> dict[str, Any]:
    return {"set": True, "infinite": False, "number": value}
