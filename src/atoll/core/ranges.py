"""Sets of task numbers as sorted ranges with steps: how arrays are written, and how waiting tasks are kept.

A million waiting tasks are one `Ranges` of one range, so an array costs the same whatever its size.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from atoll.core.errors import Invalid

_PART = re.compile(r"(\d{1,9})(?:-(\d{1,9})(?::(\d{1,9}))?)?")
MAX_TASK = 10_000_000
"""Largest task number that an array may use."""
MAX_PARTS = 10_000
"""Most comma-separated parts that one written set may have."""


@dataclass(frozen=True)
class Ranges:
    """An immutable set of task numbers: disjoint Python ranges, ascending by their first number."""

    parts: tuple[range, ...] = ()

    @classmethod
    def parse(cls, text: str, field: str = "array") -> "Ranges":
        """Read `0-99`, `1,3,7`, `0-99:2` or a mixture. Raises Invalid, naming `field` and the part that is wrong."""
        pieces = text.split(",")
        if len(pieces) > MAX_PARTS:
            raise Invalid("bad_array", f"{len(pieces)} parts are more than the {MAX_PARTS} allowed.", field=field)
        parts = []
        for piece in pieces:
            match = _PART.fullmatch(piece.strip())
            if match is None:
                raise Invalid(
                    "bad_array", f"{piece!r} is not a range: write 0-99, 1,3,7 or 0-99:2.", field=field
                )
            first = int(match[1])
            last = int(match[2]) if match[2] else first
            step = int(match[3]) if match[3] else 1
            if last < first:
                raise Invalid(
                    "bad_array", f"{piece!r} ends before it begins: write {last}-{first}.", field=field
                )
            if step < 1:
                raise Invalid("bad_array", f"{piece!r} has a step of 0; the smallest is 1.", field=field)
            if last > MAX_TASK:
                raise Invalid("bad_array", f"{piece!r} goes beyond the last task, {MAX_TASK}.", field=field)
            parts.append(range(first, last + 1, step))
        parts.sort(key=lambda part: part.start)
        if any(before[-1] >= after[0] for before, after in zip(parts, parts[1:], strict=False)):
            total = sum(map(len, parts))
            if total > MAX_TASK:
                raise Invalid("bad_array", "The parts overlap and name too many tasks.", field=field)
            return cls.of(number for part in parts for number in part)
        return cls(tuple(parts))

    @classmethod
    def of(cls, numbers: Iterable[int]) -> "Ranges":
        """The set of `numbers`, in any order, written with as few ranges as a single pass finds."""
        parts: list[range] = []
        start = last = step = None
        for number in sorted(set(numbers)):
            if start is None or last is None:
                start = last = number
            elif step is None:
                step, last = number - last, number
            elif number - last == step:
                last = number
            elif last - start == step and step > 1:  # a pair that nothing continued: only its first is done with
                parts.append(range(start, start + 1))
                start, step, last = last, number - last, number
            else:
                parts.append(range(start, last + 1, step))
                start, step, last = number, None, number
        if start is not None and last is not None:
            if step is not None and step > 1 and last - start == step:
                parts += [range(start, start + 1), range(last, last + 1)]
            else:
                parts.append(range(start, last + 1, step or 1))
        return cls(tuple(parts))

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[int]:
        for part in self.parts:
            yield from part

    def __contains__(self, number: object) -> bool:
        return any(number in part for part in self.parts)

    def __str__(self) -> str:
        return ",".join(
            str(part[0])
            if len(part) == 1
            else f"{part[0]}-{part[-1]}" + (f":{part.step}" if part.step != 1 else "")
            for part in self.parts
        )

    def take(self, count: int) -> tuple["Ranges", "Ranges"]:
        """The first `count` numbers, and the rest."""
        taken, rest = [], []
        for part in self.parts:
            room = min(max(count, 0), len(part))
            count -= room
            if room:
                taken.append(part[:room])
            if room < len(part):
                rest.append(part[room:])
        return Ranges(tuple(taken)), Ranges(tuple(rest))

    def without(self, other: "Ranges") -> "Ranges":
        """The numbers of this set that are not in `other`. Costs what `other` names, and not what this holds."""
        parts = list(self.parts)
        for number in other:
            for place, part in enumerate(parts):
                if number in part:
                    index = part.index(number)
                    parts[place : place + 1] = [piece for piece in (part[:index], part[index + 1 :]) if piece]
                    break
        return Ranges(tuple(parts))

    def common(self, other: "Ranges") -> "Ranges":
        """The numbers that are in both."""
        small, large = sorted((self, other), key=len)
        return Ranges.of(number for number in small if number in large)

    def union(self, other: "Ranges") -> "Ranges":
        """The numbers that are in either."""
        if not self.parts or not other.parts:
            return self if self.parts else other
        if self.parts[-1][-1] < other.parts[0][0]:
            return Ranges(self.parts + other.parts)
        if other.parts[-1][-1] < self.parts[0][0]:
            return Ranges(other.parts + self.parts)
        return Ranges.of([*self, *other])


@dataclass(frozen=True)
class ArraySpec:
    """An array as it is asked for: its tasks, and how many may run at once (None: as many as fit)."""

    tasks: Ranges
    width: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ArraySpec":
        """Read `0-99%10`, `1,3,7`, `0-99:2`. Raises Invalid."""
        body, percent, width = text.partition("%")
        if percent and not (width.isdecimal() and 0 < int(width) <= MAX_TASK):
            raise Invalid(
                "bad_array",
                f"{width!r} after % is no number of tasks that may run at once: write 0-99%10.",
                field="array",
            )
        return cls(Ranges.parse(body), int(width) if percent else None)

    def __str__(self) -> str:
        return str(self.tasks) + (f"%{self.width}" if self.width else "")
