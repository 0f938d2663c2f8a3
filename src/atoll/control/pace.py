"""Learns how deep the sites' own queues must be filled: as deep as they come free between two looks."""

from collections.abc import Mapping
from dataclasses import dataclass

_WINDOW = 5 * 1_000_000
"""Microseconds within which ends are counted together: about the time from one observation to the next."""
_FADES = 0.9
"""What is left of a count after each further window: half of it after about half a minute."""
_MOST = 500
"""The deepest that is ever learnt: beyond it, what waits at a site is too much to be called back."""


@dataclass
class _Count:
    begun: int
    ended: int = 0
    most: float = 0.0


class Pace:
    """How many attempts ended within one window at each site, the most of late. Times are microseconds."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def count(self, ended: Mapping[str, int], now: int) -> None:
        """So many attempts have ended, by site."""
        for site, number in ended.items():
            count = self._counts.setdefault(site, _Count(now))
            self._turn(count, now)
            count.ended += number
            count.most = max(count.most, count.ended)

    def of(self, site: str, now: int) -> int:
        """The pace of a site; 0 where nothing ended of late."""
        count = self._counts.get(site)
        if count is None:
            return 0
        self._turn(count, now)
        if count.most < 1:
            del self._counts[site]
        return min(_MOST, int(count.most))

    @staticmethod
    def _turn(count: _Count, now: int) -> None:
        windows = (now - count.begun) // _WINDOW
        if windows > 0:
            count.begun += windows * _WINDOW
            count.ended = 0
            count.most *= _FADES**windows
