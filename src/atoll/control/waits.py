"""Learns how long attempts usually wait in the sites' own queues, from those that have begun of late."""

from dataclasses import dataclass

_PART = 1 / 8
"""How much each new wait counts beside what was known."""
_HALF_LIFE = 3600 * 1_000_000
"""Microseconds without a begin after which half is forgotten: short jobs may then try the site again."""
_GRAIN = 60
"""Seconds: shorter waits are the time of a hand-over, and no queue's."""


@dataclass
class _Mean:
    seconds: float
    at: int


class Waits:
    """An exponentially weighted mean of the time from placing to begin, for each site. Times are microseconds."""

    def __init__(self) -> None:
        self._means: dict[str, _Mean] = {}

    def recall(self, site: str, seconds: int, now: int) -> None:
        """Begin with what was known before, unless something has been learnt since."""
        if seconds:
            self._means.setdefault(site, _Mean(seconds, now))

    def began(self, site: str, placed: int, started: int) -> None:
        """An attempt has begun."""
        seconds = max(0, started - placed) / 1_000_000
        mean = self._means.setdefault(site, _Mean(seconds, started))
        mean.seconds += (seconds - mean.seconds) * _PART
        mean.at = max(mean.at, started)

    def of(self, site: str, now: int) -> int:
        """The usual wait in seconds, whole minutes; 0 where nothing is known."""
        mean = self._means.get(site)
        if mean is None:
            return 0
        return int(mean.seconds * 0.5 ** (max(0, now - mean.at) / _HALF_LIFE)) // _GRAIN * _GRAIN
