"""A growing numpy table with a key for each row: what the snapshot's mirrors are made of."""

from collections.abc import Hashable, Iterable
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

Key = TypeVar("Key", bound=Hashable)
Columns = list[tuple[str, str]]


class Table(Generic[Key]):
    """Rows of numbers, found by key. A row keeps its place; one that was released is used again.

    `rows` is a structured array that is replaced by a longer one when it is full: do not hold on to it.
    """

    def __init__(self, columns: Columns) -> None:
        self.rows: NDArray[Any] = np.zeros(64, np.dtype(columns, align=True))
        self.index: dict[Key, int] = {}
        self._released: list[int] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self.index)

    def add(self, key: Key) -> int:
        """The number of a zeroed row for `key`, which must be new."""
        if self._released:
            row = self._released.pop()
            self.rows[row] = np.zeros((), self.rows.dtype)
        else:
            row = self._end
            self._end += 1
            if row == len(self.rows):
                longer = np.zeros(2 * row, self.rows.dtype)
                longer[:row] = self.rows
                self.rows = longer
        self.index[key] = row
        return row

    @property
    def end(self) -> int:
        """How many rows were ever used: those from here on never were."""
        return self._end

    def pop(self, key: Key) -> int | None:
        """Forget `key` and return its row, not used again before `release`; None for an unknown key."""
        return self.index.pop(key, None)

    def release(self, rows: Iterable[int]) -> None:
        """Let popped rows be used again."""
        self._released.extend(rows)


class Counted(Table[Key]):
    """Numbers for keys, counted by their users: a key without any is forgotten, and its number is used again."""

    def __init__(self) -> None:
        super().__init__([("uses", "i4")])
        self._keys: dict[int, Key] = {}

    def hold(self, key: Key) -> int:
        """The number of `key`, with one user more."""
        number = self.index.get(key)
        if number is None:
            number = self.add(key)
            self._keys[number] = key
        self.rows["uses"][number] += 1
        return number

    def drop(self, number: int) -> None:
        """One user less."""
        self.rows["uses"][number] -= 1
        if not self.rows["uses"][number]:
            self.pop(self._keys.pop(number))
            self.release((number,))

    def counts(self) -> dict[Key, int]:
        """How many users each key has."""
        return {key: int(self.rows["uses"][number]) for key, number in self.index.items()}
