"""Patterns of files as shells have them, matched in time that a hostile pattern cannot blow up.

`*` and `?` stay within a folder, `[a-z]` and `[!a-z]` are one letter, `**` as a whole part is any number of folders.
"""

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TypeVar

Wanted = TypeVar("Wanted")
Item = TypeVar("Item")
_Letter = Callable[[str], bool]
_Part = tuple[_Letter | None, ...]
"""A part of a pattern: a test for each letter, None for `*`."""


class Glob:
    """A pattern of relative paths."""

    def __init__(self, text: str) -> None:
        parts = [part for part in text.split("/") if part not in ("", ".")]
        self._parts: list[_Part | None] = [None if part == "**" else _read_part(part) for part in parts]

    def matches(self, path: str) -> bool:
        """Whether the whole of `path` matches."""
        return _match(self._parts, path.split("/"), _part_matches)


def _match(wanted: Sequence[Wanted | None], items: Sequence[Item], fits: Callable[[Wanted, Item], bool]) -> bool:
    """Whether `items` match `wanted`, where None stands for any number of items.

    Goes back to the last None only, which is enough: the time is at most the product of both lengths.
    """
    at = item = 0
    star, star_item = -1, 0
    while item < len(items):
        if at < len(wanted) and wanted[at] is None:
            star, star_item = at, item
            at += 1
        elif at < len(wanted) and (want := wanted[at]) is not None and fits(want, items[item]):
            at += 1
            item += 1
        elif star >= 0:
            star_item += 1
            at, item = star + 1, star_item
        else:
            return False
    return all(want is None for want in wanted[at:])


def _part_matches(part: _Part, name: str) -> bool:
    return _match(part, name, lambda test, letter: test(letter))


def _read_part(text: str) -> _Part:
    tests: list[_Letter | None] = []
    place = 0
    while place < len(text):
        letter = text[place]
        end = text.find("]", place + 2) if letter == "[" else -1
        if letter == "*":
            if not tests or tests[-1] is not None:
                tests.append(None)
        elif letter == "?":
            tests.append(lambda _: True)
        elif end > 0 and (group := _group(text[place + 1 : end])) is not None:
            tests.append(group)
            place = end
        else:
            tests.append(letter.__eq__)
        place += 1
    return tuple(tests)


@lru_cache(maxsize=256)
def _group(inner: str) -> _Letter | None:
    """The test for the letters between brackets; None where they are no group, and mean themselves."""
    negated = inner[0] in "!^"
    body = inner[1:] if negated else inner
    try:
        pattern = re.compile("[" + body.replace("\\", r"\\").replace("[", r"\[").replace("^", r"\^") + "]")
    except re.error:
        return None
    return lambda letter: (pattern.match(letter) is None) is negated
