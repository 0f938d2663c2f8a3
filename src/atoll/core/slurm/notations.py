"""Slurm's notations for times, sizes, GPUs, dependencies and the rest, as functions from text to plain values.

Each raises ValueError with a sentence that says what would be right.
"""

import re
import signal
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta, tzinfo

from atoll.core.resources import MAX_AMOUNT
from atoll.core.spec import JobClass, suggestion

_UNLIMITED = frozenset({"-1", "infinite", "unlimited"})
_LIMIT = re.compile(
    r"(?P<days>\d+)-(?P<dhours>\d+)(?::(?P<dminutes>\d+)(?::(?P<dseconds>\d+))?)?"
    r"|(?P<hours>\d+):(?P<hminutes>\d+):(?P<hseconds>\d+)"
    r"|(?P<minutes>\d+)(?::(?P<seconds>\d+))?"
)
_SIZE = re.compile(r"(\d{1,15})([KkMmGgTt]?)[Bb]?")
_KIBI = {"K": 10, "": 20, "M": 20, "G": 30, "T": 40}
_DELTA = re.compile(r"now(?:\s*\+\s*(\d{1,8})\s*(second|minute|hour|day|week)?s?)?", re.IGNORECASE)
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})(?::(\d{2}))?\s*(am|pm)?", re.IGNORECASE)
_ISO_DAY = re.compile(r"(?P<year>\d{4})-(?P<month>\d{1,2})-(?P<day>\d{1,2})")
_AMERICAN_DAY = re.compile(r"(?P<month>\d{1,2})[/.](?P<day>\d{1,2})(?:[/.](?P<year>\d{2}))?")
_DIGITS_DAY = re.compile(r"(?P<month>\d{2})(?P<day>\d{2})(?P<year>\d{2})?")
_NAMED_TIMES = {"midnight": time(0), "noon": time(12), "fika": time(15), "teatime": time(16)}
_GPUS = re.compile(r"(?:(?P<kind>[A-Za-z][A-Za-z0-9_.-]*)[:=])?(?P<count>\d{1,6})")
_DEPENDED = re.compile(r"(\d{1,18})(?:_(\d{1,9})|\[([0-9,:-]+)\])?")
_KINDS = {"afterok": "ok", "afterany": "any", "afternotok": "not_ok"}
_NO_KINDS = {
    "after": "write afterok or afterany: a job cannot wait for another's start",
    "aftercorr": "write afterok: a task cannot wait for one task of another array",
    "afterburstbuffer": "write afterok: there are no burst buffers",
    "expand": "ask for all that the job needs at once",
    "singleton": "write afterany with the ids of the jobs to wait for",
}
_SIGNALS = ("HUP", "INT", "QUIT", "USR1", "USR2", "TERM", "CONT", "ALRM")
_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_./-]*"
_TERM = re.compile(rf"(?P<label>{_LABEL})(?P<equals>!?=)?(?P<value>(?<==)[A-Za-z0-9_][A-Za-z0-9_./ -]*)?")


def parse_time_limit(text: str) -> int | None:
    """Seconds of walltime, whole minutes as in Slurm; None for no limit. `90` is 90 minutes, `1-12` 36 hours."""
    if text.strip().lower() in _UNLIMITED:
        return None
    match = _LIMIT.fullmatch(text.strip())
    if match is None or len(text) > 30:
        raise ValueError(
            f"{text!r} is no time; write minutes, minutes:seconds, hours:minutes:seconds, days-hours, "
            "days-hours:minutes or days-hours:minutes:seconds."
        )
    part = {name: int(value or 0) for name, value in match.groupdict().items()}
    seconds = (
        part["days"] * 86400
        + (part["dhours"] + part["hours"]) * 3600
        + (part["dminutes"] + part["hminutes"] + part["minutes"]) * 60
        + (part["dseconds"] + part["hseconds"] + part["seconds"])
    )
    return -(-seconds // 60) * 60 or None


def parse_size(text: str) -> int:
    """Bytes of a size; without a unit it is in MB. Units are powers of 1024."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        whole = re.fullmatch(r"(\d{1,9}\.\d+)\s*([GgTt])[Bb]?", text.strip())
        hint = f"{int(float(whole[1]) * 1024)}{'M' if whole[2] in 'Gg' else 'G'}" if whole else "4G or 4000M"
        raise ValueError(f"{text!r} is no size of whole units; write {hint}.")
    size = int(match[1]) << _KIBI[match[2].upper()]
    if size > MAX_AMOUNT:
        raise ValueError(f"{text!r} is more than any machine has.")
    return size


def parse_count(text: str, least: int = 1) -> int:
    """A whole number from `least` up."""
    if not re.fullmatch(r"\d{1,9}", text.strip()) or int(text) < least:
        raise ValueError(f"{text!r} is no whole number from {least} up.")
    return int(text)


def parse_nodes(text: str) -> int:
    """The number of nodes; of a range `2-4` the smallest, which sbatch too is content with."""
    match = re.fullmatch(r"(\d{1,7})([kKmM]?)(?:-(\d{1,7})([kKmM]?))?", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no number of nodes; write 2, or 2-4 for at least 2.")
    unit = {"": 1, "k": 1024, "m": 1024 * 1024}
    least = int(match[1]) * unit[match[2].lower()]
    if match[3] and int(match[3]) * unit[match[4].lower()] < least:
        raise ValueError(f"{text!r} ends before it begins; write the smaller number first.")
    if least < 1:
        raise ValueError("A job needs at least one node.")
    return least


def parse_gpus(text: str) -> tuple[str | None, int]:
    """Type (None: any) and number of GPUs of `2`, `a100:2`."""
    if "," in text:
        raise ValueError(f"{text!r} names several types, and a job gets one; write for example a100:2.")
    match = _GPUS.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no number of GPUs; write 2 or a100:2.")
    return match["kind"], int(match["count"])


def parse_gres(text: str) -> tuple[str | None, int]:
    """Type and number of the GPUs that `gpu`, `gpu:2`, `gpu:a100:2` ask for; 0 for `none`."""
    kind: str | None = None
    total = 0
    for entry in text.split(","):
        word = entry.strip().removeprefix("gres/").removeprefix("gres:")
        name, *rest = re.split(r"[:=]", word, maxsplit=1)
        if name in ("none", ""):
            continue
        if name != "gpu":
            raise ValueError(f"Atoll counts no resource {name!r}, only gpu; remove it.")
        what = rest[0].split("(")[0] if rest else "1"
        entry_kind, count = parse_gpus(what if re.search(r"(^|[:=])\d+$", what) else f"{what}:1")
        if total and entry_kind != kind:
            raise ValueError(f"{text!r} names several types, and a job gets one; write for example gpu:a100:2.")
        kind, total = entry_kind, total + count
    return kind, total


def parse_tres(text: str) -> tuple[int | None, tuple[str | None, int] | None]:
    """CPUs and GPUs (type, number) that `cpu=4,gres/gpu:a100=1` asks for; None for what it does not name."""
    cpus: int | None = None
    gpus: tuple[str | None, int] | None = None
    for entry in text.split(","):
        name, found, amount = re.sub(r"[:=](\d+)$", r"=\1", entry.strip()).partition("=")
        if name == "cpu" and found:
            cpus = parse_count(amount)
        elif name.startswith("gres/gpu"):
            gpus = parse_gres(f"{name}:{amount}" if found else name)
        else:
            raise ValueError(f"Atoll counts no {name!r} for a task, only cpu and gres/gpu; write cpu=4,gres/gpu=1.")
    return cpus, gpus


def parse_signal(text: str) -> dict[str, object]:
    """The `signal` field of `USR1`, `B:USR1@120`, `10@60`."""
    match = re.fullmatch(r"(?:([A-Za-z]{1,2}):)?([A-Za-z0-9]{1,10})(?:@(\d{1,5}))?", text.strip())
    if match is None or (match[3] and int(match[3]) > 65535):
        raise ValueError(f"{text!r} is no signal; write for example B:USR1@120.")
    flags = (match[1] or "").upper()
    if flags.strip("BR"):
        raise ValueError(f"{match[1]!r} before the colon is neither B nor R; write for example B:USR1@120.")
    if "R" in flags:
        raise ValueError("R: is about reservations, and Atoll has none; remove it.")
    name = match[2].upper().removeprefix("SIG")
    if name.isdecimal():
        numbers = {number.value: number.name.removeprefix("SIG") for number in signal.Signals}
        name = numbers.get(int(name), name)
    if name not in _SIGNALS:
        raise ValueError(f"The signal {match[2]!r} cannot be asked for; write one of {', '.join(_SIGNALS)}.")
    return {"name": name, "before": int(match[3] or 60)}


def parse_dependencies(text: str) -> list[dict[str, str]]:
    """The `dependencies` field of `afterok:12:13,afterany:14_3`."""
    if "?" in text:
        raise ValueError("A job cannot wait for any one of several; write ',' and it waits for all of them.")
    found = []
    for entry in filter(None, (entry.strip() for entry in text.split(","))):
        kind, *jobs = entry.split(":")
        if re.match(r"\d", kind):
            kind, jobs = "afterany", [kind, *jobs]
        kind = kind.lower()
        if kind in _NO_KINDS:
            raise ValueError(f"The kind {kind!r} is not supported; {_NO_KINDS[kind]}.")
        if kind not in _KINDS:
            raise ValueError(f"There is no kind {kind!r}.{suggestion(kind, [*_KINDS])}")
        if not jobs:
            raise ValueError(f"{entry!r} names no job; write {kind}:12.")
        for job in jobs:
            match = _DEPENDED.fullmatch(job)
            if match is None:
                raise ValueError(f"{job!r} is no job; write a number as in {kind}:12, or a task as in {kind}:12_3.")
            task = match[2] or match[3]
            found.append({"job": f"{match[1]}[{task}]" if task else match[1], "on": _KINDS[kind]})
    return found


def parse_constraint(text: str) -> list[str]:
    """The `constraints` field of `intel&fast`, `region=eu|region=us`, `region=eu,us`.

    A comma is `&` as in Slurm, except that after `LABEL=VALUE` a bare word is another value, as in Atoll's own form.
    """
    if re.search(r"[\[\]()*]", text):
        raise ValueError("Groups and counts of nodes are not supported; write LABEL=VALUE, several joined with &.")
    terms = []
    for group in _constraint_groups(text):
        matches = [_TERM.fullmatch(word.strip()) for word in group.split("|")]
        if any(match is None or bool(match["equals"]) != bool(match["value"]) for match in matches):
            raise ValueError(f"{group!r} is no constraint; write LABEL or LABEL=VALUE, several joined with &.")
        known = [match for match in matches if match is not None]
        if len(known) == 1:
            terms.append(known[0][0])
        elif {match["equals"] for match in known} == {"="} and len({match["label"] for match in known}) == 1:
            terms.append(f"{known[0]['label']}={','.join(match['value'] for match in known)}")
        else:
            raise ValueError(f"{group!r}: alternatives must be values of one label; write region=eu|region=us.")
    return terms


def _constraint_groups(text: str) -> list[str]:
    groups: list[str] = []
    for group in text.split("&"):
        for place, word in enumerate(piece.strip() for piece in group.split(",")):
            if place and "=" in groups[-1] and "!" not in groups[-1] and "=" not in word and word:
                groups[-1] += f"|{groups[-1].split('=')[0]}={word}"
            else:
                groups.append(word)
    return groups


def parse_class(text: str) -> str:
    """The class that a quality of service names; `normal`, Slurm's own, is batch."""
    name = text.strip().lower()
    if name == "normal":
        return JobClass.BATCH.value
    known = [known.value for known in JobClass]
    if name not in known:
        raise ValueError(f"{text!r} is none of Atoll's classes; write {', '.join(known)}.{suggestion(name, known)}")
    return name


def parse_export(text: str, submitter: Mapping[str, str]) -> tuple[dict[str, str], bool]:
    """Variables of `NAME=VALUE,NAME`, and whether `ALL` was among them. Raises for a NAME that is not set."""
    variables: dict[str, str] = {}
    everything = False
    for entry in _split_outside_quotes(text):
        name, equals, value = entry.partition("=")
        if not equals and name.upper() in ("ALL", "NONE", "NIL"):
            everything = everything or name.upper() == "ALL"
        elif not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise ValueError(f"{name!r} is no name of a variable; write NAME=VALUE,NAME or NONE.")
        elif equals:
            variables[name] = value
        elif name in submitter:
            variables[name] = submitter[name]
        else:
            raise ValueError(f"The variable {name} is not set where you submit; write {name}=VALUE.")
    return variables, everything


def _split_outside_quotes(text: str) -> list[str]:
    """Pieces between commas; a value in quotes may hold commas, and loses its quotes."""
    pieces = re.findall(r"(?:[^,'\"]|'[^']*'|\"[^\"]*\"|['\"])+", text)
    return [re.sub(r"=(['\"])(.*)\1$", r"=\2", piece.strip(), flags=re.DOTALL) for piece in pieces if piece.strip()]


def parse_begin_time(text: str, now: datetime, zone: tzinfo | None = None) -> datetime:
    """The moment that sbatch's --begin means: `16:00`, `now+1hour`, `tomorrow`, `2026-05-01T12:00`, `05/01/26-8:30pm`.

    Times without a zone are in `zone`, else in the machine's own. A time of day that is over today is tomorrow's.
    """
    word = text.strip()
    try:
        if match := _DELTA.fullmatch(word):
            unit = (match[2] or "second").lower() + "s"
            return (now + timedelta(**{unit: int(match[1] or 0)})).astimezone(UTC)
        moment = _calendar_time(word, now.astimezone(zone))
        return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no time; write 16:00, now+1hour, tomorrow or 2026-05-01T12:00.") from None


def _calendar_time(word: str, local: datetime) -> datetime:
    lowered = word.lower()
    if lowered in ("today", "tomorrow"):
        day = local.date() + timedelta(days=lowered == "tomorrow")
        return datetime.combine(day, time(0)) if lowered == "tomorrow" else local
    clock = _NAMED_TIMES.get(lowered) or _clock_time(word)
    if clock is not None:
        today = datetime.combine(local.date(), clock)
        return today if today >= local.replace(tzinfo=None) else today + timedelta(days=1)
    for form, separators in ((_ISO_DAY, "T "), (_AMERICAN_DAY, "-T "), (_DIGITS_DAY, "-T ")):
        match = form.match(word)
        if match is None:
            continue
        tail = word[match.end() :]
        if not tail:
            return datetime.combine(_day(match, local), time(0))
        if tail[0] in separators and (clock := _clock_time(tail[1:])) is not None:
            return datetime.combine(_day(match, local), clock)
    return datetime.fromisoformat(word)


def _clock_time(text: str) -> time | None:
    match = _CLOCK.fullmatch(text.strip())
    if match is None:
        return None
    hour = int(match[1])
    half = (match[4] or "").lower()
    if half and 1 <= hour <= 12:
        hour = hour % 12 + (12 if half == "pm" else 0)
    return time(hour, int(match[2]), int(match[3] or 0))


def _day(match: re.Match[str], local: datetime) -> date:
    month, day, year = int(match["month"]), int(match["day"]), match["year"]
    if year is not None:
        return date(int(year) + (2000 if len(year) == 2 else 0), month, day)
    this_year = date(local.year, month, day)
    return this_year if this_year >= local.date() else date(local.year + 1, month, day)
