"""Learns how long attempts usually wait in the sites' own queues, from those that have begun of late."""

from dataclasses import dataclass

from atoll.core.site import UsualWait
from atoll.core.spec import JobClass

_PART = 1 / 8
"""How much each new wait counts beside what was known."""
_HALF_LIFE = 3600 * 1_000_000
"""Microseconds without a begin after which half is forgotten: short jobs may then try the site again."""
_GRAIN = 60
"""Seconds: shorter waits are the time of a hand-over, and no queue's."""
_LITTLE = 0.2
"""A wait that has changed by a smaller part is the same."""


@dataclass
class _Mean:
    seconds: float
    at: int


class Waits:
    """Exponentially weighted means of the time from placing to begin, for each site, and each class there.

    Times are microseconds.
    """

    def __init__(self) -> None:
        self._means: dict[tuple[str, JobClass | None], _Mean] = {}  # of no class: of all

    def recall(self, site: str, wait: UsualWait, now: int) -> None:
        """Begin with what was known before, unless something has been learnt since."""
        if wait == UsualWait():
            return
        for class_, seconds in ((None, wait.all), *wait.of_class.items()):
            self._means.setdefault((site, class_), _Mean(seconds, now))

    def began(self, site: str, class_: JobClass, placed: int, started: int) -> None:
        """An attempt has begun."""
        seconds = max(0, started - placed) / 1_000_000
        for key in ((site, None), (site, class_)):
            mean = self._means.setdefault(key, _Mean(seconds, started))
            mean.seconds += (seconds - mean.seconds) * _PART
            mean.at = max(mean.at, started)

    def of(self, site: str, now: int) -> UsualWait:
        """The usual wait, in whole minutes; 0 where nothing is known.

        What is known of a class of which nothing begins, while others do, gives way to the mean over all.
        """
        whole = self._means.get((site, None))
        if whole is None:
            return UsualWait()
        known = {class_: mean for class_ in JobClass if (mean := self._means.get((site, class_))) is not None}
        kept = _kept(whole.at, now)
        return UsualWait(
            _rounded(whole.seconds * kept),
            {class_: _rounded(_of_late(mean, whole) * kept) for class_, mean in known.items()},
        )


def is_another(told: UsualWait, known: UsualWait) -> bool:
    """Whether a usual wait is another by more than a little."""
    pairs = [(told.all, known.all), *((told.of(class_), known.of(class_)) for class_ in JobClass)]
    return any(abs(new - old) > old * _LITTLE for new, old in pairs)


def _of_late(mean: _Mean, whole: _Mean) -> float:
    """The seconds of a class when anything began last: of what is forgotten of it, the mean over all."""
    kept = _kept(mean.at, whole.at)
    return mean.seconds * kept + whole.seconds * (1 - kept)


def _kept(at: int, now: int) -> float:
    """How much is still known of what was learnt `at`."""
    return float(0.5 ** (max(0, now - at) / _HALF_LIFE))


def _rounded(seconds: float) -> int:
    return int(seconds) // _GRAIN * _GRAIN
