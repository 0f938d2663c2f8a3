"""What the wrapper and the keeper wrote of attempts, as the site's script RECORDS tells it for many at once.

The folders belong to accounts that may be hostile: what does not look right counts as not written, and nothing that
one attempt's files say can be taken for another's.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from atoll.drivers.wrapper import Record, parse_end, parse_start

_STAT = re.compile(rb"([dfl]) (\d{1,12}(?:\.\d{1,12})?) (\d{1,5}) ([0-9a-z]{5}-[0-9a-z]{16})(?:/([a-z]{1,10}))?")
_CONTENT = re.compile(rb"([0-9a-z]{5}-[0-9a-z]{16})/([a-z]{1,10}):(.*)", re.DOTALL)
_STOP = re.compile(rb"([a-z_]{1,20})(?: (\d{1,12}))?\n")
_USAGE = re.compile(rb"(\d{1,9}) (\d{1,18})\n")
_ABOUT = re.compile(rb"([0-9a-z]{5}-[0-9a-z]{16}) (\d{1,9}) (-|\d{1,10}) .*\n")


@dataclass
class SiteRecord:
    """What stands in an attempt's folder. There is none for an attempt that has no folder."""

    record: Record = field(default_factory=Record)
    stop: str | None = None
    """Why it was to end: a StopReason, or `timed_out`."""
    stopped_at: float | None = None
    recalled: bool = False
    """Whether it was claimed so that it never begins."""
    oom_kills: int = 0
    peak: int | None = None
    """Bytes."""
    batch: str = ""
    index: int = 0
    walltime: int | None = None

    @property
    def leaves_open(self) -> bool:
        """Whether Slurm may know more of the end than stands here: it may be Slurm that sent the signal."""
        by_itself = self.record.ended and self.record.signal is None
        return not by_itself and self.stop is None and not self.recalled


def read_records(text: bytes) -> dict[str, SiteRecord]:
    """The records of those attempts that have a folder, from what RECORDS said."""
    listing, _, contents = text.partition(b"\n\n") if not text.startswith(b"\n") else (b"", b"", b"")
    found: dict[str, SiteRecord] = {}
    files: dict[tuple[str, str], tuple[float, int]] = {}
    for line in listing.split(b"\n"):
        if (match := _STAT.fullmatch(line)) is None:
            continue
        attempt, name = match[4].decode(), (match[5] or b"").decode()
        if match[1] != b"f":
            each = found.setdefault(attempt, SiteRecord())
            if name == "claim":
                each.record = each.record._replace(claimed=True)
                each.recalled = match[1] == b"l"
        else:
            files[attempt, name] = float(match[2]), int(match[3])
    for (attempt, name), content in _contents(contents.split(b"\n")).items():
        known = files.get((attempt, name))
        # a file that grew or shrank between the two looks is read the next time
        if known is not None and known[1] == len(content) and attempt in found:
            _learn(found[attempt], name, content, known[0])
    return found


def _contents(lines: Iterable[bytes]) -> dict[tuple[str, str], bytes]:
    whole: dict[tuple[str, str], bytes] = {}
    for line in lines:
        if match := _CONTENT.fullmatch(line):
            key = match[1].decode(), match[2].decode()
            whole[key] = whole.get(key, b"") + match[3] + b"\n"
    return whole


def _learn(each: SiteRecord, name: str, content: bytes, modified: float) -> None:
    if name == "start" and (start := parse_start(content)):
        each.record = each.record._replace(claimed=True, started_at=modified, pid=start[0], native_id=start[1])
    elif name == "end" and (end := parse_end(content)):
        code, signal, cpu = end
        each.record = each.record._replace(ended_at=modified, exit_code=code, signal=signal, cpu_seconds=cpu)
    elif name == "stop" and (match := _STOP.fullmatch(content)):
        each.stop, each.stopped_at = match[1].decode(), modified
    elif name == "usage" and (match := _USAGE.fullmatch(content)):
        each.oom_kills, each.peak = int(match[1]), int(match[2]) or None
    elif name == "about" and (match := _ABOUT.fullmatch(content)):
        each.batch, each.index = match[1].decode(), int(match[2])
        each.walltime = None if match[3] == b"-" else int(match[3])
