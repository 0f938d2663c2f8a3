"""Amounts as people write them and as Atoll counts them: integers in base units.

CPUs are counted in milli-CPU, memory and scratch in bytes, GPUs in milli-GPU, durations in seconds.
"""

import re
from dataclasses import dataclass
from decimal import Decimal, DecimalException
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_BYTES = re.compile(r"(\d{1,30}(?:\.\d{1,30})?)\s*([kKMGTP]?)(i?)[bB]?", re.ASCII)
_UNITS = {"": 0, "k": 1, "K": 1, "M": 2, "G": 3, "T": 4, "P": 5}
_UNIT_TIME = re.compile(r"(?:(\d{1,12})d)?(?:(\d{1,12})h)?(?:(\d{1,12})m)?(?:(\d{1,12})s)?", re.ASCII)
_CLOCK_TIME = re.compile(r"(?:(\d{1,12})-)?(\d{1,12})(?::(\d{1,2}))?(?::(\d{1,2}))?", re.ASCII)
MAX_AMOUNT = 2**62
"""No amount may be larger: sums of two still fit the store's 64-bit integers."""


def _shown(value: Any) -> str:
    """`value` for an error: short, whatever was given."""
    if isinstance(value, int) and value.bit_length() > 300:
        return "this number"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def parse_milli(value: Any) -> int:
    """Thousandths from `2`, `0.5`, `"2"`, `"500m"`. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("write a number, for example 2, 0.5 or 500m")
    if isinstance(value, int):
        milli = Decimal(value) * 1000
    else:
        text = str(value).strip()
        try:
            milli = Decimal(text[:-1]) if text.endswith("m") else Decimal(text) * 1000
        except DecimalException:
            raise ValueError(f"{_shown(value)} is no amount; write for example 2, 0.5 or 500m") from None
    if not milli.is_finite():
        raise ValueError(f"{_shown(value)} is no amount; write for example 2, 0.5 or 500m")
    if milli != milli.to_integral_value():
        raise ValueError(f"{_shown(value)} is finer than a thousandth")
    if not 0 <= milli <= MAX_AMOUNT:
        raise ValueError(f"{_shown(value)} is out of range; write a number from 0 up")
    return int(milli)


def parse_bytes(value: Any) -> int:
    """Bytes from `1048576`, `"4G"`, `"512MiB"`. As in Slurm, K, M, G, T, P are powers of 1024. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError("write a size, for example 4G")
    if isinstance(value, int):
        size = Decimal(value)
    else:
        match = _BYTES.fullmatch(str(value).strip())
        if match is None:
            raise ValueError(f"{_shown(value)} is no size; write for example 512M or 4G")
        size = Decimal(match[1]) * 1024 ** _UNITS[match[2]]
    if not 0 <= size <= MAX_AMOUNT:
        raise ValueError(f"{_shown(value)} is out of range; write a size from 0 up")
    return int(size)


def parse_seconds(value: Any) -> int:
    """Seconds from `90`, `"90s"`, `"1h30m"`, `"1:30:00"`, `"2-12:00:00"`. Raises ValueError.

    With colons the last part is seconds (`"5:00"` is five minutes); after days it is hours first, as in Slurm.
    """
    if isinstance(value, bool):
        raise ValueError("write a duration, for example 1h30m")
    if isinstance(value, int):
        seconds = value
    else:
        text = str(value).strip()
        if text.isdecimal() and len(text) < 12:
            seconds = int(text)
        elif text and (unit := _UNIT_TIME.fullmatch(text)):
            days, hours, minutes, rest = (int(part or 0) for part in unit.groups())
            seconds = ((days * 24 + hours) * 60 + minutes) * 60 + rest
        elif (clock := _CLOCK_TIME.fullmatch(text)) and (":" in text or "-" in text):
            parts = [int(part) for part in clock.groups()[1:] if part is not None]
            if clock[1] is not None:
                parts += [0] * (3 - len(parts))
            seconds = int(clock[1] or 0) * 86400
            for place, part in enumerate(reversed(parts)):
                seconds += part * 60**place
        else:
            raise ValueError(f"{_shown(value)} is no duration; write for example 90s, 1h30m or 1:30:00")
    if not 0 <= seconds <= 100 * 366 * 86400:
        raise ValueError(f"{_shown(value)} is out of range; write a duration from 0 to 100 years")
    return seconds


def format_milli(milli: int) -> str:
    """`2`, `500m`: the inverse of parse_milli."""
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def format_bytes(size: int) -> str:
    """A size for people, in powers of 1024: `4 GiB`, `1.5 MiB`, `17 B`."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if value < 1024:
            return f"{value:.4g} {unit}"
        value /= 1024
    return f"{value:.4g} PiB"


def format_seconds(seconds: float) -> str:
    """A duration for people, two units at most: `42s`, `3m 5s`, `2h 10m`, `5d 3h`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m {whole % 60}s"
    if whole < 86400:
        return f"{whole // 3600}h {whole % 3600 // 60}m"
    return f"{whole // 86400}d {whole % 86400 // 3600}h"


_AMOUNT_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 1_000_000, "multipleOf": 0.001},
        {"type": "string", "pattern": r"^[0-9]{1,6}(m|\.[0-9]{1,3})?$"},
    ]
}
_BYTES_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": MAX_AMOUNT},
        {"type": "string", "pattern": r"^[0-9]{1,6}[KMGT]?(i?B)?$"},
    ]
}
_SECONDS_SCHEMA = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 100 * 366 * 86400},
        {"type": "string", "pattern": r"^[0-9]{1,4}[dhms]$"},
    ]
}

Milli = Annotated[int, BeforeValidator(parse_milli), PlainSerializer(format_milli, str), WithJsonSchema(_AMOUNT_SCHEMA)]
"""Thousandths of a CPU or GPU: 2, "500m"."""
Bytes = Annotated[int, BeforeValidator(parse_bytes), WithJsonSchema(_BYTES_SCHEMA)]
"""A size in bytes: 1048576, "4G"."""
Seconds = Annotated[int, BeforeValidator(parse_seconds), WithJsonSchema(_SECONDS_SCHEMA)]
"""A duration in seconds: 90, "1h30m"."""


@dataclass(frozen=True, slots=True)
class Resources:
    """An amount of each resource: milli-CPU, bytes of memory, milli-GPU."""

    cpu: int = 0
    memory: int = 0
    gpu: int = 0

    def __add__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu + other.cpu, self.memory + other.memory, self.gpu + other.gpu)

    def __sub__(self, other: "Resources") -> "Resources":
        return Resources(self.cpu - other.cpu, self.memory - other.memory, self.gpu - other.gpu)

    def __mul__(self, times: int) -> "Resources":
        return Resources(self.cpu * times, self.memory * times, self.gpu * times)

    def fits(self, room: Self) -> bool:
        """Whether this much fits into `room`."""
        return self.cpu <= room.cpu and self.memory <= room.memory and self.gpu <= room.gpu

    def __str__(self) -> str:
        parts = [f"{format_milli(self.cpu)} CPU", format_bytes(self.memory)]
        return ", ".join([*parts, f"{format_milli(self.gpu)} GPU"] if self.gpu else parts)
