"""Reads what the wrapper wrote of an attempt: its claim, start and end.

Called by drivers, and by the supervisor of the process driver, which must stay small: nothing but the standard
library is imported here. The folder may belong to somebody hostile: links are not followed, sizes are bounded, and
what does not look right counts as not written.
"""

import os
import re
import stat
from typing import NamedTuple

CLAIM, START, END = "claim", "start", "end"
_LAST_LINE = re.compile(rb"^(exit|signal) (\d{1,3})\n\Z", re.MULTILINE)
_TIMES = re.compile(rb"(\d{1,9})m(\d{1,2}(?:[.,]\d{1,9})?)s")
_START = re.compile(rb"(\d{1,10}) ([\x21-\x7e]{1,255})\n")
_LONGEST = 4096


class Record(NamedTuple):
    """What the wrapper wrote. Times are seconds since 1970 in UTC, by the clock of the attempt's file system."""

    claimed: bool = False
    started_at: float | None = None
    pid: int | None = None
    """Process id of the wrapper at its node."""
    native_id: str = ""
    ended_at: float | None = None
    """Set once the end is written; so are the following."""
    exit_code: int | None = None
    """As a shell tells it: 128 + n where signal n ended the command."""
    signal: int | None = None
    cpu_seconds: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the end was written."""
        return self.exit_code is not None


def read_plain(path: str) -> tuple[bytes, float] | None:
    """The beginning (4 KiB) and modification time of a plain file that is not reached by a link; else None."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return None
        return os.read(descriptor, _LONGEST), status.st_mtime
    except OSError:
        return None
    finally:
        os.close(descriptor)


def parse_start(text: bytes) -> tuple[int, str] | None:
    """Process id and native id from the file `start`; None where it is not whole."""
    match = _START.fullmatch(text)
    return (int(match[1]), match[2].decode()) if match else None


def parse_end(text: bytes) -> tuple[int, int | None, float | None] | None:
    """Exit code, signal and CPU seconds from the file `end`; None where it is not whole."""
    match = _LAST_LINE.search(text)
    if match is None:
        return None
    number = int(match[2])
    if match[1] == b"signal":
        code, signal = 128 + number, number
    else:
        code, signal = number, None
    if code > 255:
        return None
    spent = [int(minutes) * 60 + float(seconds.replace(b",", b".")) for minutes, seconds in _TIMES.findall(text)]
    return code, signal, sum(spent) if len(spent) == 4 else None


def read_record(folder: str) -> Record:
    """What stands in the attempt's folder now."""
    record = Record(claimed=os.path.isdir(f"{folder}/{CLAIM}"))  # noqa: PTH112  # no pathlib in the supervisor
    if (found := read_plain(f"{folder}/{START}")) and (start := parse_start(found[0])):
        record = record._replace(claimed=True, started_at=found[1], pid=start[0], native_id=start[1])
    if (found := read_plain(f"{folder}/{END}")) and (end := parse_end(found[0])):
        record = record._replace(claimed=True, ended_at=found[1], exit_code=end[0], signal=end[1], cpu_seconds=end[2])
    return record
