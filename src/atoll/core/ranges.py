"""Sets of task numbers as sorted ranges with steps: how arrays are written, and how waiting tasks are kept.

A million waiting tasks are one `Ranges` of one range, so an array costs the same whatever its size.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import gcd

from atoll.core.errors import Invalid

_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9})(?::([0-9]{1,9}))?)?")
_WIDTH = re.compile(r"[0-9]{1,9}")
MAX_TASK = 10_000_000
"""Largest task number that an array may use."""
MAX_PARTS = 10_000
"""Most comma-separated parts that one written set may have."""
MOST_OVERLAPPING = 100_000
"""Most tasks that overlapping parts with steps may name: they are sorted out one by one."""


@dataclass(frozen=True)
class Ranges:
    """An immutable set of task numbers: Python ranges, each wholly before the next.

    The same set can be written in several ways; compare with `==` what was made in the same way, else sets.
    """

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
            shown = piece if len(piece) <= 40 else piece[:37] + "..."
            if match is None:
                raise Invalid("bad_array", f"{shown!r} is not a range: write 0-99, 1,3,7 or 0-99:2.", field=field)
            first = int(match[1])
            last = int(match[2]) if match[2] else first
            step = int(match[3]) if match[3] else 1
            if last < first:
                raise Invalid("bad_array", f"{shown!r} ends before it begins: write {last}-{first}.", field=field)
            if step < 1:
                raise Invalid("bad_array", f"{shown!r} has a step of 0; the smallest is 1.", field=field)
            if last > MAX_TASK:
                raise Invalid("bad_array", f"{shown!r} goes beyond the last task, {MAX_TASK}.", field=field)
            parts.append(range(first, last + 1, step))
        parts.sort(key=lambda part: part.start)
        if any(before[-1] >= after[0] for before, after in pairwise(parts)):
            total = sum(map(len, parts))
            if total > MAX_TASK:
                raise Invalid("bad_array", "The parts overlap and name too many tasks.", field=field)
            if all(part.step == 1 for part in parts):
                return cls(_merged(parts))
            if total > MOST_OVERLAPPING:
                raise Invalid(
                    "bad_array",
                    f"Parts with steps overlap and name more than {MOST_OVERLAPPING} tasks; write each task once.",
                    field=field,
                )
            return cls.of(number for part in parts for number in part)
        return cls(tuple(parts))

    @classmethod
    def stored(cls, text: str) -> "Ranges":
        """The set that `str` gave the text of: also the empty one, and one of any number of parts."""
        parts = []
        for piece in filter(None, text.split(",")):
            first, _, rest = piece.partition("-")
            last, _, step = rest.partition(":")
            parts.append(range(int(first), int(last or first) + 1, int(step or 1)))
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
            str(part[0]) if len(part) == 1 else f"{part[0]}-{part[-1]}" + (f":{part.step}" if part.step != 1 else "")
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
        """The numbers of this set that are not in `other`. Costs what the parts are, and not what they hold."""
        cuts = _overlaps(self.parts, other.parts)
        parts: list[range] = []
        for part, pieces in zip(self.parts, cuts, strict=True):
            for piece in pieces:
                first, last, every = part.index(piece[0]), part.index(piece[-1]), piece.step // part.step
                parts.append(part[:first])
                if every == 2:
                    parts.append(part[first + 1 : last : 2])
                elif every > 2 and len(piece) > 1:
                    parts += (part[gap + 1 : gap + every] for gap in range(first, last, every))
                part = part[last + 1 :]
            parts.append(part)
        return Ranges(_joined(parts))

    def common(self, other: "Ranges") -> "Ranges":
        """The numbers that are in both. Costs what the parts are, and not what they hold."""
        return Ranges(_joined(piece for pieces in _overlaps(self.parts, other.parts) for piece in pieces))

    def union(self, other: "Ranges") -> "Ranges":
        """The numbers that are in either. Costs what the parts are, and the numbers only where parts interleave."""
        others = other.without(self).parts
        bounds = sorted({bound for part in (*self.parts, *others) for bound in (part[0], part[-1] + 1)})
        mine, theirs = _cut(self.parts, bounds), _cut(others, bounds)
        parts: list[range] = []
        for bound in bounds:
            one, two = mine.get(bound), theirs.get(bound)
            if one and two:
                parts += Ranges.of([*one, *two]).parts
            elif piece := one or two:
                parts.append(piece)
        return Ranges(_joined(parts))


def _merged(parts: Iterable[range]) -> tuple[range, ...]:
    """Ranges of step 1, sorted by their start, as ranges that do not touch each other."""
    merged: list[range] = []
    for part in parts:
        if merged and part.start <= merged[-1].stop:
            merged[-1] = range(merged[-1].start, max(merged[-1].stop, part.stop))
        else:
            merged.append(part)
    return tuple(merged)


def _cut(parts: tuple[range, ...], bounds: list[int]) -> dict[int, range]:
    """The pieces of `parts` between each of `bounds` and the next, by the lower one."""
    pieces: dict[int, range] = {}
    for part in parts:
        inside = bounds[bisect_left(bounds, part[0]) : bisect_left(bounds, part[-1] + 1) + 1]
        indexes = [-(-(bound - part.start) // part.step) for bound in inside]
        for bound, (begin, end) in zip(inside, pairwise(indexes), strict=False):
            pieces[bound] = part[begin:end]
    return pieces


def _meet(one: range, two: range) -> range:
    """The numbers that are in both ranges: again a range, by the Chinese remainder theorem."""
    divisor = gcd(one.step, two.step)
    distance = two.start - one.start
    if distance % divisor:
        return range(0)
    cycle = two.step // divisor
    steps = distance // divisor * pow(one.step // divisor, -1, cycle) % cycle if cycle > 1 else 0
    step = one.step * cycle
    first = one.start + steps * one.step
    lowest = max(one.start, two.start)
    first += max(0, -(-(lowest - first) // step)) * step
    return range(first, min(one[-1], two[-1]) + 1, step)


def _overlaps(parts: tuple[range, ...], others: tuple[range, ...]) -> Iterator[list[range]]:
    """For each of `parts` the ranges of its numbers that are in `others`, ascending."""
    begin = 0
    for part in parts:
        while begin < len(others) and others[begin][-1] < part[0]:
            begin += 1
        pieces = []
        place = begin
        while place < len(others) and others[place][0] <= part[-1]:
            if piece := _meet(part, others[place]):
                pieces.append(piece)
            place += 1
        yield pieces


def _joined(parts: Iterable[range]) -> tuple[range, ...]:
    """`parts` without empty ones, where those that go on with the same step are one."""
    joined: list[range] = []
    for part in filter(None, parts):
        before = joined[-1] if joined else range(0)
        gap = part[0] - before[-1] if before else 0
        steps = {known.step for known in (before, part) if len(known) > 1} or {1}
        if gap and steps == {gap}:
            joined[-1] = range(before[0], part[-1] + 1, gap)
        else:
            joined.append(part)
    return tuple(joined)


@dataclass(frozen=True)
class ArraySpec:
    """An array as it is asked for: its tasks, and how many may run at once (None: as many as fit)."""

    tasks: Ranges
    width: int | None = None

    @classmethod
    def parse(cls, text: str) -> "ArraySpec":
        """Read `0-99%10`, `1,3,7`, `0-99:2`. Raises Invalid."""
        body, percent, width = text.partition("%")
        if percent and not (_WIDTH.fullmatch(width) and 0 < int(width) <= MAX_TASK):
            raise Invalid(
                "bad_array",
                f"{width[:40]!r} after % is no number of tasks that may run at once: write 0-99%10.",
                field="array",
            )
        return cls(Ranges.parse(body), int(width) if percent else None)

    def __str__(self) -> str:
        return str(self.tasks) + (f"%{self.width}" if self.width else "")
