"""Which GPU an attempt gets: pure counting in thousandths of a device; called by the supervisor."""

from collections.abc import Iterable

WHOLE = 1000


class Devices:
    """The GPUs of this machine, by index, and what of each is free."""

    def __init__(self, indices: Iterable[int]) -> None:
        self.free: dict[int, int] = dict.fromkeys(indices, WHOLE)

    def __bool__(self) -> bool:
        return bool(self.free)

    def fits(self, milli: int) -> bool:
        """Whether there is room for `milli` thousandths once all devices are free."""
        return milli <= WHOLE * len(self.free)

    def choose(self, milli: int) -> list[tuple[int, int]] | None:
        """Devices for `milli` thousandths, as (index, thousandths) pairs; None where there is no room.

        Whole devices are taken from those that nobody shares; a part of one goes where the least that still suffices
        is left, so that whole ones stay whole.
        """
        count, part = divmod(milli, WHOLE)
        whole = [index for index, free in self.free.items() if free == WHOLE][:count]
        if len(whole) < count:
            return None
        chosen = [(index, WHOLE) for index in whole]
        if part:
            room = [(free, index) for index, free in self.free.items() if free >= part and index not in whole]
            if not room:
                return None
            chosen.append((min(room)[1], part))
        return chosen

    def take(self, chosen: Iterable[tuple[int, int]]) -> None:
        """Mark devices as used. One that this machine no longer has is left out."""
        for index, milli in chosen:
            if index in self.free:
                self.free[index] -= milli

    def give_back(self, chosen: Iterable[tuple[int, int]]) -> None:
        """Mark devices as free again."""
        for index, milli in chosen:
            if index in self.free:
                self.free[index] += milli
