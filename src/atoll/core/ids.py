"""Names of things.

A *job id* is a positive integer that the store gives, as people know it from Slurm; one task of an array is written
`12[3]`. An *attempt id* is a short text that is unique over all platforms, because it travels in the records of
engines that several platforms may share: `<instance>-<time-ordered random part>`.
"""

import re
import secrets
from dataclasses import dataclass

from atoll.core.clock import Clock, system_clock, to_micros
from atoll.core.errors import Invalid
from atoll.core.ranges import Ranges

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u
_REFERENCE = re.compile(r"(?P<job>[0-9]{1,18})(?:\[(?P<tasks>[0-9,:\-]+)\]|_(?P<task>[0-9]{1,9}))?")
_ATTEMPT = re.compile(r"[0-9a-z]{5}-[0-9a-z]{16}")


def _base32(number: int, digits: int) -> str:
    return "".join(_ALPHABET[(number >> shift) & 31] for shift in range(5 * (digits - 1), -1, -5))


def new_instance_id() -> str:
    """Five random characters that tell one platform's attempts from another's at a shared engine."""
    return _base32(secrets.randbits(25), 5)


def new_attempt_id(instance: str, clock: Clock = system_clock) -> str:
    """A new attempt id of `instance`: 9 characters of time (milliseconds), 7 random ones."""
    return f"{instance}-{_base32(to_micros(clock()) // 1000, 9)}{_base32(secrets.randbits(35), 7)}"


def is_attempt_id(text: str, instance: str | None = None) -> bool:
    """Whether `text` has the form of an attempt id, of the platform `instance` where that is given."""
    return _ATTEMPT.fullmatch(text) is not None and (instance is None or text.startswith(instance + "-"))


@dataclass(frozen=True)
class JobRef:
    """A job, or some tasks of an array job, as a person names them: `12`, `12[3]`, `12[3,7-9]`, Slurm's `12_3`."""

    job: int
    tasks: Ranges | None = None

    @classmethod
    def parse(cls, text: str) -> "JobRef":
        """Read a reference. Raises Invalid where `text` is not one."""
        match = _REFERENCE.fullmatch(text.strip())
        if match is None or not 0 < int(match["job"]) < 2**63:
            raise Invalid(
                "bad_job_id",
                f"{text[:80]!r} is not a job: write a number as in 12, or tasks of an array as in 12[3,7-9].",
                field="job",
            )
        tasks = match["tasks"] or match["task"]
        return cls(int(match["job"]), Ranges.parse(tasks, field="job") if tasks else None)

    def __str__(self) -> str:
        return f"{self.job}[{self.tasks}]" if self.tasks is not None else str(self.job)


def task_name(job: int, task: int | None) -> str:
    """How one task of an array is written: `12[3]`; `12` for a job that is no array."""
    return str(job) if task is None else f"{job}[{task}]"
